//! Containers: a record of what was asked, a record of what became of it, and the writable layer.
//!
//! Whether a container runs is not written down but held: its runner keeps a lock as long as it lives, so a crash or a
//! reboot cannot leave a record that claims a running container.

use std::path::{Path, PathBuf};

use fs_err as fs;
use miniserde::{Deserialize, Serialize};

use super::record;
use super::{Lock, MountedTree, Store, list, make_directory};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::host;
use crate::sys::lock::Mode;
use crate::time;

/// What the user asked for: written once, when the container is created.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)] // the command line's names
pub struct ContainerRecord {
    pub version: u32,
    pub id: String,
    pub name: String,
    /// The image ID, and the name under which the user asked for it.
    pub image: String,
    pub image_name: String,
    pub created: String,
    pub hostname: String,
    pub args: Vec<String>,
    /// How many of `args` are the entry point; the others are the command. None if it is not known.
    pub entrypoint_words: Option<u32>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// `source:target[:ro]`, as on the command line.
    pub binds: Vec<String>,
    /// `host` or `none`.
    pub network: String,
    pub tty: bool,
    pub stdin: bool,
    pub auto_remove: bool,
    pub read_only: bool,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
}

/// What became of it: replaced at each change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContainerState {
    pub version: u32,
    pub pid: u32,
    pub started: Option<String>,
    pub finished: Option<String>,
    pub exit_code: i32,
    pub error: String,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Its runner holds its lock.
    Running,
    /// It ended, or its runner did.
    Exited,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Exited => "exited",
        }
    }
}

/// A container of the store.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Container {
    pub record: ContainerRecord,
    pub state: ContainerState,
    pub status: Status,
    /// `diff/`, `work/`, `rootfs/` and `etc/` are in here.
    pub directory: PathBuf,
}

/// A container that was just made, and the lock that says it runs.
pub struct NewContainer {
    /// The container.
    pub container: Container,
    /// Held by whoever runs it, as long as it runs.
    pub running: Lock,
}

/// The exit code shown for a container whose runner died without a word.
const LOST_EXIT_CODE: i32 = 255;

impl Store {
    /// Makes a container of an image that is here; fills in ID, creation time and, if empty, name and host name.
    /// Refused if the name is taken. It comes locked: the caller is its runner.
    pub fn create_container(&self, mut new: ContainerRecord) -> Result<NewContainer> {
        let random = host::random().context(|| "make a container ID".into())?;
        new.version = record::VERSION;
        new.id = Digest::of(&random).hex();
        new.created = time::now();
        if new.hostname.is_empty() {
            new.hostname = new.id.chars().take(12).collect();
        }
        if new.name.is_empty() {
            new.name = format!("vaquita_{}", new.id.chars().take(8).collect::<String>());
        }
        let stage = self.stage()?;
        for name in ["diff", "work", "rootfs", "etc"] {
            let path = stage.path().join(name);
            make_directory(&path).context(|| "create a container".into())?;
        }
        let state = ContainerState { version: record::VERSION, ..Default::default() };
        record::write(stage.path(), "container.json", &new)?;
        record::write(stage.path(), "state.json", &state)?;

        let _publish = self.publish()?;
        self.image(&Digest::parse(&new.image)?)?;
        self.remove_orphans()?;
        self.refuse_taken_name(&new.name)?;
        let Some(running) = self.container_lock(&new.id, Mode::TryExclusive)? else {
            return Err(Error::new(Kind::Internal, "a fresh container is locked"));
        };
        let directory = self.container_path(&new.id);
        stage.publish(&directory)?;
        let container = Container { record: new, state, status: Status::Created, directory };
        Ok(NewContainer { container, running })
    }

    /// Removes `--rm` containers whose runner died before it could: a power cut must not keep their names taken. The
    /// caller holds the publish lock.
    fn remove_orphans(&self) -> Result<()> {
        for container in self.containers()?.iter().filter(|c| c.record.auto_remove) {
            // Shared: whoever asks meanwhile whether it runs must not take us for its runner.
            let id = &container.record.id;
            let is_it = |tree: &MountedTree| matches!(tree, MountedTree::Container(mounted) if mounted == id);
            if let Some(_lock) = self.container_lock(id, Mode::TryShared)?
                && self.refuse_if_mounted("", &is_it).is_ok()
            {
                self.take_away(&container.directory)?;
            }
        }
        Ok(())
    }

    fn refuse_taken_name(&self, name: &str) -> Result<()> {
        match self.containers()?.into_iter().find(|c| c.record.name == name) {
            None => Ok(()),
            Some(other) => {
                let id = &other.record.id;
                let message = format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". \
                     You have to remove (or rename) that container to be able to reuse that name."
                );
                Err(Error::new(Kind::Conflict, message))
            }
        }
    }

    fn container_path(&self, id: &str) -> PathBuf {
        self.path("containers").join(id)
    }

    pub(super) fn container_lock(&self, id: &str, mode: Mode) -> Result<Option<Lock>> {
        self.lock(&format!("container-{id}"), mode)
    }

    /// All containers, the newest first. A damaged one is reported and left where it is.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in list(&self.path("containers"))? {
            match self.read_container(&self.container_path(&id)) {
                Ok(found) => containers.push(found),
                Err(e) => log::warn!("{e}"),
            }
        }
        containers.sort_by(|a, b| b.record.created.cmp(&a.record.created));
        Ok(containers)
    }

    fn read_container(&self, directory: &Path) -> Result<Container> {
        let missing = |name: &str| {
            Error::new(
                Kind::Corrupt,
                format!("container {}: {name} is missing", directory.display()),
            )
        };
        let record: ContainerRecord = record::read(&directory.join("container.json"))?
            .ok_or_else(|| missing("container.json"))?;
        let mut state: ContainerState =
            record::read(&directory.join("state.json"))?.ok_or_else(|| missing("state.json"))?;
        let runner_lives = self.container_lock(&record.id, Mode::TryShared)?.is_none();
        let status = match (&state.started, &state.finished) {
            // From its creation on: nobody may take it away while it is being started.
            (_, None) if runner_lives => Status::Running,
            (None, _) => Status::Created,
            (Some(_), None) => {
                state.exit_code = LOST_EXIT_CODE;
                Status::Exited
            }
            (Some(_), Some(_)) => Status::Exited,
        };
        Ok(Container { record, state, status, directory: directory.into() })
    }

    /// The container that a user means: an ID, a name, or a prefix of an ID that is unique.
    pub fn find_container(&self, text: &str) -> Result<Container> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let all = self.containers()?;
        let exact = all.iter().find(|c| c.record.id == text);
        if let Some(found) = exact.or_else(|| all.iter().find(|c| c.record.name == name)) {
            return Ok(found.clone());
        }
        let mut matches = all.iter().filter(|c| !text.is_empty() && c.record.id.starts_with(text));
        match (matches.next(), matches.next()) {
            (Some(found), None) => Ok(found.clone()),
            (Some(_), Some(_)) => {
                let message = format!("multiple containers found with provided prefix: {text}");
                Err(Error::new(Kind::Invalid, message))
            }
            _ => Err(Error::new(Kind::NotFound, format!("No such container: {text}"))),
        }
    }

    /// Replaces the state of a container; on success it survives a power cut.
    pub fn set_state(&self, container: &mut Container, state: ContainerState) -> Result<()> {
        container.state = ContainerState { version: record::VERSION, ..state };
        record::write(&container.directory, "state.json", &container.state)
    }

    /// Removes a container that does not run, with its writable layer. The caller may hold its lock.
    pub fn remove_container(&self, container: &Container) -> Result<()> {
        {
            let _publish = self.publish()?;
            let id = &container.record.id;
            self.refuse_if_mounted(
                &format!("unable to remove container {}", container.record.name),
                &|tree| matches!(tree, MountedTree::Container(mounted) if mounted == id),
            )?;
            self.take_away(&container.directory)?;
        }
        let lock = self.run_root.join("lock").join(format!("container-{}", container.record.id));
        // Nothing refers to it any more, and a file left in the run root is gone with the next boot.
        let _ = fs::remove_file(lock);
        Ok(())
    }

    /// Waits until the container's runner has ended.
    pub fn wait_for_runner(&self, container: &Container) -> Result<()> {
        self.container_lock(&container.record.id, Mode::Exclusive).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{clean_up, store_with_an_image};
    use super::*;

    fn create(store: &Store, image: &Digest, auto_remove: bool) -> Result<NewContainer> {
        let (image, name) = (image.to_string(), "app".to_string());
        let _work = store.work().unwrap();
        store.create_container(ContainerRecord { image, name, auto_remove, ..Default::default() })
    }

    #[test]
    fn a_name_is_free_again_when_the_runner_of_a_removable_container_died() {
        let (store, image, _) = store_with_an_image("orphan");
        let first = create(&store, &image, true).unwrap();
        assert_eq!(create(&store, &image, true).err().unwrap().kind(), Kind::Conflict);
        drop(first);
        let second = create(&store, &image, false).unwrap();
        assert_eq!(store.containers().unwrap().len(), 1);
        drop(second);
        assert_eq!(create(&store, &image, false).err().unwrap().kind(), Kind::Conflict);
        clean_up(&store);
    }

    #[test]
    fn a_container_that_is_being_started_counts_as_running() {
        let (store, image, _) = store_with_an_image("starting");
        let new = create(&store, &image, false).unwrap();
        assert_eq!(store.find_container("app").unwrap().status, Status::Running);
        assert_eq!(store.remove_image(&image, &[], true).unwrap_err().kind(), Kind::Conflict);
        drop(new);
        assert_eq!(store.find_container("app").unwrap().status, Status::Created);
        clean_up(&store);
    }
}
