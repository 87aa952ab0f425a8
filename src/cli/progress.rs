//! The engine's events for people: on a terminal a line for each layer that is redrawn in place, elsewhere the lines that
//! docker prints into a pipe.
//!
//! An event is first told as a line or as the status of a layer; what a terminal does with these is `screen`'s, which
//! gives text and writes nothing. Each drawing is one write that leaves the cursor below all lines, so that Ctrl-C at
//! any instant leaves a sane terminal.

mod bar;
mod screen;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use super::output;
use crate::engine::Event;
use crate::sys::terminal;
use crate::units;
use screen::{Screen, Size};

/// An event as it is told.
enum Told {
    /// A sentence for itself.
    Line(String),
    /// What a layer, or another thing with an ID, has come to.
    Status { id: String, status: Status },
}

/// What a layer has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Status {
    /// It waits its turn.
    Waiting(&'static str),
    /// It is being worked at.
    Busy(String),
    /// So many bytes of it are here.
    Moving { done_bytes: u64, total_bytes: u64 },
    /// Nothing more will happen to it.
    Done(&'static str),
}

/// Docker's words for a transfer and its end.
#[derive(Clone, Copy)]
pub struct Words {
    moving: &'static str,
    done: &'static str,
}

/// For layers that come from a registry.
pub const PULL: Words = Words { moving: "Downloading", done: "Pull complete" };
/// For layers that go to a registry.
pub const PUSH: Words = Words { moving: "Pushing", done: "Pushed" };
/// For layers that come from an archive.
pub const LOAD: Words = Words { moving: "Loading layer", done: "Loading layer" };

/// Shows events on one stream.
pub struct Progress {
    words: Words,
    aside: bool,
    live: Option<Live>,
}

/// A terminal that is redrawn.
struct Live {
    terminal: File,
    screen: Screen,
    started: Instant,
}

impl Progress {
    /// On standard output.
    pub fn new(words: Words) -> Progress {
        Progress { words, aside: false, live: Live::on(&io::stdout(), words) }
    }

    /// On standard error, where standard output is a container's.
    pub fn aside(words: Words) -> Progress {
        Progress { words, aside: true, live: Live::on(&io::stderr(), words) }
    }

    /// Shows one event.
    pub fn show(&mut self, event: Event) {
        let told = told(event, self.words);
        match &mut self.live {
            Some(live) => live.show(told),
            None => self.print(told),
        }
    }

    fn print(&self, told: Told) {
        let line = match told {
            Told::Line(line) => line,
            Told::Status { id, status: Status::Waiting(text) | Status::Done(text) } => {
                format!("{id}: {text}")
            }
            Told::Status { id, status: Status::Busy(text) } => format!("{id}: {text}"),
            // Who reads it later learns nothing from it.
            Told::Status { status: Status::Moving { .. }, .. } => return,
        };
        if self.aside { output::line_aside(&line) } else { output::line(&line) }
    }
}

impl Live {
    /// If the stream is a terminal that can move its cursor.
    fn on(stream: &(impl AsFd + IsTerminal), words: Words) -> Option<Live> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if is_dumb || !stream.is_terminal() {
            return None;
        }
        // A descriptor of our own: a stream's buffer would cut a drawing into several writes.
        let terminal = stream.as_fd().try_clone_to_owned().ok()?.into();
        Some(Live { terminal, screen: Screen::new(words.moving), started: Instant::now() })
    }

    fn show(&mut self, told: Told) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let size = terminal::size(self.terminal.as_fd());
        let size = size.map_or(Size::default(), |(rows, columns)| Size {
            rows: usize::from(rows),
            columns: usize::from(columns),
        });
        self.screen.forget_if_moved(size, output::lines_aside());
        let text = match told {
            Told::Line(line) => self.screen.line(&line),
            Told::Status { id, status } => self.screen.status(&id, status, now_ms),
        };
        // A terminal that has hung up is no reason to stop the work.
        let _ = self.terminal.write_all(text.as_bytes());
    }
}

fn told(event: Event, words: Words) -> Told {
    let line = Told::Line;
    let status = |id: String, status: Status| Told::Status { id, status };
    let busy = |id: String, text: &str| status(id, Status::Busy(text.into()));
    match event {
        Event::Missing { reference } => line(format!("Unable to find image '{reference}' locally")),
        Event::Pulling { tag, repository } => line(format!("{tag}: Pulling from {repository}")),
        Event::LayerExists { layer } => status(layer, Status::Done("Already exists")),
        Event::LayerStarted { layer } => status(layer, Status::Waiting("Pulling fs layer")),
        Event::LayerWaiting { layer } => status(layer, Status::Waiting("Waiting")),
        Event::LayerProgress { layer, done_bytes, total_bytes } => {
            status(layer, Status::Moving { done_bytes, total_bytes })
        }
        Event::LayerRetrying { layer, seconds, reason } => {
            let unit = if seconds == 1 { "second" } else { "seconds" };
            busy(layer, &format!("Retrying in {seconds} {unit} ({reason})"))
        }
        Event::LayerDone { layer } => status(layer, Status::Done(words.done)),
        Event::Pulled { reference, digest, is_new } => {
            let outcome = match is_new {
                true => "Downloaded newer image for",
                false => "Image is up to date for",
            };
            line(format!("Digest: {digest}\nStatus: {outcome} {reference}"))
        }
        Event::Pushing { name } => line(format!("The push refers to repository [{name}]")),
        Event::LayerPreparing { layer } => status(layer, Status::Waiting("Preparing")),
        Event::LayerAtRegistry { layer } => status(layer, Status::Done("Layer already exists")),
        Event::LayerMounted { layer, from } => busy(layer, &format!("Mounted from {from}")),
        Event::LayerPushed { layer } => status(layer, Status::Done("Pushed")),
        Event::Pushed { tag, digest, size_bytes } => {
            line(format!("{tag}: digest: {digest} size: {size_bytes}"))
        }
        Event::DeltaBasis { image } => status(image, Status::Done("Using as delta basis")),
        Event::DeltaUsed { image, delta_bytes, layers_bytes } => {
            let (delta, layers) = (units::size(delta_bytes), units::size(layers_bytes));
            line(format!("Delta from {image}: {delta} instead of {layers}"))
        }
        Event::IndexUsed { image, index_bytes, layers_bytes } => {
            let (index, layers) = (units::size(index_bytes), units::size(layers_bytes));
            line(format!("Index with {image}: {index} instead of {layers}"))
        }
        Event::Indexing { layer } => busy(layer, "Indexing"),
        Event::Indexed { layer } => status(layer, Status::Done("Index complete")),
        Event::Fingerprinting { image } => busy(image, "Fingerprinting"),
        Event::ComputingDelta { layer } => busy(layer, "Computing delta"),
        Event::SkippingCommonLayer { layer } => {
            status(layer, Status::Done("Skipping common layer"))
        }
        Event::DeltaDone { layer } => status(layer, Status::Done("Delta complete")),
    }
}

/// Swallows one event.
pub fn ignore(_: Event) {}
