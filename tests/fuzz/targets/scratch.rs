//! An empty directory in memory for each run of a target.

use std::fs::{self, File};
use std::path::PathBuf;

/// A directory on tmpfs that is gone with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        let path = PathBuf::from(format!("/dev/shm/vaquita-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("/dev/shm is there");
        Scratch(path)
    }

    #[allow(dead_code)] // not every target has a stage
    pub fn stage(&self) -> File {
        let path = self.0.join("stage");
        fs::create_dir_all(&path).unwrap();
        File::open(path).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
