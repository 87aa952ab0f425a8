//! Paths that others wrote - an image's links, a user's mount target - resolved below a root, component by component.
//!
//! The kernel is never given more than one name at a time, and no link to follow: links are read and walked here, `..`
//! ends at the root, and links of procfs are refused, for those lead anywhere (proc_pid_fd(5)). openat2(2) with
//! RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS resolves alike, but neither Linux before 5.6 nor qemu-user has it, it does
//! not make what is missing, and one way is enough. Nothing here allocates.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The longest path, with the links on the way put in (limits.h, PATH_MAX).
const PATH_MAX: usize = 4096;
/// The longest name of a file (limits.h, NAME_MAX), and a zero.
const NAME_BYTES: usize = 256;
/// The most links on the way, as in the kernel (namei.h, MAXSYMLINKS).
const MAX_LINKS: u32 = 40;
/// statfs(2): procfs.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What `resolve` makes where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Nothing: it fails.
    Nothing,
    /// Directories, mode 0755 less the umask.
    Directories,
    /// An empty file, mode 0644 less the umask, and the directories above it.
    File,
}

/// An O_PATH descriptor of what `path` names for a process whose root is `root`; what is mounted on top counts.
pub fn resolve(root: &OwnedFd, path: &CStr, make: Make) -> Result<OwnedFd, Errno> {
    let mut walk = Walk {
        root,
        here: root.try_clone().map_err(|_| Errno::MFILE)?,
        depth: 0,
        links: 0,
        pending: heapless::Vec::new(),
        consumed: 0,
    };
    walk.pending.extend_from_slice(path.to_bytes()).map_err(|_| Errno::NAMETOOLONG)?;
    let mut name = [0; NAME_BYTES];
    while let Some(next) = walk.next_name(&mut name)? {
        walk.enter(next, make)?;
    }
    Ok(walk.here)
}

struct Walk<'a> {
    root: &'a OwnedFd,
    here: OwnedFd,
    /// How many directories below the root `here` is.
    depth: u32,
    links: u32,
    /// The path still to go, from `consumed` on.
    pending: heapless::Vec<u8, PATH_MAX>,
    consumed: usize,
}

impl Walk<'_> {
    fn rest(&self) -> &[u8] {
        self.pending.get(self.consumed..).unwrap_or_default()
    }

    /// The next component, copied into `name`.
    fn next_name<'n>(&mut self, name: &'n mut [u8; NAME_BYTES]) -> Result<Option<&'n CStr>, Errno> {
        let slashes = self.rest().iter().take_while(|byte| **byte == b'/').count();
        self.consumed += slashes;
        let length = self.rest().iter().take_while(|byte| **byte != b'/').count();
        if length == 0 {
            return Ok(None);
        }
        if length >= NAME_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        *name = [0; NAME_BYTES];
        for (slot, byte) in name.iter_mut().zip(self.rest().iter().take(length)) {
            *slot = *byte;
        }
        self.consumed += length;
        CStr::from_bytes_until_nul(name).map(Some).map_err(|_| Errno::NAMETOOLONG)
    }

    fn enter(&mut self, name: &CStr, make: Make) -> Result<(), Errno> {
        match name.to_bytes() {
            b"." => return Ok(()),
            b".." if self.depth == 0 => return Ok(()),
            b".." => {
                self.here = open(&self.here, name)?;
                self.depth -= 1;
                return Ok(());
            }
            _ => {}
        }
        let found = match open(&self.here, name) {
            Err(Errno::NOENT) if make != Make::Nothing => self.make(name, make)?,
            result => result?,
        };
        let mode = rustix::fs::fstat(&found)?.st_mode;
        if FileType::from_raw_mode(mode) == FileType::Symlink {
            return self.follow(&found);
        }
        self.here = found;
        self.depth += 1;
        Ok(())
    }

    fn make(&self, name: &CStr, make: Make) -> Result<OwnedFd, Errno> {
        let is_last = self.rest().iter().all(|byte| *byte == b'/');
        if is_last && make == Make::File {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&self.here, name, flags, Mode::from_raw_mode(0o644))?;
        } else {
            rustix::fs::mkdirat(&self.here, name, Mode::from_raw_mode(0o755))?;
        }
        open(&self.here, name)
    }

    /// Puts what the link says before the rest of the path.
    fn follow(&mut self, link: &OwnedFd) -> Result<(), Errno> {
        let on_procfs = rustix::fs::fstatfs(link)?.f_type as u64 == PROC_SUPER_MAGIC;
        self.links += 1;
        if on_procfs || self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let mut buffer = [MaybeUninit::uninit(); PATH_MAX];
        let (target, _) = rustix::fs::readlinkat_raw(link, c"", &mut buffer[..])?;
        if target.first() == Some(&b'/') {
            self.here = self.root.try_clone().map_err(|_| Errno::MFILE)?;
            self.depth = 0;
        }
        let mut path = heapless::Vec::new();
        let parts = [&*target, b"/", self.rest()];
        for part in parts {
            path.extend_from_slice(part).map_err(|_| Errno::NAMETOOLONG)?;
        }
        self.pending = path;
        self.consumed = 0;
        Ok(())
    }
}

fn open(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_below_the_root() {
        let dir = std::env::temp_dir().join(format!("vaquita-resolve-{}", std::process::id()));
        let root = dir.join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(dir.join("outside")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        symlink(dir.join("outside"), root.join("absolute")).unwrap();
        symlink("../../../a", root.join("a/b/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/a/new", root.join("dangling")).unwrap();
        let fd: OwnedFd = fs::File::open(&root).unwrap().into();
        let found = |path: &str, make| {
            let found = resolve(&fd, &CString::new(path).unwrap(), make)?;
            let stat = rustix::fs::fstat(&found)?;
            let ends = ["", "a", "a/b", "a/file", "a/new", "new/dir", "made", "x/file"];
            let same = |end: &&&str| {
                rustix::fs::stat(root.join(end)).is_ok_and(|other| other.st_ino == stat.st_ino)
            };
            Ok(*ends.iter().find(same).unwrap_or(&"elsewhere"))
        };
        for (path, make, expected) in [
            ("/", Make::Nothing, Ok("")),
            ("/a/b/../../../..//a/", Make::Nothing, Ok("a")),
            ("a/b/up/file", Make::Nothing, Ok("a/file")),
            ("/a/file/x", Make::Nothing, Err(Errno::NOTDIR)),
            ("/absolute", Make::Nothing, Err(Errno::NOENT)),
            ("/none", Make::Nothing, Err(Errno::NOENT)),
            ("/loop", Make::Directories, Err(Errno::LOOP)),
            ("/dangling", Make::Directories, Ok("a/new")),
            ("/../../new/dir/", Make::Directories, Ok("new/dir")),
            ("/x/./file", Make::File, Ok("x/file")),
            ("/absolute/dir", Make::Directories, Ok("elsewhere")),
        ] {
            assert_eq!(found(path, make), expected, "{path}");
        }
        assert_eq!(fs::read_dir(dir.join("outside")).unwrap().count(), 0);
        fs::remove_dir_all(dir).unwrap();
        let root = fs::File::open("/").unwrap().into();
        for path in [c"/proc/self/root", c"/proc/self/fd/0", c"/proc/self/cwd/x"] {
            assert_eq!(resolve(&root, path, Make::Nothing).unwrap_err(), Errno::LOOP);
        }
    }
}
