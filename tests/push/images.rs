//! Whole pushes with the binary, to Debian's docker-registry.

use std::fs;
use std::path::Path;

use crate::sandbox::{Outcome, Registry, Sandbox, fixture, succeed};

/// Dropped in this order: the registry ends while its files are still there.
struct Place {
    registry: Registry,
    sandbox: Sandbox,
}

impl Place {
    fn new(name: &str) -> Place {
        let sandbox = Sandbox::new(name);
        let registry = Registry::start(sandbox.path("registry"), false);
        Place { registry, sandbox }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry.address)
    }

    /// An archive of an image with a layer of files that compress, and over it one of so many bytes that do not.
    fn archive(&self, noise_bytes: usize) -> String {
        let (text, noise) = (self.sandbox.path("text"), self.sandbox.path("noise"));
        fs::create_dir_all(text.join("etc")).unwrap();
        fs::create_dir_all(&noise).unwrap();
        for number in 0..200 {
            let lines: String = (0..number).map(|line| format!("line {line}\n")).collect();
            fs::write(text.join(format!("etc/file-{number}")), lines).unwrap();
        }
        let mut state = 88_172_645_463_325_252_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let bytes: Vec<u8> = std::iter::repeat_with(next).take(noise_bytes / 8).flatten().collect();
        fs::write(noise.join("noise"), bytes).unwrap();
        let path = self.sandbox.path("image.tar").display().to_string();
        let mut image = fixture("image");
        image.args(["--mtime", "1700000000", "--name", "app:1", "-o", &path]);
        succeed(image.args([&text, &noise]));
        path
    }

    fn run(&self, arguments: &[&str]) -> String {
        let Outcome { code, stdout, stderr } = self.sandbox.vaquita(arguments);
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// The methods of the requests that this registry answered since the last call, without those that only ask.
    fn changes(&self, seen: &mut usize) -> Vec<String> {
        let log = fs::read_to_string(self.sandbox.path("registry/log")).unwrap();
        let new = log.get(*seen..).unwrap_or_default();
        *seen = log.len();
        let method = |line: &str| {
            let is_answer = line.contains("\"response completed\"");
            let (_, rest) = line.split_once("\"http.request.method\":\"")?;
            let method = rest.split('"').next()?.to_string();
            let changes = !matches!(method.as_str(), "GET" | "HEAD");
            (is_answer && changes).then_some(method)
        };
        new.lines().filter_map(method).collect()
    }

    fn id(&self, name: &str) -> String {
        let json = self.run(&["inspect", name]);
        let (_, rest) = json.split_once("\"Id\": \"").unwrap();
        rest.split('"').next().unwrap().to_string()
    }
}

/// The digest in the last line: `1: digest: sha256:... size: 7`.
fn digest(output: &str) -> String {
    let line = output.lines().last().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[1], words[3]), ("digest:", "size:"), "{output}");
    words[2].to_string()
}

fn endings(output: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.split_once(": "));
    let mut endings: Vec<String> = lines
        .map(|(_, what)| what.to_string())
        .filter(|what| what != "Preparing" && !what.starts_with("digest:"))
        .collect();
    endings.sort();
    endings
}

#[test]
fn a_second_push_uploads_nothing_and_another_repository_mounts() {
    let (place, device) = (Place::new("push-again"), Sandbox::new("push-device"));
    let mut seen = 0;
    place.run(&["load", "-i", &place.archive(6_000_000)]);
    let (first, second) = (place.name("team/app:1"), place.name("other/app:2"));
    for name in [&first, &second] {
        place.run(&["tag", "app:1", name]);
    }
    let output = place.run(&["push", &first]);
    assert_eq!(endings(&output), ["Pushed", "Pushed"]);
    let made = digest(&output);
    let changes = place.changes(&mut seen);
    let count = |method: &str| changes.iter().filter(|m| *m == method).count();
    // Two layers and the configuration; the noise takes two chunks; the manifest comes last.
    assert_eq!((count("POST"), count("PATCH"), count("PUT")), (3, 2, 4), "{changes:?}");

    let output = place.run(&["push", &first]);
    assert_eq!(endings(&output), ["Layer already exists", "Layer already exists"]);
    assert_eq!((digest(&output), place.changes(&mut seen)), (made.clone(), vec!["PUT".into()]));

    let output = place.run(&["push", &second]);
    assert_eq!(endings(&output), ["Mounted from team/app", "Mounted from team/app"]);
    assert_eq!(digest(&output), made);
    assert_eq!(place.changes(&mut seen), ["POST", "POST", "POST", "PUT"]);

    // What the registry has is the image: on a fresh store it gets the same ID, and its layers their diff IDs.
    let pulled = device.vaquita(&["pull", &second]);
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert!(pulled.stdout.contains(&format!("Digest: {made}\n")), "{}", pulled.stdout);
    let names = device.vaquita(&["images", "-q", "--no-trunc"]).stdout;
    assert_eq!(names.trim(), place.id("app:1"));

    // Pushed from there to a registry that knows nothing, it is the very same: the compressor makes the same bytes.
    let other = Registry::start(device.path("registry"), false);
    let third = format!("{}/mirror/app:1", other.address);
    assert_eq!(device.vaquita(&["tag", &second, &third]).code, 0);
    let output = device.vaquita(&["push", &third]).stdout;
    assert_eq!((endings(&output), digest(&output)), (vec!["Pushed".into(); 2], made));
}

#[test]
fn an_image_that_was_pulled_keeps_its_digest_where_its_blobs_are() {
    let place = Place::new("push-pulled");
    let archive = place.archive(8_000);
    let other = Registry::start(place.sandbox.path("other"), false);
    for (option, name, types) in
        [("--oci", "oci", "application/vnd.oci.image."), ("", "docker", "application/vnd.docker.")]
    {
        let source = place.name(&format!("{name}/app:1"));
        let mut push = fixture("push");
        push.args([option].iter().filter(|option| !option.is_empty()));
        let theirs = succeed(push.args([&source, &archive]));
        place.run(&["pull", "-q", &source]);
        let id = place.id(&source);
        let tag = |name: String| {
            place.run(&["tag", &source, &name]);
            name
        };
        let same = tag(place.name(&format!("{name}/app:2")));
        let output = place.run(&["push", &same]);
        assert_eq!(
            (endings(&output), digest(&output)),
            (vec!["Layer already exists".into(); 2], theirs.clone())
        );
        let near = tag(place.name(&format!("near/{name}:1")));
        let output = place.run(&["push", &near]);
        let mounted = format!("Mounted from {name}/app");
        assert_eq!((endings(&output), digest(&output)), (vec![mounted; 2], theirs.clone()));

        // Elsewhere the layers are compressed by us, so blobs and manifest are others; the image is the same.
        let far = tag(format!("{}/far/{name}:1", other.address));
        let output = place.run(&["push", &far]);
        let ours = digest(&output);
        assert_ne!(ours, theirs);
        let output = place.run(&["push", &far]);
        assert_eq!(
            (endings(&output), digest(&output)),
            (vec!["Layer already exists".into(); 2], ours.clone())
        );
        let manifest = manifest(&place.sandbox.path("other"), &ours);
        assert_eq!(manifest.matches(types).count(), 4, "{manifest}");
        place.run(&["rmi", "-f", &id]);
        place.run(&["pull", "-q", &far]);
        assert_eq!(place.id(&far), id);
        // It has the manifest that it was pulled by now.
        let again = format!("{}/far/{name}:2", other.address);
        place.run(&["tag", &far, &again]);
        assert_eq!(digest(&place.run(&["push", &again])), ours);
        place.run(&["rmi", "-f", &id]);
    }
}

/// A blob out of a registry's files.
fn manifest(registry: &Path, digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    let blobs = registry.join("storage/docker/registry/v2/blobs/sha256");
    fs::read_to_string(blobs.join(&hex[..2]).join(hex).join("data")).unwrap()
}

#[test]
fn a_layer_that_is_damaged_is_not_pushed() {
    let place = Place::new("push-damaged");
    place.run(&["load", "-i", &place.archive(800_000)]);
    let name = place.name("damaged:1");
    place.run(&["tag", "app:1", &name]);
    let layers = place.sandbox.data_root().join("layers");
    let noise = fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path().join("fs/noise"));
    let noise = noise.into_iter().find(|path| path.exists()).unwrap();
    let mut bytes = fs::read(&noise).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&noise, bytes).unwrap();
    let outcome = place.sandbox.vaquita(&["push", &name]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains(" has the digest sha256:"), "{}", outcome.stderr);
    let changes = place.changes(&mut 0);
    // The text layer alone was closed; no manifest came.
    assert_eq!(changes.iter().filter(|method| *method == "PUT").count(), 1, "{changes:?}");
}

#[test]
fn a_delta_is_pushed_as_the_image_that_it_is() {
    let (place, device) = (Place::new("push-delta"), Sandbox::new("push-delta-device"));
    for number in ["1", "2"] {
        let layer = place.sandbox.path(&format!("layer{number}"));
        fs::create_dir_all(&layer).unwrap();
        let lines: String = (0..30_000).map(|line| format!("line {line}\n")).collect();
        fs::write(layer.join("file"), format!("{number}\n{lines}")).unwrap();
        let archive = place.sandbox.path(&format!("app{number}.tar")).display().to_string();
        let name = place.name(&format!("app:{number}"));
        succeed(fixture("image").args(["-o", &archive, "--name", &name]).arg(&layer));
        place.run(&["load", "-i", &archive]);
        place.run(&["push", &name]);
    }
    let (old, new) = (place.name("app:1"), place.name("app:2"));
    let delta = place.name("app:delta");
    place.run(&["image", "delta", &old, &new, "-t", &delta]);
    assert_eq!(endings(&place.run(&["push", &delta])), ["Pushed"]);
    for name in [&old, &delta] {
        let pulled = device.vaquita(&["pull", "-q", name]);
        assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    }
    let known = device.vaquita(&["images", "-q", "--no-trunc"]).stdout;
    assert!(known.contains(&place.id(&new)), "{known}");
}
