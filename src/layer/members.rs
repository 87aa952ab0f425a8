//! The members of a tar stream: headers read and judged, payloads left in the stream.
//!
//! The tar crate decodes header blocks. The walk from block to block is our own, because every byte that is not payload
//! goes into the record, because what a header may cost has to be bounded before it is read, and because PAX values are
//! binary (the crate splits them at newlines, and a capability set may hold one).
//!
//! What a header means follows Go's archive/tar, which Docker and the registries' tools use: kinds that have no payload
//! have none whatever their size field says, PAX records win over long names, and long names over the header.

mod pax;
mod source;

use tar::{EntryType, GnuExtSparseHeader, Header};

use crate::error::{Error, Kind, Result};
use crate::sys::beneath::{MAX_PATH_BYTES, components};
use crate::sys::node::{Attributes, Mtime, Xattr};

use pax::Pax;
pub use source::{Source, SourceState};

/// Header blocks, long names and PAX records of one member, together.
pub const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Pieces of a sparse file.
const MAX_SEGMENTS: usize = 1 << 15;

/// One member of the layer.
#[derive(Debug)]
pub struct Member {
    /// Components from the root, cleaned of `.` and `..`; empty for the root itself.
    pub path: Vec<u8>,
    /// What to make.
    pub kind: MemberKind,
    /// Owner, permissions, time.
    pub attributes: Attributes,
    /// Extended attributes, in the order of the tar.
    pub xattrs: Vec<Xattr>,
}

/// What a member is.
#[derive(Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A file: `size` bytes, of which the segments are in the stream and the rest are zeros.
    File {
        /// The length of the file.
        size: u64,
        /// What the stream holds, in order and without overlap.
        segments: Vec<Segment>,
    },
    /// A directory.
    Directory,
    /// A symlink with its target as it is written.
    Symlink(Vec<u8>),
    /// A hard link to another path of the layer, cleaned like `path`.
    HardLink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A character device.
    CharacterDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
}

/// Bytes of a file that are in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// Reads on to the next member and leaves `source` at the first byte of its payload. `None` at the end of the archive, with
/// everything behind it taken in as well. An error's message says what is wrong and with which member.
pub fn next(source: &mut Source) -> Result<Option<Member>> {
    let mut extensions = Extensions::default();
    source.begin_header();
    loop {
        let Some(header) = source.header()? else {
            if extensions.any {
                return Err(bad("the archive ends between a member's long name and the member"));
            }
            return Ok(None);
        };
        let header = Header::from_byte_slice(&header);
        check_sum(header, source.offset())?;
        // Only the formats that have these extensions give the type bytes this meaning.
        let modern = header.as_gnu().is_some() || header.as_ustar().is_some();
        extensions.any = true;
        match header.entry_type() {
            EntryType::GNULongName if modern => extensions.name = Some(extension(source, header)?),
            EntryType::GNULongLink if modern => extensions.link = Some(extension(source, header)?),
            EntryType::XHeader if modern => {
                let records = extension(source, header)?;
                extensions.pax =
                    Pax::parse(&records).ok_or_else(|| bad("malformed PAX records"))?;
                extensions.any = true;
            }
            // Comments of the whole archive, as git writes: nothing that Docker heeds.
            EntryType::XGlobalHeader => drop(extension(source, header)?),
            _ => return member(source, header, extensions).map(Some),
        }
    }
}

/// What came before the member's own header.
#[derive(Default)]
struct Extensions {
    any: bool,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

/// The payload of a header that describes the member to come.
fn extension(source: &mut Source, header: &Header) -> Result<Vec<u8>> {
    let size = number(header.entry_size(), &header.as_old().size, "size")?;
    source.small_payload(size)
}

fn member(source: &mut Source, header: &Header, extensions: Extensions) -> Result<Member> {
    let Extensions { name, link, pax, .. } = extensions;
    let raw_name = pax.path().or(name).unwrap_or_else(|| header.path_bytes().into_owned());
    let raw_name = until_nul(raw_name);
    let named = |error: Error| {
        let name = String::from_utf8_lossy(&raw_name);
        Error::new(error.kind(), format!("member {name:?}")).caused_by(error)
    };
    let describe = |source: &mut Source| {
        let link = pax.linkpath.clone().or(link).unwrap_or_else(|| {
            header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default()
        });
        Ok(Member {
            kind: kind(source, header, &pax, &raw_name, until_nul(link))?,
            path: clean(&raw_name)?,
            attributes: attributes(header, &pax)?,
            xattrs: pax.xattrs.clone(),
        })
    };
    describe(source).map_err(named)
}

fn kind(
    source: &mut Source,
    header: &Header,
    pax: &Pax,
    name: &[u8],
    link: Vec<u8>,
) -> Result<MemberKind> {
    let device = |field: std::io::Result<Option<u32>>| {
        field.map(Option::unwrap_or_default).map_err(|_| bad("bad device number"))
    };
    Ok(match header.entry_type() {
        // Before ustar, directories were files with a slash at the end.
        EntryType::Regular if header.as_old().linkflag == [0] && name.ends_with(b"/") => {
            MemberKind::Directory
        }
        EntryType::Regular | EntryType::Continuous => file(source, header, pax)?,
        EntryType::GNUSparse => gnu_sparse(source, header, pax)?,
        EntryType::Directory => MemberKind::Directory,
        EntryType::Symlink if link.is_empty() => return Err(bad("a symlink without a target")),
        EntryType::Symlink => MemberKind::Symlink(link),
        EntryType::Link => MemberKind::HardLink(clean(&link).map_err(|error| {
            let link = String::from_utf8_lossy(&link).into_owned();
            Error::new(error.kind(), format!("hard link target {link:?}")).caused_by(error)
        })?),
        EntryType::Fifo => MemberKind::Fifo,
        EntryType::Char => MemberKind::CharacterDevice(
            device(header.device_major())?,
            device(header.device_minor())?,
        ),
        EntryType::Block => {
            MemberKind::BlockDevice(device(header.device_major())?, device(header.device_minor())?)
        }
        other => {
            let kind = char::from(other.as_byte()).escape_default().to_string();
            return Err(bad(&format!("unknown kind of member '{kind}'")));
        }
    })
}

/// The payload's length by header and PAX records.
fn payload_bytes(header: &Header, pax: &Pax) -> Result<u64> {
    match pax.size {
        Some(size) => Ok(size),
        None => number(header.entry_size(), &header.as_old().size, "size"),
    }
}

fn file(source: &mut Source, header: &Header, pax: &Pax) -> Result<MemberKind> {
    let payload = payload_bytes(header, pax)?;
    source.begin_payload(payload)?;
    let Some(sparse) = &pax.sparse else {
        let segments =
            if payload == 0 { vec![] } else { vec![Segment { offset: 0, len: payload }] };
        return Ok(MemberKind::File { size: payload, segments });
    };
    let segments =
        if sparse.map_in_payload { read_sparse_map(source)? } else { sparse.segments.clone() };
    checked_file(segments, sparse.size, source.payload_left())
}

/// GNU's old sparse format: the map is in the header and in blocks behind it (GNU tar manual, "Old GNU Format").
fn gnu_sparse(source: &mut Source, header: &Header, pax: &Pax) -> Result<MemberKind> {
    let gnu = header.as_gnu().ok_or_else(|| bad("a sparse file without a GNU header"))?;
    let mut segments = Vec::new();
    let mut add = |blocks: &[tar::GnuSparseHeader]| {
        for block in blocks.iter().filter(|block| !block.is_empty()) {
            let (Ok(offset), Ok(len)) = (block.offset(), block.length()) else {
                return Err(bad("a bad number in the map of a sparse file"));
            };
            segments.push(Segment { offset, len });
        }
        Ok(())
    };
    add(&gnu.sparse)?;
    let mut extended = gnu.is_extended();
    while extended {
        let mut more = GnuExtSparseHeader::new();
        source.block(more.as_mut_bytes())?;
        add(more.sparse())?;
        extended = more.is_extended();
    }
    let size = number(gnu.real_size(), &gnu.realsize, "real size")?;
    source.begin_payload(payload_bytes(header, pax)?)?;
    checked_file(segments, size, source.payload_left())
}

/// The map of PAX format 1.0: decimal numbers, a line each, padded to whole blocks (GNU tar manual, "PAX Format, Version 1.0").
fn read_sparse_map(source: &mut Source) -> Result<Vec<Segment>> {
    let wrong = || bad("a bad map of a sparse file");
    let mut text = Vec::new();
    let mut line = |source: &mut Source| -> Result<u64> {
        loop {
            if let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let digits: Vec<u8> = text.drain(..=end).collect();
                let digits = std::str::from_utf8(&digits[..end]).map_err(|_| wrong())?;
                return digits.parse().map_err(|_| wrong());
            }
            if text.len() > 20 || source.payload_left() < 512 {
                return Err(wrong());
            }
            let mut block = [0; 512];
            source.payload_block(&mut block)?;
            text.extend_from_slice(&block);
        }
    };
    let count = line(source)?;
    if count > MAX_SEGMENTS as u64 {
        return Err(bad("a sparse file has too many pieces"));
    }
    (0..count).map(|_| Ok(Segment { offset: line(source)?, len: line(source)? })).collect()
}

/// A sparse file whose map is in order, inside the file, and as long as the payload.
fn checked_file(mut segments: Vec<Segment>, size: u64, payload: u64) -> Result<MemberKind> {
    if segments.len() > MAX_SEGMENTS {
        return Err(bad("a sparse file has too many pieces"));
    }
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in &segments {
        let next = segment.offset.checked_add(segment.len);
        let (true, Some(next)) = (segment.offset >= end, next.filter(|next| *next <= size)) else {
            return Err(bad("the map of a sparse file is out of order or too long"));
        };
        end = next;
        total += segment.len;
    }
    if total != payload {
        return Err(bad("the map of a sparse file does not match its length"));
    }
    segments.retain(|segment| segment.len > 0);
    Ok(MemberKind::File { size, segments })
}

fn attributes(header: &Header, pax: &Pax) -> Result<Attributes> {
    let old = header.as_old();
    let uid = pax.uid.map_or_else(|| number(header.uid(), &old.uid, "user ID"), Ok)?;
    let gid = pax.gid.map_or_else(|| number(header.gid(), &old.gid, "group ID"), Ok)?;
    let mode = number(header.mode().map(u64::from), &old.mode, "mode")?;
    let seconds = number(header.mtime(), &old.mtime, "time")?;
    // Before 1970, as a negative base-256 number: 1970, as Docker has it.
    let mtime = Mtime { seconds: seconds.try_into().unwrap_or(0), nanoseconds: 0 };
    Ok(Attributes {
        mode: (mode & 0o7777) as u32,
        uid: owner(uid, "user ID")?,
        gid: owner(gid, "group ID")?,
        mtime: pax.mtime.unwrap_or(mtime),
    })
}

/// The largest number means "leave it" to the kernel and is no one's ID.
fn owner(id: u64, what: &str) -> Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| bad(&format!("{what} {id} is too large")))
}

/// A header's number; a field of blanks is 0, as writers leave fields that they do not use.
fn number(parsed: std::io::Result<u64>, field: &[u8], what: &str) -> Result<u64> {
    match parsed {
        Ok(number) => Ok(number),
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        Err(_) => Err(bad(&format!("bad {what} in its header"))),
    }
}

/// The sum of a header's bytes, its own field taken as blanks; old writers summed signed bytes.
fn check_sum(header: &Header, offset: u64) -> Result<()> {
    let bytes = header.as_bytes();
    let others = || bytes[..148].iter().chain(&bytes[156..]);
    let unsigned: u32 = 8 * 32 + others().map(|&byte| u32::from(byte)).sum::<u32>();
    let signed: i32 = 8 * 32 + others().map(|&byte| i32::from(byte as i8)).sum::<i32>();
    match header.cksum() {
        Ok(sum) if sum == unsigned || i64::from(sum) == i64::from(signed) => Ok(()),
        _ => Err(bad(&format!("no tar header at byte {}", offset - 512))),
    }
}

/// Resolves `.` and `..` by text, as Docker does; a leading slash means the layer's root.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    if name.contains(&0) {
        return Err(bad("its name has a NUL byte"));
    }
    let mut parts = Vec::new();
    for part in components(name) {
        if part != b".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(bad("its name climbs out of the layer"));
        }
    }
    let path = parts.join(&b'/');
    if path.len() > MAX_PATH_BYTES {
        return Err(bad("its name is too long"));
    }
    Ok(path)
}

/// Long names of GNU tar end with a NUL.
fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn bad(why: &str) -> Error {
    Error::new(Kind::Invalid, why)
}
