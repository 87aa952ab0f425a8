//! `commit`.

use argh::FromArgs;

use super::output;
use crate::engine::{CommitOptions, Engine};
use crate::error::Result;
use crate::reference::Reference;

/// Make an image of what a container wrote, over the layers of its image
#[derive(FromArgs)]
#[argh(subcommand, name = "commit")]
pub struct Commit {
    /// who made the image
    #[argh(option, short = 'a', arg_name = "text", default = "String::new()")]
    pub author: String,
    /// instruction of a Dockerfile to apply to the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME or WORKDIR; may be repeated
    #[argh(option, short = 'c', arg_name = "instruction")]
    pub change: Vec<String>,
    /// comment for the image's history
    #[argh(option, short = 'm', arg_name = "text", default = "String::new()")]
    pub message: String,
    /// without effect: nothing can pause a container yet; one that runs is read as it is
    #[argh(switch, short = 'p')]
    pub pause: bool,
    /// container, by name or ID
    #[argh(positional, arg_name = "container")]
    pub container: String,
    /// name for the image: repository[:tag]
    #[argh(positional, arg_name = "name")]
    pub name: Option<String>,
}

pub fn commit(engine: &Engine, args: Commit) -> Result<()> {
    if args.pause {
        log::warn!("commit: no container is paused: one that runs is read as it is");
    }
    let options = CommitOptions {
        name: args.name.as_deref().map(Reference::parse_name).transpose()?,
        author: args.author,
        message: args.message,
        changes: args.change,
    };
    output::line(&engine.commit(&args.container, &options)?.to_string());
    Ok(())
}
