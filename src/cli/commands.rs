//! Each command: a call of the engine, and what docker would print.

use super::arguments::*;
use super::progress::{self, Progress};
use super::{
    archive, check, commit, containers, history, images, inspect, mount, output, prune, system,
    usage,
};
use crate::engine::{DeltaSummary, Deltas, Engine, RunOptions};
use crate::error::{Error, Kind, Result};
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::units;

/// Runs one command and gives the exit code.
pub fn execute(engine: &Engine, command: Command) -> Result<i32> {
    match command {
        Command::Run(args) => return run(engine, args),
        Command::Rm(args) => return containers::rm(engine, &args),
        Command::Rmi(args) => return images::rmi(engine, &args),
        Command::Inspect(args) => return inspect::inspect(engine, &args),
        Command::Check(args) => return check::check(engine, &args),
        Command::Version(args) => return system::version(&args),
        Command::Info(args) => return system::info(engine, &args),
        Command::Pull(args) => pull(engine, &args)?,
        Command::Push(args) => super::push::push(engine, &args)?,
        Command::Images(args) => images::images(engine, args)?,
        Command::Ps(args) => containers::ps(engine, args)?,
        Command::Tag(args) => images::tag(engine, &args)?,
        Command::Load(args) => archive::load(engine, &args)?,
        Command::Save(args) => archive::save(engine, &args)?,
        Command::Export(args) => archive::export(engine, &args)?,
        Command::Import(args) => archive::import(engine, args)?,
        Command::Commit(args) => commit::commit(engine, args)?,
        Command::Mount(args) => mount::mount(engine, &args)?,
        Command::Umount(args) => mount::unmount(engine, &args)?,
        Command::History(args) => history::history(engine, &args)?,
        Command::Delta(args) => super::delta::delta(engine, &args)?,
        Command::Image(Image { command: ImageCommand::Delta(args) }) => delta(engine, &args)?,
        Command::Image(Image { command: ImageCommand::Prune(args) }) => {
            prune::images(engine, &args)?
        }
        Command::Container(Container { command: ContainerCommand::Prune(args) }) => {
            prune::containers(engine, &args)?
        }
        Command::System(System { command: SystemCommand::Prune(args) }) => {
            prune::system(engine, &args)?
        }
        Command::System(System { command: SystemCommand::Df(args) }) => {
            return usage::df(engine, &args);
        }
        // Done without an engine.
        Command::Login(_) | Command::Logout(_) => {}
    }
    Ok(0)
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
    let deltas = match (args.no_delta, args.delta_only) {
        (false, false) => engine.deltas,
        (true, false) => Deltas::Never,
        (false, true) => Deltas::Only,
        (true, true) => {
            let message = "--no-delta and --delta-only exclude each other";
            return Err(Error::new(Kind::Invalid, message));
        }
    };
    if args.quiet {
        engine.pull(&reference, &platform, deltas, &mut progress::ignore)?;
    } else {
        let mut progress = Progress::new(progress::PULL);
        engine.pull(&reference, &platform, deltas, &mut |event| progress.show(event))?;
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

fn delta(engine: &Engine, args: &Delta) -> Result<()> {
    let tag = args.tag.as_deref().map(Reference::parse_name).transpose()?;
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
