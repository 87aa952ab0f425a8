//! What there is to say of containers, and their removal.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::filter::{self, Filter, Labels};
use super::{Engine, images};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::store::{Container, Image, Status};
use crate::sys::process;
use crate::time;
use crate::units;

/// The conditions that `ps` knows.
const FILTERS: &[&str] =
    &["name", "id", "status", "label", "label!", "ancestor", "exited", "before", "since"];
/// The states that docker knows; containers here are in some of them.
const STATES: &[&str] =
    &["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// A line of `ps`.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // ps's columns
pub struct ContainerSummary {
    pub id: String,
    pub image: String,
    /// With `sha256:`.
    pub image_id: String,
    pub command: String,
    pub created: u64,
    /// Docker's word: `running`.
    pub state: &'static str,
    /// Docker's sentence: `Up 2 hours`.
    pub status: String,
    pub name: String,
    pub labels: Labels,
    /// `source:target[:options]`
    pub binds: Vec<String>,
    pub network: String,
    pub is_running: bool,
}

/// Which containers `ps` is to show.
#[derive(Clone, Debug, Default)]
pub struct ContainerQuery {
    /// Those that do not run, too.
    pub all: bool,
    /// At most so many, the newest, whether they run or not.
    pub last: Option<usize>,
    /// All of these hold.
    pub filters: Vec<Filter>,
}

/// What a container takes on the disk.
#[derive(Clone, Copy, Debug)]
pub struct ContainerSize {
    /// What it wrote itself, in bytes.
    pub written_bytes: u64,
    /// With its image, in bytes.
    pub total_bytes: u64,
}

impl Engine {
    /// The containers that a query asks for, the newest first.
    pub fn containers(&self, query: &ContainerQuery) -> Result<Vec<ContainerSummary>> {
        let filters = &query.filters;
        filter::check(filters, FILTERS)?;
        let wanted_states = filter::values(filters, "status");
        if let Some(unknown) = wanted_states.iter().find(|state| !STATES.contains(state)) {
            let message = format!("invalid filter 'status={unknown}'");
            return Err(Error::new(Kind::Invalid, message));
        }
        ["name", "id"].iter().try_for_each(|name| filter::check_parts(filters, name))?;
        // Docker shows what a condition on the state asks for, running or not.
        let all = query.all
            || query.last.is_some()
            || !wanted_states.is_empty()
            || !filter::values(filters, "exited").is_empty();
        let ancestors = self.ancestors(filters)?;
        let created_at = |name: &&str| Ok(self.store.find_container(name)?.record.created);
        let before: Result<Vec<String>> =
            filter::values(filters, "before").iter().map(created_at).collect();
        let since: Result<Vec<String>> =
            filter::values(filters, "since").iter().map(created_at).collect();
        let (before, since) = (before?, since?);
        let mut shown = Vec::new();
        for container in self.store.containers()? {
            let at = &container.record.created;
            let in_time =
                before.iter().all(|bound| at < bound) && since.iter().all(|bound| at > bound);
            let fits = in_time
                && (all || container.status == Status::Running)
                && ancestors.as_ref().is_none_or(|ids| ids.contains(&container.record.image))
                && record_matches(&container, filters)?;
            let summary = self.summary(&container);
            if fits && filter::labels_match(filters, &summary.labels) {
                shown.push(summary);
            }
            if query.last == Some(shown.len()) {
                break;
            }
        }
        Ok(shown)
    }

    /// The IDs of the images that `ancestor` conditions name, and of those that have all their layers and more on top.
    fn ancestors(&self, filters: &[Filter]) -> Result<Option<Vec<String>>> {
        let names = filter::values(filters, "ancestor");
        if names.is_empty() {
            return Ok(None);
        }
        let images = self.store.images()?;
        let mut ids = Vec::new();
        for name in names {
            let ancestor = match self.store.find_image(name) {
                Ok(found) => found,
                // Docker shows nothing then.
                Err(e) if e.kind() == Kind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let below = &ancestor.config.rootfs.diff_ids;
            let descends = |image: &&Image| {
                let layers = &image.config.rootfs.diff_ids;
                image.id == ancestor.id || (layers.len() > below.len() && layers.starts_with(below))
            };
            ids.extend(images.iter().filter(descends).map(|image| image.id.to_string()));
        }
        Ok(Some(ids))
    }

    pub(super) fn summary(&self, container: &Container) -> ContainerSummary {
        let record = &container.record;
        // A container whose image is damaged is shown all the same.
        let image = Digest::parse(&record.image).and_then(|id| self.store.image(&id)).ok();
        ContainerSummary {
            id: record.id.clone(),
            image: record.image_name.clone(),
            image_id: record.image.clone(),
            command: command_line(&record.args),
            created: time::parse(&record.created).unwrap_or(0),
            state: container.status.as_str(),
            status: status(container, time::unix_now().0),
            name: record.name.clone(),
            labels: image.as_ref().map(images::labels).unwrap_or_default(),
            binds: record.binds.clone(),
            network: record.network.clone(),
            is_running: container.status == Status::Running,
        }
    }

    /// What a container takes on the disk: its writable layer is walked.
    pub fn container_size(&self, id: &str) -> Result<ContainerSize> {
        self.size_of(&self.store.find_container(id)?)
    }

    pub(super) fn size_of(&self, container: &Container) -> Result<ContainerSize> {
        let written_bytes = tree_bytes(&container.directory.join("diff"))?;
        let image = Digest::parse(&container.record.image).and_then(|id| self.store.image(&id));
        let image_bytes = image.and_then(|image| self.store.image_bytes(&image))?;
        Ok(ContainerSize { written_bytes, total_bytes: written_bytes + image_bytes })
    }

    /// Removes a container and its writable layer; one that runs only by `force`, which kills it first. Gives its ID.
    pub fn remove_container(&self, name: &str, force: bool) -> Result<String> {
        let container = self.store.find_container(name)?;
        if container.status == Status::Running {
            if !force {
                let message = format!(
                    "cannot remove container {:?}: container is running: stop the container before removing or force remove",
                    format!("/{}", container.record.name)
                );
                return Err(Error::new(Kind::Conflict, message));
            }
            self.kill_and_wait(&container)?;
        }
        // Its runner may have removed it on the way out (--rm).
        self.store.remove_container(&container)?;
        Ok(container.record.id)
    }

    fn kill_and_wait(&self, container: &Container) -> Result<()> {
        if let Some(pid) = self.wait_for_pid(&container.record.id)? {
            process::kill_by_id(pid)
                .context(|| format!("kill container {} (pid {pid})", container.record.name))?;
        }
        self.store.wait_for_runner(container)
    }

    /// The container's process; `None` if it has ended. One that is just being started has none for an instant.
    fn wait_for_pid(&self, id: &str) -> Result<Option<u32>> {
        const ONCE_MORE_AFTER: Duration = Duration::from_millis(5);
        const TRIES: usize = 2_000;
        for _ in 0..TRIES {
            match self.store.find_container(id) {
                Err(e) if e.kind() == Kind::NotFound => return Ok(None),
                Err(e) => return Err(e),
                Ok(found) if found.status != Status::Running => return Ok(None),
                Ok(found) if found.state.pid != 0 => return Ok(Some(found.state.pid)),
                Ok(_) => std::thread::sleep(ONCE_MORE_AFTER),
            }
        }
        // Its runner could not write it down: the disk was full.
        Err(Error::new(Kind::Internal, format!("kill container {id}: its process is not recorded")))
    }
}

fn record_matches(container: &Container, filters: &[Filter]) -> Result<bool> {
    let any = |name: &str, fits: &dyn Fn(&str) -> bool| {
        let values = filter::values(filters, name);
        values.is_empty() || values.into_iter().any(fits)
    };
    for code in filter::values(filters, "exited") {
        if code.parse::<i32>().is_err() {
            return Err(Error::new(Kind::Invalid, format!("invalid filter 'exited={code}'")));
        }
    }
    let record = &container.record;
    let exit_code = container.state.exit_code.to_string();
    let has_ended = container.status == Status::Exited;
    // Docker's names begin with a slash, which its conditions may leave out.
    let named = |part: &str| {
        filter::has_part(part, &record.name) || filter::has_part(part, &format!("/{}", record.name))
    };
    Ok(any("name", &named)
        && any("id", &|part| filter::has_part(part, &record.id))
        && any("status", &|state| state == container.status.as_str())
        && any("exited", &|code| has_ended && code == exit_code))
}

/// The sum of the files' lengths below a directory, in bytes; a file with several names counts once. What goes
/// meanwhile, as a running container may have it, is no error.
pub(super) fn tree_bytes(root: &Path) -> Result<u64> {
    let (mut sum, mut seen) = (0, Vec::new());
    let mut directories = vec![root.to_path_buf()];
    let absent = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Err(e) if absent(&e) => continue,
            entries => entries.context(|| format!("measure {}", directory.display()))?,
        };
        for entry in entries {
            let entry = entry.context(|| format!("measure {}", directory.display()))?;
            let metadata = match entry.metadata() {
                Err(e) if absent(&e) => continue,
                metadata => metadata.context(|| format!("measure {}", entry.path().display()))?,
            };
            if metadata.is_dir() {
                directories.push(entry.path());
                continue;
            }
            let file = (metadata.dev(), metadata.ino());
            if metadata.nlink() == 1 || !seen.contains(&file) {
                sum += metadata.len();
            }
            if metadata.nlink() > 1 {
                seen.push(file);
            }
        }
    }
    Ok(sum)
}

/// As docker shows it: arguments with spaces in quotes, the program as it is.
fn command_line(args: &[String]) -> String {
    let mut line = String::new();
    for (number, arg) in args.iter().enumerate() {
        let quote = if number > 0 && arg.contains(' ') { "'" } else { "" };
        let space = if number > 0 { " " } else { "" };
        line.push_str(&format!("{space}{quote}{arg}{quote}"));
    }
    line
}

/// Docker's sentence: `Up 2 hours`, `Exited (1) 3 days ago`, `Created`.
fn status(container: &Container, now: u64) -> String {
    let state = &container.state;
    let since = |at: &Option<String>| {
        let seconds = at.as_deref().and_then(time::parse).unwrap_or(now);
        units::duration(now.saturating_sub(seconds))
    };
    match container.status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up {}", since(&state.started)),
        Status::Exited if state.finished.is_none() => format!("Exited ({})", state.exit_code),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(&state.finished)),
    }
}
