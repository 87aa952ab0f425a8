//! `inspect`, `image inspect` and `container inspect`.

use argh::FromArgs;

use super::listing::print_documents;
use super::output;
use super::template::Missing;
use crate::engine::{Engine, Inspectable};
use crate::error::{Error, Kind, Result};

/// Show all that is known of containers or images, as JSON
#[derive(FromArgs)]
#[argh(subcommand, name = "inspect")]
pub struct Inspect {
    /// json, or TEMPLATE, a Go template
    #[argh(option, short = 'f', arg_name = "format")]
    pub format: Option<String>,
    /// measure what containers wrote
    #[argh(switch, short = 's')]
    pub size: bool,
    /// look only among these: container or image
    #[argh(option, long = "type", arg_name = "type")]
    pub kind: Option<String>,
    /// containers or images, by name or ID
    #[argh(positional, arg_name = "name")]
    pub names: Vec<String>,
}

pub fn inspect(engine: &Engine, args: &Inspect) -> Result<i32> {
    let wanted = match args.kind.as_deref() {
        None | Some("") => Inspectable::Any,
        Some("container") => Inspectable::Container,
        Some("image") => Inspectable::Image,
        Some(other) => {
            let message =
                format!("unknown type: {other:?}: must be one of \"container\", \"image\"");
            return Err(Error::new(Kind::Invalid, message));
        }
    };
    let mut found = Vec::new();
    let code = output::each("inspect", &args.names, &mut |name| {
        found.push(engine.inspect(name, wanted, args.size)?);
        Ok(())
    })?;
    let list = format!("[{}]", found.join(","));
    let printed = match args.format.as_deref() {
        None | Some("") => {
            output::line(&output::indent_json(&list));
            0
        }
        Some("json") => {
            output::line(&list);
            0
        }
        Some(format) => print_documents("", &found, format, Missing::Key)?,
    };
    Ok(if printed == 0 { code } else { printed })
}
