//! Processes: fork, exec, wait, signals sent, credentials and the attributes that exec keeps.
//!
//! What runs between fork and exec may neither allocate nor take a lock: another thread of the parent may have held
//! it. Everything here that a child calls keeps to that.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::io::Errno;
pub use rustix::process::Pid;
use rustix::process::{self, PidfdFlags, Signal, WaitOptions, WaitStatus};
use rustix::thread::{self, Gid, ThreadNameSpaceType, Uid, UnshareFlags};

/// A namespace that a container has of its own (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Namespace {
    Pid,
    Mount,
    Uts,
    Ipc,
    Network,
    Cgroup,
}

/// Moves the caller into a new namespace; for `Pid`, its next children (unshare(2)). Works under qemu-user, which has
/// no clone with namespace flags.
pub fn unshare(namespace: Namespace) -> Result<(), Errno> {
    let flag = match namespace {
        Namespace::Pid => UnshareFlags::NEWPID,
        Namespace::Mount => UnshareFlags::NEWNS,
        Namespace::Uts => UnshareFlags::NEWUTS,
        Namespace::Ipc => UnshareFlags::NEWIPC,
        Namespace::Network => UnshareFlags::NEWNET,
        Namespace::Cgroup => UnshareFlags::NEWCGROUP,
    };
    // SAFETY: the one hazard that rustix names is `UnshareFlags::FILES`, which is not among the flags above.
    unsafe { thread::unshare_unsafe(flag) }
}

/// Gives the calling thread a working directory of its own: from now on it may change it without the other threads. Works
/// under qemu-user.
pub fn unshare_working_directory() -> Result<(), Errno> {
    // SAFETY: as in `unshare`.
    unsafe { thread::unshare_unsafe(UnshareFlags::FS) }
}

/// Lets the calling thread's next children be born in its own pid namespace again, after `unshare(Pid)`.
/// Needs Linux 5.8 (setns on a pidfd); on older kernels the caller can start no further process.
pub fn rejoin_pid_namespace() -> Result<(), Errno> {
    let own = process::pidfd_open(process::getpid(), PidfdFlags::empty())?;
    thread::move_into_thread_name_spaces(
        std::os::fd::AsFd::as_fd(&own),
        ThreadNameSpaceType::PROCESS_ID,
    )
}

/// Forks; the child runs `child` and exits with what it returns, without running any destructor or exit handler of
/// the parent's. `child` must neither allocate nor take a lock.
pub fn fork(child: &mut dyn FnMut() -> i32) -> Result<Pid, Errno> {
    // SAFETY: fork has no condition on memory; what the child may do afterwards is this function's contract.
    match unsafe { libc::fork() } {
        0 => {
            let code = child();
            // SAFETY: _exit takes any number and ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(last_error),
    }
}

/// The argument or environment list of an exec, laid out before the fork.
pub struct ExecList {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl ExecList {
    /// `strings` in order, with room for one more that `append` may fill in.
    pub fn new(strings: Vec<CString>) -> ExecList {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.extend([ptr::null(), ptr::null()]);
        ExecList { strings, pointers }
    }
}

/// Replaces the process by `program` (execve(2)); returns only the error. `last` is one more string for the
/// environment.
pub fn exec(
    program: &CStr,
    arguments: &ExecList,
    environment: &mut ExecList,
    last: Option<&CStr>,
) -> Errno {
    let spare = environment.strings.len();
    if let (Some(slot), Some(last)) = (environment.pointers.get_mut(spare), last) {
        *slot = last.as_ptr();
    }
    // SAFETY: both lists end in a null pointer (ExecList::new puts two, one may be overwritten here) and point into
    // strings that `arguments`, `environment` and `last` keep alive through the call.
    unsafe {
        libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr())
    };
    last_error()
}

/// The error number of the last libc call.
pub(super) fn last_error() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit, with this code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl Ended {
    fn of(status: WaitStatus) -> Option<Ended> {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Ended::Exited(code as u8)),
            (_, Some(signal)) => Some(Ended::Killed(signal as u8)),
            _ => None,
        }
    }
}

/// Collects `child` if it has ended, or waits until it has where `block` says so.
pub fn wait(child: Pid, block: bool) -> Result<Option<Ended>, Errno> {
    let options = if block { WaitOptions::empty() } else { WaitOptions::NOHANG };
    let found = rustix::io::retry_on_intr(|| process::waitpid(Some(child), options))?;
    Ok(found.and_then(|(_, status)| Ended::of(status)))
}

/// Collects any ended child, without waiting: what process 1 of a machine must do for orphans.
pub fn reap() -> Result<Option<(Pid, Ended)>, Errno> {
    let found = rustix::io::retry_on_intr(|| process::wait(WaitOptions::NOHANG))?;
    Ok(found.and_then(|(pid, status)| Ended::of(status).map(|ended| (pid, ended))))
}

/// Whether the caller is process 1 of its pid namespace.
pub fn is_init() -> bool {
    process::getpid().is_init()
}

/// Sends a signal by number; 0 only asks whether the process is there.
pub fn kill(pid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill reads nothing from memory.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Sends SIGKILL to the process with this ID; one that is gone already is as good as killed.
pub fn kill_by_id(pid: u32) -> std::io::Result<()> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill(pid, libc::SIGKILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// SIGKILL for the caller when the thread that forked it ends (prctl(2), PR_SET_PDEATHSIG). A change of user clears it.
pub fn die_with_parent() -> Result<(), Errno> {
    process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// A session of its own, without a controlling terminal (setsid(2)) and with an empty keyring (keyctl(2),
/// KEYCTL_JOIN_SESSION_KEYRING): the caller's may hold keys. A kernel or emulator without keyrings has none to leave.
pub fn start_session() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    process::setsid()?;
    // SAFETY: the operation takes a name, and null for a keyring without one; it reads nothing else from memory.
    let joined = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>())
    };
    match if joined < 0 { last_error() } else { return Ok(()) } {
        Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP => Ok(()),
        errno => Err(errno),
    }
}

/// Sets the file mode creation mask.
pub fn set_umask(mask: u32) {
    process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Sets the host name of the caller's UTS namespace.
pub fn set_hostname(name: &CStr) -> Result<(), Errno> {
    rustix::system::sethostname(name.to_bytes())
}

/// Changes the working directory.
pub fn change_directory(path: &CStr) -> Result<(), Errno> {
    process::chdir(path)
}

/// Changes the working directory to an open one, O_PATH or not.
pub fn change_directory_to(directory: &OwnedFd) -> Result<(), Errno> {
    process::fchdir(directory)
}

/// The most supplementary groups that `change_user` sets.
pub const MAX_GROUPS: usize = 64;

/// Becomes user `uid` and group `gid` with `groups`, for good: real, effective and saved (credentials(7)). Leaving
/// user 0 clears the permitted, effective and ambient capabilities.
pub fn change_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    let mut list = heapless::Vec::<Gid, MAX_GROUPS>::new();
    for &group in groups {
        list.push(Gid::from_raw(group)).map_err(|_| Errno::INVAL)?;
    }
    thread::set_thread_groups(&list)?;
    let gid = Gid::from_raw(gid);
    thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    thread::set_thread_res_uid(uid, uid, uid)
}

/// Keeps the process and its children from gaining privileges by exec (PR_SET_NO_NEW_PRIVS).
pub fn set_no_new_privileges() -> Result<(), Errno> {
    thread::set_no_new_privs(true)
}

/// std names its threads by this function. musl's own writes the name's path with snprintf, and brings 12 KB of printf into
/// the binary; std calls it for the calling thread alone, for which prctl does.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_caller: libc::pthread_t, name: *const libc::c_char) -> i32 {
    // SAFETY: PR_SET_NAME reads a string that ends in a zero, 16 bytes of it at most; std gives one.
    unsafe { libc::prctl(libc::PR_SET_NAME, name) }
}
