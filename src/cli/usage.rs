//! `system df`.

use argh::FromArgs;
use miniserde::json::{self, Array, Object, Value};

use super::containers::{self, CONTAINERS};
use super::images::{self, IMAGES};
use super::listing::{Listing, Row, print_documents};
use super::output;
use super::template::Missing;
use crate::engine::{ContainerSize, Engine, ImageUsage, Usage};
use crate::error::Result;
use crate::units;

/// Show what takes space on the disk
#[derive(FromArgs)]
#[argh(subcommand, name = "df")]
pub struct Df {
    /// table, json, 'table TEMPLATE' or TEMPLATE, a Go template
    #[argh(option, arg_name = "format")]
    pub format: Option<String>,
    /// show each image and container
    #[argh(switch, short = 'v')]
    pub verbose: bool,
}

/// Docker's diskUsageContext.
const KINDS: Listing = Listing {
    type_name: "*formatter.diskUsageImagesContext",
    titles: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

const VOLUMES: Listing = Listing {
    type_name: "*formatter.volumeContext",
    titles: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
};

const CACHES: Listing = Listing {
    type_name: "*formatter.buildCacheContext",
    titles: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
};

pub fn df(engine: &Engine, args: &Df) -> Result<i32> {
    let usage = engine.usage()?;
    if !args.verbose {
        let columns = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
        KINDS.print(kinds(&usage), &columns, args.format.as_deref())?;
        return Ok(0);
    }
    match args.format.as_deref() {
        None | Some("" | "table") => print_verbose(&usage),
        Some(format) => {
            let document = json::to_string(&verbose_document(&usage));
            let missing = Missing::Field("*formatter.diskUsageContext");
            return print_documents("", &[document], format, missing);
        }
    }
    Ok(0)
}

/// A row for each kind of thing. There are no volumes and no build cache of the engine's own.
fn kinds(usage: &Usage) -> Vec<Row> {
    let used: u64 = usage
        .images
        .iter()
        .filter(|image| image.containers > 0)
        .map(|usage| usage.image.size_bytes.saturating_sub(usage.shared_bytes))
        .sum();
    let active_images = usage.images.iter().filter(|image| image.containers > 0).count();
    let written: u64 = usage.containers.iter().map(|(_, bytes)| bytes).sum();
    let running = usage.containers.iter().filter(|(container, _)| container.is_running);
    let active_containers = running.clone().count();
    let running_bytes: u64 = running.map(|(_, bytes)| bytes).sum();
    let layers = usage.layers_bytes;
    vec![
        kind("Images", usage.images.len(), active_images, layers, layers.saturating_sub(used)),
        kind(
            "Containers",
            usage.containers.len(),
            active_containers,
            written,
            written - running_bytes,
        ),
        kind("Local Volumes", 0, 0, 0, 0),
        kind("Build Cache", 0, 0, 0, 0),
    ]
}

fn kind(name: &str, count: usize, active: usize, bytes: u64, reclaimable: u64) -> Row {
    let percent = (u128::from(reclaimable) * 100).checked_div(u128::from(bytes));
    let percent = percent.map_or(String::new(), |percent| format!(" ({percent}%)"));
    Row::of([
        ("Type", name.into()),
        ("TotalCount", count.to_string()),
        ("Active", active.to_string()),
        ("Size", units::fine_size(bytes)),
        ("Reclaimable", format!("{}{percent}", units::fine_size(reclaimable))),
    ])
}

fn image_row(usage: &ImageUsage, whole: bool) -> Row {
    let mut row = images::row(&usage.image, "", whole);
    let unique = usage.image.size_bytes.saturating_sub(usage.shared_bytes);
    row.set("SharedSize", units::fine_size(usage.shared_bytes));
    row.set("UniqueSize", units::fine_size(unique));
    row.set("Containers", usage.containers.to_string());
    row
}

fn rows(usage: &Usage, whole: bool) -> (Vec<Row>, Vec<Row>) {
    let images = usage.images.iter().map(|image| image_row(image, whole)).collect();
    let containers = usage.containers.iter().map(|(container, written_bytes)| {
        let size = ContainerSize { written_bytes: *written_bytes, total_bytes: 0 };
        containers::row(container, Some(size), whole)
    });
    (images, containers.collect())
}

fn print_verbose(usage: &Usage) {
    let (images, containers) = rows(usage, false);
    let image_columns = [
        "Repository",
        "Tag",
        "ID",
        "CreatedSince",
        "Size",
        "SharedSize",
        "UniqueSize",
        "Containers",
    ];
    let container_columns =
        ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"];
    let cache_columns =
        ["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"];
    output::print(&format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         Build cache usage: 0B\n\n{}\nUnfinished pulls usage: {}\n",
        IMAGES.table(&images, &image_columns),
        CONTAINERS.table(&containers, &container_columns),
        VOLUMES.table(&[], &["Name", "Links", "Size"]),
        CACHES.table(&[], &cache_columns),
        units::fine_size(usage.unfinished_bytes),
    ));
}

fn verbose_document(usage: &Usage) -> Value {
    let (images, containers) = rows(usage, true);
    let list = |rows: Vec<Row>| -> Value {
        Value::Array(rows.into_iter().map(|row| Value::Object(row.fields)).collect())
    };
    let mut document = Object::new();
    document.insert("Images".into(), list(images));
    document.insert("Containers".into(), list(containers));
    document.insert("Volumes".into(), Value::Array(Array::new()));
    document.insert("BuildCache".into(), Value::Array(Array::new()));
    Value::Object(document)
}
