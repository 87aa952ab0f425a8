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
    let mut steps =
        vec![Step::DieWithParent, Step::CloseDescriptors, Step::StartSession, Step::SetUmask(0)];
    namespace_steps(spec, &mut steps);
    let (before, after) = root::bind_steps(spec)?;
    let sources = before.len();
    steps.extend(before);
    root::overlay_steps(spec, &mut steps)?;
    root::system_steps(spec, host, &mut steps);
    steps.push(Step::SetUmask(0o022));
    steps.extend(after);
    root::terminal_steps(spec, &mut steps);
    let mounts = root::left_mounts(spec, host)?;
    steps.push(Step::LeaveHost { mounts, is_initial: host.is_initial });
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
    steps.push(Step::EnterWorkingDirectory(path));
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

#[cfg(test)]
mod tests {
    use super::super::Bind;
    use super::*;
    use crate::sys::rooted::Device;

    fn spec() -> Spec {
        Spec {
            hostname: "h".into(),
            lowers: vec!["/l/2".into(), "/l/1".into()],
            upper: "/c/upper".into(),
            work: "/c/work".into(),
            mountpoint: "/m".into(),
            args: vec!["sh".into()],
            ..Spec::default()
        }
    }

    fn host() -> Host {
        let device = Device { block: true, major: 179, minor: 0, mode: 0o660, uid: 0, gid: 6 };
        let devices = vec![(c"/dev/mmcblk0".into(), device), (c"/dev/null".into(), device)];
        Host { is_root: true, devices, ..Host::default() }
    }

    fn describe(change: impl FnOnce(&mut Spec)) -> Vec<String> {
        let mut spec = spec();
        change(&mut spec);
        plan(&spec, &host()).unwrap().describe()
    }

    const PLAIN: &str = r#"tie the container to its parent
close inherited descriptors
start a session
set umask 0000
unshare mount namespace
unshare uts namespace
unshare ipc namespace
unshare cgroup namespace
make mounts private
open the host's root
mount tmpfs on "/m" (nosuid,nodev,noexec,mode=700)
change directory to "/m"
link 0 to /l/2
link 1 to /l/1
link u to /c/upper
link w to /c/work
mount overlay on "/m" (nodev,lowerdir=0:1,upperdir=u,workdir=w)
change directory to "/m"
enter the container's root
mount proc on "/proc" (nosuid,nodev,noexec)
mount sysfs on "/sys" (ro,nosuid,nodev,noexec)
mount tmpfs on "/dev" (nosuid,mode=755,size=65536k)
mount devpts on "/dev/pts" (nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5)
mount tmpfs on "/dev/shm" (nosuid,nodev,noexec,mode=1777,size=65536k)
mount mqueue on "/dev/mqueue" (nosuid,nodev,noexec,optional)
make device "/dev/null" (c 1:3 666, alone)
make device "/dev/zero" (c 1:5 666, alone)
make device "/dev/full" (c 1:7 666, alone)
make device "/dev/random" (c 1:8 666, alone)
make device "/dev/urandom" (c 1:9 666, alone)
make device "/dev/tty" (c 5:0 666, alone)
link /dev/fd to /proc/self/fd
link /dev/stdin to /proc/self/fd/0
link /dev/stdout to /proc/self/fd/1
link /dev/stderr to /proc/self/fd/2
link /dev/core to /proc/kcore
link /dev/ptmx to pts/ptmx
set umask 0022
forbid devices on "/dev"
detach the host's root
make "/proc/bus" read-only
make "/proc/fs" read-only
make "/proc/irq" read-only
make "/proc/sys" read-only
make "/proc/sysrq-trigger" read-only
mask "/proc/asound"
mask "/proc/acpi"
mask "/proc/interrupts"
mask "/proc/kcore"
mask "/proc/keys"
mask "/proc/latency_stats"
mask "/proc/timer_list"
mask "/proc/timer_stats"
mask "/proc/sched_debug"
mask "/proc/scsi"
mask "/sys/firmware"
mask "/sys/devices/virtual/powercap"
set host name "h"
change directory to "/"
look up user
set up stdin, stdout and stderr
bound capabilities (a80425fb)
change user
set capabilities (a80425fb)
tie the container to its parent
reset signals
execute the command"#;

    #[test]
    fn plans_a_plain_container() {
        assert_eq!(describe(|_| {}).join("\n"), PLAIN);
    }

    /// What a change of the spec adds to the plain plan (+) and takes from it (-), in order.
    fn difference(change: impl FnOnce(&mut Spec)) -> Vec<String> {
        let (changed, plain) = (describe(change), PLAIN.lines().collect::<Vec<_>>());
        let gone = plain.iter().filter(|line| !changed.iter().any(|other| other == *line));
        let new = changed.iter().filter(|line| !plain.contains(&line.as_str()));
        gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect()
    }

    fn bind(source: &str, target: &str, read_only: bool) -> Bind {
        Bind { source: source.into(), target: target.into(), read_only }
    }

    #[test]
    fn options_change_what_they_name() {
        assert_eq!(
            difference(|spec| spec.network = Network::None),
            ["+ unshare network namespace", "+ bring lo up"]
        );
        assert_eq!(
            difference(|spec| spec.tty = true),
            [
                "- set up stdin, stdout and stderr",
                "+ open the container's terminal",
                "+ set up stdin, stdout and stderr (terminal)"
            ]
        );
        assert_eq!(difference(|spec| spec.read_only = true), ["+ make \"/\" read-only"]);
        assert_eq!(difference(|spec| spec.no_new_privileges = true), ["+ set no_new_privs"]);
        assert_eq!(difference(|spec| spec.hostname.clear()), ["- set host name \"h\""]);
        assert_eq!(
            difference(|spec| spec.cap_drop = vec!["ALL".into()]),
            [
                "- bound capabilities (a80425fb)",
                "- set capabilities (a80425fb)",
                "+ bound capabilities (0)",
                "+ set capabilities (0)"
            ]
        );
    }

    #[test]
    fn binds_go_from_the_outside_in() {
        let mounts = vec![bind("/h/b", "/a/b", true), bind("/h/a", "/a/", false)];
        assert_eq!(
            difference(|spec| spec.mounts = mounts),
            [
                "+ open mount source \"/h/a\"",
                "+ open mount source \"/h/b\"",
                "+ bind mount on \"/a\" (source 0, nodev)",
                "+ bind mount on \"/a/b\" (source 1, ro, nodev)"
            ]
        );
    }

    #[test]
    fn a_bind_replaces_what_is_mounted_there() {
        let changed = describe(|spec| spec.mounts = vec![bind("/dev", "/dev", false)]);
        let dev: Vec<_> = changed.iter().filter(|line| line.contains("/dev")).collect();
        assert_eq!(
            dev,
            [
                "open mount source \"/dev\"",
                "bind mount on \"/dev\" (source 0, nodev)",
                "mask \"/sys/devices/virtual/powercap\""
            ]
        );
    }

    #[test]
    fn privileged_containers_get_the_host_s_devices() {
        let changed = difference(|spec| spec.privileged = true);
        assert!(changed.contains(&"- mask \"/proc/kcore\"".into()));
        assert!(changed.contains(&"- forbid devices on \"/dev\"".into()));
        assert!(changed.contains(&"+ make device \"/dev/null\" (c 1:3 666)".into()));
        assert!(changed.contains(&"+ make device \"/dev/mmcblk0\" (b 179:0 660)".into()));
        assert!(changed.contains(&"+ set capabilities (ffffffffffffffff)".into()));
        assert_eq!(changed.iter().filter(|line| line.contains("/dev/null")).count(), 2);
    }

    #[test]
    fn names_as_many_layers_as_overlayfs_takes_in_one_page() {
        let change = |spec: &mut Spec| spec.lowers = vec!["/x".repeat(1000).into(); 500];
        let changed = describe(change);
        let overlay = changed.iter().find(|line| line.starts_with("mount overlay")).unwrap();
        assert!(overlay.len() < 4096, "{} bytes of options", overlay.len());
        assert!(changed.contains(&format!("link 499 to {}", "/x".repeat(1000))));
    }

    #[test]
    fn refuses_what_cannot_work() {
        let refusal = |change: &dyn Fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            plan(&spec, &host()).err().unwrap().to_string()
        };
        assert_eq!(
            refusal(&|spec| spec.lowers.clear()),
            "mount overlay of 0 layers: from 1 to 500 are possible"
        );
        assert_eq!(
            refusal(&|spec| spec.lowers = vec!["/x".into(); 501]),
            "mount overlay of 501 layers: from 1 to 500 are possible"
        );
        assert_eq!(
            refusal(&|spec| spec.mounts = vec![bind("/h", "//", false)]),
            "mount on \"//\": the target must be an absolute path other than /"
        );
        assert_eq!(
            refusal(&|spec| spec.upper = "upper".into()),
            "path \"upper\": must be absolute"
        );
        assert_eq!(
            refusal(&|spec| spec.cwd = "srv".into()),
            "the working directory 'srv' is invalid, it needs to be an absolute path"
        );
        assert_eq!(
            refusal(&|spec| spec.hostname = "h".repeat(65)),
            format!("host name \"{}\": longer than 64 bytes", "h".repeat(65))
        );
        let error = plan(&spec(), &Host::default()).err().unwrap();
        assert_eq!(error.to_string(), "run a container: only root can");
    }
}
