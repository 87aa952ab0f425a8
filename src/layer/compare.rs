//! Comparing: whether an unpacked layer is still what its tar says.

use std::io::Read;
use std::os::fd::BorrowedFd;

use super::rebuild::LayerTar;
use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Kind, Result};

const BUFFER_BYTES: usize = 64 << 10;

/// Rebuilds the tar of the layer in the directory `layer` and compares its digest with `diff_id`. An error of
/// `Kind::Corrupt` or `NotFound` says what differs; pages of what was read are dropped.
pub fn compare(layer: BorrowedFd, name: &str, diff_id: &Digest) -> Result<()> {
    let mut tar = LayerTar::open(layer, name)?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; BUFFER_BYTES]);
    loop {
        match tar.read(&mut buffer).context(|| format!("read {name}"))? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let found = hasher.finish();
    match found == *diff_id {
        true => Ok(()),
        false => Err(Error::new(Kind::Corrupt, format!("its files have the diff ID {found}"))),
    }
}
