//! Images and containers as archives: `load`, `save`, `export` and `import`.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use argh::FromArgs;
use fs_err::{File, OpenOptions};

use super::output;
use super::progress::{self, Progress};
use crate::engine::{Engine, ImportOptions, Loaded, Report};
use crate::error::{Context, Error, Kind, Result};
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::stream::Stream;
use crate::sys::staged::Staged;

/// Load images, or deltas, from an archive that `save` wrote, or from an OCI layout in a tar
#[derive(FromArgs)]
#[argh(subcommand, name = "load")]
pub struct Load {
    /// read from a file instead of standard input
    #[argh(option, short = 'i', arg_name = "file")]
    pub input: Option<String>,
    /// platform to choose where there are several, such as linux/arm/v7
    #[argh(option, arg_name = "os/arch")]
    pub platform: Option<String>,
    /// print only what was loaded
    #[argh(switch, short = 'q')]
    pub quiet: bool,
}

/// Write images to an archive that `load` reads
#[derive(FromArgs)]
#[argh(subcommand, name = "save")]
pub struct Save {
    /// write to a file instead of standard output
    #[argh(option, short = 'o', arg_name = "file")]
    pub output: Option<String>,
    /// docker-archive or oci-archive: every archive is both
    #[argh(option, arg_name = "format")]
    pub format: Option<String>,
    /// images, by name or ID
    #[argh(positional, arg_name = "image")]
    pub images: Vec<String>,
}

/// Write the tree of a container, running or not, as a tar
#[derive(FromArgs)]
#[argh(subcommand, name = "export")]
pub struct Export {
    /// write to a file instead of standard output
    #[argh(option, short = 'o', arg_name = "file")]
    pub output: Option<String>,
    /// container, by name or ID
    #[argh(positional, arg_name = "container")]
    pub container: String,
}

/// Make an image of a tar of its tree
#[derive(FromArgs)]
#[argh(subcommand, name = "import")]
pub struct Import {
    /// instruction of a Dockerfile to apply to the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR; may be repeated
    #[argh(option, short = 'c', arg_name = "instruction")]
    pub change: Vec<String>,
    /// comment for the image's history
    #[argh(option, short = 'm', arg_name = "text")]
    pub message: Option<String>,
    /// platform that the image is for (default: this machine's)
    #[argh(option, arg_name = "os/arch")]
    pub platform: Option<String>,
    /// tar, plain or compressed, or - for standard input
    #[argh(positional, arg_name = "file")]
    pub source: String,
    /// name for the image: repository[:tag]
    #[argh(positional, arg_name = "name")]
    pub name: Option<String>,
}

/// `import`.
pub fn import(engine: &Engine, args: Import) -> Result<()> {
    let source = args.source;
    if source.starts_with("http://") || source.starts_with("https://") {
        let message = format!(
            "import {source}: addresses are not fetched: download it, or pipe it to `import -`"
        );
        return Err(Error::new(Kind::Unsupported, message));
    }
    let options = ImportOptions {
        name: args.name.as_deref().map(Reference::parse_name).transpose()?,
        changes: args.change,
        message: args.message.unwrap_or_else(|| format!("Imported from {source}")),
        platform: args.platform.as_deref().map(Platform::parse).transpose()?,
    };
    let mut input: Box<dyn Stream> = match source.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(File::open(path).context(|| "import".into())?),
    };
    output::line(&engine.import(&mut *input, &options)?.to_string());
    Ok(())
}

/// `export`.
pub fn export(engine: &Engine, args: &Export) -> Result<()> {
    write_to(args.output.as_deref(), "export", &mut |out| engine.export(&args.container, out))
}

/// `load`.
pub fn load(engine: &Engine, args: &Load) -> Result<()> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let mut input: Box<dyn Stream> = match &args.input {
        Some(path) => Box::new(File::open(path).context(|| "load".into())?),
        None if std::io::stdin().is_terminal() => {
            let message = "requested load from stdin, but stdin is empty";
            return Err(Error::new(Kind::Invalid, message));
        }
        None => Box::new(std::io::stdin().lock()),
    };
    // Docker shows a load's layers to people only.
    let quiet = args.quiet || !std::io::stdout().is_terminal();
    let mut progress = Progress::new(progress::LOAD);
    let mut show = |event| progress.show(event);
    let report: Report = if quiet { &mut progress::ignore } else { &mut show };
    for loaded in engine.load(&mut *input, platform.as_ref(), report)? {
        let Loaded { image, names, target_was_here } = loaded;
        if target_was_here {
            output::line("Target image already exists locally, no need to load it.");
        }
        for name in &names {
            output::line(&format!("Loaded image: {}", name.familiar()));
        }
        if names.is_empty() {
            output::line(&format!("Loaded image ID: {image}"));
        }
    }
    Ok(())
}

/// `save`.
pub fn save(engine: &Engine, args: &Save) -> Result<()> {
    if args.images.is_empty() {
        return Err(Error::new(Kind::Invalid, "save: at least 1 image is required"));
    }
    match args.format.as_deref() {
        None | Some("docker-archive" | "oci-archive" | "docker" | "oci") => {}
        Some(other) => {
            let message = format!("save: unknown format {other:?}: docker-archive or oci-archive");
            return Err(Error::new(Kind::Invalid, message));
        }
    }
    write_to(args.output.as_deref(), "save", &mut |out| engine.save(&args.images, out))
}

/// Writes an archive to a file or to standard output, unless that is a terminal; `verb` is for errors.
fn write_to(
    output: Option<&str>,
    verb: &str,
    write: &mut dyn FnMut(&mut (dyn Write + Send)) -> Result<()>,
) -> Result<()> {
    if let Some(path) = output {
        return write_to_file(Path::new(path), verb, write);
    }
    let out = std::io::stdout();
    if out.is_terminal() {
        let message =
            format!("cowardly refusing to {verb} to a terminal. Use the -o flag or redirect");
        return Err(Error::new(Kind::Invalid, message));
    }
    // Not through std's buffer, which looks for line ends in what it is given.
    let out = out.as_fd().try_clone_to_owned().context(|| "write standard output".into())?;
    write(&mut std::fs::File::from(out))
}

/// An earlier archive stays until the new one is whole; of several written at a time the last one does. Only its owner may
/// read it, as with docker. What is no regular file (a pipe, /dev/null) is written to as it is.
pub fn write_to_file(
    path: &Path,
    verb: &str,
    write: &mut dyn FnMut(&mut (dyn Write + Send)) -> Result<()>,
) -> Result<()> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let mut out = OpenOptions::new().write(true).open(path).context(|| verb.to_string())?;
        return write(&mut out);
    }
    let what = || format!("{verb} to {}", path.display());
    let mut staged = Staged::create(path).context(what)?;
    write(&mut staged.file)?;
    staged.publish().context(what)
}
