//! The boundary to the kernel: the only module with unsafe code, and the only one that knows libc's constants.
//! Functions here do one thing, take descriptors and plain values, and return the kernel's error number; which object
//! failed, and what to do about it, is for the caller to say.
#![allow(unsafe_code)]

pub mod beneath;
pub mod capability;
pub mod channel;
pub mod descriptor;
pub mod entry;
pub mod examine;
pub mod fault;
pub mod file;
pub mod host;
pub mod interface;
pub mod lock;
pub mod mount;
pub mod node;
pub mod process;
pub mod readiness;
pub mod remove;
pub mod resolve;
pub mod rooted;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod staged;
pub mod sync;
pub mod terminal;
#[cfg(all(target_arch = "arm", panic = "immediate-abort"))]
mod unwind;

pub use rustix::io::Errno;
