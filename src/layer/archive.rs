//! Archives of named files (`docker save`): read from front to end, written from front to end.

use std::cell::Cell;
use std::io::{Read, Write};

use crate::error::{Context, Error, Kind, Result};
use crate::stream::{Stream, read_at_most};
use crate::sys::beneath::MAX_PATH_BYTES;

/// The most members accepted in one archive; an image has at most 500 layers, each with a few files.
const MAX_MEMBERS: usize = 100_000;

/// The most that may lie between the contents of two members: headers, long names, padding, in bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// A file or link of an archive.
#[derive(Debug)]
pub struct Member {
    /// The path, without a leading `./`.
    pub path: String,
    /// Where it points, if it is a link; a hard link, whose target is a member, with a leading slash.
    pub link: Option<String>,
    /// The length of its content in bytes.
    pub size_bytes: u64,
}

/// What a member of an archive of images is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// JSON of which something may be meant for us.
    Document,
    /// A layer: a tar, plain or compressed.
    Layer,
    /// Nothing that an image is made of.
    Other,
}

/// Reads as much of a member as `content_of` looks at: a tar header, or less if there is no more.
pub fn head(content: &mut dyn Stream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEADER_BYTES);
    read_at_most(content, HEADER_BYTES as u64, &mut head)?;
    Ok(head)
}

const HEADER_BYTES: usize = 512;
const CHUNK_BYTES: usize = 64 << 10;

/// Tells what a member is from what `head` read of it. A layer's tar may begin with any byte, even a JSON document's: its
/// check sum decides.
pub fn content_of(head: &[u8]) -> Content {
    // In-toto statements (attestations) name their type first; they can be large, and are none of ours.
    const STATEMENT: &[u8] = b"\"_type\"";
    let compressed = head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let opening = head.trim_ascii_start();
    match opening.first() {
        _ if compressed || is_tar_header(head) => Content::Layer,
        Some(b'{' | b'[') => {
            let start = opening.get(..2 * STATEMENT.len()).unwrap_or(opening);
            let is_statement = start.windows(STATEMENT.len()).any(|window| window == STATEMENT);
            if is_statement { Content::Other } else { Content::Document }
        }
        _ => Content::Other,
    }
}

/// Whether it is a member's header, or the zeros of an empty tar.
fn is_tar_header(head: &[u8]) -> bool {
    if head.len() != HEADER_BYTES {
        return false;
    }
    let header = tar::Header::from_byte_slice(head);
    let (before, after) =
        (head.get(..148).unwrap_or_default(), head.get(156..).unwrap_or_default());
    let sum = 8 * 32 + before.iter().chain(after).map(|&byte| u32::from(byte)).sum::<u32>();
    head.iter().all(|&byte| byte == 0) || header.cksum().is_ok_and(|found| found == sum)
}

/// Gives each file and link of `archive` to `take`, in order; other kinds of members are passed over.
pub fn read(
    archive: &mut dyn Stream,
    take: &mut dyn FnMut(&Member, &mut dyn Stream) -> Result<()>,
) -> Result<()> {
    let what = || "read the archive".to_string();
    let headers_left = Cell::new(MAX_HEADER_BYTES);
    let mut tar = tar::Archive::new(Budgeted { archive, left: &headers_left });
    for (index, entry) in tar.entries().context(what)?.enumerate() {
        if index == MAX_MEMBERS {
            let message = format!("read the archive: more than {MAX_MEMBERS} members");
            return Err(Error::new(Kind::Invalid, message));
        }
        let mut entry = entry.context(what)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").to_string();
        if path.len() > MAX_PATH_BYTES {
            let message = format!("read the archive: a path of more than {MAX_PATH_BYTES} bytes");
            return Err(Error::new(Kind::Invalid, message));
        }
        let kind = entry.header().entry_type();
        // A target that is too long leads nowhere.
        let target = || {
            let name = entry.link_name_bytes().filter(|name| name.len() <= MAX_PATH_BYTES)?;
            Some(String::from_utf8_lossy(&name).into_owned())
        };
        let link = match kind {
            tar::EntryType::Symlink => target(),
            tar::EntryType::Link => target().map(|target| format!("/{target}")),
            _ => None,
        };
        headers_left.set(u64::MAX);
        if kind.is_file() || link.is_some() {
            let size_bytes = entry.size();
            take(&Member { path, link, size_bytes }, &mut entry)?;
        }
        // Read to its end here, where no limit holds.
        std::io::copy(&mut entry, &mut std::io::sink()).context(what)?;
        headers_left.set(MAX_HEADER_BYTES);
    }
    Ok(())
}

/// Lets the tar crate read so much between two members: it keeps long names in memory, however long.
struct Budgeted<'a> {
    archive: &'a mut dyn Stream,
    left: &'a Cell<u64>,
}

impl Read for Budgeted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.archive.read(buffer)?;
        match self.left.get().checked_sub(count as u64) {
            Some(left) => self.left.set(left),
            None => {
                let message = format!("the header of a member exceeds {MAX_HEADER_BYTES} bytes");
                return Err(Error::new(Kind::Invalid, message).into());
            }
        }
        Ok(count)
    }
}

/// Writes an archive whose bytes depend on nothing but what is appended.
pub struct Writer<'a>(&'a mut dyn Write);

impl<'a> Writer<'a> {
    /// An archive that goes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Writer(out)
    }

    /// Appends a file of exactly `size_bytes` bytes, which `content` must give.
    pub fn append(&mut self, path: &str, size_bytes: u64, content: &mut dyn Stream) -> Result<()> {
        let what = || format!("write {path} to the archive");
        let mut header = tar::Header::new_ustar();
        header.set_path(path).context(what)?;
        header.set_size(size_bytes);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.0.write_all(header.as_bytes()).context(what)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut left = size_bytes;
        while left > 0 {
            let want = left.min(CHUNK_BYTES as u64) as usize;
            let count = content.read(&mut buffer[..want]).context(what)?;
            if count == 0 {
                let message = format!("{}: {left} of {size_bytes} bytes are missing", what());
                return Err(Error::new(Kind::Corrupt, message));
            }
            self.0.write_all(&buffer[..count]).context(what)?;
            left -= count as u64;
        }
        let padding = size_bytes.next_multiple_of(HEADER_BYTES as u64) - size_bytes;
        self.0.write_all(&[0; HEADER_BYTES][..padding as usize]).context(what)
    }

    /// Writes the end of the archive.
    pub fn finish(self) -> Result<()> {
        self.0.write_all(&[0; 2 * HEADER_BYTES]).context(|| "write the archive".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_layers_from_documents() {
        let mut brace = tar::Header::new_ustar();
        brace.set_path("{file").unwrap();
        brace.set_cksum();
        let brace = brace.as_bytes();
        for (head, content) in [
            (&brace[..], Content::Layer),
            (&brace[..511], Content::Document),
            (&[0; 512], Content::Layer),
            (&[0; 511], Content::Other),
            (b"\x1f\x8b\x08", Content::Layer),
            (b"\x28\xb5\x2f\xfd", Content::Layer),
            (b" \n[{}]", Content::Document),
            (br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#, Content::Other),
            (b"{\n  \"_type\": \"x\"}", Content::Other),
            (br#"{"config":{"_type":1}}"#, Content::Document),
            (b"1.0", Content::Other),
            (b"", Content::Other),
        ] {
            assert_eq!(content_of(head), content, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn writes_what_the_tar_crate_does() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut writer = Writer::new(&mut ours);
        let mut builder = tar::Builder::new(&mut theirs);
        for (path, length) in [("oci-layout", 1), ("blobs/sha256/0", 512), ("x", 0), ("y", 70_000)]
        {
            let content = vec![7; length];
            writer.append(path, length as u64, &mut &content[..]).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(length as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, path, &content[..]).unwrap();
        }
        writer.finish().unwrap();
        drop(builder);
        assert!(ours == theirs);
        let error = Writer::new(&mut ours).append("z", 5, &mut &b"abc"[..]).unwrap_err();
        assert_eq!(error.to_string(), "write z to the archive: 2 of 5 bytes are missing");
    }

    #[test]
    fn gives_members_and_refuses_endless_names() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.append("a/b", 3, &mut &b"abc"[..]).unwrap();
        let mut builder = tar::Builder::new(&mut bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "n".repeat(300), &b""[..]).unwrap();
        builder.into_inner().unwrap();
        let mut seen = Vec::new();
        read(&mut &bytes[..], &mut |member, content| {
            let mut text = String::new();
            content.read_to_string(&mut text).unwrap();
            seen.push((member.path.len(), text));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(3, "abc".to_string()), (300, String::new())]);

        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 32);
        header.set_cksum();
        let mut endless = header.as_bytes().chain(std::io::repeat(b'n'));
        let error = read(&mut endless, &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("exceeds 1048576 bytes"), "{error}");
    }
}
