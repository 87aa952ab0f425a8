//! `ps` and `rm`.

use argh::FromArgs;
use miniserde::json::Value;

use super::images::{ago, time_text};
use super::listing::{self, Listing, Row};
use super::output;
use crate::engine::{ContainerQuery, ContainerSize, ContainerSummary, Engine, Filter};
use crate::error::Result;
use crate::units;

/// List containers
#[derive(FromArgs)]
#[argh(subcommand, name = "ps")]
pub struct Ps {
    /// show those that do not run, too
    #[argh(switch, short = 'a')]
    pub all: bool,
    /// show those for which this holds: name=part, id=part (^ and $ stand for the ends, no other regular expressions),
    /// status=state, label=key[=value], ancestor=image, exited=code, before=container, since=container; may be repeated
    #[argh(option, short = 'f', arg_name = "condition", from_str_fn(listing::filter))]
    pub filter: Vec<Filter>,
    /// table, json, 'table TEMPLATE' or TEMPLATE, a Go template
    #[argh(option, arg_name = "format")]
    pub format: Option<String>,
    /// show the newest so many, whether they run or not
    #[argh(option, short = 'n', arg_name = "count", default = "-1")]
    pub last: i64,
    /// show the newest, whether it runs or not
    #[argh(switch, short = 'l')]
    pub latest: bool,
    /// print whole IDs and commands
    #[argh(switch)]
    pub no_trunc: bool,
    /// print only container IDs
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// measure what they wrote
    #[argh(switch, short = 's')]
    pub size: bool,
}

/// Remove containers and what they wrote
#[derive(FromArgs)]
#[argh(subcommand, name = "rm")]
pub struct Rm {
    /// kill a running container first
    #[argh(switch, short = 'f')]
    pub force: bool,
    /// accepted for docker's sake: containers here have no anonymous volumes
    #[argh(switch, short = 'v')]
    #[allow(dead_code)]
    pub volumes: bool,
    /// containers, by name or ID
    #[argh(positional, arg_name = "container")]
    pub containers: Vec<String>,
}

/// Docker's ContainerContext.
pub const CONTAINERS: Listing = Listing {
    type_name: "*formatter.ContainerContext",
    titles: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
    ],
};

pub fn ps(engine: &Engine, args: Ps) -> Result<()> {
    let last = usize::try_from(args.last).ok().filter(|last| *last > 0);
    let query = ContainerQuery {
        all: args.all,
        last: if args.latest { Some(1) } else { last },
        filters: args.filter,
    };
    let containers = engine.containers(&query)?;
    if args.quiet {
        if args.format.is_some() {
            let warning =
                "WARNING: Ignoring custom format, because both --format and --quiet are set.";
            output::line_aside(warning);
        }
        let id = |container: &ContainerSummary| match args.no_trunc {
            true => container.id.clone(),
            false => listing::short_id(&container.id),
        };
        containers.iter().for_each(|container| output::line(&id(container)));
        return Ok(());
    }
    let format = args.format.as_deref();
    // As docker, whose json does not measure unless asked.
    let with_size = args.size || format.is_some_and(|format| format.contains(".Size"));
    let mut rows = Vec::new();
    for container in &containers {
        let size = if with_size { Some(engine.container_size(&container.id)?) } else { None };
        rows.push(row(container, size, args.no_trunc));
    }
    let columns = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", "Size"];
    CONTAINERS.print(rows, &columns[..columns.len() - usize::from(!args.size)], format)
}

/// A row of `ps`, and of `system df -v`.
pub fn row(container: &ContainerSummary, size: Option<ContainerSize>, whole: bool) -> Row {
    let shown = |text: &str, most: usize| match whole {
        true => text.to_string(),
        false => listing::shorten(text, most),
    };
    let mounts = container.binds.iter().filter_map(|bind| bind.split(':').next());
    let mounts: Vec<String> = mounts.map(|source| shown(source, 15)).collect();
    let size = size.map_or("0B".into(), |size| {
        let virtual_size = units::size(size.total_bytes);
        match size.total_bytes {
            0 => units::size(size.written_bytes),
            _ => format!("{} (virtual {virtual_size})", units::size(size.written_bytes)),
        }
    });
    let id = if whole { container.id.clone() } else { listing::short_id(&container.id) };
    let mut row = Row::of([
        ("ID", id),
        ("Image", container.image.clone()),
        ("Command", format!("\"{}\"", shown(&container.command, 20))),
        ("CreatedAt", time_text(container.created)),
        ("RunningFor", ago(container.created)),
        ("Ports", String::new()),
        ("State", container.state.into()),
        ("Status", container.status.clone()),
        ("Size", size),
        ("Names", container.name.clone()),
        ("Labels", listing::labels_text(&container.labels)),
        ("Mounts", mounts.join(",")),
        ("LocalVolumes", "0".into()),
        ("Networks", container.network.clone()),
    ]);
    row.fields.insert("Platform".into(), Value::Null);
    row.labels = container.labels.clone();
    row
}

pub fn rm(engine: &Engine, args: &Rm) -> Result<i32> {
    output::each("rm", &args.containers, &mut |name| {
        engine.remove_container(name, args.force)?;
        output::line(name);
        Ok(())
    })
}
