//! Walking a path from outside without leaving a root directory.
//!
//! The walk opens one component after another, never following a symlink in the kernel: a symlink's target is read and
//! its components are walked in turn. That costs a system call a component where openat2(RESOLVE_BENEATH) costs one in
//! all, but works on every kernel and under qemu-user, has one behaviour to test, and tells where the directory really
//! is, which openat2 does not. Callers keep the directories they found; then the walk is off the hot path.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::file::open_directory_at;

/// Symlinks followed in one walk, as many as the kernel follows (path_resolution(7)).
pub const MAX_LINKS: u32 = 40;
/// The longest path, symlinks resolved, in bytes: PATH_MAX without its final NUL.
pub const MAX_PATH_BYTES: usize = 4095;

/// A directory that a walk found.
pub struct Place {
    /// The open directory.
    pub dir: OwnedFd,
    /// Its path from the root without symlinks, `.` or `..`, and without a slash at either end; empty for the root.
    pub path: Vec<u8>,
}

/// Why a walk was given up.
#[derive(Debug)]
pub enum WalkError {
    /// `..` above the root.
    Outside,
    /// A symlink with this absolute target.
    AbsoluteLink(Vec<u8>),
    /// More than `MAX_LINKS` symlinks.
    TooManyLinks,
    /// The system's answer; ENOTDIR where a component is no directory.
    Io(io::Error),
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkError::Outside => f.write_str("the path leads out of the root"),
            WalkError::AbsoluteLink(target) => {
                let target = String::from_utf8_lossy(target);
                write!(f, "the path goes through a symlink to the absolute path {target:?}")
            }
            WalkError::TooManyLinks => f.write_str("the path goes through too many symlinks"),
            WalkError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WalkError {}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        WalkError::Io(error)
    }
}

/// Makes a directory that a walk misses, and opens it: called with its parent and its name.
pub type MakeDirectory<'a> = &'a mut dyn FnMut(BorrowedFd, &[u8]) -> io::Result<OwnedFd>;

/// Finds the directory `path` beneath `root`. Relative symlinks are followed as long as they stay inside; a leading
/// slash means the root. `missing` is called for each directory that does not exist.
pub fn walk(root: BorrowedFd, path: &[u8], missing: MakeDirectory) -> Result<Place, WalkError> {
    let mut pending = Vec::new();
    push_components(&mut pending, path);
    let mut place = Place { dir: root.try_clone_to_owned()?, path: Vec::new() };
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == b".." {
            place = parent(root, place)?;
            continue;
        }
        match open_directory_at(place.dir.as_fd(), &name) {
            Ok(dir) => place.enter(&name, dir)?,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => {
                    let made = missing(place.dir.as_fd(), &name)?;
                    place.enter(&name, made)?;
                }
                Some(Errno::NOTDIR | Errno::LOOP) => {
                    links += 1;
                    let target = read_link(place.dir.as_fd(), &name)?;
                    if target.starts_with(b"/") {
                        return Err(WalkError::AbsoluteLink(target));
                    }
                    if links > MAX_LINKS || pending.len() > MAX_PATH_BYTES {
                        return Err(WalkError::TooManyLinks);
                    }
                    push_components(&mut pending, &target);
                }
                _ => return Err(error.into()),
            },
        }
    }
    Ok(place)
}

/// A walk that makes nothing: a missing directory is ENOENT.
pub fn find(root: BorrowedFd, path: &[u8]) -> Result<Place, WalkError> {
    walk(root, path, &mut |_, _| Err(Errno::NOENT.into()))
}

impl Place {
    fn enter(&mut self, name: &[u8], dir: OwnedFd) -> Result<(), WalkError> {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        self.dir = dir;
        if self.path.len() > MAX_PATH_BYTES {
            return Err(WalkError::Io(Errno::NAMETOOLONG.into()));
        }
        Ok(())
    }
}

/// The directory above. It is opened from the root again, not by `..`: its path has no symlinks, and rarely is it asked for.
fn parent(root: BorrowedFd, place: Place) -> Result<Place, WalkError> {
    if place.path.is_empty() {
        return Err(WalkError::Outside);
    }
    let end = place.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let mut dir = root.try_clone_to_owned()?;
    for name in components(&place.path[..end]) {
        dir = open_directory_at(dir.as_fd(), name)?;
    }
    Ok(Place { dir, path: place.path[..end].to_vec() })
}

/// The target of the symlink `name`; ENOTDIR where it is none.
fn read_link(dir: BorrowedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        Err(Errno::INVAL) => Err(Errno::NOTDIR.into()),
        Err(error) => Err(error.into()),
    }
}

/// Puts the components of `path` on the stack, the first on top.
fn push_components(pending: &mut Vec<Vec<u8>>, path: &[u8]) {
    pending.extend(components(path).rev().map(<[u8]>::to_vec));
}

/// The components of a path, without empty ones and `.`.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_beneath_its_root() {
        let base = std::env::temp_dir().join(format!("vaquita-beneath-{}", std::process::id()));
        let root = base.join("root");
        fs_err::create_dir_all(root.join("usr/lib/deep")).unwrap();
        fs_err::create_dir_all(base.join("outside")).unwrap();
        fs_err::write(root.join("file"), b"").unwrap();
        for (target, name) in [
            ("usr/lib", "lib"),
            ("../lib/./deep", "usr/up"),
            ("/usr/lib", "absolute"),
            ("..", "out"),
            ("usr/../../outside", "hidden"),
            ("loop", "loop"),
            ("usr/lib/deep/../..", "around"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        let dir = file::open_directory(&root).unwrap();
        for (path, expected) in [
            ("", ""),
            ("/", ""),
            ("./usr//lib/", "usr/lib"),
            ("lib/deep", "usr/lib/deep"),
            ("usr/up", "usr/lib/deep"),
            ("around/lib", "usr/lib"),
            ("usr/../lib", "usr/lib"),
        ] {
            let place =
                find(dir.as_fd(), path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(String::from_utf8_lossy(&place.path), expected, "{path}");
        }
        for (path, why) in [
            ("..", "out of the root"),
            ("usr/../..", "out of the root"),
            ("out/outside", "out of the root"),
            ("hidden", "out of the root"),
            ("absolute/deep", "absolute path \"/usr/lib\""),
            ("loop/x", "too many symlinks"),
            ("file/x", "Not a directory"),
            ("none", "No such file"),
        ] {
            let error = find(dir.as_fd(), path.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
        let mut make = |dir: BorrowedFd, name: &[u8]| file::create_directory_at(dir, name);
        let place = walk(dir.as_fd(), b"lib/new/dir", &mut make).unwrap();
        assert_eq!(place.path, b"usr/lib/new/dir");
        assert!(root.join("usr/lib/new/dir").is_dir());
        fs_err::remove_dir_all(&base).unwrap();
    }
}
