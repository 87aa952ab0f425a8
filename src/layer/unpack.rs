//! Unpacking: a tar stream becomes a tree of files and a header record, durably.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use super::checkpoint::{self, Course, FileState, Resumption};
use super::content::{Target, Writing};
use super::decoder::DecoderState;
use super::members::{self, Member, MemberKind, Segment, Source};
use super::peers::{Comparing, Peers};
use super::record::{self, RecordWriter};
use super::tree::Tree;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::stream::Stream;
use crate::sys::file::{create_file_at, open_file_at, reopen_file_at, sync_directory};
use crate::sys::node::{self, Attributes, Mtime, NodeKind, Xattr};
use crate::sys::sync::sync_and_drop;

/// What names a whiteout (OCI image spec, layer.md, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// Names of aufs itself, none of which are files of the image, except the next.
const AUFS: &[u8] = b".wh..wh.";
/// What makes its directory opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
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
pub fn unpack(tar: &mut dyn Stream, stage: BorrowedFd, name: &str) -> Result<Unpacked> {
    unpack_beside(tar, stage, name, Peers::default())
}

/// The same, with links to what `peers` have of its files.
pub fn unpack_beside(
    tar: &mut dyn Stream,
    stage: BorrowedFd,
    name: &str,
    peers: Peers,
) -> Result<Unpacked> {
    let unpacker = Unpacker::begin(tar, stage, None, peers);
    in_layer(name, unpacker.and_then(|unpacker| unpacker.run(stage)))
}

/// The same with checkpoints, so that a stage in which this did not come to its end can be gone on with; `resumption` says
/// whether it is such a one. In the end `remove_checkpoints` is for the caller, when nothing more can be lost.
pub fn unpack_resumable(
    tar: &mut dyn Stream,
    stage: BorrowedFd,
    name: &str,
    resumption: Resumption,
) -> Result<Unpacked> {
    let course = Course::new(&resumption);
    let unpacker = match &resumption.from {
        None => Unpacker::begin(tar, stage, Some(course), resumption.peers),
        Some(checkpoint) => Unpacker::resume(tar, stage, checkpoint, course, resumption.peers),
    };
    in_layer(name, unpacker.and_then(|unpacker| unpacker.run(stage)))
}

fn in_layer<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::new(error.kind(), format!("unpack {name}")).caused_by(error))
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
    course: Option<Course<'a>>,
    /// The file in whose middle the checkpoint was made.
    under_way: Option<FileState>,
    peers: Peers,
}

impl<'a> Unpacker<'a> {
    fn begin(
        tar: &'a mut dyn Stream,
        stage: BorrowedFd<'a>,
        course: Option<Course<'a>>,
        peers: Peers,
    ) -> Result<Self> {
        let file = create_file_at(stage, record::NAME.as_bytes());
        let file = file.context(|| "make the header record".into())?;
        let record = RecordWriter::new(file).context(|| "write the header record".into())?;
        Ok(Unpacker {
            source: Source::new(tar, record),
            tree: Tree::new(stage, course.is_some())?,
            file_bytes: 0,
            file_count: 0,
            course,
            under_way: None,
            peers,
        })
    }

    fn resume(
        tar: &'a mut dyn Stream,
        stage: BorrowedFd<'a>,
        checkpoint: &checkpoint::Checkpoint,
        course: Course<'a>,
        peers: Peers,
    ) -> Result<Self> {
        let record = reopen_file_at(stage, record::NAME.as_bytes())
            .and_then(|file| RecordWriter::resume(file, &checkpoint.record))
            .context(|| "go on with the header record".into())?;
        let start = checkpoint.decoder().tar_offset();
        Ok(Unpacker {
            tree: Tree::resume(stage, &checkpoint.tree)?,
            source: Source::resume(tar, start, &checkpoint.source, record)?,
            file_bytes: checkpoint.file_bytes,
            file_count: checkpoint.file_count,
            course: Some(course),
            under_way: checkpoint.file.clone(),
            peers,
        })
    }

    fn run(mut self, stage: BorrowedFd) -> Result<Unpacked> {
        if let Some(file) = self.under_way.take() {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            self.go_on(file).map_err(|error| {
                Error::new(error.kind(), format!("member {path:?}")).caused_by(error)
            })?;
        }
        while let Some(member) = members::next(&mut self.source)? {
            self.make(&member).map_err(|error| named(&member, error))?;
            if self.is_window_full() {
                self.end_window(None)?;
            }
        }
        let Unpacker { source, tree, file_bytes, file_count, .. } = self;
        tree.finish()?;
        let (diff_id, tar_bytes, record) = source.finish();
        let synced = record.finish(diff_id).and_then(|file| sync_and_drop(&file));
        synced.context(|| "write the header record".into())?;
        sync_directory(stage).context(|| "sync the stage".into())?;
        Ok(Unpacked { diff_id, tar_bytes, file_bytes, file_count })
    }

    fn is_window_full(&mut self) -> bool {
        self.due().is_some() || self.tree.window().is_full()
    }

    /// From where the stream could be taken up, if it is time for a checkpoint and one can be made.
    fn due(&self) -> Option<DecoderState> {
        let course = self.course.as_ref().filter(|_| self.tree.takes_states())?;
        course.due(self.source.offset())
    }

    /// Ends the window, with a checkpoint if one is due. `file` is being written, and its state.
    fn end_window(&mut self, file: Option<(&File, FileState)>) -> Result<()> {
        let (Some(decoder), Some(course)) = (self.due(), &mut self.course) else {
            return self.tree.window().end(None);
        };
        let doing = || "make a checkpoint".to_string();
        let source = self.source.state();
        let record = self.source.record().state().context(doing)?;
        let record_file = self.source.record().file().try_clone().context(doing)?;
        let tree = self.tree.state()?;
        self.tree.window().add(record_file.into(), record::NAME.into(), 0);
        let file = match file {
            None => None,
            Some((file, state)) => {
                let file = file.try_clone().context(doing)?;
                self.tree.window().add(file.into(), state.path.clone(), 0);
                Some(state)
            }
        };
        let counts = (self.file_bytes, self.file_count);
        let checkpoint = course.encode(decoder, source, record, tree, file, counts);
        self.tree.window().end(checkpoint)
    }

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
            return self.tree.make_opaque();
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(invalid("a whiteout of no name"));
        }
        self.tree.white_out(hidden)
    }

    fn directory(&mut self, name: &[u8], member: &Member) -> Result<()> {
        let existing = node::kind_at(self.tree.current().0, name);
        let existing = existing.context(|| "look up".into())?;
        let opened = match existing {
            Some(NodeKind::Directory) => {
                self.tree.reopen_directory(name, &member.attributes, &member.xattrs)
            }
            None | Some(NodeKind::Whiteout) => self.tree.make_directory(name),
            Some(_) => {
                self.tree.replace(name, self.source.record())?;
                self.tree.make_directory(name)
            }
        };
        let opened = opened?;
        set(opened.as_fd(), &member.attributes, &member.xattrs)?;
        self.tree.push_directory(name, opened, member.attributes.mtime)
    }

    fn file(&mut self, name: &[u8], member: &Member, size: u64, parts: &[Segment]) -> Result<()> {
        self.tree.replace(name, self.source.record())?;
        let peer = self.link_to_peer(name, member, size, parts)?;
        let target = match peer {
            Some(comparing) => Target::Compared(comparing),
            None => Target::Written(Writing::new(self.create(name)?, 0)),
        };
        self.tree.made(name)?;
        let state = FileState {
            path: self.tree.path_of(name),
            size,
            segments: parts.iter().map(|part| (part.offset, part.len)).collect(),
            segment: 0,
            at: 0,
            is_link: target.is_link(),
            mode: member.attributes.mode,
            uid: member.attributes.uid,
            gid: member.attributes.gid,
            mtime: (member.attributes.mtime.seconds, member.attributes.mtime.nanoseconds),
            xattrs: member.xattrs.clone(),
        };
        self.content(target, state, false)
    }

    fn create(&self, name: &[u8]) -> Result<File> {
        create_file_at(self.tree.current().0, name).context(|| "make file".into())
    }

    /// Makes `name` a link to a peer's file that looks the same, if there is one and the file system lets it have one more.
    fn link_to_peer(
        &mut self,
        name: &[u8],
        member: &Member,
        size: u64,
        parts: &[Segment],
    ) -> Result<Option<Comparing>> {
        let is_plain = match parts {
            [] => size == 0,
            [part] => part.len == size,
            _ => false,
        };
        let (dir, parent) = self.tree.current();
        let found = if is_plain { self.peers.find(parent, name, member, size) } else { None };
        let Some((file, peer_dir)) = found else { return Ok(None) };
        let linked = node::make_link(peer_dir.as_fd(), name, dir, name);
        let made = Some(self.tree.states());
        Ok(linked.is_ok().then(|| Comparing::new(file, 0, made)))
    }

    /// Goes on with the file in whose middle a checkpoint was made.
    fn go_on(&mut self, state: FileState) -> Result<()> {
        let (parent, name) = split(&state.path);
        self.tree.enter(parent)?;
        let doing = || "go on with the file".to_string();
        if state.is_link {
            let file = open_file_at(self.tree.current().0, name).context(doing)?;
            let target = Target::Compared(Comparing::new(file, state.at, None));
            return self.content(target, state, true);
        }
        let mut file = reopen_file_at(self.tree.current().0, name).context(doing)?;
        let found = file.metadata().context(doing)?;
        // A file that another layer has as well is never written to, whatever a checkpoint says.
        if !found.is_file() || found.nlink() != 1 {
            return Err(Error::new(Kind::Corrupt, "go on with the file: it is another"));
        }
        file.set_len(state.at).context(doing)?;
        file.seek(SeekFrom::Start(state.at)).context(doing)?;
        self.content(Target::Written(Writing::new(file, state.at)), state, true)
    }

    /// Writes what is to come of a file, then gives it its attributes. `is_told`: the record knows of the first segment.
    fn content(&mut self, mut target: Target, mut state: FileState, is_told: bool) -> Result<()> {
        let first = state.segment;
        for (number, (offset, len)) in (0..).zip(state.segments.clone()).skip(first as usize) {
            state.segment = number;
            if !is_told || number != first {
                let told = self.source.record().content(&state.path, offset, len, state.size);
                told.context(|| "write the header record".into())?;
                target.seek_to(offset)?;
            }
            let end = offset.saturating_add(len);
            while target.at() < end {
                let bytes = self.source.payload(end - target.at())?;
                if bytes.is_empty() {
                    return Err(Error::new(
                        Kind::Corrupt,
                        "the checkpoint says of more than comes",
                    ));
                }
                target.take(bytes, &mut self.tree, split(&state.path).1)?;
                (state.at, state.is_link) = (target.at(), target.is_link());
                self.step(&mut target, &state)?;
            }
        }
        self.file_bytes = self.file_bytes.saturating_add(state.size);
        self.file_count += 1;
        match target {
            Target::Compared(_) => Ok(()),
            Target::Written(writing) => self.complete(writing, &state),
        }
    }

    /// Gives a file that was written its attributes, and hands it over to be synced.
    fn complete(&mut self, writing: Writing, state: &FileState) -> Result<()> {
        let (file, length, cached) = writing.finish();
        if length != state.size {
            node::set_length(&file, state.size).context(|| "set its length".into())?;
        }
        let mtime = Mtime { seconds: state.mtime.0, nanoseconds: state.mtime.1 };
        let attributes = Attributes { mode: state.mode, uid: state.uid, gid: state.gid, mtime };
        set(file.as_fd(), &attributes, &state.xattrs)?;
        let (_, name) = split(&state.path);
        self.tree.add_file(file.into(), name, cached);
        Ok(())
    }

    /// In the middle of a large file: writes back what there is, and ends the window if a checkpoint is due.
    fn step(&mut self, target: &mut Target, state: &FileState) -> Result<()> {
        if !target.is_step() {
            return Ok(());
        }
        target.end_step().context(|| "write file".into())?;
        match self.due() {
            None => Ok(()),
            Some(_) => self.end_window(Some((target.file(), state.clone()))),
        }
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
        node::make_link(place.dir.as_fd(), target_name, dir, name).context(link)?;
        self.tree.made(name)
    }

    /// A node that is not opened: it reaches the disk with its directory.
    fn node(
        &mut self,
        name: &[u8],
        member: &Member,
        make: &dyn Fn(BorrowedFd) -> Result<()>,
    ) -> Result<()> {
        self.tree.replace(name, self.source.record())?;
        make(self.tree.current().0)?;
        self.tree.made(name)?;
        let (dir, _) = self.tree.current();
        let symlink = matches!(member.kind, MemberKind::Symlink(_));
        node::set_attributes_at(dir, name, &member.attributes, &member.xattrs, symlink)
            .context(|| "set owner, permissions and time".into())?;
        self.tree.described()
    }
}

fn set(opened: BorrowedFd, attributes: &Attributes, xattrs: &[Xattr]) -> Result<()> {
    node::set_attributes(opened, attributes, xattrs)
        .context(|| "set owner, permissions, attributes and time".into())
}

/// What a member's name says beside naming a file (OCI image spec, layer.md, "Whiteouts").
pub(super) enum Hiding<'a> {
    /// Nothing.
    Nothing,
    /// It is a file of aufs itself, not of the image.
    Aufs,
    /// The directory that it is in hides everything below.
    Opaque,
    /// The layers below have nothing of this name.
    Whiteout(&'a [u8]),
}

/// What the last component of `path` says.
pub(super) fn hiding(path: &[u8]) -> Hiding<'_> {
    let (parent, name) = split(path);
    match name.strip_prefix(WHITEOUT) {
        _ if parent.split(|&byte| byte == b'/').chain([name]).any(is_aufs) => Hiding::Aufs,
        _ if name == OPAQUE => Hiding::Opaque,
        Some(hidden) => Hiding::Whiteout(hidden),
        None => Hiding::Nothing,
    }
}

fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(AUFS) && name != OPAQUE
}

/// Parent and last component of a cleaned path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
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
