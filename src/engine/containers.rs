//! What there is to say of containers, and their removal.

use std::time::Duration;

use super::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::store::{Container, Status};
use crate::sys::process;
use crate::time;
use crate::units;

/// A line of `ps`.
#[derive(Debug)]
#[allow(missing_docs)] // ps's columns
pub struct ContainerSummary {
    pub id: String,
    pub image: String,
    pub command: String,
    pub created: u64,
    pub status: String,
    pub name: String,
    pub is_running: bool,
}

impl Engine {
    /// All containers, the newest first; without `all` only those that run.
    pub fn containers(&self, all: bool) -> Result<Vec<ContainerSummary>> {
        let containers = self.store.containers()?;
        let shown = containers.iter().filter(|c| all || c.status == Status::Running);
        Ok(shown.map(summary).collect())
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

fn summary(container: &Container) -> ContainerSummary {
    let record = &container.record;
    ContainerSummary {
        id: record.id.clone(),
        image: record.image_name.clone(),
        command: command_line(&record.args),
        created: time::parse(&record.created).unwrap_or(0),
        status: status(container, time::unix_now().0),
        name: record.name.clone(),
        is_running: container.status == Status::Running,
    }
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
