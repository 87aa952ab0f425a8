//! Archives of named files (`docker save`): read from front to end, written from front to end.

use std::io::{Read, Write};

use crate::error::{Context, Error, Kind, Result};

/// The most members accepted in one archive; an image has at most 500 layers, each with a few files.
const MAX_MEMBERS: usize = 100_000;

/// A file or link of an archive.
#[derive(Debug)]
pub struct Member {
    /// The path, without a leading `./`.
    pub path: String,
    /// Where it points, if it is a link.
    pub link: Option<String>,
}

/// Gives each file and link of `archive` to `take`, in order; other kinds of members are passed over.
pub fn read(
    archive: &mut dyn Read,
    take: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let what = || "read the archive".to_string();
    let mut tar = tar::Archive::new(archive);
    for (index, entry) in tar.entries().context(what)?.enumerate() {
        if index == MAX_MEMBERS {
            let message = format!("read the archive: more than {MAX_MEMBERS} members");
            return Err(Error::new(Kind::Invalid, message));
        }
        let mut entry = entry.context(what)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").to_string();
        let kind = entry.header().entry_type();
        let link = match kind {
            tar::EntryType::Symlink | tar::EntryType::Link => {
                entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned())
            }
            _ => None,
        };
        if kind.is_file() || link.is_some() {
            take(&Member { path, link }, &mut entry)?;
        }
    }
    Ok(())
}

/// Writes an archive whose bytes depend on nothing but what is appended.
pub struct Writer<'a>(tar::Builder<&'a mut dyn Write>);

impl<'a> Writer<'a> {
    /// An archive that goes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Writer(tar::Builder::new(out))
    }

    /// Appends a file of exactly `size_bytes` bytes, which `content` must give.
    pub fn append(&mut self, path: &str, size_bytes: u64, content: &mut dyn Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size_bytes);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let mut counted = content.take(size_bytes);
        self.0
            .append_data(&mut header, path, &mut counted)
            .context(|| format!("write {path} to the archive"))?;
        match counted.limit() {
            0 => Ok(()),
            short => {
                let message = format!(
                    "write {path} to the archive: {short} of {size_bytes} bytes are missing"
                );
                Err(Error::new(Kind::Corrupt, message))
            }
        }
    }

    /// Writes the end of the archive.
    pub fn finish(mut self) -> Result<()> {
        self.0.finish().context(|| "write the archive".into())
    }
}
