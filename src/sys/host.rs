//! What the kernel says about itself and this machine.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// The fields of uname(2) that are shown or acted on.
#[derive(Clone, Debug)]
pub struct Uname {
    /// The kernel's name for the CPU: `armv7l`, `x86_64`.
    pub machine: String,
    /// The kernel release: `6.1.0-18-arm64`.
    pub release: String,
    /// The host name.
    pub hostname: String,
}

/// uname(2).
pub fn uname() -> Uname {
    let names = rustix::system::uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    Uname {
        machine: text(names.machine()),
        release: text(names.release()),
        hostname: text(names.nodename()),
    }
}

/// Whether this process has the effective user ID 0.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Physical memory in bytes (sysinfo(2)).
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// How many processors this process may run on (sched_getaffinity(2)). A limit of the cgroup's time does not count, nor does
/// it in docker.
pub fn cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

/// 32 random bytes from the kernel (getrandom(2)), good enough for identifiers and keys.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Fills `bytes` with random ones from the kernel (getrandom(2)); waits, once in a boot, until it has enough to make them.
pub fn fill_random(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(count) => bytes = bytes.get_mut(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether `/` is kept in memory, as the kernel's initial rootfs is: pivot_root(2) may then be refused.
pub fn root_is_initial() -> bool {
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::statfs(c"/")
        .is_ok_and(|fs| matches!(fs.f_type as u64 & 0xffff_ffff, RAMFS_MAGIC | TMPFS_MAGIC))
}
