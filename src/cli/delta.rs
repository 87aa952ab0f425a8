//! `delta create`, `index`, `plan`, `inspect` and `apply`: deltas that a pull finds by itself, and that a file may hold.

use std::path::Path;

use argh::FromArgs;

use super::archive::{Load, load, write_to_file};
use super::output;
use super::progress::{self, Progress};
use crate::delta::native::Content;
use crate::engine::{Engine, Examined};
use crate::error::{Context, Error, Kind, Result};
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
    Apply(Apply),
    Create(Create),
    Index(Index),
    Inspect(Inspect),
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

/// Load what the native delta in a file makes
#[derive(FromArgs)]
#[argh(subcommand, name = "apply")]
pub struct Apply {
    /// only look whether it makes what it says of the images that are here
    #[argh(switch)]
    pub dry_run: bool,
    /// file that `delta create -o` wrote
    #[argh(positional, arg_name = "file")]
    pub file: String,
}

/// Show what is in the native delta in a file, by layer, and its largest members
#[derive(FromArgs)]
#[argh(subcommand, name = "inspect")]
pub struct Inspect {
    /// file that `delta create -o` wrote
    #[argh(positional, arg_name = "file")]
    pub file: String,
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
        DeltaCommand::Apply(args) => apply(engine, args),
        DeltaCommand::Create(args) => create(engine, args),
        DeltaCommand::Index(args) => index(engine, args),
        DeltaCommand::Inspect(args) => inspect(engine, args),
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

fn apply(engine: &Engine, args: &Apply) -> Result<()> {
    if !args.dry_run {
        let input = Some(args.file.clone());
        return load(engine, &Load { input, quiet: false, platform: None });
    }
    for layer in examine(engine, &args.file)?.layers {
        let (delta, tar) = (units::size(layer.delta_bytes), units::size(layer.tar_bytes));
        let (layer, basis) = (layer.diff_id.short(), layer.basis.short());
        output::line(&format!("{layer}: {delta} make its {tar} of image {basis}"));
    }
    Ok(())
}

fn examine(engine: &Engine, file: &str) -> Result<Examined> {
    let mut input = fs_err::File::open(file).context(|| "examine a delta".into())?;
    let mut progress = Progress::aside(progress::LOAD);
    engine
        .examine_delta(&mut input, &mut |event| progress.show(event))
        .map_err(|e| Error::new(e.kind(), format!("examine {file}")).caused_by(e))
}

fn inspect(engine: &Engine, args: &Inspect) -> Result<()> {
    let text = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let mut layers =
        vec![text(&["LAYER", "BASIS", "SIZE", "DELTA", "UNCHANGED", "PATCHED", "NEW"])];
    let mut members = vec![text(&["DELTA", "SIZE", "CONTENT", "MEMBER"])];
    let examined = examine(engine, &args.file)?;
    for layer in &examined.layers {
        let [kept, patched, new] = layer.entries.map(|count| count.to_string());
        let (id, basis) = (layer.diff_id.short(), layer.basis.short());
        let (size, delta) = (units::size(layer.tar_bytes), units::size(layer.delta_bytes));
        layers.push(vec![id, basis, size, delta, kept, patched, new]);
    }
    for made in &examined.largest {
        let content = match made.content {
            Content::Kept => "unchanged",
            Content::Patched => "patched",
            Content::New => "new",
        };
        let path = match made.path.as_slice() {
            [] => "(end of the archive)".to_string(),
            path => String::from_utf8_lossy(path).escape_debug().to_string(),
        };
        let (delta, size) = (units::size(made.delta_bytes), units::size(made.bytes));
        members.push(vec![delta, size, content.into(), path]);
    }
    output::print(&output::table(&layers));
    output::line("");
    output::print(&output::table(&members));
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
