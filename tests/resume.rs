//! A pull that is killed goes on where it stood: it fetches at most 4 MiB of each layer again, and what comes of it is,
//! file for file and byte for byte, what an uninterrupted pull makes.
//!
//! The proxy stops at a seeded byte of a blob, the pull is killed, and the next one's `Range` tells where it goes on.
//! `SEED=N cargo test --test resume` repeats a run.

mod link;
mod sandbox;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use link::pull::{Running, assert_clear_error, assert_whole, names};
use link::{Asked, Fault, Link, Random};
use rustix::process::Signal;
use sandbox::{Outcome, Registry, Sandbox, fixture, sha256, succeed};

/// What a resumed pull may fetch again of each layer.
const AGAIN_BYTES: u64 = 4 << 20;
/// More than any pull here takes.
const LIMIT: Duration = Duration::from_secs(180);
/// Later than every time in the fixtures, before any of this machine's clock; seconds since the epoch.
const RECENT: i64 = 1_750_000_000;
/// How often each pull is killed before it may end.
const KILLS: u64 = 3;

/// The kinds of layer, each the one layer of an image, and `all` of them in one.
const KINDS: [&str; 5] = ["noise", "text", "many", "odd", "twice"];

/// The images in a registry; made once for all tests of this program.
struct Fixtures {
    registry: Registry,
    shared: Sandbox,
    ids: Vec<(&'static str, String)>,
}

impl Fixtures {
    /// Those of this program. A static is never dropped, so the last test to end would leave the registry running: each
    /// test holds a share of it instead.
    fn get() -> std::sync::Arc<Fixtures> {
        static SHARED: OnceLock<std::sync::Mutex<std::sync::Weak<Fixtures>>> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Default::default).lock().expect("made without a panic");
        shared.upgrade().unwrap_or_else(|| {
            let made = std::sync::Arc::new(Fixtures::make());
            *shared = std::sync::Arc::downgrade(&made);
            made
        })
    }

    fn make() -> Fixtures {
        let shared = Sandbox::new("resume");
        let registry = Registry::start(shared.path("registry"), false);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/odd");
        succeed(Command::new(script).arg(shared.path("layers")));
        let layer = |kind: &str| shared.path("layers").join(format!("{kind}.tar"));
        let push = |name: &'static str, layers: &[PathBuf]| {
            let archive = shared.path("image.tar");
            let id = succeed(fixture("image").arg("-o").arg(&archive).args(layers));
            succeed(fixture("push").arg(format!("{}/{name}:1", registry.address)).arg(archive));
            (name, id)
        };
        let mut ids: Vec<_> = KINDS.iter().map(|kind| push(kind, &[layer(kind)])).collect();
        ids.push(push("all", &["noise", "text", "many", "odd"].map(layer)));
        Fixtures { registry, shared, ids }
    }

    fn id(&self, name: &str) -> &str {
        let found = self.ids.iter().find(|(known, _)| *known == name);
        found.map(|(_, id)| id.as_str()).expect("an image that was made")
    }
}

/// One store behind one link.
struct Case {
    fixtures: std::sync::Arc<Fixtures>,
    image: &'static str,
    link: Link,
    sandbox: Sandbox,
    reference: String,
    random: Random,
    context: String,
}

impl Case {
    fn new(name: &str, image: &'static str) -> Case {
        let seed = link::seed();
        let fixtures = Fixtures::get();
        let link = Link::start(&fixtures.registry.address);
        link.keep_pace();
        let reference = format!("{}/{image}:1", link.address);
        Case {
            image,
            sandbox: Sandbox::new(&format!("resume-{name}")),
            reference,
            random: Random::new(seed, name),
            context: format!("SEED={seed}, {name}"),
            link,
            fixtures,
        }
    }

    fn start(&self) -> Running {
        Running::start(&self.sandbox, &["pull", "-q", &self.reference])
    }

    /// Digests and sizes of the image's layers, as the registry's manifest has them.
    fn layers(&self) -> Vec<(String, u64)> {
        let manifest = succeed(
            Command::new("curl")
                .args(["-sSf", "-H"])
                .arg("Accept: application/vnd.docker.distribution.manifest.v2+json")
                .arg(format!(
                    "http://{}/v2/{}/manifests/1",
                    self.fixtures.registry.address, self.image
                )),
        );
        let (_, layers) = manifest.split_once("\"layers\"").expect("layers in the manifest");
        let value = |part: &str, key: &str| {
            let (_, rest) = part.split_once(key)?;
            let end = rest.find([',', '"', '}'])?;
            Some(rest[..end].to_string())
        };
        let parts = layers.split('{').skip(1);
        parts
            .map(|part| {
                let digest = value(part, "\"digest\":\"sha256:").expect("its digest");
                let size = value(part, "\"size\":").expect("its size");
                (digest, size.parse().expect("a number"))
            })
            .collect()
    }

    /// Pulls until the link has stopped at `stops` (blob, byte) for each, then ends it with `signal`.
    fn interrupt(&self, stops: &[(String, u64)], signal: Signal) -> Outcome {
        let policy_stops = stops.to_vec();
        self.link.reset(0, move |asked| stop_of(&policy_stops, asked));
        let running = self.start();
        let reached = self.link.wait(LIMIT, |passed| {
            stops.iter().any(|(blob, stop)| {
                let mut of_blob = passed.iter().filter(|p| p.asked.blob.as_ref() == Some(blob));
                of_blob.any(|p| p.asked.start + p.bytes >= *stop)
            })
        });
        assert!(reached, "{}: no blob came to its stop of {stops:?}", self.context);
        running.end_by(signal)
    }

    /// Where the link stopped in each blob since the last reset, beside where that answer began.
    fn reached(&self) -> Vec<(String, u64)> {
        let mut reached: Vec<(String, u64)> = Vec::new();
        for passed in self.link.passed() {
            let Some(blob) = passed.asked.blob.clone() else { continue };
            let end = passed.asked.start + passed.bytes;
            match reached.iter_mut().find(|(known, _)| *known == blob) {
                Some((_, furthest)) => *furthest = end.max(*furthest),
                None => reached.push((blob, end)),
            }
        }
        reached
    }

    /// Asserts that what was interrupted goes on at most `limit` bytes before where it stood.
    fn assert_goes_on(
        &self,
        before: &[(String, u64)],
        limit: u64,
        is_config: impl Fn(&str) -> bool,
    ) {
        for (blob, furthest) in before.iter().filter(|(blob, _)| !is_config(blob)) {
            let passed = self.link.passed();
            let first = passed.iter().find(|p| p.asked.blob.as_ref() == Some(blob));
            // Not asked for at all: it was whole.
            let Some(first) = first else { continue };
            let again = furthest.saturating_sub(first.asked.start);
            println!("{}: {} reached {furthest}, {again} again", self.context, &blob[..12]);
            assert!(
                again <= limit,
                "{}: {again} bytes of {blob} fetched again: it goes on at {} of {furthest}",
                self.context,
                first.asked.start
            );
        }
    }

    /// The last pull, over a good link.
    fn complete(&self) {
        self.link.reset(0, |_| Fault::Pass);
        let outcome = self.start().finish(LIMIT);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", self.context);
    }

    /// Asserts that the store is what an uninterrupted pull makes.
    fn assert_same(&self) {
        let fresh = Sandbox::new(&format!("resume-fresh-{}", self.link.address.replace(':', "-")));
        let outcome = Running::start(&fresh, &["pull", "-q", &self.reference]).finish(LIMIT);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", self.context);
        let id = self.fixtures.id(self.image);
        assert_whole(&self.sandbox, &self.reference, id, &self.context);
        let (expected, found) = (describe(&fresh), describe(&self.sandbox));
        assert!(expected.len() > 4, "there is something to compare");
        let missing: Vec<_> =
            expected.iter().filter(|line| !found.contains(line)).take(5).collect();
        let extra: Vec<_> = found.iter().filter(|line| !expected.contains(line)).take(5).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{}: not as an uninterrupted pull: - {missing:#?} + {extra:#?}",
            self.context
        );
        let saved = |sandbox: &Sandbox| {
            let saved = sandbox.shell(&format!("vaquita save {} | sha256sum", self.reference), &[]);
            assert_eq!((saved.code, saved.stderr.as_str()), (0, ""), "{}", self.context);
            saved.stdout
        };
        assert_eq!(saved(&fresh), saved(&self.sandbox), "{}: what `save` gives", self.context);
    }

    /// Seeded places in each blob, later than those before: the stops of kill `number`.
    fn stops(&mut self, layers: &[(String, u64)], number: u64) -> Vec<(String, u64)> {
        let mut stop = |size: u64| {
            let part = size / KILLS;
            number * part + self.random.below(part.max(1))
        };
        layers.iter().map(|(blob, size)| (blob.clone(), stop(*size))).collect()
    }
}

fn stop_of(stops: &[(String, u64)], asked: &Asked) -> Fault {
    let stop = stops.iter().find(|(blob, _)| asked.blob.as_ref() == Some(blob));
    match stop {
        Some((_, stop)) => Fault::Stall { after: stop.saturating_sub(asked.start) },
        None => Fault::Pass,
    }
}

/// Every file below `layers/` in one line: path, mode, owner, times, links, size, device, attributes and content.
fn describe(sandbox: &Sandbox) -> Vec<String> {
    let mut lines = Vec::new();
    let root = sandbox.data_root().join("layers");
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a directory of a layer") {
            let relative = folder.join(entry.expect("an entry").file_name());
            let path = root.join(&relative);
            let status = fs::symlink_metadata(&path).expect("a file that was just listed");
            let kind = status.file_type();
            // The header record is compressed, with an end of a block at each checkpoint: what it says is compared by `save`.
            let is_record = relative.components().count() == 2 && kind.is_file();
            let content = match kind {
                _ if is_record => String::new(),
                _ if kind.is_symlink() => {
                    fs::read_link(&path).expect("a link").display().to_string()
                }
                _ if kind.is_file() => sha256(&fs::read(&path).expect("a file")),
                _ => String::new(),
            };
            // Whiteouts, directories that the tar does not have and what is the engine's own are as old as the pull.
            let is_recent = status.mtime() > RECENT;
            let time = if is_recent { (0, 0) } else { (status.mtime(), status.mtime_nsec()) };
            let (owner, size) = (
                (status.uid(), status.gid()),
                if kind.is_dir() || is_record { 0 } else { status.len() },
            );
            lines.push(format!(
                "{} {:o} {owner:?} {time:?} {} {size} {} {:?} {content}",
                relative.display(),
                status.mode(),
                if kind.is_dir() { 0 } else { status.nlink() },
                status.rdev(),
                attributes(&path),
            ));
            if kind.is_dir() {
                left.push(relative);
            }
        }
    }
    lines.sort();
    lines
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("the attributes' names");
    names.truncate(length);
    let names = String::from_utf8(names).expect("names of ASCII");
    let mut pairs: Vec<_> = names
        .split_terminator('\0')
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("an attribute");
            value.truncate(length);
            (name.to_string(), value)
        })
        .collect();
    pairs.sort();
    pairs
}

/// Kills it at three seeded places, then lets it end. `limit`: the bytes that it may fetch again each time.
fn killed(name: &str, image: &'static str, signal: Signal, limit: u64) {
    let mut case = Case::new(name, image);
    let layers = case.layers();
    let is_layer = |blob: &str| layers.iter().any(|(layer, _)| layer == blob);
    let mut before = Vec::new();
    for number in 0..KILLS {
        let stops = case.stops(&layers, number);
        let outcome = case.interrupt(&stops, signal);
        assert_eq!(outcome.code, 128 + signal.as_raw(), "{}: {outcome:?}", case.context);
        assert!(!outcome.stderr.contains("panicked"), "{}: {outcome:?}", case.context);
        case.assert_goes_on(&before, limit, |blob| !is_layer(blob));
        before = case.reached();
    }
    case.complete();
    case.assert_goes_on(&before, limit, |blob| !is_layer(blob));
    case.assert_same();
}

#[test]
fn one_file_that_does_not_compress() {
    killed("noise", "noise", Signal::KILL, AGAIN_BYTES);
}

#[test]
fn one_large_file_of_text() {
    killed("text", "text", Signal::KILL, AGAIN_BYTES);
}

#[test]
fn many_small_files() {
    killed("many", "many", Signal::KILL, AGAIN_BYTES);
}

/// Hard links, whiteouts, sparse files, attributes, long names.
#[test]
fn members_of_every_kind() {
    killed("odd", "odd", Signal::KILL, AGAIN_BYTES);
}

/// What was replaced since the checkpoint is put back.
#[test]
fn members_that_replace_each_other() {
    killed("twice", "twice", Signal::KILL, AGAIN_BYTES);
}

#[test]
fn several_layers_at_once() {
    killed("all", "all", Signal::KILL, AGAIN_BYTES);
}

#[test]
fn interrupted_by_the_user() {
    killed("interrupt", "odd", Signal::INT, AGAIN_BYTES);
}

/// Everything is sent again, and only what is new is used.
#[test]
fn a_registry_that_ignores_ranges() {
    let mut case = Case::new("ranges", "odd");
    case.link.ignore_ranges(true);
    let layers = case.layers();
    for number in 0..KILLS {
        let stops = case.stops(&layers, number);
        case.interrupt(&stops, Signal::KILL);
    }
    case.complete();
    case.assert_same();
}

/// Other bytes under the same digest after the interruption: refused, and forgotten.
#[test]
fn a_blob_that_was_changed_after_the_interruption() {
    let case = Case::new("changed-after", "noise");
    let (blob, size) = case.layers().remove(0);
    case.interrupt(&[(blob.clone(), size / 2)], Signal::KILL);
    let at = size - size / 4;
    let of = blob.clone();
    case.link.reset(0, move |asked| match asked.blob.as_ref() == Some(&of) {
        true => Fault::Corrupt { at: at - asked.start },
        false => Fault::Pass,
    });
    let outcome = case.start().finish(LIMIT);
    assert_clear_error(&outcome, &[&blob], &case.context);
    assert_eq!(names(&case.sandbox, "stages"), [""; 0], "{}: the bad stage stays", case.context);
    case.complete();
    case.assert_same();
}

/// The damage came first and is found only at the end: the pull that finds it fails, or fetches the layer anew by itself.
#[test]
fn a_blob_that_was_changed_before_the_interruption() {
    let case = Case::new("changed-before", "noise");
    let (blob, size) = case.layers().remove(0);
    let of = blob.clone();
    case.link.reset(0, move |asked| match asked.blob.as_ref() == Some(&of) {
        true => Fault::Corrupt { at: size / 4 },
        false => Fault::Pass,
    });
    let running = case.start();
    let half = |passed: &[link::Passed]| {
        passed.iter().any(|p| p.asked.blob.as_ref() == Some(&blob) && p.bytes > size / 2)
    };
    assert!(case.link.wait(LIMIT, half), "{}: half of the blob", case.context);
    running.end_by(Signal::KILL);
    case.link.reset(0, |_| Fault::Pass);
    let outcome = case.start().finish(LIMIT);
    if outcome.code != 0 {
        assert_clear_error(&outcome, &[&blob], &case.context);
    }
    case.complete();
    case.assert_same();
}

/// Everything in a tree, in the order in which it is removed (src/sys/remove.rs).
fn removal_order(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the stage") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            removal_order(&path, found);
        }
        found.push(path);
    }
}

/// A stage that was being removed when the power went is not gone on with: it loses its name before anything of it goes.
/// Nor is one that still has its name and lost its checkpoints, or files that they speak of.
#[test]
fn a_stage_whose_removal_was_cut_short() {
    let case = Case::new("removal", "many");
    let (blob, size) = case.layers().remove(0);
    for (loses_name, loses_checkpoints, parts) in
        [(true, false, 0), (true, false, 6), (false, true, 5), (false, false, 1), (false, false, 9)]
    {
        let context = format!("{}, {parts} tenths gone", case.context);
        case.interrupt(&[(blob.clone(), size / 2)], Signal::KILL);
        let stages = case.sandbox.data_root().join("stages");
        let [name] = &names(&case.sandbox, "stages")[..] else { panic!("{context}: one stage") };
        let mut stage = stages.join(name);
        assert!(name.starts_with("layer-") && stage.join("checkpoint.0").exists(), "{context}");
        if loses_name {
            fs::rename(&stage, stages.join("0123456789ab")).expect("rename the stage");
            stage = stages.join("0123456789ab");
        }
        if loses_checkpoints {
            for slot in ["checkpoint.0", "checkpoint.1"] {
                fs::remove_file(stage.join(slot)).expect("remove a checkpoint");
            }
        }
        let mut order = Vec::new();
        removal_order(&stage.join("fs"), &mut order);
        assert!(order.len() > 100, "{context}: {} files", order.len());
        for path in &order[..order.len() * parts / 10] {
            let is_directory = path.is_dir() && !path.is_symlink();
            let gone = if is_directory { fs::remove_dir(path) } else { fs::remove_file(path) };
            gone.expect("remove a part of the stage");
        }
        case.complete();
        let started = case.link.passed().into_iter().find(|p| p.asked.blob.as_ref() == Some(&blob));
        assert_eq!(started.map(|passed| passed.asked.start), Some(0), "{context}: it goes on");
        assert_whole(&case.sandbox, &case.reference, case.fixtures.id("many"), &context);
        assert_eq!(case.sandbox.vaquita(&["rmi", &case.reference]).code, 0, "{context}");
    }
}

/// What is kept for resuming is no danger to what is there, and goes when nobody can want it.
#[test]
fn the_fixtures_are_as_large_as_the_limit_needs() {
    for image in KINDS {
        let case = Case::new(&format!("size-{image}"), image);
        let (_, size) = case.layers().remove(0);
        assert!(size > 3 * AGAIN_BYTES, "{image} has only {size} bytes");
    }
    assert!(Fixtures::get().shared.path("layers").exists());
}
