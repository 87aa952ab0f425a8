//! Removing a tree of files, whatever it holds.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, RawDir};
use rustix::io::Errno;

use super::fault;
use super::file::open_directory_at;

/// Directories open at a time. What lies deeper is first moved up into the directory that is being removed.
const MAX_DEPTH: u32 = 24;
/// Entries are read in pieces of this size, one piece for each open directory.
const BUFFER_BYTES: usize = 4096;

/// Removes `name` in `dir`: a file, a symlink itself, or a directory with everything below it. Not being there is no error.
///
/// No symlink is followed and no mount crossed. It goes on after an error, so that as much as possible is freed, and returns
/// the first. Memory and descriptors are bounded however deep or wide the tree is.
pub fn remove_tree(dir: BorrowedFd, name: &[u8]) -> io::Result<()> {
    match unlink(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match open_directory_at(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut removal = Removal { top: top.as_fd(), first_error: None, moved: 0 };
    // What was moved up while the directory was read may not have been seen: read again as long as something is moved.
    loop {
        let before = removal.moved;
        removal.empty(&top, 1);
        if removal.moved == before {
            break;
        }
    }
    match removal.first_error {
        None => match unlink(dir, name, AtFlags::REMOVEDIR) {
            // Two that remove the same tree both succeed.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Some(error) => Err(error.into()),
    }
}

/// unlinkat(2).
fn unlink(dir: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Result<(), Errno> {
    let planned = fault::before("unlink").map_err(|error| Errno::from_io_error(&error));
    planned.map_err(|errno| errno.unwrap_or(Errno::IO))?;
    fs::unlinkat(dir, name, flags)?;
    fault::after("unlink");
    Ok(())
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    first_error: Option<Errno>,
    /// Directories moved up into `top`, each under a name of its own.
    moved: u64,
}

impl Removal<'_> {
    /// Removes everything in `dir`, which is `depth` levels below the start.
    fn empty(&mut self, dir: &OwnedFd, depth: u32) {
        if let Err(error) = fs::seek(dir, fs::SeekFrom::Start(0)) {
            self.first_error.get_or_insert(error);
            return;
        }
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // Another process has removed the directory that is read. This, and any other error of the directory
                // itself, would come for ever.
                Err(Errno::NOENT) => return,
                Err(error) => {
                    self.first_error.get_or_insert(error);
                    return;
                }
            };
            let name = entry.file_name().to_bytes();
            let result = match (name, entry.file_type()) {
                (b"." | b"..", _) => Ok(()),
                (_, FileType::Directory | FileType::Unknown) => self.remove_entry(dir, name, depth),
                _ => unlink(dir, name, AtFlags::empty()),
            };
            match result {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    self.first_error.get_or_insert(error);
                }
            }
        }
    }

    fn remove_entry(&mut self, dir: &OwnedFd, name: &[u8], depth: u32) -> Result<(), Errno> {
        match unlink(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTDIR) => return unlink(dir, name, AtFlags::empty()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            result => return result,
        }
        if depth == MAX_DEPTH {
            return self.move_up(dir, name);
        }
        let child = fs::openat(
            dir,
            name,
            fs::OFlags::RDONLY | fs::OFlags::DIRECTORY | fs::OFlags::NOFOLLOW | fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        self.empty(&child, depth + 1);
        match unlink(dir, name, AtFlags::REMOVEDIR) {
            // Why it could not be emptied has been kept.
            Err(Errno::NOTEMPTY) if self.first_error.is_some() => Ok(()),
            result => result,
        }
    }

    /// Moves a directory that lies too deep to the top, under a free name.
    fn move_up(&mut self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        loop {
            let free = format!(".deep-{}", self.moved);
            self.moved += 1;
            match fs::renameat_with(dir, name, self.top, &*free, fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                // File systems without NOREPLACE: plain rename replaces at most an empty directory.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    match fs::renameat(dir, name, self.top, &*free) {
                        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                        result => return result,
                    }
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;
    use std::os::unix::fs::symlink;

    #[test]
    fn two_remove_the_same_tree() {
        let base = std::env::temp_dir().join(format!("vaquita-remove-two-{}", std::process::id()));
        for _ in 0..20 {
            for number in 0..200 {
                fs_err::create_dir_all(base.join(format!("tree/{number}/deep"))).unwrap();
            }
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let dir = file::open_directory(&base).unwrap();
                        remove_tree(dir.as_fd(), b"tree").unwrap();
                    });
                }
            });
            assert!(!base.join("tree").exists());
        }
        // One that was opened and then removed by another: reading it is at its end.
        let dir = file::open_directory(&base).unwrap();
        fs_err::remove_dir(&base).unwrap();
        let mut removal = Removal { top: dir.as_fd(), first_error: None, moved: 0 };
        removal.empty(&dir, 1);
        assert_eq!(removal.first_error, None);
    }

    #[test]
    fn removes_wide_deep_and_linked_trees_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("vaquita-remove-{}", std::process::id()));
        fs_err::create_dir_all(base.join("tree/wide/.deep-0")).unwrap();
        fs_err::create_dir(base.join("kept")).unwrap();
        fs_err::write(base.join("kept/file"), b"x").unwrap();
        symlink("../kept", base.join("tree/link")).unwrap();
        for number in 0..2000 {
            fs_err::write(base.join(format!("tree/wide/{number}")), b"").unwrap();
            fs_err::create_dir(base.join(format!("tree/wide/d{number}"))).unwrap();
        }
        let mut dir = file::open_directory(&base.join("tree")).unwrap();
        for _ in 0..3000 {
            file::create_file_at(dir.as_fd(), b"file").unwrap();
            symlink("..", base.join("tree/wide/again")).unwrap_or(());
            dir = file::create_directory_at(dir.as_fd(), b"a-directory-with-a-long-name").unwrap();
        }
        let base_dir = file::open_directory(&base).unwrap();
        remove_tree(base_dir.as_fd(), b"tree").unwrap();
        remove_tree(base_dir.as_fd(), b"tree").unwrap();
        let names: Vec<_> =
            fs_err::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["kept"]);
        assert_eq!(fs_err::read(base.join("kept/file")).unwrap(), b"x");
        symlink("kept", base.join("link")).unwrap();
        remove_tree(base_dir.as_fd(), b"link").unwrap();
        remove_tree(base_dir.as_fd(), b"kept").unwrap();
        fs_err::remove_dir(&base).unwrap();
    }
}
