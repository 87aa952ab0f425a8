//! The engine's events as the lines that docker prints into a pipe.

use super::output;
use crate::engine::Event;

/// Prints one event.
pub fn print(event: Event) {
    output::line(&match event {
        Event::Pulling { tag, repository } => format!("{tag}: Pulling from {repository}"),
        Event::LayerExists { layer } => format!("{layer}: Already exists"),
        Event::LayerStarted { layer } => format!("{layer}: Pulling fs layer"),
        Event::LayerDone { layer } => format!("{layer}: Pull complete"),
        Event::DeltaBasis { image } => format!("{image}: Using as delta basis"),
        Event::Fingerprinting { image } => format!("{image}: Fingerprinting"),
        Event::ComputingDelta { layer } => format!("{layer}: Computing delta"),
        Event::SkippingCommonLayer { layer } => format!("{layer}: Skipping common layer"),
        Event::DeltaDone { layer } => format!("{layer}: Delta complete"),
    });
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
    if let Event::Pulling { tag, repository } = event {
        output::error(&format!("{tag}: pulling from {repository}, it is not here"));
    }
}
