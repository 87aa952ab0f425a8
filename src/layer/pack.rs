//! Packing: a tree of files becomes a tar, in the order of its names, so that the same tree gives the same bytes.
//!
//! Members are in ustar's form where that can say it, with PAX records where it cannot (POSIX pax, "pax Extended Header";
//! extended attributes as `SCHILY.xattr.`, which Docker and GNU tar read). Times are whole seconds, as Docker's are. A
//! second name of a node is a hard link, sockets are left out. A file with large holes is written as GNU tar's sparse
//! format 1.0, others with their zeros: not every reader knows sparse files. Pages that were read are given back.
//!
//! What overlayfs keeps in an upper directory becomes a layer: its whiteouts and opaque directories are written as layers
//! have them (OCI image spec, layer.md, "Whiteouts"), with the owners, modes and times that Docker gives them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tar::{EntryType, Header};

use super::tree;
use super::unpack::{OPAQUE, WHITEOUT};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::entry::{self, Entry, EntryKind, Extent};
use crate::sys::file::{open_directory_at, open_file_at};
use crate::sys::node::{Attributes, Xattr};
use crate::sys::sync::drop_cache;

const BLOCK_BYTES: u64 = 512;
/// What the name fields of a header hold, in bytes.
const NAME_BYTES: usize = 100;
/// The largest numbers in the octal fields of sizes and times, and of owners.
const MAX_OCTAL_12: u64 = 0o777_7777_7777;
const MAX_OCTAL_8: u64 = 0o777_7777;
/// Holes of that many bytes together make a file worth the sparse format.
const SPARSE_BYTES: u64 = 16 << 20;
/// A file in more pieces is written with its zeros: a reader keeps the list of pieces in memory.
const MAX_EXTENTS: usize = 10_000;
/// The deepest tree: a directory stays open on each level.
const MAX_DEPTH: usize = 512;
const CHUNK_BYTES: usize = 64 << 10;
/// Pages of a file are given back when so much of it was read.
const WINDOW_BYTES: u64 = 4 << 20;

/// Writes everything below the open directory `root` as a tar to `out`, the root itself not among it. What disappears
/// meanwhile is left out, and a file that gets shorter ends in zeros: the tree may be in use.
pub fn pack(root: BorrowedFd, out: &mut dyn Write) -> Result<()> {
    pack_tree(root, None, out)
}

/// The same for an upper directory of overlayfs, except the paths in `left_out` and what is below them. What only that
/// overlay can tell (a directory that took its content along from a lower one) is refused, and so is a name that would be
/// a whiteout.
pub fn pack_upper(root: BorrowedFd, left_out: &[&str], out: &mut dyn Write) -> Result<()> {
    pack_tree(root, Some(left_out), out)
}

fn pack_tree(root: BorrowedFd, left_out: Option<&[&str]>, out: &mut dyn Write) -> Result<()> {
    let mut packer = Packer {
        out,
        by_inode: HashMap::new(),
        first_paths: Vec::new(),
        path: Vec::new(),
        left_out,
    };
    let root = root.try_clone_to_owned().context(|| "open the tree".into())?;
    let mut levels = vec![packer.level(root)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        packer.path.truncate(level.path_bytes);
        packer.path.extend_from_slice(&name);
        let inner = packer.add(level.dir.as_fd(), &name);
        if let Some(dir) = inner.map_err(|e| packer.named(e))? {
            packer.path.push(b'/');
            levels.push(packer.level(dir)?);
        }
        if levels.len() > MAX_DEPTH {
            let message = format!("the tree is more than {MAX_DEPTH} directories deep");
            return Err(packer.named(Error::new(Kind::Unsupported, message)));
        }
    }
    packer.write(&[0; 2 * BLOCK_BYTES as usize])
}

struct Packer<'a> {
    out: &'a mut dyn Write,
    /// Which of the paths is that of an inode. Maps of this type are also used elsewhere: one more is 3 KB of code.
    by_inode: HashMap<Vec<u8>, usize>,
    /// The first path of each node that has several.
    first_paths: Vec<Vec<u8>>,
    /// Of the member that is written; those of directories end in a slash when their content is.
    path: Vec<u8>,
    /// Of an upper directory, the paths that do not belong to the layer.
    left_out: Option<&'a [&'a str]>,
}

/// A directory that is being packed.
struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Length of its path with the slash.
    path_bytes: usize,
}

/// What a member's headers say beside its entry.
#[derive(Default)]
struct Extra {
    target: Vec<u8>,
    xattrs: Vec<Xattr>,
    extents: Vec<Extent>,
}

impl Packer<'_> {
    fn level(&self, dir: OwnedFd) -> Result<Level> {
        let names = entry::names(&dir).context(|| "list".into()).map_err(|e| self.named(e))?;
        Ok(Level { dir, names: names.into_iter(), path_bytes: self.path.len() })
    }

    fn named(&self, error: Error) -> Error {
        let path = String::from_utf8_lossy(&self.path);
        Error::new(error.kind(), format!("pack {path:?}")).caused_by(error)
    }

    /// Adds the node `name` of `dir`, whose path is the current one; gives a directory to go on with.
    fn add(&mut self, dir: BorrowedFd, name: &[u8]) -> Result<Option<OwnedFd>> {
        let Some(found) = there(entry::entry_at(dir, name))? else { return Ok(None) };
        if let Some(left_out) = self.left_out {
            if left_out.iter().any(|path| path.as_bytes() == self.path) {
                return Ok(None);
            }
            // Before hard links are: the kernel gives all whiteouts of an overlay one node.
            if found.kind == EntryKind::CharacterDevice(0, 0) {
                return self.whiteout(name, &found).map(|()| None);
            }
            if name.starts_with(WHITEOUT) {
                let message = "a name with that beginning says something else in a layer";
                return Err(Error::new(Kind::Unsupported, message));
            }
        }
        if found.kind != EntryKind::Directory && found.links > 1 {
            let inode = found.inode.to_le_bytes();
            let first = self.by_inode.get(&inode[..]).and_then(|&at| self.first_paths.get(at));
            if let Some(target) = first {
                let extra = Extra { target: target.clone(), ..Extra::default() };
                self.header(EntryType::Link, &found, extra, 0)?;
                return Ok(None);
            }
            self.by_inode.insert(inode.into(), self.first_paths.len());
            self.first_paths.push(self.path.clone());
        }
        let kind = match found.kind {
            EntryKind::Socket => return Ok(None),
            EntryKind::File => {
                if let Some(file) = there(open_file_at(dir, name))? {
                    self.file(file, &found)?;
                }
                return Ok(None);
            }
            EntryKind::Directory => {
                let Some(opened) = there(open_directory_at(dir, name))? else { return Ok(None) };
                let xattrs = entry::xattrs(opened.as_fd());
                let is_opaque = self.left_out.is_some() && has_opaque(&xattrs);
                let xattrs = self.kept(xattrs)?;
                self.path.push(b'/');
                self.header(EntryType::Directory, &found, Extra { xattrs, ..Extra::default() }, 0)?;
                if is_opaque {
                    self.marker(OPAQUE, &found, found.attributes.mode & 0o777)?;
                }
                self.path.pop();
                return Ok(Some(opened));
            }
            EntryKind::Symlink => EntryType::Symlink,
            EntryKind::Fifo => EntryType::Fifo,
            EntryKind::CharacterDevice(..) => EntryType::Char,
            EntryKind::BlockDevice(..) => EntryType::Block,
        };
        let target = match kind {
            EntryType::Symlink => entry::link_target(dir, name).context(|| "read".into())?,
            _ => Vec::new(),
        };
        let xattrs = self.kept(entry::xattrs_at(dir, name))?;
        self.header(kind, &found, Extra { target, xattrs, ..Extra::default() }, 0)?;
        Ok(None)
    }

    fn whiteout(&mut self, name: &[u8], found: &Entry) -> Result<()> {
        self.path.truncate(self.path.len() - name.len());
        self.marker(&[WHITEOUT, name].concat(), found, 0o600)
    }

    /// An empty file in the directory whose path, with its slash, is the current one; it has the owner and the time of
    /// `found`.
    fn marker(&mut self, name: &[u8], found: &Entry, mode: u32) -> Result<()> {
        let attributes = Attributes { mode, ..found.attributes };
        let marker = Entry { kind: EntryKind::File, attributes, ..*found };
        let directory_bytes = self.path.len();
        self.path.extend_from_slice(name);
        self.header(EntryType::Regular, &marker, Extra::default(), 0)?;
        self.path.truncate(directory_bytes);
        Ok(())
    }

    fn file(&mut self, mut file: File, found: &Entry) -> Result<()> {
        let extents = sparse_extents(&file, found).context(|| "find its holes".into())?;
        let xattrs = self.kept(entry::xattrs(file.as_fd()))?;
        if extents.is_empty() {
            self.header(
                EntryType::Regular,
                found,
                Extra { xattrs, ..Extra::default() },
                found.size,
            )?;
            self.content(&mut file, (0, found.size))?;
            return self.pad(found.size);
        }
        let map = sparse_map(&extents);
        let data: u64 = extents.iter().map(|(_, length)| length).sum();
        let extra = Extra { xattrs, extents: extents.clone(), ..Extra::default() };
        self.header(EntryType::Regular, found, extra, map.len() as u64 + data)?;
        self.write(&map)?;
        for extent in extents {
            self.content(&mut file, extent)?;
        }
        self.pad(data)
    }

    /// The extended attributes that belong to the tree: not those of overlayfs, nor this machine's security labels.
    fn kept(&self, xattrs: io::Result<Vec<Xattr>>) -> Result<Vec<Xattr>> {
        const OTHERS: [&[u8]; 4] =
            [b"trusted.overlay.", b"security.selinux", b"security.ima", b"security.evm"];
        /// The content is elsewhere (overlayfs.rst, "redirect_dir" and "Metadata only copy up").
        const ELSEWHERE: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];
        let mut xattrs = xattrs.context(|| "read its extended attributes".into())?;
        if self.left_out.is_some()
            && let Some((name, _)) = xattrs.iter().find(|(name, _)| ELSEWHERE.contains(&&name[..]))
        {
            let name = String::from_utf8_lossy(name);
            let message = format!("its content is in another layer, says {name}");
            return Err(Error::new(Kind::Unsupported, message));
        }
        xattrs.retain(|(name, _)| !OTHERS.iter().any(|other| name.starts_with(other)));
        Ok(xattrs)
    }

    fn content(&mut self, file: &mut File, (start, length): Extent) -> Result<()> {
        file.seek(SeekFrom::Start(start)).context(|| "seek".into())?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut at, mut dropped, end) = (start, start, start + length);
        while at < end {
            let want = (end - at).min(CHUNK_BYTES as u64) as usize;
            let chunk = buffer.get_mut(..want).unwrap_or_default();
            let count = file.read(chunk).context(|| "read".into())?;
            if count == 0 {
                log::warn!(
                    "{} became shorter while it was read",
                    String::from_utf8_lossy(&self.path)
                );
                chunk.fill(0);
                while at < end {
                    let want = (end - at).min(CHUNK_BYTES as u64);
                    self.write(chunk.get(..want as usize).unwrap_or_default())?;
                    at += want;
                }
                break;
            }
            self.write(chunk.get(..count).unwrap_or_default())?;
            at += count as u64;
            if at - dropped >= WINDOW_BYTES || at == end {
                drop_cache(file.as_fd(), dropped, at - dropped);
                dropped = at;
            }
        }
        Ok(())
    }

    /// Writes the member's header, after a PAX header if it needs one; `size` is that of what follows.
    fn header(&mut self, kind: EntryType, found: &Entry, extra: Extra, size: u64) -> Result<()> {
        let records = records(&self.path, found, &extra, size);
        if !records.is_empty() {
            let mut header = new_header(EntryType::XHeader, records.len() as u64);
            set_name(
                &mut header.as_old_mut().name,
                &[b"PaxHeaders.0/", base_name(&self.path)].concat(),
            );
            header.set_mode(0o644);
            header.set_cksum();
            self.write(header.as_bytes())?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = new_header(kind, size);
        match extra.extents.is_empty() {
            true => set_name(&mut header.as_old_mut().name, &self.path),
            false => {
                let name = [b"GNUSparseFile.0/", base_name(&self.path)].concat();
                set_name(&mut header.as_old_mut().name, &name);
            }
        }
        set_name(&mut header.as_old_mut().linkname, &extra.target);
        let attributes = found.attributes;
        header.set_mode(attributes.mode);
        header.set_uid(u64::from(attributes.uid).min(MAX_OCTAL_8));
        header.set_gid(u64::from(attributes.gid).min(MAX_OCTAL_8));
        header.set_mtime(u64::try_from(attributes.mtime.seconds).unwrap_or(0).min(MAX_OCTAL_12));
        if let EntryKind::CharacterDevice(major, minor) | EntryKind::BlockDevice(major, minor) =
            found.kind
        {
            let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
            set.context(|| "write the archive".into())?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    /// Fills up to a block what is `size` bytes long.
    fn pad(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK_BYTES as usize];
        let count = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
        self.write(zeros.get(..count as usize).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context(|| "write the archive".into())
    }
}

/// What is not there any more is no error.
fn there<T>(result: io::Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).context(|| "look up".into()),
    }
}

fn has_opaque(xattrs: &io::Result<Vec<Xattr>>) -> bool {
    let mut all = xattrs.iter().flatten();
    all.any(|(name, value)| name == tree::OPAQUE && value == b"y")
}

/// The pieces of a file whose holes are worth it, one of no length at the end if that is a hole; else none.
fn sparse_extents(file: &File, found: &Entry) -> io::Result<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    if found.size.saturating_sub(found.allocated) < SPARSE_BYTES {
        return Ok(extents);
    }
    let (mut at, mut data) = (0, 0);
    while let Some((start, length)) = entry::next_extent(file, at, found.size)? {
        extents.push((start, length));
        at = start + length;
        data += length;
        if extents.len() > MAX_EXTENTS {
            return Ok(Vec::new());
        }
    }
    if found.size - data < SPARSE_BYTES {
        return Ok(Vec::new());
    }
    if at < found.size {
        extents.push((found.size, 0));
    }
    Ok(extents)
}

/// The list of pieces before the data (GNU tar manual, "Storing Sparse Files", format 1.0), filled up to a block.
fn sparse_map(extents: &[Extent]) -> Vec<u8> {
    let mut map = format!("{}\n", extents.len());
    for (start, length) in extents {
        map.push_str(&format!("{start}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK_BYTES as usize), 0);
    map
}

/// The PAX records for what ustar cannot say.
fn records(path: &[u8], found: &Entry, extra: &Extra, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| add_record(&mut records, key, value);
    let attributes = found.attributes;
    if !extra.extents.is_empty() {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", path);
        add(b"GNU.sparse.realsize", found.size.to_string().as_bytes());
    } else if path.len() > NAME_BYTES {
        add(b"path", path);
    }
    if extra.target.len() > NAME_BYTES {
        add(b"linkpath", &extra.target);
    }
    for (key, number, limit) in [
        ("size", size, MAX_OCTAL_12),
        ("uid", u64::from(attributes.uid), MAX_OCTAL_8),
        ("gid", u64::from(attributes.gid), MAX_OCTAL_8),
    ] {
        if number > limit {
            add(key.as_bytes(), number.to_string().as_bytes());
        }
    }
    if u64::try_from(attributes.mtime.seconds).is_ok_and(|seconds| seconds > MAX_OCTAL_12) {
        add(b"mtime", attributes.mtime.seconds.to_string().as_bytes());
    }
    for (name, value) in &extra.xattrs {
        add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    records
}

/// Appends `LENGTH KEY=VALUE\n`, the length's own digits counted in.
fn add_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

fn new_header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    // What is larger is in the PAX records.
    header.set_size(size.min(MAX_OCTAL_12));
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Puts the start of `name` into the field; what is longer is in the PAX records.
fn set_name(field: &mut [u8; NAME_BYTES], name: &[u8]) {
    for (byte, given) in field.iter_mut().zip(name) {
        *byte = *given;
    }
}

/// The last component, without a slash behind it.
fn base_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for (value, expected) in [
            (0, "5 a=\n".to_string()),
            (3, "8 a=xxx\n".into()),
            (4, "9 a=xxxx\n".into()),
            (5, "11 a=xxxxx\n".into()),
            (92, format!("98 a={}\n", "x".repeat(92))),
            (93, format!("99 a={}\n", "x".repeat(93))),
            (94, format!("101 a={}\n", "x".repeat(94))),
        ] {
            let mut records = Vec::new();
            add_record(&mut records, b"a", "x".repeat(value).as_bytes());
            let text = String::from_utf8(records).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, text.len(), "{text}");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn maps_fill_blocks() {
        let map = sparse_map(&[(0, 4096), (1 << 30, 0)]);
        assert_eq!(map.len(), 512);
        assert!(map.starts_with(b"2\n0\n4096\n1073741824\n0\n\0"));
    }
}
