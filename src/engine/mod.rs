//! The verbs: pull, load, save, delta, run and the rest, and the only place where registry, store and container meet.
//!
//! A verb takes what the user meant as plain data and returns what there is to say; it prints nothing. What happens on
//! the way goes to a `Report`, so that a terminal, a pipe and later the API can each show it in their own way.

mod basis;
mod check;
mod commit;
mod containers;
mod delta;
mod examine;
mod export;
mod fetch;
mod filter;
mod history;
mod images;
mod import;
mod index;
mod inspect;
mod lanes;
mod load;
mod mount;
mod patch;
mod payload;
mod pipe;
mod progress;
mod prune;
mod publish;
mod publish_index;
mod pull;
mod push;
mod remove;
mod run;
mod save;
mod system;
mod usage;

use std::path::{Path, PathBuf};

pub use check::{CheckOptions, CheckSummary, Outcome};
pub use commit::CommitOptions;
pub use containers::{ContainerQuery, ContainerSize, ContainerSummary};
pub use delta::DeltaSummary;
pub use examine::{Examined, ExaminedLayer};
pub use filter::{Filter, Labels};
pub use history::HistoryStep;
pub use images::{ImageSummary, NO_TAG};
pub use import::ImportOptions;
pub use inspect::Inspectable;
pub use load::Loaded;
pub use patch::Deltas;
pub use progress::{Event, Report};
pub use prune::Pruned;
pub use publish::{DeltaPlan, PublishedDelta};
pub use pull::Pulled;
pub use push::Pushed;
pub use remove::Removed;
pub use run::RunOptions;
pub use system::SystemInfo;
pub use usage::{ImageUsage, Usage};

pub use crate::store::{Finding, Remedy};

use crate::error::{Error, Kind, Result};
use crate::oci::platform::Platform;
use crate::registry;
use crate::store::Store;
use crate::sys::host;

/// What every verb works on.
pub struct Engine {
    store: Store,
    /// Read only, for the bases of deltas.
    basis_store: Option<Store>,
    registry: registry::Options,
    /// Layers fetched at a time; `None`: as many as suit the machine.
    pub max_concurrent_downloads: Option<u32>,
    /// Which deltas a pull uses that does not say so itself.
    pub deltas: Deltas,
}

/// Layers fetched at a time where nobody says how many, as Docker does.
const CONCURRENT_DOWNLOADS: u64 = 3;
/// The most: a layer may have 300 descriptors open, and 1024 are the usual limit.
const MAX_CONCURRENT_DOWNLOADS: u64 = 3;
/// Memory of the machine for each of them: a layer takes under 2 MiB, and applications should not feel it.
const BYTES_FOR_A_DOWNLOAD: u64 = 64 << 20;

impl Engine {
    /// The engine over one data root; nothing is created before something is written.
    pub fn open(data_root: &Path, run_root: &Path, registry: registry::Options) -> Result<Engine> {
        let store = Store::open(data_root, run_root)?;
        let deltas = Deltas::default();
        Ok(Engine { store, basis_store: None, registry, max_concurrent_downloads: None, deltas })
    }

    /// Lets deltas start from images of another data root as well, which is only read.
    pub fn read_bases_of(&mut self, data_root: &Path) -> Result<()> {
        let store = Store::open(data_root, self.store.run_root())?;
        if !data_root.join("version").exists() {
            let message = format!("delta data root {}: no store is there", data_root.display());
            return Err(Error::new(Kind::NotFound, message));
        }
        self.basis_store = Some(store);
        Ok(())
    }

    fn concurrency(&self) -> usize {
        let suiting = || (host::memory_bytes() / BYTES_FOR_A_DOWNLOAD).min(CONCURRENT_DOWNLOADS);
        let count = self.max_concurrent_downloads.map_or_else(suiting, u64::from);
        count.clamp(1, MAX_CONCURRENT_DOWNLOADS) as usize
    }

    /// The platform of this machine.
    pub fn platform() -> Platform {
        Platform::of_machine(&host::uname().machine, std::env::consts::ARCH)
    }
}

/// The data root where none is named.
pub fn default_data_root() -> PathBuf {
    PathBuf::from("/var/lib/vaquita")
}

/// The run root where none is named.
pub fn default_run_root() -> PathBuf {
    PathBuf::from("/run/vaquita")
}
