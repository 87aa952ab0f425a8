//! A helper program beside this process, with its standard input and output in our hands. std's Command does that too, for
//! 15 KB more: it can also change the environment, the directory and the user.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use super::process::Pid;

unsafe extern "C" {
    /// The caller's environment (environ(7)).
    static environ: *const *mut c_char;
}

/// Starts `program`, looked for in PATH, with one argument and the caller's environment (posix_spawnp(3)). It reads `stdin`,
/// writes `stdout` and shares standard error. No signal is blocked in it, and SIGPIPE, which std ignores, kills it.
pub fn spawn(
    program: &CStr,
    argument: &CStr,
    stdin: &OwnedFd,
    stdout: &OwnedFd,
) -> Result<Pid, Errno> {
    let arguments = [program.as_ptr().cast_mut(), argument.as_ptr().cast_mut(), ptr::null_mut()];
    let attributes = attributes();
    let mut actions = MaybeUninit::uninit();
    let mut pid = 0;
    // One block, for the calls only have a meaning together.
    // SAFETY: the first call initializes the actions, the last one ends them. The program's name and the arguments are
    // strings, the latter in a list that ends in null, and outlive the call; nothing here changes the environment.
    let error = unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        let moved = [(stdin, libc::STDIN_FILENO), (stdout, libc::STDOUT_FILENO)].map(|(fd, to)| {
            libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), fd.as_raw_fd(), to)
        });
        let error = match moved {
            [0, 0] => libc::posix_spawnp(
                &mut pid,
                program.as_ptr(),
                actions.as_ptr(),
                &attributes,
                arguments.as_ptr(),
                environ,
            ),
            _ => libc::ENOMEM,
        };
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        error
    };
    // There is no error 0, and rustix dies of being asked for it.
    Pid::from_raw(pid).filter(|_| error == 0).ok_or_else(|| Errno::from_raw_os_error(error))
}

fn attributes() -> libc::posix_spawnattr_t {
    let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
    let mut attributes = MaybeUninit::uninit();
    let mut signals = MaybeUninit::uninit();
    // One block, for the calls only have a meaning together.
    // SAFETY: the calls that begin initialize what the others change or copy; all of them fail only on numbers that are
    // no flag or signal.
    unsafe {
        libc::posix_spawnattr_init(attributes.as_mut_ptr());
        libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), flags as libc::c_short);
        libc::sigemptyset(signals.as_mut_ptr());
        libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), signals.as_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGPIPE);
        libc::posix_spawnattr_setsigdefault(attributes.as_mut_ptr(), signals.as_ptr());
        attributes.assume_init()
    }
}
