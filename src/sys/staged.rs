//! A file that comes under its name when it is whole. Two that are written for one name at a time do not meet.
//!
//! While it is written it has no name (O_TMPFILE, open(2)): whatever ends the process, nothing is left. A file system that
//! has no such files gives it a random name beside its own, which a signal leaves there.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};

use super::{fault, host};

/// A file on its way to its name; without `publish` it goes.
pub struct Staged {
    /// Where to write.
    pub file: File,
    target: PathBuf,
    path: PathBuf,
    /// Whether it can be found at `path`.
    has_name: bool,
}

impl Staged {
    /// An empty file for `target`, with permissions 0600.
    pub fn create(target: &Path) -> io::Result<Staged> {
        let mut random = [0; 8];
        host::fill_random(&mut random)?;
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{:016x}.new", u64::from_ne_bytes(random)));
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let unnamed = fs::open(directory.unwrap_or(Path::new(".")), flags | OFlags::TMPFILE, mode);
        let has_name = unnamed.is_err();
        // Why there is none is of no interest: if it is more than that, this fails, too, and says so.
        let file =
            unnamed.or_else(|_| fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode))?;
        let (target, path) = (target.into(), path.into());
        Ok(Staged { file: File::from(file), target, path, has_name })
    }

    /// Puts the file in place of what has its name, in one step, with its content on the disk.
    pub fn publish(mut self) -> io::Result<()> {
        fault::before("fsync of an archive")?;
        self.file.sync_all()?;
        fault::after("fsync of an archive");
        if !self.has_name {
            self.link()?;
            self.has_name = true;
        }
        fault::before("rename of an archive")?;
        fs::rename(&self.path, &self.target)?;
        fault::after("rename of an archive");
        self.has_name = false;
        Ok(())
    }

    fn link(&self) -> io::Result<()> {
        let open_file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // By its descriptor alone it takes a privilege that containers do not give (linkat(2), AT_EMPTY_PATH).
        let linked = fs::linkat(CWD, open_file, CWD, &self.path, AtFlags::SYMLINK_FOLLOW);
        Ok(linked.or_else(|_| fs::linkat(&self.file, "", CWD, &self.path, AtFlags::EMPTY_PATH))?)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.has_name {
            // Why it is given up is what there is to tell.
            let _ = fs::unlink(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_last_to_be_published_stands() {
        let base = std::env::temp_dir().join(format!("vaquita-staged-{}", std::process::id()));
        fs_err::create_dir_all(&base).unwrap();
        let target = base.join("target");
        let write = |text: &str| {
            let mut staged = Staged::create(&target).unwrap();
            staged.file.write_all(text.as_bytes()).unwrap();
            staged
        };
        let (one, mut two, three) = (write("one"), write("two"), write("three"));
        one.publish().unwrap();
        // As on a file system that has no files without names.
        two.link().unwrap();
        two.has_name = true;
        assert_eq!(fs_err::read(&target).unwrap(), b"one");
        two.publish().unwrap();
        assert_eq!(fs_err::read(&target).unwrap(), b"two");
        let mut four = write("four");
        four.link().unwrap();
        four.has_name = true;
        drop((three, four));
        let names: Vec<_> =
            fs_err::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["target"]);
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        fs_err::remove_dir_all(&base).unwrap();
    }
}
