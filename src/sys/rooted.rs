//! Files, directories, links and device nodes by path, for a child that is inside its container's root already: the
//! kernel keeps every path and link in there. Nothing here allocates.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The longest path (limits.h, PATH_MAX), its final zero included.
const PATH_MAX: usize = 4096;

/// Makes a directory and those above it, mode 0755 less the umask. One that is there already is left as it is.
pub fn make_directories(path: &CStr) -> Result<(), Errno> {
    match make_directory(path) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    make_parents(path)?;
    make_directory(path)
}

fn make_parents(path: &CStr) -> Result<(), Errno> {
    let mut buffer = [0_u8; PATH_MAX];
    let bytes = path.to_bytes();
    if bytes.len() >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    for (place, &byte) in bytes.iter().enumerate() {
        if byte == b'/' && place > 0 {
            let parent = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
            make_directory(parent)?;
        }
        if let Some(slot) = buffer.get_mut(place) {
            *slot = byte;
        }
    }
    Ok(())
}

fn make_directory(path: &CStr) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Makes an empty file, and the directories above it, where nothing is; leaves what is there.
pub fn make_file(path: &CStr) -> Result<(), Errno> {
    let create = || {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map(drop)
    };
    if rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok() {
        return Ok(());
    }
    match create() {
        Err(Errno::NOENT) => make_parents(path).and_then(|()| create()),
        result => result,
    }
}

/// Makes a symbolic link.
pub fn make_link(target: &CStr, path: &CStr) -> Result<(), Errno> {
    rustix::fs::symlink(target, path)
}

/// A device node to make (mknod(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Device {
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Makes a device node with its mode and owner, and the directories above it.
pub fn make_device(path: &CStr, device: &Device) -> Result<(), Errno> {
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.major, device.minor);
    let make = || rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(device.mode), number);
    match make() {
        Err(Errno::NOENT) => make_parents(path).and_then(|()| make())?,
        result => result?,
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = owner(device.uid, device.gid);
        rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn owner(uid: u32, gid: u32) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))
}

/// Gives an open file to a user; its group stays.
pub fn give_to(file: &OwnedFd, uid: u32) -> Result<(), Errno> {
    rustix::fs::fchown(file, Some(rustix::fs::Uid::from_raw(uid)), None)
}

/// What an open file is.
pub fn is_directory(file: &OwnedFd) -> Result<bool, Errno> {
    let mode = rustix::fs::fstat(file)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

/// Opens a device for reading and writing, never as the controlling terminal.
pub fn open_device(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a path names anything, links followed.
pub fn exists(path: &CStr) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}

/// Fills `buffer` from the beginning of a regular file; returns how much there was.
pub fn read_beginning(path: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    let file = open_regular(path)?;
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn open_regular(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(file.as_fd())?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(Errno::INVAL),
    }
}

/// The longest line that `for_each_line` gives whole; of a longer one it gives the beginning.
pub const MAX_LINE_BYTES: usize = 4096;

/// Calls `line` with each line of a regular file, its newline taken off.
pub fn for_each_line(path: &CStr, line: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
    let file = open_regular(path)?;
    let mut whole = heapless::Vec::<u8, MAX_LINE_BYTES>::new();
    let mut buffer = [0_u8; 1024];
    loop {
        let count = rustix::io::read(&file, &mut buffer[..])?;
        for &byte in buffer.iter().take(count) {
            if byte == b'\n' {
                line(&whole);
                whole.clear();
            } else {
                // A full buffer drops the rest of the line, as its doc comment says.
                let _ = whole.push(byte);
            }
        }
        if count == 0 {
            if !whole.is_empty() {
                line(&whole);
            }
            return Ok(());
        }
    }
}

/// The device node at a path on the host; `None` for anything else, a link included.
pub fn device_of(path: &std::path::Path) -> Option<Device> {
    let stat = rustix::fs::lstat(path).ok()?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let block = kind == FileType::BlockDevice;
    if !block && kind != FileType::CharacterDevice {
        return None;
    }
    let number = stat.st_rdev as rustix::fs::Dev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode() as u32;
    Some(Device { block, major, minor, mode, uid: stat.st_uid, gid: stat.st_gid })
}
