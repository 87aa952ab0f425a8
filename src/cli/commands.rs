//! Each command: a call of the engine, and what docker would print.

use super::arguments::*;
use super::progress::{self, Progress};
use super::{archive, check, mount, output};
use crate::engine::{DeltaSummary, Engine, Removed, RunOptions};
use crate::error::{Error, Kind, Result};
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::time;
use crate::units;

/// Runs one command and gives the exit code.
pub fn execute(engine: &Engine, command: Command) -> Result<i32> {
    match command {
        Command::Run(args) => return run(engine, args),
        Command::Rm(args) => {
            return each(&args.containers, &mut |name| rm(engine, name, args.force));
        }
        Command::Rmi(args) => return each(&args.images, &mut |name| rmi(engine, name, args.force)),
        Command::Inspect(args) => return inspect(engine, &args),
        Command::Check(args) => return check::check(engine, &args),
        Command::Pull(args) => pull(engine, &args)?,
        Command::Push(args) => super::push::push(engine, &args)?,
        Command::Images(args) => images(engine, &args)?,
        Command::Ps(args) => ps(engine, &args)?,
        Command::Tag(args) => engine.tag(&args.source, &Reference::parse(&args.target)?)?,
        Command::Load(args) => archive::load(engine, &args)?,
        Command::Save(args) => archive::save(engine, &args)?,
        Command::Export(args) => archive::export(engine, &args)?,
        Command::Import(args) => archive::import(engine, args)?,
        Command::Mount(args) => mount::mount(engine, &args)?,
        Command::Umount(args) => mount::unmount(engine, &args)?,
        Command::Image(Image { command: ImageCommand::Delta(args) }) => delta(engine, &args)?,
        // Done without an engine.
        Command::Login(_) | Command::Logout(_) => {}
        Command::Version(_) => output::print(&version()),
        Command::Info(_) => info(engine)?,
    }
    Ok(0)
}

/// Does something to each name; one that fails is reported and the rest goes on, as docker does.
fn each(names: &[String], act: &mut dyn FnMut(&str) -> Result<()>) -> Result<i32> {
    if names.is_empty() {
        return Err(Error::new(Kind::Invalid, "at least 1 argument is required"));
    }
    let mut code = 0;
    for name in names {
        if let Err(e) = act(name) {
            output::error(&e.to_string());
            code = 1;
        }
    }
    Ok(code)
}

fn platform(text: &Option<String>) -> Result<Platform> {
    text.as_deref().map_or_else(|| Ok(Engine::platform()), Platform::parse)
}

fn pull(engine: &Engine, args: &Pull) -> Result<()> {
    let reference = Reference::parse(&args.reference)?;
    if reference.tag() == Some("latest") && !args.reference.ends_with(":latest") && !args.quiet {
        output::line("Using default tag: latest");
    }
    let platform = platform(&args.platform)?;
    if args.quiet {
        engine.pull(&reference, &platform, &mut progress::ignore)?;
    } else {
        let mut progress = Progress::new(progress::PULL);
        engine.pull(&reference, &platform, &mut |event| progress.show(event))?;
    }
    output::line(&reference.to_string());
    Ok(())
}

fn run(engine: &Engine, args: Run) -> Result<i32> {
    let mut no_new_privileges = false;
    for option in &args.security_opt {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true" => {
                no_new_privileges = true
            }
            "no-new-privileges:false" | "no-new-privileges=false" => no_new_privileges = false,
            other => {
                let message =
                    format!("security option {other:?} is not supported, only no-new-privileges");
                return Err(Error::new(Kind::Unsupported, message));
            }
        }
    }
    let options = RunOptions {
        image: args.image,
        command: args.command,
        entrypoint: args.entrypoint,
        name: args.name,
        hostname: args.hostname,
        env: args.env,
        volumes: args.volume,
        working_dir: args.workdir,
        user: args.user,
        network: args.net,
        tty: args.tty,
        stdin: args.interactive,
        remove: args.rm,
        read_only: args.read_only,
        privileged: args.privileged,
        no_new_privileges,
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        platform: args.platform.as_deref().map(Platform::parse).transpose()?,
    };
    let mut progress = Progress::aside(progress::PULL);
    engine.run(&options, &mut |event| progress.show(event))
}

fn images(engine: &Engine, args: &Images) -> Result<()> {
    let now = time::unix_now().0;
    let header = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    let mut rows = vec![header.map(str::to_string).to_vec()];
    let mut ids: Vec<String> = Vec::new();
    for image in engine.images()? {
        let id = if args.no_trunc { image.id.to_string() } else { image.id.short() };
        let created = match image.created {
            0 => "N/A".into(),
            at => format!("{} ago", units::duration(now.saturating_sub(at))),
        };
        rows.push(vec![
            image.repository,
            image.tag,
            id.clone(),
            created,
            units::size(image.size_bytes),
        ]);
        ids.push(id);
    }
    if args.quiet {
        ids.dedup();
        ids.iter().for_each(|id| output::line(id));
    } else {
        output::print(&output::table(&rows));
    }
    Ok(())
}

fn ps(engine: &Engine, args: &Ps) -> Result<()> {
    let now = time::unix_now().0;
    let header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let mut rows = vec![header.map(str::to_string).to_vec()];
    for container in engine.containers(args.all)? {
        let id = if args.no_trunc { container.id } else { container.id.chars().take(12).collect() };
        if args.quiet {
            output::line(&id);
            continue;
        }
        let command = if args.no_trunc { container.command } else { shorten(&container.command) };
        let created = format!("{} ago", units::duration(now.saturating_sub(container.created)));
        let command = format!("\"{command}\"");
        rows.push(vec![
            id,
            container.image,
            command,
            created,
            container.status,
            String::new(),
            container.name,
        ]);
    }
    if !args.quiet {
        output::print(&output::table(&rows));
    }
    Ok(())
}

/// At most 20 characters, the last an ellipsis, as docker's `ps`.
fn shorten(command: &str) -> String {
    const SHOWN: usize = 20;
    match command.chars().count() {
        0..=SHOWN => command.to_string(),
        _ => command.chars().take(SHOWN - 1).chain(['…']).collect(),
    }
}

fn rm(engine: &Engine, name: &str, force: bool) -> Result<()> {
    engine.remove_container(name, force)?;
    output::line(name);
    Ok(())
}

fn rmi(engine: &Engine, name: &str, force: bool) -> Result<()> {
    for removed in engine.remove_image(name, force)? {
        output::line(&match removed {
            Removed::Untagged(name) => format!("Untagged: {name}"),
            Removed::Deleted(id) => format!("Deleted: {id}"),
        });
    }
    Ok(())
}

fn inspect(engine: &Engine, args: &Inspect) -> Result<i32> {
    let mut found = Vec::new();
    let code = each(&args.names, &mut |name| {
        found.push(engine.inspect(name)?);
        Ok(())
    })?;
    output::line(&output::indent_json(&format!("[{}]", found.join(","))));
    Ok(code)
}

fn delta(engine: &Engine, args: &Delta) -> Result<()> {
    let tag = args.tag.as_deref().map(Reference::parse).transpose()?;
    let mut progress = Progress::new(progress::PULL);
    let mut report = |event| progress.show(event);
    let DeltaSummary { image, normal_bytes, delta_bytes } =
        engine.create_delta(&args.old, &args.new, tag.as_ref(), &mut report)?;
    let (normal, delta) = (units::size(normal_bytes), units::size(delta_bytes));
    let ratio = units::decimal(normal_bytes, delta_bytes, 2);
    output::line(&format!("Normal size: {normal}, Delta size: {delta}, {ratio}x improvement"));
    output::line(&format!("Created delta: {image}"));
    if let Some(tag) = tag {
        output::line(&format!("Successfully tagged {}", tag.familiar()));
    }
    Ok(())
}

/// What `--version` prints.
pub fn version_line() -> String {
    format!("vaquita version {}\n", env!("CARGO_PKG_VERSION"))
}

fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("Engine: vaquita\n Version:    {version}\n OS/Arch:    {}\n", Engine::platform())
}

fn info(engine: &Engine) -> Result<()> {
    let info = engine.info()?;
    output::print(&format!(
        "Server:\n Containers: {}\n  Running: {}\n  Stopped: {}\n Images: {}\n Server Version: {}\n \
         Storage Driver: overlay2\n Kernel Version: {}\n OSType: linux\n Architecture: {}\n CPUs: {}\n \
         Total Memory: {}\n Name: {}\n Data Root: {}\n Run Root: {}\n",
        info.containers,
        info.running,
        info.containers - info.running,
        info.images,
        env!("CARGO_PKG_VERSION"),
        info.kernel,
        info.architecture,
        info.cpus,
        units::size(info.memory_bytes),
        info.hostname,
        info.data_root,
        info.run_root,
    ));
    Ok(())
}
