//! Records: small JSON documents with a `version`, replaced whole.
//!
//! A record of another version is refused by name; one that cannot be parsed is an error that names the file and leaves
//! it where it is.

use std::io::ErrorKind;
use std::path::Path;

use miniserde::{Deserialize, Serialize};

use super::{open_directory, root_fd};
use crate::error::{Context, Error, Kind, Result};
use crate::json;
use crate::sys::file;

/// The version that this engine writes into every record.
pub const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The record at `path`; `None` if there is none.
pub fn read<T: Deserialize>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read a record", e)),
    };
    let what = format!("record {}", path.display());
    let damaged = |e: Error| e.with_kind(Kind::Corrupt);
    let Versioned { version } = json::parse(&bytes, &what).map_err(damaged)?;
    if version != VERSION {
        let message = format!("{what}: version {version}, this engine knows {VERSION}");
        return Err(Error::new(Kind::Unsupported, message));
    }
    json::parse(&bytes, &what).map(Some).map_err(damaged)
}

/// Replaces the record `name` in `directory`: on success the new one survives a power cut, on failure the old one stands.
pub fn write<T: Serialize>(directory: &Path, name: &str, record: &T) -> Result<()> {
    let mut text = json::to_string(record);
    text.push('\n');
    write_bytes(directory, name, text.as_bytes())
}

/// The same for bytes that came from elsewhere and are kept as they are.
pub fn write_bytes(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let opened = open_directory(directory)?;
    file::replace(root_fd(&opened), name, bytes)
        .context(|| format!("write {}", directory.join(name).display()))
}
