//! Comparing: whether an unpacked layer is still what its tar was.
//!
//! The tar is rebuilt from files and header record once, front to back. Its digest tells whether all contents are as
//! they came. On the way each member is compared with the node that it became: kind, owner, permissions, time, target,
//! extended attributes, and for hard links that both names are one inode (which may have names in other layers as well).
//! A member that a later one replaces may differ; so differences are kept until it is known which member is a path's
//! last. In the end the tree is walked for what no member has made.
//!
//! A layer that replaces symlinks of its own, or goes through them to what it replaces, is compared by digest alone: where
//! its members lie can then only be told by unpacking it again.

mod expected;
mod node;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::members::{self, Member, MemberKind, Source};
use super::rebuild::{LayerTar, Location, locate};
use super::record::{Note, RecordWriter};
use super::tree::{self, FS, SHADOWED};
use super::unpack::{self, Hiding};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::beneath::{self, Place, WalkError, components};
use crate::sys::examine::{self, FactKind, Facts};
use crate::sys::file::open_directory_at;

use expected::{Expectation, Expected, IMPLIED, OPAQUE, REAL, REPEATED, SYMLINK, WHITEOUT};

/// Differences kept until the last member of each path is known.
const MAX_DIFFERENCES: usize = 4096;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Contents and tree are those of the tar.
    Whole,
    /// Contents are; the tree was not compared, for this reason.
    Contents(&'static str),
}

/// Compares the layer in the directory `layer` with the tar whose digest is `diff_id`. An error says what differs; the
/// pages of what was read are dropped.
pub fn compare(layer: BorrowedFd, name: &str, diff_id: &Digest) -> Result<Compared> {
    let mut tar = LayerTar::open(layer, name)?;
    let mut comparison = Comparison::new(layer, tar.notes().to_vec())?;
    // The record is here already; what the walk writes of it goes nowhere.
    let nowhere = fs_err::File::options().write(true).open("/dev/null");
    let record = nowhere.and_then(|file| RecordWriter::new(file.into()));
    let mut source = Source::new(&mut tar, record.context(|| format!("compare {name}"))?);
    let mut number = 0;
    while let Some(member) = members::next(&mut source)? {
        comparison.member(&member, number, source.offset())?;
        number += 1;
        while source.payload_left() > 0 {
            source.payload(u64::MAX)?;
        }
    }
    let (found, _, _) = source.finish();
    let tree = comparison.finish();
    if found != *diff_id {
        let error = Error::new(Kind::Corrupt, format!("its files have the diff ID {found}"));
        // Where the tree differs, the content is likely to differ, too.
        return Err(match tree {
            Err(e) => error.caused_by(e),
            Ok(_) => error,
        });
    }
    tree
}

struct Comparison {
    fs: OwnedFd,
    shadowed: Option<OwnedFd>,
    notes: Vec<Note>,
    /// From this offset on no directory is replaced any more: symlinks lead where they led when the layer was unpacked.
    paths_final: u64,
    expected: Expected,
    differences: Vec<Difference>,
    /// The parent directory of the last member: as it was named, at which offset, and where it is.
    parent: Option<(Vec<u8>, Option<Parent>)>,
    /// Why the tree cannot be compared.
    given_up: Option<&'static str>,
}

/// A directory that is there.
struct Parent {
    dir: OwnedFd,
    location: Location,
}

struct Difference {
    hash: u64,
    /// A whiteout's difference counts only if no member makes the path.
    flags: u8,
    member: u32,
    text: String,
}

impl Comparison {
    fn new(layer: BorrowedFd, notes: Vec<Note>) -> Result<Comparison> {
        let open = |name: &str| {
            open_directory_at(layer, name.as_bytes()).context(|| format!("open {name:?}"))
        };
        let shadowed = if notes.is_empty() { None } else { Some(open(SHADOWED)?) };
        let is_directory = |note: &&Note| {
            let name = note.kept_as.to_string();
            let found =
                shadowed.as_ref().map(|dir| examine::facts_at(dir.as_fd(), name.as_bytes()));
            matches!(found, Some(Ok(Some(facts))) if facts.kind == FactKind::Directory)
        };
        let paths_final = notes.iter().filter(is_directory).map(|note| note.before).max();
        Ok(Comparison {
            fs: open(FS)?,
            paths_final: paths_final.unwrap_or(0),
            shadowed,
            notes,
            expected: Expected::default(),
            differences: Vec::new(),
            parent: None,
            given_up: None,
        })
    }

    /// Compares one member, whose header ends at `offset` of the tar.
    fn member(&mut self, member: &Member, number: u32, offset: u64) -> Result<()> {
        let (parent, name) = unpack::split(&member.path);
        if self.given_up.is_some() || name.is_empty() {
            return Ok(());
        }
        let hiding = match unpack::hiding(&member.path) {
            Hiding::Aufs => return Ok(()),
            hiding => hiding,
        };
        self.enter(parent, offset)?;
        let dir_path = match &self.parent {
            Some((_, Some(parent))) if !parent.location.shadowed => parent.location.path.clone(),
            _ => parent.to_vec(),
        };
        let (path, flags) = match hiding {
            Hiding::Opaque => (dir_path, OPAQUE),
            Hiding::Whiteout(hidden) => (tree::join(&dir_path, hidden), WHITEOUT),
            _ if matches!(member.kind, MemberKind::Symlink(_)) => {
                (tree::join(&dir_path, name), REAL | SYMLINK)
            }
            _ => (tree::join(&dir_path, name), REAL),
        };
        let location = locate(&path, offset, &self.notes);
        if !self.expected.add(&location, number, flags) {
            self.given_up = Some("it has too many paths");
        }
        if flags != OPAQUE
            && let Some(text) = self.difference(&location, member, flags, offset)?
        {
            let text = format!("{:?}: {text}", String::from_utf8_lossy(&member.path));
            self.differ(Difference {
                hash: expected::hash(location.shadowed, &location.path),
                flags,
                member: number,
                text,
            });
        }
        Ok(())
    }

    fn differ(&mut self, difference: Difference) {
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        } else {
            self.given_up = Some("too much of it is replaced by itself");
        }
    }

    /// Finds the directory that members of `parent` are in, and takes in that it and those above it exist.
    fn enter(&mut self, parent: &[u8], offset: u64) -> Result<()> {
        let location = locate(parent, offset, &self.notes);
        if self.parent.as_ref().is_some_and(|(path, found)| {
            path == parent && found.as_ref().is_none_or(|found| found.location == location)
        }) {
            return Ok(());
        }
        let found = match self.find(&location)? {
            Some(place) if place.path != location.path && offset < self.paths_final => {
                self.given_up = Some("it goes through symlinks to directories that it replaces");
                None
            }
            Some(place) => {
                let location = Location { shadowed: location.shadowed, path: place.path };
                Some(Parent { dir: place.dir, location })
            }
            None => None,
        };
        let path = found.as_ref().map_or(&location, |parent| &parent.location);
        let (shadowed, mut above) = (path.shadowed, Vec::new());
        for name in components(&path.path.clone()) {
            above = tree::join(&above, name);
            self.expected.add(&Location { shadowed, path: above.clone() }, 0, IMPLIED);
        }
        self.parent = Some((parent.to_vec(), found));
        Ok(())
    }

    /// The directory at a location; `None` if it is not there.
    fn find(&self, location: &Location) -> Result<Option<Place>> {
        let root = match &self.shadowed {
            Some(shadowed) if location.shadowed => shadowed,
            _ => &self.fs,
        };
        match beneath::find(root.as_fd(), &location.path) {
            Ok(place) => Ok(Some(place)),
            Err(WalkError::Io(error)) if !tree::is_missing(&error) => {
                Err(Error::io("look into the layer", error))
            }
            Err(_) => Ok(None),
        }
    }

    fn look_up(&self, location: &Location) -> Result<Option<(OwnedFd, Facts)>> {
        let (parent, name) = unpack::split(&location.path);
        let parent = Location { shadowed: location.shadowed, path: parent.to_vec() };
        let dir = match &self.parent {
            Some((_, Some(held))) if held.location == parent => {
                held.dir.try_clone().context(|| "look into the layer".into())?
            }
            _ => match self.find(&parent)? {
                Some(place) => place.dir,
                None => return Ok(None),
            },
        };
        let facts = examine::facts_at(dir.as_fd(), name);
        Ok(facts.context(|| "look into the layer".into())?.map(|facts| (dir, facts)))
    }

    /// How the node at `location` differs from its member.
    fn difference(
        &self,
        location: &Location,
        member: &Member,
        flags: u8,
        offset: u64,
    ) -> Result<Option<String>> {
        let Some((dir, found)) = self.look_up(location)? else {
            return Ok(Some("it is missing".into()));
        };
        if flags & WHITEOUT != 0 {
            let is_whiteout = found.kind == FactKind::CharacterDevice(0, 0);
            return Ok((!is_whiteout).then(|| "it hides nothing".into()));
        }
        if let MemberKind::HardLink(target) = &member.kind {
            let target = locate(target, offset, &self.notes);
            let same_file = match self.look_up(&target)? {
                // Later members may have made it something else.
                Some((_, other)) => !is_linked(other.kind) || other.inode == found.inode,
                None => true,
            };
            return Ok((!same_file).then(|| "it is no link to the same file".into()));
        }
        let (_, name) = unpack::split(&location.path);
        let context = || format!("look at {:?}", String::from_utf8_lossy(&member.path));
        node::difference(dir.as_fd(), name, &found, member).context(context)
    }

    /// Weighs the differences and walks the tree.
    fn finish(mut self) -> Result<Compared> {
        self.expected.settle();
        if self.expected.has_replaced_symlink() {
            self.given_up = Some("it replaces symlinks of its own");
        }
        if let Some(why) = self.given_up {
            return Ok(Compared::Contents(why));
        }
        let mut texts = std::mem::take(&mut self.differences);
        texts.retain(|difference| match self.expected.find_hash(difference.hash) {
            Some(path) if difference.flags & WHITEOUT != 0 => path.flags & (REAL | IMPLIED) == 0,
            Some(path) => path.member == difference.member,
            None => true,
        });
        let first = match texts.first() {
            Some(difference) => Some(difference.text.clone()),
            None => self.walk(&self.fs, false)?,
        };
        let first = match (&self.shadowed, first) {
            (Some(shadowed), None) => self.walk(shadowed, true)?,
            (_, first) => first,
        };
        match (first, texts.len()) {
            (None, _) => Ok(Compared::Whole),
            (Some(text), 0 | 1) => Err(Error::new(Kind::Corrupt, text)),
            (Some(text), count) => {
                Err(Error::new(Kind::Corrupt, format!("{text} (and {} more)", count - 1)))
            }
        }
    }

    /// The first node below `root` that no member has made, or that a whiteout has made otherwise.
    fn walk(&self, root: &OwnedFd, shadowed: bool) -> Result<Option<String>> {
        let mut pending = vec![Vec::new()];
        let mut last: Option<Place> = None;
        while let Some(path) = pending.pop() {
            let context = || format!("list {:?}", String::from_utf8_lossy(&path));
            let place =
                find_from(last.as_ref(), root, &path).map_err(walk_error).context(context)?;
            let walked = self.walk_directory(&place, shadowed, &mut pending).context(context)?;
            if walked.is_some() {
                return Ok(walked);
            }
            last = Some(place);
        }
        Ok(None)
    }

    fn walk_directory(
        &self,
        place: &Place,
        shadowed: bool,
        pending: &mut Vec<Vec<u8>>,
    ) -> std::io::Result<Option<String>> {
        let (dir, path) = (place.dir.as_fd(), &place.path[..]);
        let (mut difference, mut failure) = (None, None);
        examine::names(dir, &mut |name| {
            let path = tree::join(path, name);
            let said = |what: &str| format!("{:?}: {what}", String::from_utf8_lossy(&path));
            let Some(known) = self.expected.find(shadowed, &path) else {
                difference = Some(said("it is not one of the layer's"));
                return false;
            };
            match unexpected(dir, name, known) {
                Ok(found) => difference = found.map(|what| said(&what)),
                Err(error) => failure = Some(error),
            }
            match examine::facts_at(dir, name) {
                Ok(Some(facts)) if facts.kind == FactKind::Directory => pending.push(path),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
            difference.is_none() && failure.is_none()
        })?;
        failure.map_or(Ok(difference), Err)
    }
}

/// The directory `path` below `root`; not from the top where it lies in the `last` one.
fn find_from(last: Option<&Place>, root: &OwnedFd, path: &[u8]) -> Result<Place, WalkError> {
    let (parent, name) = unpack::split(path);
    match last.filter(|last| last.path == parent && !name.is_empty()) {
        None => beneath::find(root.as_fd(), path),
        Some(last) => {
            let dir = open_directory_at(last.dir.as_fd(), name)?;
            Ok(Place { dir, path: path.to_vec() })
        }
    }
}

/// What is wrong with a node that several members, or none of its own, have made.
fn unexpected(dir: BorrowedFd, name: &[u8], known: Expectation) -> std::io::Result<Option<String>> {
    let Some(found) = examine::facts_at(dir, name)? else { return Ok(None) };
    if known.flags & (REAL | IMPLIED) == 0 {
        let is_whiteout = found.kind == FactKind::CharacterDevice(0, 0);
        return Ok((!is_whiteout).then(|| "it was a whiteout".into()));
    }
    let implied = known.flags & REAL == 0;
    if implied && (found.kind != FactKind::Directory || found.attributes.mode != 0o755) {
        return Ok(Some("it was a directory of mode 755".into()));
    }
    // What several members made may have been a directory, then none, then one again.
    if found.kind != FactKind::Directory || known.flags & REPEATED != 0 {
        return Ok(None);
    }
    let opened = open_directory_at(dir, name)?;
    let expected = known.flags & (OPAQUE | WHITEOUT) != 0;
    Ok(match examine::has_xattr(opened.as_fd(), tree::OPAQUE, b"y")? {
        Some(is_opaque) if is_opaque != expected => {
            Some("what it hides of the layers below has changed".into())
        }
        _ => None,
    })
}

fn is_linked(kind: FactKind) -> bool {
    matches!(kind, FactKind::File(_) | FactKind::Symlink)
}

fn walk_error(error: WalkError) -> std::io::Error {
    match error {
        WalkError::Io(error) => error,
        other => std::io::Error::other(other.to_string()),
    }
}
