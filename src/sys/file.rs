//! Files and directories by descriptor: what std has no name for, and what must be done relative to an open directory.
//!
//! Every name given here is one path component or comes from our own code; `sys::beneath` is where paths from outside
//! are walked.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};

use super::fault;

/// Opens a directory by path, for use as the `dir` of the other functions.
pub fn open_directory(path: &std::path::Path) -> io::Result<OwnedFd> {
    Ok(fs::open(path, DIRECTORY, Mode::empty())?)
}

/// Opens the directory `name` in `dir`; a symlink in its place is an error (ENOTDIR or ELOOP).
pub fn open_directory_at(dir: BorrowedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the regular file `name` in `dir` for reading; never follows a symlink and never blocks on a FIFO.
pub fn open_file_at(dir: BorrowedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(fs::openat(dir, name, flags, Mode::empty())?))
}

/// Creates the file `name` in `dir`, which must not exist yet, with permissions 0600.
pub fn create_file_at(dir: BorrowedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?))
}

/// Opens the file `name` in `dir` for reading and writing, made with permissions 0600 if it is not there.
pub fn open_or_create_file_at(dir: BorrowedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?))
}

/// Opens the regular file `name` in `dir` for writing where it stands; never follows a symlink.
pub fn reopen_file_at(dir: BorrowedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(fs::openat(dir, name, flags, Mode::empty())?))
}

/// Removes the name of a file; that it is not there is no error.
pub fn remove_file_at(dir: BorrowedFd, name: &[u8]) -> io::Result<()> {
    fault::before("unlink of a stage's file")?;
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The names in `dir` without `.` and `..`, and whether each is a directory.
pub fn entries(dir: BorrowedFd) -> io::Result<Vec<(Vec<u8>, bool)>> {
    let mut found = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            known => known == FileType::Directory,
        };
        found.push((name.to_vec(), is_directory));
    }
    Ok(found)
}

/// Creates the directory `name` in `dir` with permissions 0755 whatever the umask says, and opens it.
pub fn create_directory_at(dir: BorrowedFd, name: &[u8]) -> io::Result<OwnedFd> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    let made = open_directory_at(dir, name)?;
    fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    Ok(made)
}

/// After a success the entries of `dir` (names made, renamed, removed) survive a power cut; the files need their own sync.
pub fn sync_directory(dir: BorrowedFd) -> io::Result<()> {
    fault::before("fsync of a directory")?;
    fs::fsync(dir)?;
    fault::after("fsync of a directory");
    Ok(())
}

/// Puts a file with content `bytes` and permissions 0600 in place of `name` in `dir`, in one step.
///
/// After a success the new content survives a power cut; after an error, or a power cut on the way, the old file is as it
/// was, or the new one is complete. The new content is first written to `.NAME.new`: who replaces one name from two sides
/// holds a lock, and what a crash leaves under that name the next call overwrites.
pub fn replace(dir: BorrowedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = format!(".{name}.new");
    let result = write_synced(dir, &staged, bytes)
        .and_then(|()| rename_record(dir, &staged, name))
        .and_then(|()| sync_directory(dir));
    if result.is_err() {
        // The first error is the one to report, and the name is overwritten next time anyway.
        let _ = fs::unlinkat(dir, &*staged, AtFlags::empty());
    }
    result
}

fn rename_record(dir: BorrowedFd, from: &str, to: &str) -> io::Result<()> {
    fault::before("rename of a record")?;
    fs::renameat(dir, from, dir, to)?;
    fault::after("rename of a record");
    Ok(())
}

fn write_synced(dir: BorrowedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
    fault::before("write of a record")?;
    file.write_all(bytes)?;
    fault::before("fsync of a record")?;
    fs::fsync(file.as_fd())?;
    fault::after("fsync of a record");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let path = std::env::temp_dir().join(format!("vaquita-replace-{}", std::process::id()));
        fs_err::create_dir_all(&path).unwrap();
        let dir = open_directory(&path).unwrap();
        fs_err::write(path.join(".record.new"), b"left by a crash, longer than the record")
            .unwrap();
        for content in ["old", "", "the new content"] {
            replace(dir.as_fd(), "record", content.as_bytes()).unwrap();
            assert_eq!(fs_err::read(path.join("record")).unwrap(), content.as_bytes());
        }
        fs_err::create_dir(path.join("taken")).unwrap();
        replace(dir.as_fd(), "taken", b"x").unwrap_err();
        let mut names: Vec<_> =
            fs_err::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["record", "taken"]);
        fs_err::remove_dir_all(&path).unwrap();
    }
}
