//! `images`, `tag` and `rmi`.

use argh::FromArgs;

use super::listing::{self, Listing, Row};
use super::output;
use crate::engine::{Engine, Filter, ImageSummary, Removed};
use crate::error::Result;
use crate::reference::Reference;
use crate::time;
use crate::units;

/// List images
#[derive(FromArgs)]
#[argh(subcommand, name = "images")]
pub struct Images {
    /// show all images; there are no intermediate ones to hide, so this changes nothing
    #[argh(switch, short = 'a')]
    #[allow(dead_code)]
    pub all: bool,
    /// show the digests that registries have for them
    #[argh(switch)]
    pub digests: bool,
    /// show those for which this holds: dangling=true, label=key[=value], reference=pattern, before=image,
    /// since=image, until=time; may be repeated
    #[argh(option, short = 'f', arg_name = "condition", from_str_fn(listing::filter))]
    pub filter: Vec<Filter>,
    /// table, json, 'table TEMPLATE' or TEMPLATE, a Go template
    #[argh(option, arg_name = "format")]
    pub format: Option<String>,
    /// print whole IDs
    #[argh(switch)]
    pub no_trunc: bool,
    /// print only image IDs
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// show only these: repository[:tag], a pattern
    #[argh(positional, arg_name = "repository")]
    pub repository: Option<String>,
}

/// Give an image one more name
#[derive(FromArgs)]
#[argh(subcommand, name = "tag")]
pub struct Tag {
    /// image to name
    #[argh(positional, arg_name = "source")]
    pub source: String,
    /// its new name
    #[argh(positional, arg_name = "target")]
    pub target: String,
}

/// Remove images by name, ID or digest
#[derive(FromArgs)]
#[argh(subcommand, name = "rmi")]
pub struct Rmi {
    /// remove an ID with all its names
    #[argh(switch, short = 'f')]
    pub force: bool,
    /// accepted for docker's sake: images here have no untagged parents
    #[argh(switch)]
    #[allow(dead_code)]
    pub no_prune: bool,
    /// images, by name, ID or digest
    #[argh(positional, arg_name = "image")]
    pub images: Vec<String>,
}

/// Docker's imageContext.
pub const IMAGES: Listing = Listing {
    type_name: "*formatter.imageContext",
    titles: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};

pub fn images(engine: &Engine, args: Images) -> Result<()> {
    let mut filters = args.filter;
    filters.extend(args.repository.map(|value| Filter { name: "reference".into(), value }));
    let format = args.format.as_deref().unwrap_or("table");
    let images = engine.images(&filters)?;
    if args.quiet && format == "table" {
        images.iter().for_each(|image| output::line(&image_id(image, args.no_trunc)));
        return Ok(());
    }
    let with_digests = args.digests || format.contains(".Digest");
    let mut rows = Vec::new();
    for image in &images {
        let digests: Vec<&str> = image.digests.iter().map(String::as_str).collect();
        let digests = if with_digests && !digests.is_empty() { digests } else { vec!["<none>"] };
        rows.extend(digests.iter().map(|digest| row(image, digest, args.no_trunc)));
    }
    let columns: &[&str] = match args.digests {
        true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    IMAGES.print(rows, columns, Some(format))
}

fn image_id(image: &ImageSummary, whole: bool) -> String {
    if whole { image.id.to_string() } else { image.id.short() }
}

/// A row of `images`, and of `system df -v`.
pub fn row(image: &ImageSummary, digest: &str, whole: bool) -> Row {
    let (created_since, created_at) = match image.created {
        0 => ("N/A".to_string(), "N/A".to_string()),
        at => (ago(at), time_text(at)),
    };
    Row::of([
        ("Repository", image.repository.clone()),
        ("Tag", image.tag.clone()),
        ("Digest", digest.into()),
        ("ID", image_id(image, whole)),
        ("CreatedSince", created_since),
        ("CreatedAt", created_at),
        ("Size", units::size(image.size_bytes)),
        ("VirtualSize", units::fine_size(image.size_bytes)),
        ("SharedSize", "N/A".into()),
        ("UniqueSize", "N/A".into()),
        ("Containers", "N/A".into()),
    ])
}

/// `3 days ago`
pub fn ago(at: u64) -> String {
    format!("{} ago", units::duration(time::unix_now().0.saturating_sub(at)))
}

/// A moment as Go prints it: `2020-09-13 12:26:40 +0000 UTC`.
pub fn time_text(at: u64) -> String {
    time::format((at, 0)).replace('T', " ").replace('Z', " +0000 UTC")
}

pub fn tag(engine: &Engine, args: &Tag) -> Result<()> {
    engine.tag(&args.source, &Reference::parse_name(&args.target)?)
}

pub fn rmi(engine: &Engine, args: &Rmi) -> Result<i32> {
    output::each("rmi", &args.images, &mut |name| {
        for removed in engine.remove_image(name, args.force)? {
            output::line(&removed_line(&removed, "Untagged", "Deleted"));
        }
        Ok(())
    })
}

/// What was removed, in these words: those of docker's `rmi` begin with capitals, those of its prunes do not.
pub fn removed_line(removed: &Removed, untagged: &str, deleted: &str) -> String {
    match removed {
        Removed::Untagged(name) => format!("{untagged}: {name}"),
        Removed::Deleted(id) => format!("{deleted}: {id}"),
    }
}
