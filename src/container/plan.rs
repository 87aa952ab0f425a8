//! The plan: every step from the fork to the container's command, in order. Pure: the same spec and host give the same
//! plan, and nothing is touched.

use crate::error::{Error, Kind, Result};
use crate::sys::process::Namespace;

use super::account::Request;
use super::command::{Command, c_string, command};
use super::step::Step;
use super::{Host, Network, Spec, capability, root};

/// The longest host name in bytes (sethostname(2)).
const MAX_HOSTNAME_BYTES: usize = 64;

/// What a container's start will do.
pub struct Plan {
    /// What the child does, in order; the last one is `Execute`.
    pub(super) steps: Vec<Step>,
    /// What it executes.
    pub(super) command: Command,
    /// How many host paths it opens.
    pub(super) sources: usize,
    /// Whether it sends the master of a terminal.
    pub(super) tty: bool,
    /// Whether the caller's standard input is the container's.
    pub(super) stdin: bool,
}

impl Plan {
    /// The steps in words, one each, with their options: for tests and for `--debug`.
    pub fn describe(&self) -> Vec<String> {
        self.steps.iter().map(|step| format!("{step:#}")).collect()
    }
}

/// Plans the start of a container. Refuses what cannot work on any machine, and a caller that is not root.
pub fn plan(spec: &Spec, host: &Host) -> Result<Plan> {
    if !host.is_root {
        return Err(Error::new(Kind::Unsupported, "run a container: only root can"));
    }
    let command = command(spec)?;
    let mut steps = vec![Step::DieWithParent, Step::StartSession, Step::SetUmask(0)];
    namespace_steps(spec, &mut steps);
    let (before, after) = root::bind_steps(spec)?;
    let sources = before.len();
    steps.extend(before);
    root::overlay_steps(spec, &mut steps)?;
    root::system_steps(spec, host, &mut steps);
    steps.push(Step::SetUmask(0o022));
    steps.extend(after);
    steps.push(Step::LeaveHost(host.initial_mounts.clone()));
    root::masking_steps(spec, &mut steps);
    identity_steps(spec, &mut steps)?;
    process_steps(spec, &mut steps)?;
    Ok(Plan { steps, command, sources, tty: spec.tty, stdin: spec.stdin })
}

fn namespace_steps(spec: &Spec, steps: &mut Vec<Step>) {
    steps.extend([Namespace::Mount, Namespace::Uts, Namespace::Ipc].map(Step::Unshare));
    if spec.network == Network::None {
        steps.push(Step::Unshare(Namespace::Network));
    }
    steps.push(Step::Unshare(Namespace::Cgroup));
    steps.extend([Step::MakeMountsPrivate, Step::HoldHostRoot]);
}

/// Host name, loopback, working directory: the last that needs a writable root.
fn identity_steps(spec: &Spec, steps: &mut Vec<Step>) -> Result<()> {
    if spec.hostname.len() > MAX_HOSTNAME_BYTES {
        let message =
            format!("host name \"{}\": longer than {MAX_HOSTNAME_BYTES} bytes", spec.hostname);
        return Err(Error::new(Kind::Invalid, message));
    }
    if !spec.hostname.is_empty() {
        steps.push(Step::SetHostname(c_string(spec.hostname.as_bytes(), "host name")?));
    }
    if spec.network == Network::None {
        steps.push(Step::BringLoopbackUp);
    }
    let cwd = if spec.cwd.is_empty() { "/" } else { spec.cwd.as_str() };
    if !cwd.starts_with('/') {
        let message =
            format!("the working directory '{cwd}' is invalid, it needs to be an absolute path");
        return Err(Error::new(Kind::Invalid, message));
    }
    let path = c_string(cwd.as_bytes(), "working directory")?;
    steps.push(Step::ChangeDirectory { path, make: true });
    if spec.read_only {
        steps.push(Step::MakeReadOnly(c"/"));
    }
    Ok(())
}

/// Everything about the process itself. The user comes late: most of the above needs root's capabilities.
fn process_steps(spec: &Spec, steps: &mut Vec<Step>) -> Result<()> {
    let mask = match spec.privileged {
        true => capability::ALL,
        false => capability::resolve(&spec.cap_add, &spec.cap_drop)?,
    };
    let user = Request::parse(spec.user.as_deref().unwrap_or_default())?;
    steps.push(Step::LookUpUser(user));
    steps.push(Step::SetStdio { tty: spec.tty, stdin: spec.stdin });
    steps.push(Step::CloseDescriptors);
    steps.push(Step::BoundCapabilities(mask));
    steps.push(Step::ChangeUser);
    steps.push(Step::ReduceCapabilities(mask));
    if spec.no_new_privileges {
        steps.push(Step::ForbidNewPrivileges);
    }
    // Once more: a change of user clears it.
    steps.push(Step::DieWithParent);
    steps.push(Step::ResetSignals);
    steps.push(Step::Execute);
    Ok(())
}
