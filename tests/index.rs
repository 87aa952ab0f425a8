//! Pulls by an index, from any image that is here, and whatever can go wrong with one. The registry is `push/fake.rs`; Debian's
//! is in `behaviour/index.case`.

#[path = "push/device.rs"]
mod device;
#[path = "push/fake.rs"]
mod fake;
mod sandbox;

use std::fs;
use std::ops::Deref;

use device::Device;
use fake::{Fake, Fault};
use sandbox::{Sandbox, fixture, succeed};
use vaquita::digest::Digest;
use vaquita::engine::Event;

const NEW: &str = "fleet/app:3";
const REPOSITORY: &str = "fleet/app";

/// A registry with three images and the index of the third, and a device that has the first two.
struct Place {
    device: Device,
    /// The digest of the manifest of its index.
    index: String,
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| byte()).collect()
}

impl Deref for Place {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl Place {
    fn new(name: &str, keeps_lists: bool) -> Place {
        let (fake, sandbox) = (Fake::start(), Sandbox::new(name));
        fake.state().keeps_lists = keeps_lists;
        let (base, layer) = (sandbox.path("base"), sandbox.path("layer"));
        for directory in [&base, &layer] {
            fs::create_dir_all(directory.join("etc")).unwrap();
        }
        fs::write(base.join("etc/same"), "same\n".repeat(20_000)).unwrap();
        fs::write(layer.join("etc/same"), noise(1, 200_000)).unwrap();
        let mut large = noise(2, 900_000);
        let mut image = String::new();
        for number in 1..=3 {
            large.splice(400_000..400_000, noise(number, 1000));
            fs::write(layer.join("etc/large"), &large).unwrap();
            fs::write(
                layer.join("etc/release"),
                format!("this is the release {number}\n").repeat(9),
            )
            .unwrap();
            let archive = sandbox.path(&format!("{number}.tar")).display().to_string();
            let tag = format!("{}/fleet/app:{number}", fake.authority);
            let mut command = fixture("image");
            let time = format!("17000000{number}0");
            command.args(["--mtime", &time, "--name", &tag, "-o", &archive]);
            // A layer may be in an image twice.
            image = succeed(command.args([&base, &layer, &layer]));
        }
        let device = Device { fake, sandbox, new: NEW, image };
        for number in 1..=3 {
            let archive = device.sandbox.path(&format!("{number}.tar")).display().to_string();
            device.publish(&archive, &format!("fleet/app:{number}"));
        }
        let repository = device.name(REPOSITORY);
        let made = device.done(&["delta", "index", "--push", &repository, &device.name(NEW)]);
        let index = made.trim_end().rsplit('@').next().unwrap().to_string();
        device.done(&["rmi", "-f", &device.image]);
        device.fake.state().requests.clear();
        device.fake.state().sent_bytes = 0;
        Place { device, index }
    }

    /// The index of the layer that changes, and the length of its head.
    fn blob(&self) -> ((String, String), usize) {
        let state = self.fake.state();
        let document = &state.manifests[&(REPOSITORY.into(), self.index.clone())].1;
        let text = std::str::from_utf8(document).unwrap();
        let layers = text.split(r#""digest":""#).filter(|part| part.contains("delta.head"));
        let found = layers.map(|part| {
            let key = (REPOSITORY.to_string(), part[..71].to_string());
            let (_, head) = part.split_once(r#"delta.head":""#).unwrap();
            (key, head.split('"').next().unwrap().parse().unwrap())
        });
        found.max_by_key(|(key, _)| state.blobs[key].len()).unwrap()
    }

    fn changes_blob(&self, change: impl Fn(&mut Vec<u8>, usize)) {
        let (key, head) = self.blob();
        let mut state = self.fake.state();
        let blob = state.blobs.get_mut(&key).unwrap();
        let end = blob.len() - head;
        change(blob, end);
    }

    fn breaks(&self, status: u16) {
        let part = self.blob().0.1;
        self.fake.state().broken.push((part, 100, Fault::Answer(status, "", "")));
    }

    /// The list names an index whose document is another.
    fn changes_document(&self, from: &str, to: &str) {
        let mut state = self.fake.state();
        let key = (REPOSITORY.to_string(), self.index.clone());
        let (kind, document) = state.manifests[&key].clone();
        let document = String::from_utf8(document).unwrap().replace(from, to);
        let digest = Digest::of(document.as_bytes()).to_string();
        state.manifests.insert((key.0, digest.clone()), (kind, document.into_bytes()));
        for (_, (_, list)) in
            state.manifests.iter_mut().filter(|((_, key), _)| key.starts_with("sha256-"))
        {
            *list =
                String::from_utf8(list.clone()).unwrap().replace(&self.index, &digest).into_bytes();
        }
    }

    fn subject(&self) -> String {
        let state = self.fake.state();
        Digest::of(&state.manifests[&(REPOSITORY.into(), "3".into())].1).to_string()
    }
}

#[test]
fn a_device_of_any_version_fetches_what_it_lacks() {
    for (name, keeps_lists, gone) in [("index-api", true, 1), ("index-tag", false, 2)] {
        let place = Place::new(name, keeps_lists);
        place.done(&["rmi", &place.name(&format!("fleet/app:{gone}"))]);
        let outcome = place.pull(&[], name);
        assert!(outcome.stdout.contains("\nIndex with "), "{outcome:?}");
        assert_eq!(outcome.stderr, "");
        let sent = place.fake.state().sent_bytes;
        assert!(sent < 150_000, "{name}: {sent}");
        assert_eq!(place.requests("/referrers/"), 1, "{name}");
    }
}

#[test]
fn it_is_used_as_deltas_are() {
    let place = Place::new("index-options", true);
    let outcome = place.pull(&["--no-delta"], "no delta");
    assert!(!outcome.stdout.contains("Index with"), "{outcome:?}");
    place.done(&["rmi", &place.name(NEW)]);
    let outcome = place.pull(&["--delta-only"], "only");
    assert!(outcome.stdout.contains("Index with"), "{outcome:?}");
    place.done(&["rmi", &place.name(NEW)]);

    // A good delta costs less, and the index is not looked at.
    let (repository, old, new) =
        (place.name(REPOSITORY), place.name("fleet/app:2"), place.name(NEW));
    place.pull(&["-q"], "again");
    place.done(&["delta", "create", "--push", &repository, &old, &new]);
    place.done(&["rmi", &new]);
    place.fake.state().requests.clear();
    let outcome = place.pull(&[], "delta");
    assert!(outcome.stdout.contains("\nDelta from "), "{outcome:?}");
    assert_eq!(place.requests(&place.index), 0);
    place.done(&["rmi", "-f", "$(vaquita images -aq | sort -u)"]);
    place.fake.state().requests.clear();
    place.pull(&[], "there is no image");
    assert_eq!(place.requests("/referrers/"), 0);
}

/// Each of these makes the index useless in its way. The image comes by its layers, and one line says why.
#[test]
fn whatever_goes_wrong_the_layers_come() {
    type Damage = fn(&Place);
    let damages: &[(&str, Damage, &str)] = &[
        ("no ranges", |p| p.fake.state().ignores_ranges = true, "knows no ranges"),
        ("404", |p| p.breaks(404), "answers 404 not found"),
        ("416", |p| p.breaks(416), "answers 416 range not satisfiable"),
        ("500", |p| p.breaks(500), "answers 500 server error"),
        ("nothing", |p| p.changes_blob(|blob, _| blob.clear()), "answers 416"),
        ("cut", |p| p.changes_blob(|blob, end| blob.truncate(end)), "answers 416"),
        ("cut in the head", |p| p.changes_blob(|blob, end| blob.truncate(end + 20)), "answers 416"),
        (
            "head",
            |p| p.changes_blob(|blob, end| blob[end + 20] ^= 1),
            "the head of the index is damaged",
        ),
        ("detail", |p| p.changes_blob(|blob, end| blob[end - 20] ^= 0x55), ""),
        ("pieces", |p| p.changes_blob(|blob, end| blob[..end - 20_000].fill(7)), "is damaged"),
        (
            "another subject",
            |p| p.changes_document(&p.subject(), &Digest::of(b"").to_string()),
            "its subject is sha256:",
        ),
        ("another length", |p| p.changes_document("delta.head\":\"", "delta.head\":\"1"), ""),
    ];
    let place = Place::new("index-faults", false);
    for (context, damage, cause) in damages {
        let (blobs, manifests) = {
            let state = place.fake.state();
            (state.blobs.clone(), state.manifests.clone())
        };
        damage(&place);
        let outcome = place.pull(&[], context);
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        // A head that is said to be longer than it may be is no index of the layer.
        if *context != "another length" || !lines.is_empty() {
            let [line] = lines[..] else { panic!("{context}: {outcome:?}") };
            println!("{context}: {line}");
            assert!(line.starts_with("vaquita: warn: index sha256:"), "{context}: {line}");
            assert!(line.ends_with("; the layers are pulled instead"), "{context}: {line}");
            assert!(line.contains(cause), "{context}: {line}");
        }
        assert!(!outcome.stdout.contains("Index with"), "{context}: {outcome:?}");
        let mut state = place.fake.state();
        (state.blobs, state.manifests) = (blobs, manifests);
        (state.ignores_ranges, state.broken) = (false, Vec::new());
        drop(state);
        place.done(&["rmi", &place.name(NEW)]);
    }
}

#[test]
fn progress_is_of_layers_that_are_under_way() {
    let place = Place::new("index-progress", true);
    let told = place.sandbox.watched_pull(&place.name(NEW));
    assert!(told.iter().any(|event| matches!(event, Event::IndexUsed { .. })), "{told:?}");
    let started = |event: &Event| match event {
        Event::LayerStarted { layer } => Some(layer.clone()),
        _ => None,
    };
    let mut started: Vec<String> = told.iter().filter_map(started).collect();
    let count = started.len();
    started.sort();
    started.dedup();
    assert_eq!(started.len(), count, "a layer was made twice: {told:?}");
}
