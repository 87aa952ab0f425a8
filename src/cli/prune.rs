//! `image prune`, `container prune` and `system prune`: they ask first, unless forced.

use std::io::BufRead;

use argh::FromArgs;

use super::images::removed_line;
use super::{listing, output};
use crate::engine::{Engine, Filter, Pruned};
use crate::error::{Error, Kind, Result};
use crate::units;

/// Remove images that nobody uses
#[derive(FromArgs)]
#[argh(subcommand, name = "prune")]
pub struct ImagePrune {
    /// remove all that no container uses, not only those without a tag
    #[argh(switch, short = 'a')]
    pub all: bool,
    /// remove only those for which this holds: until=time, label=key[=value], label!=key[=value]; may be repeated
    #[argh(option, arg_name = "condition", from_str_fn(listing::filter))]
    pub filter: Vec<Filter>,
    /// do not ask
    #[argh(switch, short = 'f')]
    pub force: bool,
}

/// Remove all stopped containers
#[derive(FromArgs)]
#[argh(subcommand, name = "prune")]
pub struct ContainerPrune {
    /// remove only those for which this holds: until=time, label=key[=value], label!=key[=value]; may be repeated
    #[argh(option, arg_name = "condition", from_str_fn(listing::filter))]
    pub filter: Vec<Filter>,
    /// do not ask
    #[argh(switch, short = 'f')]
    pub force: bool,
}

/// Remove stopped containers and images that nobody uses
#[derive(FromArgs)]
#[argh(subcommand, name = "prune")]
pub struct SystemPrune {
    /// remove all images that no container uses, not only those without a tag
    #[argh(switch, short = 'a')]
    pub all: bool,
    /// remove only those for which this holds: until=time, label=key[=value], label!=key[=value]; may be repeated
    #[argh(option, arg_name = "condition", from_str_fn(listing::filter))]
    pub filter: Vec<Filter>,
    /// do not ask
    #[argh(switch, short = 'f')]
    pub force: bool,
    /// accepted for docker's sake: containers here have no anonymous volumes
    #[argh(switch)]
    pub volumes: bool,
}

pub fn images(engine: &Engine, args: &ImagePrune) -> Result<()> {
    let what = images_text(args.all);
    if !args.force && !confirm(&format!("WARNING! This will remove {what}.\n")) {
        return Ok(());
    }
    let mut pruned = Pruned::default();
    let result = engine.prune_images(args.all, &args.filter, &mut pruned);
    report(&pruned, result)
}

pub fn containers(engine: &Engine, args: &ContainerPrune) -> Result<()> {
    if !args.force && !confirm("WARNING! This will remove all stopped containers.\n") {
        return Ok(());
    }
    let mut pruned = Pruned::default();
    let result = engine.prune_containers(&args.filter, &mut pruned);
    report(&pruned, result)
}

pub fn system(engine: &Engine, args: &SystemPrune) -> Result<()> {
    if args.volumes && args.filter.iter().any(|filter| filter.name == "until") {
        let message = "The \"until\" filter is not supported with \"--volumes\"";
        return Err(Error::new(Kind::Invalid, message));
    }
    let mut warning = format!(
        "WARNING! This will remove:\n  - all stopped containers\n  - {}\n\n",
        images_text(args.all)
    );
    if !args.filter.is_empty() {
        warning.push_str("  Items to be pruned will be filtered with:\n");
        for filter in &args.filter {
            warning.push_str(&format!("  - {}={}\n", filter.name, filter.value));
        }
        warning.push('\n');
    }
    if !args.force && !confirm(&warning) {
        return Ok(());
    }
    let mut pruned = Pruned::default();
    let result = engine
        .prune_containers(&args.filter, &mut pruned)
        .and_then(|()| engine.prune_images(args.all, &args.filter, &mut pruned));
    report(&pruned, result)
}

fn images_text(all: bool) -> &'static str {
    match all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    }
}

/// Whether the user says yes. The end of the input, which is all that a script without a terminal gives, is a no.
fn confirm(warning: &str) -> bool {
    output::print(&format!("{warning}Are you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    // What cannot be read is no yes.
    let _ = std::io::stdin().lock().read_line(&mut answer);
    answer.trim().eq_ignore_ascii_case("y")
}

/// Tells what is gone, even if something failed after it.
fn report(pruned: &Pruned, result: Result<()>) -> Result<()> {
    if !pruned.containers.is_empty() {
        output::print(&format!("Deleted Containers:\n{}\n\n", pruned.containers.join("\n")));
    }
    if !pruned.images.is_empty() {
        let line = |removed| removed_line(removed, "untagged", "deleted");
        let lines: Vec<String> = pruned.images.iter().map(line).collect();
        output::print(&format!("Deleted Images:\n{}\n\n", lines.join("\n")));
    }
    result?;
    output::line(&format!("Total reclaimed space: {}", units::fine_size(pruned.reclaimed_bytes)));
    Ok(())
}
