//! `push`: its options, and what docker prints.

use argh::FromArgs;

use super::output;
use super::progress::{self, Progress};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::oci::platform::Platform;
use crate::reference::Reference;

/// Upload an image to a registry: only what the registry has not
#[derive(FromArgs)]
#[argh(subcommand, name = "push")]
pub struct Push {
    /// push every tag of the repository
    #[argh(switch, short = 'a')]
    pub all_tags: bool,
    /// platform that the image must be for, such as linux/arm/v7
    #[argh(option, arg_name = "os/arch")]
    pub platform: Option<String>,
    /// print only the full name
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// image to push: [registry/]name[:tag]
    #[argh(positional, arg_name = "image")]
    pub reference: String,
}

/// Pushes a tag, or all of a repository.
pub fn push(engine: &Engine, args: &Push) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(Kind::Invalid, why));
    let reference = Reference::parse(&args.reference)?;
    if reference.digest().is_some() {
        return refuse("cannot push a digest reference");
    }
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let has_tag = reference.tag() != Some("latest") || args.reference.ends_with(":latest");
    let mut progress = Progress::new(progress::PUSH);
    let mut report = |event| {
        if !args.quiet {
            progress.show(event)
        }
    };
    if args.all_tags {
        if has_tag {
            return refuse("tag can't be used with --all-tags/-a");
        }
        engine.push_all_tags(&reference, platform.as_ref(), &mut report)?;
    } else {
        if !has_tag && !args.quiet {
            output::line("Using default tag: latest");
        }
        engine.push(&reference, platform.as_ref(), &mut report)?;
    }
    if args.quiet {
        output::line(&reference.to_string());
    }
    Ok(())
}
