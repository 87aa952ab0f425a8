//! `run`: image and options -> container record -> container -> exit code, with no daemon: this process is the runner.

use std::io::IsTerminal;
use std::path::PathBuf;

use fs_err as fs;

use super::Engine;
use super::progress::{Event, Report};
use crate::container::{self, Bind, Host, Network, Running, Spec};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::oci::config::Execution;
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::store::{Container, ContainerRecord, ContainerState, Image, NewContainer};
use crate::time;

/// What the user asked of `run`, beside the image: empty means "as the image says".
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the command line's names
pub struct RunOptions {
    pub image: String,
    pub command: Vec<String>,
    pub entrypoint: Option<String>,
    pub name: String,
    pub hostname: String,
    /// `NAME=value`, or `NAME` to take the value from this process.
    pub env: Vec<String>,
    /// `source:target[:ro|rw]`.
    pub volumes: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// `host`, `none` or empty.
    pub network: String,
    pub tty: bool,
    pub stdin: bool,
    pub remove: bool,
    pub read_only: bool,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub platform: Option<Platform>,
}

impl Engine {
    /// Runs a container to its end and gives its exit code; pulls the image if it is not here.
    pub fn run(&self, options: &RunOptions, report: Report) -> Result<i32> {
        if options.tty && options.stdin && !std::io::stdin().is_terminal() {
            return Err(Error::new(Kind::Invalid, "the input device is not a TTY"));
        }
        let image = self.find_or_pull(options, report)?;
        let record = container_record(options, &image)?;
        // Until the container is recorded, no layer may be collected; from then on its record keeps its image.
        let work = self.store.work()?;
        let NewContainer { mut container, running } = self.store.create_container(record)?;
        drop(work);
        let result = self.run_created(&mut container);
        if container.record.auto_remove {
            let removed = self.store.remove_container(&container);
            drop(running);
            let code = result?;
            removed?;
            return Ok(code);
        }
        result
    }

    fn find_or_pull(&self, options: &RunOptions, report: Report) -> Result<Image> {
        match self.store.find_image(&options.image) {
            Err(e) if e.kind() == Kind::NotFound => {
                let reference = Reference::parse(&options.image)?;
                report(Event::Missing { reference: reference.familiar() });
                let platform = options.platform.clone().unwrap_or_else(Engine::platform);
                let pulled = self.pull(&reference, &platform, self.deltas, report)?;
                self.store.image(&pulled.image)
            }
            found => found,
        }
    }

    fn run_created(&self, container: &mut Container) -> Result<i32> {
        let result = self.start(container);
        let running = match result {
            Ok(running) => running,
            Err(e) => {
                let exit_code = start_failure_code(&e);
                let error = e.to_string();
                self.store.set_state(
                    container,
                    ContainerState { exit_code, error, ..Default::default() },
                )?;
                return Err(e);
            }
        };
        let state = ContainerState {
            pid: running.pid().unsigned_abs(),
            started: Some(time::now()),
            ..Default::default()
        };
        self.set_state_or_warn(container, state.clone());
        let exit_code = i32::from(running.wait()?);
        let finished = Some(time::now());
        self.set_state_or_warn(container, ContainerState { pid: 0, finished, exit_code, ..state });
        Ok(exit_code)
    }

    /// A container that fills the disk still runs, and its exit code is still the answer.
    fn set_state_or_warn(&self, container: &mut Container, state: ContainerState) {
        if let Err(e) = self.store.set_state(container, state) {
            log::warn!("{e}");
        }
    }

    fn start(&self, container: &Container) -> Result<Running> {
        let binds = self.write_network_files(container)?;
        let spec = self.spec(container, binds)?;
        let plan = container::plan(&spec, &Host::probe(spec.privileged))?;
        container::start(&plan)
    }

    /// The layers of an image as overlayfs wants them: the top one first.
    pub(super) fn lowers(&self, image: &str) -> Result<Vec<PathBuf>> {
        let image = self.store.image(&Digest::parse(image)?)?;
        let diff_ids = image.config.diff_ids()?;
        Ok(diff_ids.iter().rev().map(|id| self.store.layer_path(id).join("fs")).collect())
    }

    fn spec(&self, container: &Container, mut mounts: Vec<Bind>) -> Result<Spec> {
        let record = &container.record;
        for bind in &record.binds {
            mounts.push(parse_bind(bind)?);
        }
        Ok(Spec {
            hostname: record.hostname.clone(),
            lowers: self.lowers(&record.image)?,
            upper: container.directory.join("diff"),
            work: container.directory.join("work"),
            mountpoint: container.directory.join("rootfs"),
            read_only: record.read_only,
            args: record.args.clone(),
            env: record.env.clone(),
            cwd: record.working_dir.clone(),
            user: (!record.user.is_empty()).then(|| record.user.clone()),
            mounts,
            network: if record.network == "none" { Network::None } else { Network::Host },
            tty: record.tty,
            stdin: record.stdin,
            no_new_privileges: record.no_new_privileges,
            privileged: record.privileged,
            cap_add: record.cap_add.clone(),
            cap_drop: record.cap_drop.clone(),
        })
    }

    /// The container's own /etc/hostname, /etc/hosts and /etc/resolv.conf, as binds over the image's.
    fn write_network_files(&self, container: &Container) -> Result<Vec<Bind>> {
        let record = &container.record;
        let hostname = &record.hostname;
        let (hosts, resolv) = if record.network == "none" {
            let hosts = format!(
                "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.1.1\t{hostname}\n"
            );
            (hosts.into_bytes(), Vec::new())
        } else {
            // A device may have neither file; its containers then have empty ones.
            let read = |path: &str| fs::read(path).unwrap_or_default();
            (read("/etc/hosts"), read("/etc/resolv.conf"))
        };
        let hostname = format!("{hostname}\n").into_bytes();
        let mut binds = Vec::new();
        for (name, content) in [("hostname", hostname), ("hosts", hosts), ("resolv.conf", resolv)] {
            let source = container.directory.join("etc").join(name);
            fs::write(&source, content).context(|| "prepare the container".into())?;
            binds.push(Bind { source, target: format!("/etc/{name}"), read_only: false });
        }
        Ok(binds)
    }
}

fn start_failure_code(error: &Error) -> i32 {
    match error.kind() {
        Kind::CommandNotFound => 127,
        Kind::CannotInvoke => 126,
        _ => 125,
    }
}

/// Merges image and options into what is written down.
fn container_record(options: &RunOptions, image: &Image) -> Result<ContainerRecord> {
    let config = image.config.config.clone().unwrap_or_default();
    for volume in &options.volumes {
        parse_bind(volume)?;
    }
    if !matches!(options.network.as_str(), "" | "host" | "none") {
        let message = format!("network {:?} not found: only host and none exist", options.network);
        return Err(Error::new(Kind::Unsupported, message));
    }
    if !valid_name(&options.name) {
        let message = format!(
            "Invalid container name ({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            options.name
        );
        return Err(Error::new(Kind::Invalid, message));
    }
    let or = |ours: &str, image: Option<&String>| match ours {
        "" => image.cloned().unwrap_or_default(),
        ours => ours.to_string(),
    };
    let hostname = match options.network.as_str() {
        "" | "host" if options.hostname.is_empty() => crate::sys::host::uname().hostname,
        _ => options.hostname.clone(),
    };
    let (args, entrypoint_words) = arguments(options, &config)?;
    Ok(ContainerRecord {
        name: options.name.clone(),
        image: image.id.to_string(),
        image_name: options.image.clone(),
        args,
        entrypoint_words: Some(entrypoint_words),
        env: environment(options, &config, &|name| std::env::var(name).ok()),
        working_dir: or(&options.working_dir, config.working_dir.as_ref()),
        user: or(&options.user, config.user.as_ref()),
        hostname,
        binds: options.volumes.clone(),
        network: or(&options.network, Some(&"host".to_string())),
        tty: options.tty,
        stdin: options.stdin,
        auto_remove: options.remove,
        read_only: options.read_only,
        privileged: options.privileged,
        no_new_privileges: options.no_new_privileges,
        cap_add: options.cap_add.clone(),
        cap_drop: options.cap_drop.clone(),
        ..Default::default()
    })
}

/// Entry point and command, as Docker combines them, and how many words are the entry point. One of the user's makes the
/// image's command void.
fn arguments(options: &RunOptions, image: &Execution) -> Result<(Vec<String>, u32)> {
    let mut args = match &options.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![entrypoint.clone()],
        None => image.entrypoint.clone().unwrap_or_default(),
    };
    let entrypoint_words = args.len() as u32;
    if !options.command.is_empty() {
        args.extend(options.command.iter().cloned());
    } else if options.entrypoint.is_none() {
        args.extend(image.cmd.clone().unwrap_or_default());
    }
    match args.is_empty() {
        true => Err(Error::new(
            Kind::Invalid,
            format!("no command specified for image {}", options.image),
        )),
        false => Ok((args, entrypoint_words)),
    }
}

/// The image's variables, then the user's; later ones replace earlier ones of the same name. What every container has
/// (PATH, HOME) is added where it is planned.
fn environment(
    options: &RunOptions,
    image: &Execution,
    ours: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut env = Vec::new();
    for variable in image.env.iter().flatten() {
        set_variable(&mut env, variable);
    }
    for variable in &options.env {
        if variable.contains('=') {
            set_variable(&mut env, variable);
        } else if let Some(value) = ours(variable) {
            set_variable(&mut env, &format!("{variable}={value}"));
        }
    }
    env
}

fn set_variable(env: &mut Vec<String>, variable: &str) {
    let name = |v: &str| v.split('=').next().unwrap_or_default().to_string();
    match env.iter_mut().find(|known| name(known) == name(variable)) {
        Some(known) => *known = variable.to_string(),
        None => env.push(variable.to_string()),
    }
}

/// `source:target[:options]` with absolute paths. Named volumes belong to a later day and are refused by name.
fn parse_bind(text: &str) -> Result<Bind> {
    let invalid = |why: &str| {
        Error::new(Kind::Invalid, format!("invalid volume specification {text:?}: {why}"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(invalid("expected source:target[:ro]")),
    };
    if !source.starts_with('/') {
        return Err(invalid(
            "the source has to be an absolute path; named volumes are not supported yet",
        ));
    }
    if !target.starts_with('/') || target.trim_matches('/').is_empty() {
        return Err(invalid("the target has to be an absolute path other than /"));
    }
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" | "z" | "Z" => {}
            other => return Err(invalid(&format!("unknown option {other:?}"))),
        }
    }
    Ok(Bind { source: source.into(), target: target.into(), read_only })
}

/// Docker's rule; the empty name asks for a generated one.
fn valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first_ok = bytes.next().is_none_or(|b| b.is_ascii_alphanumeric());
    first_ok && name.len() != 1 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn combines_entry_point_and_command_as_docker_does() {
        let image = |entrypoint: &str, cmd: &str| Execution {
            entrypoint: Some(words(entrypoint)),
            cmd: Some(words(cmd)),
            ..Execution::default()
        };
        for (entrypoint, cmd, user_entrypoint, user_cmd, args, entrypoint_words) in [
            ("", "sh", None, "", "sh", 0),
            ("e", "c", None, "", "e c", 1),
            ("e f", "c", None, "x y", "e f x y", 2),
            ("e", "c", Some("z"), "", "z", 1),
            ("e", "c", Some("z"), "x", "z x", 1),
            ("e", "c", Some(""), "x", "x", 0),
        ] {
            let options = RunOptions {
                entrypoint: user_entrypoint.map(str::to_string),
                command: words(user_cmd),
                ..RunOptions::default()
            };
            let combined = arguments(&options, &image(entrypoint, cmd)).unwrap();
            assert_eq!(combined, (words(args), entrypoint_words));
        }
        assert!(arguments(&RunOptions::default(), &image("", "")).is_err());
    }

    #[test]
    fn later_variables_win() {
        let image = Execution { env: Some(words("PATH=/x A=1")), ..Execution::default() };
        let options = RunOptions { env: words("A=2 B C"), ..RunOptions::default() };
        let env = environment(&options, &image, &|name| (name == "B").then(|| "3".into()));
        assert_eq!(env, words("PATH=/x A=2 B=3"));
    }

    #[test]
    fn binds() {
        let bind = parse_bind("/a:/b:ro").unwrap();
        assert_eq!((bind.source, bind.target, bind.read_only), ("/a".into(), "/b".into(), true));
        for text in ["/a", "a:/b", "/a:b", "/a:/", "/a:/b:rx", "/a:/b:ro:x"] {
            let error = parse_bind(text).unwrap_err();
            assert!(error.to_string().starts_with("invalid volume specification"), "{error}");
        }
    }
}
