//! Deltas as artifacts: pulls from a registry that keeps lists of what refers to an image, and from one that does not, and
//! whatever can go wrong on the way. The registry is `push/fake.rs`; Debian's is in `behaviour/delta-artifact.case`.

#[path = "push/device.rs"]
mod device;
#[path = "push/fake.rs"]
mod fake;
mod sandbox;

use std::fs;
use std::ops::Deref;

use device::Device;
use fake::{Fake, Fault};
use sandbox::{Outcome, Sandbox, fixture, succeed};
use vaquita::digest::Digest;
use vaquita::engine::Event;
use vaquita::oci::artifact::{DELTA_TYPE, Format, Offer, empty_blob, write};
use vaquita::oci::manifest::{Descriptor, OCI_INDEX, OCI_MANIFEST};
use vaquita::registry::{Client, Options, Push};

const OLD: &str = "fleet/app:1";
const NEW: &str = "fleet/app:2";
const REPOSITORY: &str = "fleet/app";

/// A registry with two images and the delta from one to the other, and a device that has the first.
struct Place {
    device: Device,
    /// The digest of the delta's manifest.
    delta: String,
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
        fs::create_dir_all(base.join("etc")).unwrap();
        fs::write(base.join("etc/same"), "same\n".repeat(20_000)).unwrap();
        fs::create_dir_all(layer.join("etc")).unwrap();
        let mut image = String::new();
        for (number, name) in [(1, OLD), (2, NEW)] {
            let lines: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
            fs::write(layer.join("etc/release"), format!("{number}\n{lines}")).unwrap();
            let archive = sandbox.path(&format!("{number}.tar")).display().to_string();
            let tag = format!("{}/{name}", fake.authority);
            let mut command = fixture("image");
            command.args(["--mtime", "1700000000", "--name", &tag, "-o", &archive]);
            image = succeed(command.args([&base, &layer]));
        }
        let device = Device { fake, sandbox, new: NEW, image };
        for number in [1, 2] {
            let archive = device.sandbox.path(&format!("{number}.tar")).display().to_string();
            device.publish(&archive, &format!("fleet/app:{number}"));
        }
        let repository = device.name(REPOSITORY);
        let made = device.done(&[
            "delta",
            "create",
            "--push",
            &repository,
            &device.name(OLD),
            &device.name(NEW),
        ]);
        let delta = made.trim_end().rsplit('@').next().unwrap().to_string();
        device.done(&["rmi", "-f", &device.image]);
        device.fake.state().requests.clear();
        Place { device, delta }
    }

    /// The digest of the new image's manifest.
    fn subject(&self) -> Digest {
        let state = self.fake.state();
        Digest::of(&state.manifests[&(REPOSITORY.into(), "2".into())].1)
    }

    fn list_key(&self) -> (String, String) {
        (REPOSITORY.into(), format!("sha256-{}", self.subject().hex()))
    }

    /// The blob of the delta.
    fn blob(&self) -> (String, String) {
        let state = self.fake.state();
        let document = &state.manifests[&(REPOSITORY.into(), self.delta.clone())].1;
        let text = std::str::from_utf8(document).unwrap();
        let (_, layers) = text.split_once(r#""layers":["#).unwrap();
        let (_, digest) = layers.split_once(r#""digest":""#).unwrap();
        (REPOSITORY.into(), digest[..71].into())
    }
}

#[test]
fn a_registry_that_keeps_lists_tells_of_deltas() {
    let place = Place::new("artifact-api", true);
    let tag = place.list_key();
    assert!(!place.fake.state().manifests.contains_key(&tag), "a list under a tag");
    let outcome = place.pull(&[], "api");
    assert!(outcome.stdout.contains("\nDelta from "), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    let asked =
        format!("GET /v2/fleet/app/referrers/{}?artifactType={DELTA_TYPE}", place.subject());
    assert_eq!(place.requests(&asked), 1);
    assert_eq!(place.requests("/manifests/sha256-"), 0);
    assert_eq!(place.requests("/blobs/"), 2);
}

#[test]
fn one_that_does_not_has_a_list_under_a_tag() {
    let place = Place::new("artifact-tag", false);
    let outcome = place.pull(&["-q"], "tag");
    assert_eq!((outcome.stdout, outcome.stderr), (place.name(NEW) + "\n", String::new()));
    assert_eq!(place.requests("/referrers/"), 1);
    assert_eq!(place.requests("GET /v2/fleet/app/manifests/sha256-"), 1);
    assert_eq!(place.requests("/blobs/"), 2);
}

#[test]
fn nothing_is_asked_that_cannot_help() {
    let place = Place::new("artifact-asks", true);
    place.pull(&["--no-delta"], "no delta");
    place.pull(&[], "it is here");
    place.done(&["rmi", "-f", "$(vaquita images -aq | sort -u)"]);
    assert_eq!(place.done(&["images", "-aq"]), "");
    place.pull(&[], "there is no image");
    assert_eq!(place.requests("/referrers/"), 0);
    let only = place.run(&["rmi", &place.name(NEW)]);
    assert_eq!(only.code, 0);
    let only = place.run(&["pull", "--delta-only", &place.name(NEW)]);
    let expected =
        format!("vaquita: pull {}: no delta makes it of an image that is here\n", place.name(NEW));
    assert_eq!((only.code, only.stderr), (1, expected));
}

#[test]
fn what_costs_more_than_the_layers_is_not_taken() {
    let place = Place::new("artifact-costs", false);
    let key = place.list_key();
    let (kind, list) = place.fake.state().manifests[&key].clone();
    let list = String::from_utf8(list).unwrap();
    let (before, rest) = list.split_once(r#"delta.bytes":""#).unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    let list = format!(r#"{before}delta.bytes":"99999999"{after}"#);
    place.fake.state().manifests.insert(key, (kind, list.into_bytes()));
    let outcome = place.pull(&[], "costs");
    assert!(!outcome.stdout.contains("Delta from"), "{outcome:?}");
    assert_eq!(place.requests(&place.delta), 0);
    place.done(&["rmi", &place.name(NEW)]);
    let outcome = place.pull(&["--delta-only"], "only");
    assert!(outcome.stdout.contains("Delta from"), "{outcome:?}");
}

/// Each of these makes the delta useless in its way. The image comes by its layers, and one line says why.
#[test]
fn whatever_goes_wrong_the_layers_come() {
    type Damage = fn(&Place);
    let damages: &[(&str, Damage, &str)] = &[
        ("list 500", |p| p.breaks("/referrers/", 500), "answers 500 server error"),
        ("tag 500", |p| p.breaks("GET /v2/fleet/app/manifests/sha256-", 500), "answers 500"),
        ("list 403", |p| p.breaks("/referrers/", 403), "answers 403 forbidden"),
        ("junk in the list", |p| p.lists("{\"schemaVersion\":2,\"manifests\":[7]}"), "wrong type"),
        ("no list", |p| p.lists("<html>"), "not valid JSON"),
        ("artifact 404", |p| p.breaks(&p.delta, 404), "manifest unknown"),
        ("artifact 500", |p| p.breaks(&p.delta, 500), "answers 500"),
        ("another artifact", |p| p.changes_artifact(), "its digest is"),
        ("another subject", |p| p.changes_subject(), "its subject is sha256:"),
        ("blob 404", |p| p.breaks(&p.blob().1, 404), "answers 404 not found"),
        ("blob 500", |p| p.breaks(&p.blob().1, 500), "answers 500"),
        ("blob cut", |p| p.changes_blob(|blob| blob.truncate(20)), "ended early, after 20 of"),
        ("blob of nothing", |p| p.changes_blob(Vec::clear), "ended early, after 0 of"),
        ("blob longer", |p| p.changes_blob(|blob| blob.push(0)), "its size is"),
        ("first byte", |p| p.changes_blob(|blob| blob[0] ^= 0x55), ""),
        ("a byte", |p| p.changes_blob(|blob| blob[30] ^= 0x55), ""),
        ("last byte", |p| p.changes_blob(|blob| *blob.last_mut().unwrap() ^= 0x55), ""),
        ("basis", |p| p.damages_basis(), "diff ID"),
    ];
    let place = Place::new("artifact-faults", false);
    for (context, damage, cause) in damages {
        let (blobs, manifests) = {
            let state = place.fake.state();
            (state.blobs.clone(), state.manifests.clone())
        };
        damage(&place);
        let only = place.run(&["pull", "--delta-only", &place.name(NEW)]);
        assert_eq!((only.code, only.stderr.lines().count()), (1, 1), "{context}: {only:?}");
        let outcome = place.pull_as_it_is(context);
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        let [line] = lines[..] else { panic!("{context}: {outcome:?}") };
        println!("{context}: {line}");
        assert!(line.starts_with("vaquita: warn: "), "{context}: {line}");
        assert!(line.ends_with("; the layers are pulled instead"), "{context}: {line}");
        assert!(line.contains(cause), "{context}: {line}");
        assert!(!outcome.stdout.contains("Delta from"), "{context}: {outcome:?}");
        if context.contains("blob") || context.contains("byte") || *context == "basis" {
            for named in [&place.delta, "from image ", "layer sha256:"] {
                assert!(line.contains(named), "{context}: no {named} in {line}");
            }
        }
        let mut state = place.fake.state();
        (state.blobs, state.manifests) = (blobs, manifests);
        state.broken.clear();
        drop(state);
        place.done(&["rmi", &place.name(NEW)]);
    }
}

impl Place {
    /// A pull of the new image, after which the old one may be damaged.
    fn pull_as_it_is(&self, context: &str) -> Outcome {
        if context != "basis" {
            return self.pull(&[], context);
        }
        let outcome = self.run(&["pull", &self.name(NEW)]);
        assert_eq!(outcome.code, 0, "{context}: {outcome:?}");
        let id = self.done(&["images", "-q", "--no-trunc", &self.name(NEW)]);
        assert_eq!(id.trim_end(), self.image);
        outcome
    }

    fn breaks(&self, part: &str, status: u16) {
        let fault = Fault::Answer(status, "", "");
        self.fake.state().broken.push((part.to_string(), 100, fault));
    }

    fn lists(&self, text: &str) {
        let key = self.list_key();
        self.fake.state().manifests.insert(key, (OCI_INDEX.into(), text.as_bytes().to_vec()));
    }

    fn changes_artifact(&self) {
        let mut state = self.fake.state();
        let key = (REPOSITORY.to_string(), self.delta.clone());
        state.manifests.get_mut(&key).unwrap().1.push(b' ');
    }

    /// The list names a delta that is one to another image's manifest.
    fn changes_subject(&self) {
        let (subject, key) = (self.subject().to_string(), self.list_key());
        let other = Digest::of(b"another manifest").to_string();
        let mut state = self.fake.state();
        let at = |key: &str| (REPOSITORY.to_string(), key.to_string());
        let document = state.manifests[&at(&self.delta)].1.clone();
        let document = String::from_utf8(document).unwrap().replace(&subject, &other);
        let digest = Digest::of(document.as_bytes()).to_string();
        state.manifests.insert(at(&digest), (OCI_MANIFEST.into(), document.into_bytes()));
        let list = String::from_utf8(state.manifests[&key].1.clone()).unwrap();
        let list = list.replace(&self.delta, &digest);
        state.manifests.insert(key, (OCI_INDEX.into(), list.into_bytes()));
    }

    fn changes_blob(&self, change: impl Fn(&mut Vec<u8>)) {
        let key = self.blob();
        change(self.fake.state().blobs.get_mut(&key).unwrap());
    }

    fn damages_basis(&self) {
        let layers = fs::read_dir(self.sandbox.data_root().join("layers")).unwrap();
        let files = layers.map(|layer| layer.unwrap().path().join("fs/etc/release"));
        for file in files.filter(|file| file.exists()) {
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, text.replace("line 9999\n", "line 999x\n")).unwrap();
        }
    }
}

fn delta(basis: &[u8], subject: &Descriptor) -> (String, Descriptor) {
    let (basis, target) = (Digest::of(basis), Digest::of(b"target"));
    let mut offer = Offer { artifact: basis, format: Format::Native, basis, target, bytes: 0 };
    write(&mut offer, subject, &empty_blob(), &[])
}

#[test]
fn an_entry_that_another_pusher_overwrote_is_added_again() {
    let fake = Fake::start();
    let client = Client::new(Options::default()).unwrap();
    let reference = fake.reference("fleet/app:2");
    let push = Push::new(&client, &reference);
    let digest = Digest::of(b"manifest");
    let subject = Descriptor::new(OCI_MANIFEST, digest, 8);
    let key = ("fleet/app".to_string(), format!("sha256-{}", digest.hex()));
    let put = |basis: &[u8]| {
        let (document, entry) = delta(basis, &subject);
        push.artifact(document.as_bytes(), &entry, &digest).map(|()| entry.digest)
    };
    let list = || String::from_utf8(fake.state().manifests[&key].1.clone()).unwrap();
    let first = put(b"first").unwrap();
    fake.state().broken.push(("PUT /v2/fleet/app/manifests/sha256-".into(), 2, Fault::Discard));
    let second = put(b"second").unwrap();
    assert!(list().contains(&first) && list().contains(&second), "{}", list());
    // What is listed already is not listed twice.
    put(b"second").unwrap();
    assert_eq!(list().matches(&second).count(), 1);

    fake.state().broken.push(("PUT /v2/fleet/app/manifests/sha256-".into(), 99, Fault::Discard));
    let error = put(b"third").unwrap_err().to_string();
    assert!(error.ends_with("others wrote it each time as well: try again"), "{error}");
    fake.state().broken.clear();
    fake.state().manifests.insert(key.clone(), (OCI_INDEX.into(), b"junk".to_vec()));
    let error = put(b"third").unwrap_err().to_string();
    assert!(error.contains("not valid JSON"), "{error}");
    assert_eq!(list(), "junk");
}

#[test]
fn progress_is_of_layers_that_are_under_way() {
    let place = Place::new("artifact-progress", true);
    let told = place.sandbox.watched_pull(&place.name(NEW));
    assert!(told.iter().any(|event| matches!(event, Event::DeltaUsed { .. })), "{told:?}");
}

#[test]
fn a_delta_pulled_by_name_without_its_basis_leads_to_the_layers() {
    let place = Place::new("artifact-no-basis", true);
    place.done(&["pull", "-q", &place.name(NEW)]);
    let repository = place.name(REPOSITORY);
    let create = ["delta", "create", "--format", "balena", "--push", &repository];
    let made = place.done(&[&create[..], &[&place.name(OLD), &place.name(NEW)]].concat());
    let delta = made.trim_end().rsplit(' ').next().unwrap().to_string();
    place.done(&["rmi", "-f", &place.image]);
    // With the basis it is applied.
    let applied = place.run(&["pull", &delta]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{applied:?}");
    let images = place.done(&["images", "-q"]);
    place.done(&[&["rmi", "-f"], &images.lines().collect::<Vec<_>>()[..]].concat());
    let only = place.run(&["pull", "-q", "--delta-only", &delta]);
    assert_eq!(only.code, 1, "{only:?}");
    assert!(only.stderr.contains("delta needs its basis, image sha256:"), "{only:?}");
    let outcome = place.run(&["pull", "-q", &delta]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains("the layers are pulled instead"), "{outcome:?}");
    assert!(place.done(&["images", "-q", "--no-trunc"]).contains(&place.image));
    place.done(&["check", "--deep"]);
}
