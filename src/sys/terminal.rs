//! Terminals: a new pseudo-terminal for a container, and the user's own while it is relayed.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios;

/// The two ends of a new pseudo-terminal of the devpts at `/dev/pts` (pty(7)): the master, which does not block, and
/// the slave. Does not allocate.
pub fn open_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(c"/dev/ptmx", flags | OFlags::NONBLOCK, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let slave = open_slave(&master, flags)?;
    Ok((master, slave))
}

/// By TIOCGPTPEER, or by name on kernels before 4.13.
fn open_slave(master: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    use std::fmt::Write;
    let peer_flags = rustix::pty::OpenptFlags::RDWR
        | rustix::pty::OpenptFlags::NOCTTY
        | rustix::pty::OpenptFlags::CLOEXEC;
    if let Ok(slave) = rustix::pty::ioctl_tiocgptpeer(master, peer_flags) {
        return Ok(slave);
    }
    let mut number: libc::c_int = 0;
    // SAFETY: TIOCGPTN writes one int, which `number` is.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &mut number) };
    if result != 0 {
        return Err(super::process::last_error());
    }
    let mut path = heapless::String::<32>::new();
    write!(path, "/dev/pts/{number}\0").map_err(|_| Errno::NAMETOOLONG)?;
    let path = std::ffi::CStr::from_bytes_with_nul(path.as_bytes()).map_err(|_| Errno::INVAL)?;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Makes a terminal the controlling one of the caller's session, which has none yet.
pub fn make_controlling(terminal: &OwnedFd) -> Result<(), Errno> {
    rustix::process::ioctl_tiocsctty(terminal)
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: BorrowedFd) -> bool {
    termios::isatty(fd)
}

/// Rows and columns of a terminal; `None` if it is none, or one that does not know (a serial line).
pub fn size(fd: BorrowedFd) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Gives `to` the size of the terminal `from`. Does nothing if `from` is none.
fn copy_size(from: BorrowedFd, to: BorrowedFd) -> Result<(), Errno> {
    match termios::tcgetwinsize(from) {
        Ok(size) => termios::tcsetwinsize(to, size),
        Err(_) => Ok(()),
    }
}

/// Gives `to` the size of the caller's terminal, whichever of its three standard descriptors is one.
pub fn inherit_size(to: BorrowedFd) -> Result<(), Errno> {
    let terminal = (0..3).map(super::descriptor::standard).find(|fd| is_terminal(*fd));
    terminal.map_or(Ok(()), |terminal| copy_size(terminal, to))
}

/// The user's terminal in raw mode: every key goes to the container. Dropped, it gives the old mode back.
///
/// By the C library, whose TCGETS and TCSETS qemu-user has; rustix uses TCGETS2, which it has not.
pub struct Raw {
    terminal: BorrowedFd<'static>,
    before: libc::termios,
}

impl Raw {
    /// Switches `terminal` to raw mode; `None` if it is no terminal.
    pub fn enter(terminal: BorrowedFd<'static>) -> Result<Option<Raw>, Errno> {
        let mut mode = std::mem::MaybeUninit::uninit();
        // SAFETY: tcgetattr writes one termios, for which `mode` has room.
        if unsafe { libc::tcgetattr(terminal.as_raw_fd(), mode.as_mut_ptr()) } != 0 {
            return Ok(None);
        }
        // SAFETY: tcgetattr has just succeeded, so it has filled `mode`.
        let before = unsafe { mode.assume_init() };
        let mut raw = before;
        // SAFETY: `raw` is an initialised termios.
        unsafe { libc::cfmakeraw(&mut raw) };
        set_mode(terminal, &raw)?;
        Ok(Some(Raw { terminal, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may have hung up: then there is nothing to give back.
        let _ = set_mode(self.terminal, &self.before);
    }
}

fn set_mode(terminal: BorrowedFd, mode: &libc::termios) -> Result<(), Errno> {
    // SAFETY: `mode` is an initialised termios, which tcsetattr only reads.
    let result = unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSADRAIN, mode) };
    if result == 0 { Ok(()) } else { Err(super::process::last_error()) }
}
