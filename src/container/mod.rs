//! Containers: from what the engine resolved to a running process.
//!
//! `plan` turns a [`Spec`] into steps, without touching the system; `start` forks, and the child walks the steps one by
//! one and executes the command; [`Running::wait`] relays signals and the terminal until it ends. There is no daemon
//! and no helper process: the container's process 1 is a child of the caller, and dies with it.
//!
//! Nothing here knows images, a store or a network beyond `lo`: lower directories, the files to show as
//! /etc/resolv.conf and the rest come ready in the `Spec`. Cgroups are not mounted and seccomp filters not set.

mod account;
mod capability;
mod command;
mod elf;
mod enter;
mod failure;
mod host;
mod plan;
mod relay;
mod root;
mod start;
mod step;

use std::path::PathBuf;

pub use host::Host;
pub use plan::{Plan, plan};
pub use start::{Running, start};

/// Everything about a container that its start needs; pure data.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Its host name; empty leaves the host's own.
    pub hostname: String,
    /// The layers' directories, the top one first; at least one, at most 500.
    pub lowers: Vec<PathBuf>,
    /// Where overlayfs keeps what the container changes, on the same file system as `work`.
    pub upper: PathBuf,
    /// An empty directory for overlayfs itself.
    pub work: PathBuf,
    /// A directory to mount on; seen by the container's child only, so every container can have the same.
    pub mountpoint: PathBuf,
    /// Whether the root is mounted read-only.
    pub read_only: bool,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`; of equal names the last counts. PATH, HOSTNAME, HOME and, on a terminal, TERM are added where
    /// missing.
    pub env: Vec<String>,
    /// The working directory, made if missing; empty is `/`.
    pub cwd: String,
    /// `user`, `uid`, `user:group`; `None` is user 0.
    pub user: Option<String>,
    /// Host files and directories to show inside.
    pub mounts: Vec<Bind>,
    /// Which network it has.
    pub network: Network,
    /// Whether it gets a terminal of its own.
    pub tty: bool,
    /// Whether it gets the caller's standard input; else its input is empty.
    pub stdin: bool,
    /// Whether exec can no longer give privileges.
    pub no_new_privileges: bool,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// Capabilities beyond the default; `ALL` is known.
    pub cap_add: Vec<String>,
    /// Capabilities of the default to leave out; `ALL` is known.
    pub cap_drop: Vec<String>,
}

/// One host file or directory shown in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// An existing path on the host.
    pub source: PathBuf,
    /// An absolute path in the container, made if missing.
    pub target: String,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// Which network a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The caller's.
    #[default]
    Host,
    /// Only a loopback interface.
    None,
}
