//! `check`: a line for each finding, what it means, and what to do.

use argh::FromArgs;

use super::output;
use crate::engine::{CheckOptions, Engine, Finding, Outcome, Remedy};
use crate::error::Result;

/// Look whether everything in the store is as it was announced: 0 if so, 1 if anything is damaged
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
pub struct Check {
    /// read every file of every layer, too, and compare it with the digest that the layer came with
    #[argh(switch)]
    pub deep: bool,
    /// move what is damaged to DATA_ROOT/quarantine and fetch again what a registry has
    #[argh(switch)]
    pub repair: bool,
}

/// Checks, prints and gives the exit code.
pub fn check(engine: &Engine, args: &Check) -> Result<i32> {
    let options = CheckOptions { deep: args.deep, repair: args.repair };
    let summary = engine.check(options, &mut |finding, outcome| {
        output::line(&line(finding, outcome, args.deep));
    })?;
    let verdict = match summary.damaged {
        0 => "whole".to_string(),
        1 => "1 finding of damage".to_string(),
        count => format!("{count} findings of damage"),
    };
    output::line(&format!(
        "{verdict}: {} images, {} layers, {} references, {} containers",
        summary.images, summary.layers, summary.references, summary.containers
    ));
    Ok(i32::from(summary.damaged > 0))
}

fn line(finding: &Finding, outcome: &Outcome, deep: bool) -> String {
    let Finding { object, cause, path, .. } = finding;
    let path = path.display().to_string();
    // Errors of files name them already.
    let place = if cause.contains(&path) { String::new() } else { format!(" ({path})") };
    if !finding.is_damage() {
        return format!("note: {object}: {cause}{place}");
    }
    let then = match outcome {
        Outcome::Told => advice(finding.remedy, deep),
        Outcome::SetAside => "set aside".to_string(),
        Outcome::Fetched => "fetched again".to_string(),
        Outcome::Failed(e) => format!("not mended: {e}"),
    };
    format!("damaged: {object}: {cause}{place}: {then}")
}

fn advice(remedy: Remedy, deep: bool) -> String {
    let command = if deep { "check --deep --repair" } else { "check --repair" };
    match remedy {
        Remedy::Nothing | Remedy::Collect => String::new(),
        Remedy::SetAside | Remedy::RenewState => format!("`{command}` sets it aside"),
        Remedy::FetchImage(_) | Remedy::FetchLayer(_) => {
            format!("`{command}` or a pull of the image fetches it again")
        }
        Remedy::Leave => "left alone; use the version of vaquita that wrote it".to_string(),
    }
}
