//! Unpacking: a tar stream becomes a tree of files and a header record, durably.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::members::{self, Member, MemberKind, Segment, Source};
use super::record::{self, RecordWriter};
use super::tree::Tree;
use super::window::WINDOW_BYTES;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::file::{create_file_at, sync_directory};
use crate::sys::node::{self, Attributes, NodeKind, Xattr};
use crate::sys::sync::{drop_cache, start_writeback, sync_and_drop, wait_writeback};

/// What names a whiteout (OCI image spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Names of aufs itself, none of which are files of the image, except the next.
const AUFS: &[u8] = b".wh..wh.";
/// What makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Attributes that only overlayfs may set: they say where the content of other directories comes from.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// The devices that every container has, major and minor: null, zero, full, random, urandom, tty, console, ptmx. All
/// other devices are refused: a node on the disk is a way to the hardware of the host.
const DEVICES: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// What came out of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the tar, to be compared with the image configuration's diff ID.
    pub diff_id: Digest,
    /// The length of the tar.
    pub tar_bytes: u64,
    /// The lengths of the regular files together: what Docker calls the layer's size.
    pub file_bytes: u64,
    /// Regular files.
    pub file_count: u64,
}

/// Unpacks the uncompressed `tar`, to the end of the stream, into the empty directory `stage`: `fs/`, the tree with
/// whiteouts as overlayfs wants them; `record`, the header record; and `shadowed/` where the layer replaces its own files.
///
/// A success means that all of it survives a power cut, except the name of `stage` itself, and that its pages have been
/// dropped. After an error the stage holds a part and is to be removed. Errors name the layer by `name`, and the member.
/// Whether the digest is the expected one is for the caller to see. Only root can set owners and make whiteouts.
pub fn unpack(tar: &mut dyn Read, stage: BorrowedFd, name: &str) -> Result<Unpacked> {
    unpack_into(tar, stage)
        .map_err(|error| Error::new(error.kind(), format!("unpack {name}")).caused_by(error))
}

fn unpack_into(tar: &mut dyn Read, stage: BorrowedFd) -> Result<Unpacked> {
    let file = create_file_at(stage, record::NAME.as_bytes())
        .context(|| "make the header record".into())?;
    let record = RecordWriter::new(file).context(|| "write the header record".into())?;
    let mut unpacker = Unpacker {
        source: Source::new(tar, record),
        tree: Tree::new(stage)?,
        file_bytes: 0,
        file_count: 0,
    };
    while let Some(member) = members::next(&mut unpacker.source)? {
        unpacker.make(&member).map_err(|error| named(&member, error))?;
    }
    let Unpacker { source, tree, file_bytes, file_count } = unpacker;
    tree.finish()?;
    let (diff_id, tar_bytes, record) = source.finish();
    let synced = record.finish(diff_id).and_then(|file| sync_and_drop(&file));
    synced.context(|| "write the header record".into())?;
    sync_directory(stage).context(|| "sync the stage".into())?;
    Ok(Unpacked { diff_id, tar_bytes, file_bytes, file_count })
}

/// The error with its member, and with what explains most errors of who is not root.
fn named(member: &Member, error: Error) -> Error {
    let path = String::from_utf8_lossy(&member.path);
    let hint = if node::is_root() { "" } else { " (layers can only be unpacked by root)" };
    Error::new(error.kind(), format!("member {path:?}{hint}")).caused_by(error)
}

struct Unpacker<'a> {
    source: Source<'a>,
    tree: Tree<'a>,
    file_bytes: u64,
    file_count: u64,
}

impl Unpacker<'_> {
    fn make(&mut self, member: &Member) -> Result<()> {
        let (parent, name) = split(&member.path);
        if name.is_empty() {
            // The root's own attributes are those of the stage, as in Docker.
            return match member.kind {
                MemberKind::Directory => Ok(()),
                _ => Err(invalid("the root of the layer can only be a directory")),
            };
        }
        if parent.split(|&byte| byte == b'/').chain([name]).any(is_aufs) {
            return Ok(());
        }
        self.tree.enter(parent)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(name, hidden);
        }
        if member.xattrs.iter().any(|(name, _)| name.starts_with(OVERLAY_XATTRS)) {
            return Err(invalid("it has attributes that only overlayfs may set"));
        }
        match &member.kind {
            MemberKind::Directory => self.directory(name, member),
            MemberKind::File { size, segments } => self.file(name, member, *size, segments),
            MemberKind::HardLink(target) => self.hard_link(name, &member.path, target),
            MemberKind::Symlink(target) => self.node(name, member, &|dir| {
                node::make_symlink(target, dir, name).context(|| "make symlink".into())
            }),
            MemberKind::Fifo => self.node(name, member, &|dir| {
                node::make_fifo(dir, name).context(|| "make FIFO".into())
            }),
            MemberKind::CharacterDevice(0, 0) => {
                Err(invalid("the character device 0:0 would be a whiteout of overlayfs"))
            }
            MemberKind::CharacterDevice(major, minor) if DEVICES.contains(&(*major, *minor)) => {
                self.node(name, member, &|dir| {
                    node::make_character_device(dir, name, *major, *minor)
                        .context(|| format!("make device {major}:{minor}"))
                })
            }
            MemberKind::CharacterDevice(major, minor) => Err(device("character", *major, *minor)),
            MemberKind::BlockDevice(major, minor) => Err(device("block", *major, *minor)),
        }
    }

    fn whiteout(&mut self, name: &[u8], hidden: &[u8]) -> Result<()> {
        if name == OPAQUE {
            return self.tree.make_opaque().context(|| "make its directory opaque".into());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(invalid("a whiteout of no name"));
        }
        self.tree.white_out(hidden).context(|| "make whiteout".into())
    }

    fn directory(&mut self, name: &[u8], member: &Member) -> Result<()> {
        let existing = node::kind_at(self.tree.current().0, name);
        let existing = existing.context(|| "look up".into())?;
        let opened = match existing {
            Some(NodeKind::Directory) => self.tree.reopen_directory(name),
            None | Some(NodeKind::Whiteout) => self.tree.make_directory(name),
            Some(_) => {
                self.tree.replace(name, self.source.record())?;
                self.tree.make_directory(name)
            }
        };
        let opened = opened.context(|| "make directory".into())?;
        set(opened.as_fd(), &member.attributes, &member.xattrs)?;
        self.tree.push_directory(name, opened, member.attributes.mtime)
    }

    fn file(&mut self, name: &[u8], member: &Member, size: u64, parts: &[Segment]) -> Result<()> {
        self.tree.replace(name, self.source.record())?;
        let mut file =
            create_file_at(self.tree.current().0, name).context(|| "make file".into())?;
        let path = self.tree.path_of(name);
        let mut writing = Writing { file: &mut file, at: 0, started: 0, dropped: 0 };
        for part in parts {
            let told = self.source.record().content(&path, part.offset, part.len, size);
            told.context(|| "write the header record".into())?;
            writing.copy(&mut self.source, *part)?;
        }
        let end = writing.at;
        let cached = writing.finish();
        if end != size {
            node::set_length(&file, size).context(|| "set its length".into())?;
        }
        set(file.as_fd(), &member.attributes, &member.xattrs)?;
        self.file_bytes = self.file_bytes.saturating_add(size);
        self.file_count += 1;
        self.tree.add_file(file.into(), name, cached)
    }

    fn hard_link(&mut self, name: &[u8], path: &[u8], target: &[u8]) -> Result<()> {
        let (target_parent, target_name) = split(target);
        let link = || format!("hard link to {:?}", String::from_utf8_lossy(target));
        let found = |tree: &Tree| {
            let place = tree.find(target_parent).map_err(|error| {
                let error = Error::from(error);
                Error::new(error.kind(), link()).caused_by(error)
            })?;
            match node::kind_at(place.dir.as_fd(), target_name).context(link)? {
                Some(NodeKind::Directory) => {
                    Err(invalid(&format!("{}: it is a directory", link())))
                }
                None | Some(NodeKind::Whiteout) => {
                    Err(invalid(&format!("{}: the layer has no such file", link())))
                }
                Some(_) => Ok(place),
            }
        };
        let same_directory = found(&self.tree)?.path == self.tree.current().1;
        if path == target || same_directory && name == target_name {
            return Ok(());
        }
        self.tree.replace(name, self.source.record())?;
        // Looked up again: the target may have been below what was just replaced.
        let place = found(&self.tree)?;
        let dir = self.tree.current().0;
        node::make_link(place.dir.as_fd(), target_name, dir, name).context(link)
    }

    /// A node that is not opened: it reaches the disk with its directory.
    fn node(
        &mut self,
        name: &[u8],
        member: &Member,
        make: &dyn Fn(BorrowedFd) -> Result<()>,
    ) -> Result<()> {
        self.tree.replace(name, self.source.record())?;
        let (dir, _) = self.tree.current();
        make(dir)?;
        let symlink = matches!(member.kind, MemberKind::Symlink(_));
        node::set_attributes_at(dir, name, &member.attributes, &member.xattrs, symlink)
            .context(|| "set owner, permissions and time".into())
    }
}

/// A file that is written; what is far behind is already on the disk and no longer in the page cache.
struct Writing<'a> {
    file: &'a mut File,
    at: u64,
    /// Writeback has been started up to here.
    started: u64,
    /// Pages have been dropped up to here.
    dropped: u64,
}

impl Writing<'_> {
    /// Bytes between two starts of writeback.
    const STEP_BYTES: u64 = 1 << 20;

    fn copy(&mut self, source: &mut Source, part: Segment) -> Result<()> {
        if self.at != part.offset {
            self.file.seek(SeekFrom::Start(part.offset)).context(|| "seek".into())?;
            self.at = part.offset;
        }
        let end = part.offset + part.len;
        while self.at < end {
            let bytes = source.payload(end - self.at)?;
            self.file.write_all(bytes).context(|| "write file".into())?;
            self.at += bytes.len() as u64;
            if self.at - self.started >= Self::STEP_BYTES {
                self.write_back().context(|| "write file".into())?;
            }
        }
        Ok(())
    }

    fn write_back(&mut self) -> std::io::Result<()> {
        start_writeback(self.file, self.started, self.at - self.started);
        self.started = self.at;
        if self.at - self.dropped >= 2 * WINDOW_BYTES {
            let behind = self.at - self.dropped - WINDOW_BYTES;
            wait_writeback(self.file, self.dropped, behind)?;
            drop_cache(self.file.as_fd(), self.dropped, behind);
            self.dropped += behind;
        }
        Ok(())
    }

    /// Starts the rest; gives the bytes that may still be in the page cache.
    fn finish(self) -> u64 {
        if self.at > self.started {
            start_writeback(self.file, self.started, 0);
        }
        self.at - self.dropped
    }
}

fn set(opened: BorrowedFd, attributes: &Attributes, xattrs: &[Xattr]) -> Result<()> {
    node::set_attributes(opened, attributes, xattrs)
        .context(|| "set owner, permissions, attributes and time".into())
}

fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(AUFS) && name != OPAQUE
}

/// Parent and last component of a cleaned path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn device(kind: &str, major: u32, minor: u32) -> Error {
    invalid(&format!("{kind} device {major}:{minor} is none of those that containers may have"))
}

fn invalid(why: &str) -> Error {
    Error::new(Kind::Invalid, why)
}
