//! `delta create`, `delta index` and `delta plan`: deltas that a pull finds by itself.

use std::path::Path;

use argh::FromArgs;

use super::archive::write_to_file;
use super::output;
use super::progress::{self, Progress};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::oci::artifact::Format;
use crate::reference::Reference;
use crate::units;

/// Commands on deltas, which turn an image that a device has into another. A pull finds those of a registry by itself
#[derive(FromArgs)]
#[argh(subcommand, name = "delta")]
pub struct DeltaGroup {
    #[argh(subcommand)]
    pub command: DeltaCommand,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub enum DeltaCommand {
    Create(Create),
    Index(Index),
    Plan(Plan),
}

/// Make the delta from one image to another, and push it or write it to a file
#[derive(FromArgs)]
#[argh(subcommand, name = "create")]
pub struct Create {
    /// native (default), or balena: one that balenaEngine can pull by its digest
    #[argh(option, arg_name = "format")]
    pub format: Option<String>,
    /// repository, which has the new image, to push the delta to: pulls find it there
    #[argh(option, arg_name = "repository")]
    pub push: Option<String>,
    /// file to write an archive to that `load` reads
    #[argh(option, short = 'o', arg_name = "file")]
    pub output: Option<String>,
    /// image that the devices have
    #[argh(positional, arg_name = "old")]
    pub old: String,
    /// image that they shall have
    #[argh(positional, arg_name = "new")]
    pub new: String,
}

/// Make the index of an image, by which a device with any older image fetches what it lacks, and push it
#[derive(FromArgs)]
#[argh(subcommand, name = "index")]
pub struct Index {
    /// repository, which has the image, to push the index to: pulls find it there
    #[argh(option, arg_name = "repository")]
    pub push: Option<String>,
    /// image that the devices shall have
    #[argh(positional, arg_name = "image")]
    pub image: String,
}

/// Print what each way from one image to another costs
#[derive(FromArgs)]
#[argh(subcommand, name = "plan")]
pub struct Plan {
    /// image that the devices have
    #[argh(positional, arg_name = "old")]
    pub old: String,
    /// image that they shall have
    #[argh(positional, arg_name = "new")]
    pub new: String,
}

/// Runs one of them.
pub fn delta(engine: &Engine, args: &DeltaGroup) -> Result<()> {
    match &args.command {
        DeltaCommand::Create(args) => create(engine, args),
        DeltaCommand::Index(args) => index(engine, args),
        DeltaCommand::Plan(args) => plan(engine, args),
    }
}

fn create(engine: &Engine, args: &Create) -> Result<()> {
    let invalid = |message: String| Error::new(Kind::Invalid, message);
    let format = args.format.as_deref().unwrap_or(Format::Native.name());
    let format = Format::parse(format)
        .filter(|&format| format != Format::Index)
        .ok_or_else(|| invalid(format!("unknown delta format {format:?}: native or balena")))?;
    let repository = args.push.as_deref().map(Reference::parse_name).transpose()?;
    let mut progress = Progress::new(progress::PUSH);
    let mut published = None;
    let mut publish = |out: Option<&mut dyn std::io::Write>| {
        let (old, new, repository) = (&args.old, &args.new, repository.as_ref());
        let report = &mut |event| progress.show(event);
        published = Some(engine.publish_delta(old, new, format, repository, out, report)?);
        Ok(())
    };
    match &args.output {
        Some(path) => write_to_file(Path::new(path), "delta", &mut |out| publish(Some(out)))?,
        None if repository.is_some() => publish(None)?,
        None => {
            return Err(invalid(
                "delta create: where to? --push REPOSITORY, -o FILE, or both".into(),
            ));
        }
    }
    let Some(published) = published else { return Ok(()) };
    let (layers, delta) = (published.layers_bytes, published.delta_bytes);
    let (normal, small) = (units::size(layers), units::size(delta));
    let ratio = units::decimal(layers, delta, 2);
    output::line(&format!("Normal size: {normal}, Delta size: {small}, {ratio}x improvement"));
    if let Some(repository) = repository {
        output::line(&format!("Pushed delta: {}", repository.at(published.digest).familiar()));
    }
    Ok(())
}

fn index(engine: &Engine, args: &Index) -> Result<()> {
    let no_place = || Error::new(Kind::Invalid, "delta index: where to? --push REPOSITORY");
    let repository = Reference::parse_name(args.push.as_deref().ok_or_else(no_place)?)?;
    let mut progress = Progress::new(progress::PUSH);
    let published =
        engine.publish_index(&args.image, &repository, &mut |event| progress.show(event))?;
    let (layers, index) = (published.layers_bytes, published.delta_bytes);
    let (layers, index) = (units::size(layers), units::size(index));
    output::line(&format!("Layers size: {layers}, Index size: {index}"));
    output::line(&format!("Pushed index: {}", repository.at(published.digest).familiar()));
    Ok(())
}

fn plan(engine: &Engine, args: &Plan) -> Result<()> {
    let mut progress = Progress::aside(progress::PUSH);
    let plan = engine.plan_delta(&args.old, &args.new, &mut |event| progress.show(event))?;
    let row = |way: &str, layers: usize, bytes: u64| {
        vec![way.to_string(), layers.to_string(), bytes.to_string()]
    };
    output::print(&output::table(&[
        ["WAY", "LAYERS", "BYTES"].map(String::from).to_vec(),
        row("linked", plan.linked, 0),
        row("layers", plan.missing, plan.layers_bytes),
        row("balena", plan.missing, plan.balena_bytes),
        row("native", plan.missing, plan.native_bytes),
        row("index", plan.missing, plan.index_bytes),
    ]));
    Ok(())
}
