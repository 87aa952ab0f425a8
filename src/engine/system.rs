//! What `info` and `version` tell.

use super::Engine;
use crate::error::Result;
use crate::store::Status;
use crate::sys::host;

/// The facts of `info`.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct SystemInfo {
    pub containers: usize,
    pub running: usize,
    pub images: usize,
    pub kernel: String,
    pub architecture: String,
    pub cpus: usize,
    pub memory_bytes: u64,
    pub hostname: String,
    pub data_root: String,
    pub run_root: String,
}

impl Engine {
    /// Counts and facts about the store and the machine.
    pub fn info(&self) -> Result<SystemInfo> {
        let containers = self.store.containers()?;
        let uname = host::uname();
        Ok(SystemInfo {
            containers: containers.len(),
            running: containers.iter().filter(|c| c.status == Status::Running).count(),
            images: self.store.images()?.len(),
            kernel: uname.release,
            architecture: uname.machine,
            cpus: host::cpus(),
            memory_bytes: host::memory_bytes(),
            hostname: uname.hostname,
            data_root: self.store.data_root().display().to_string(),
            run_root: self.store.run_root().display().to_string(),
        })
    }
}
