//! `history`.

use argh::FromArgs;

use super::images::ago;
use super::listing::{self, Listing, Row};
use crate::engine::{Engine, HistoryStep};
use crate::error::Result;
use crate::time;
use crate::units;

/// Show the steps that made an image
#[derive(FromArgs)]
#[argh(subcommand, name = "history")]
pub struct History {
    /// table, json, 'table TEMPLATE' or TEMPLATE, a Go template
    #[argh(option, arg_name = "format")]
    pub format: Option<String>,
    /// print times and sizes for people; this is the default
    #[argh(switch, short = 'H')]
    #[allow(dead_code)]
    pub human: bool,
    /// print times and sizes as they are: another spelling of --human=false
    #[argh(switch)]
    pub no_human: bool,
    /// print whole IDs and commands
    #[argh(switch)]
    pub no_trunc: bool,
    /// print only image IDs
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// image, by name or ID
    #[argh(positional, arg_name = "image")]
    pub image: String,
}

/// Docker's historyContext.
const HISTORY: Listing = Listing {
    type_name: "*formatter.historyContext",
    titles: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

pub fn history(engine: &Engine, args: &History) -> Result<()> {
    let rows: Vec<Row> = engine.history(&args.image)?.iter().map(|step| row(step, args)).collect();
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let created = if args.no_human { "CreatedAt" } else { "CreatedSince" };
    HISTORY.print(rows, &["ID", created, "CreatedBy", "Size", "Comment"], format)
}

fn row(step: &HistoryStep, args: &History) -> Row {
    /// As docker cuts commands here.
    const SHOWN: usize = 45;
    let id = match &step.image {
        Some(id) if args.no_trunc => id.to_string(),
        Some(id) => id.short(),
        None => "<missing>".into(),
    };
    let command = step.created_by.replace('\t', " ");
    let size = match args.no_human {
        true => step.size_bytes.to_string(),
        false => units::size(step.size_bytes),
    };
    Row::of([
        ("ID", id),
        ("CreatedSince", if step.created == 0 { "N/A".into() } else { ago(step.created) }),
        ("CreatedAt", time::format((step.created, 0))),
        ("CreatedBy", if args.no_trunc { command } else { listing::shorten(&command, SHOWN) }),
        ("Size", size),
        ("Comment", step.comment.clone()),
    ])
}
