//! `delta inspect` and `delta apply --dry-run`: the native deltas of a file, applied to nothing.
//!
//! What a member costs is told by its share of the columns that it uses, each frame's as they are packed.

use std::io::{self, Write};

use super::Engine;
use super::load::Contents;
use super::payload::Bounded;
use super::progress::Report;
use crate::delta::ReadAt;
use crate::delta::native::{Made, Patching};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Error, Kind, Result};
use crate::layer::{Decoder, archive};
use crate::stream::Stream;

/// Members of which more than the number is told.
const LARGEST: usize = 20;

/// What native deltas make, rightly.
#[derive(Debug, Default)]
pub struct Examined {
    /// Layers, in the order of the file.
    pub layers: Vec<ExaminedLayer>,
    /// The members of all layers that cost the most, the costliest first.
    pub largest: Vec<Made>,
}

/// A layer that a native delta makes.
#[derive(Debug)]
pub struct ExaminedLayer {
    /// Which it is.
    pub diff_id: Digest,
    /// The image that it is made of.
    pub basis: Digest,
    /// The length of its tar.
    pub tar_bytes: u64,
    /// What the delta weighs.
    pub delta_bytes: u64,
    /// Entries of the tar whose contents are as the basis has them, are patched, and are new.
    pub entries: [u64; 3],
}

impl Engine {
    /// Applies the native deltas of an archive that `delta create -o` wrote, and keeps nothing of what they make. An error says that
    /// one makes another layer than it says, or that its basis is not here.
    pub fn examine_delta(&self, archive: &mut dyn Stream, report: Report) -> Result<Examined> {
        let _work = self.store.work()?;
        let mut contents = Contents::to_examine();
        let mut plain = Decoder::open(Box::new(archive), None)?;
        archive::read(&mut plain, &mut |member, content| {
            self.read_member(member, content, &mut contents, report)
        })?;
        let examined = contents.examined.unwrap_or_default();
        match (contents.delta_failure, examined.layers.is_empty()) {
            (Some(e), _) => Err(e),
            (None, true) => Err(Error::new(Kind::NotFound, "the file has no native delta in it")),
            (None, false) => Ok(examined),
        }
    }
}

impl Examined {
    /// Applies a delta to nothing.
    pub(super) fn examine(
        &mut self,
        delta: &mut Decoder,
        delta_bytes: u64,
        (image, basis): (Digest, &mut dyn ReadAt),
        diff_id: &Digest,
    ) -> Result<()> {
        let (mut entries, largest) = ([0; 3], &mut self.largest);
        let mut watch = |made: Made| {
            entries[made.content as usize] += u64::from(!made.path.is_empty());
            let place = largest.partition_point(|other| other.delta_bytes >= made.delta_bytes);
            if made.delta_bytes > 0 && place < LARGEST {
                largest.insert(place, made);
                largest.truncate(LARGEST);
            }
        };
        let mut nowhere = io::sink();
        let mut hashing = HashingWriter::new(&mut nowhere as &mut dyn Write);
        let out = &mut Bounded::new(&mut hashing, delta_bytes, basis.size_bytes());
        let mut patching = Patching::begin(delta, basis, out)?;
        patching.watch(&mut watch);
        while patching.frame(delta)? {}
        patching.finish(delta)?;
        let tar_bytes = hashing.count_bytes();
        let found = hashing.finish().0;
        if found != *diff_id {
            let message = format!("what the delta makes has the diff ID {found}, not {diff_id}");
            return Err(Error::new(Kind::Corrupt, message));
        }
        let (diff_id, basis) = (*diff_id, image);
        self.layers.push(ExaminedLayer { diff_id, basis, tar_bytes, delta_bytes, entries });
        Ok(())
    }
}
