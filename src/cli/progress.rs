//! The engine's events as the lines that docker prints into a pipe.

use super::output;
use crate::engine::Event;

/// Prints one event.
pub fn print(event: Event) {
    output::line(&text(event));
}

fn text(event: Event) -> String {
    match event {
        Event::Missing { reference } => format!("Unable to find image '{reference}' locally"),
        Event::Pulling { tag, repository } => format!("{tag}: Pulling from {repository}"),
        Event::LayerExists { layer } => format!("{layer}: Already exists"),
        Event::LayerStarted { layer } => format!("{layer}: Pulling fs layer"),
        Event::LayerDone { layer } => format!("{layer}: Pull complete"),
        Event::Pulled { reference, digest, is_new } => {
            let status = match is_new {
                true => "Downloaded newer image for",
                false => "Image is up to date for",
            };
            format!("Digest: {digest}\nStatus: {status} {reference}")
        }
        Event::DeltaBasis { image } => format!("{image}: Using as delta basis"),
        Event::Fingerprinting { image } => format!("{image}: Fingerprinting"),
        Event::ComputingDelta { layer } => format!("{layer}: Computing delta"),
        Event::SkippingCommonLayer { layer } => format!("{layer}: Skipping common layer"),
        Event::DeltaDone { layer } => format!("{layer}: Delta complete"),
    }
}

/// Prints one event of a load, where layers come from an archive.
pub fn print_loaded(event: Event) {
    match event {
        Event::LayerDone { layer } => output::line(&format!("{layer}: Loading layer")),
        other => print(other),
    }
}

/// Swallows one event.
pub fn ignore(_: Event) {}

/// Prints to standard error, where standard output is a container's.
pub fn print_aside(event: Event) {
    output::line_aside(&text(event));
}
