//! Damage that is found and mended with one fetch, and many processes at once on one store.

mod sandbox;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use sandbox::{Registry, Sandbox, fixture, succeed};

/// An image of three layers, busybox the lowest, in the registry.
fn push_three(sandbox: &Sandbox, registry: &Registry, name: &str, content: &str) {
    let busybox = sandbox.path("busybox.tar");
    succeed(fixture("busybox").arg(&busybox).args(["-", "-", "--name", "busybox:1"]));
    let unpacked = sandbox.path("base");
    fs::create_dir_all(&unpacked).unwrap();
    let script = "tar -xf $1 -C $2 && mv $2/*/layer.tar $2/base.tar";
    succeed(Command::new("sh").args(["-ec", script, "sh"]).arg(&busybox).arg(&unpacked));
    let mut layers = vec![unpacked.join("base.tar")];
    for layer in ["two", "three"] {
        let directory = sandbox.path(&format!("layers-{content}/{layer}"));
        fs::create_dir_all(directory.join("srv")).unwrap();
        let lines: String = (0..2000).map(|line| format!("{layer} {content} {line}\n")).collect();
        fs::write(directory.join("srv").join(layer), lines).unwrap();
        layers.push(directory);
    }
    let archive = sandbox.path("three.tar");
    succeed(
        fixture("image")
            .args(["--mtime", "1700000000", "--name", name, "-o"])
            .arg(&archive)
            .args(layers),
    );
    succeed(fixture("push").arg(format!("{}/{name}", registry.address)).arg(&archive));
}

/// Layer and configuration blobs that the registry has served so far. It logs what is done, a little after: what is asked
/// last tells when all else is there.
fn blobs_served(sandbox: &Sandbox, registry: &Registry, last: &str) -> usize {
    let address = format!("http://{}/v2/{last}/tags/list", registry.address);
    succeed(Command::new("curl").args(["-s", "-o", "/dev/null", &address]));
    let started = Instant::now();
    let log = loop {
        let log = fs::read_to_string(sandbox.path("registry/log")).unwrap();
        if log.lines().any(|line| line.contains(last) && line.contains("response completed")) {
            break log;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{last} is not in the log");
        std::thread::sleep(Duration::from_millis(10));
    };
    let is_blob = |line: &&str| {
        line.contains("\"msg\":\"response completed\"")
            && line.contains("\"http.request.method\":\"GET\"")
            && line.contains("/blobs/sha256:")
    };
    log.lines().filter(is_blob).count()
}

fn damage(sandbox: &Sandbox) -> PathBuf {
    let layers =
        fs::read_dir(sandbox.path("data/layers")).unwrap().map(|layer| layer.unwrap().path());
    let file = layers.map(|layer| layer.join("fs/srv/two")).find(|file| file.exists()).unwrap();
    let (mut bytes, time) =
        (fs::read(&file).unwrap(), file.metadata().unwrap().modified().unwrap());
    bytes[4321] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    file
}

#[test]
fn one_byte_costs_one_fetch() {
    let sandbox = Sandbox::new("mend");
    let registry = Registry::start(sandbox.path("registry"), false);
    push_three(&sandbox, &registry, "three:1", "content");
    let name = format!("{}/three:1", registry.address);
    assert_eq!(sandbox.vaquita(&["pull", "-q", &name]).code, 0);
    let whole = fs::read(damage(&sandbox)).map(|_| ()).is_ok();
    assert!(whole);

    let plain = sandbox.vaquita(&["check"]);
    assert_eq!(plain.code, 0, "records alone do not show it: {plain:?}");
    let found = sandbox.vaquita(&["check", "--deep"]);
    assert_eq!(found.code, 1, "{found:?}");
    let lines: Vec<&str> = found.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("damaged: layer sha256:"), "{lines:?}");
    assert!(lines[0].contains("its files have the diff ID sha256:"), "{lines:?}");
    assert!(lines[0].ends_with("`check --deep --repair` or a pull of the image fetches it again"));
    assert!(lines[1].starts_with("1 finding of damage: 1 images, 3 layers,"), "{lines:?}");

    let before = blobs_served(&sandbox, &registry, "asked-before");
    let mended = sandbox.vaquita(&["check", "--deep", "--repair"]);
    assert_eq!(mended.code, 0, "{mended:?}");
    assert!(mended.stdout.lines().next().unwrap().ends_with(": fetched again"), "{mended:?}");
    assert_eq!(blobs_served(&sandbox, &registry, "asked-after") - before, 1);
    let after = sandbox.vaquita(&["check", "--deep"]);
    assert_eq!(after.code, 0, "{after:?}");
    assert!(after.stdout.starts_with("note: quarantine "), "what was damaged is kept: {after:?}");
    let run = sandbox.vaquita(&["run", "--rm", &name, "tail", "-n", "1", "/srv/two"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "two content 1999\n"), "{run:?}");
}

#[test]
fn without_a_network_a_later_pull_mends() {
    let sandbox = Sandbox::new("mend-later");
    let registry = Registry::start(sandbox.path("registry"), false);
    push_three(&sandbox, &registry, "three:1", "content");
    let name = format!("{}/three:1", registry.address);
    assert_eq!(sandbox.vaquita(&["pull", "-q", &name]).code, 0);
    damage(&sandbox);

    let script = "unshare -n vaquita check --deep --repair";
    let cut_off = sandbox.shell(script, &[]);
    assert_eq!(cut_off.code, 1, "{cut_off:?}");
    assert!(cut_off.stdout.contains(": not mended: "), "{cut_off:?}");
    // A damaged file is better than no file: what can still run runs, and the list of images does not fail.
    let run = sandbox.vaquita(&["run", "--rm", &name, "tail", "-n", "1", "/srv/two"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "two content 1999\n"), "{run:?}");
    assert_eq!(sandbox.vaquita(&["images"]).code, 0);
    let told = sandbox.vaquita(&["check"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(
        told.stdout.contains("it was found damaged and could not be fetched again"),
        "{told:?}"
    );

    let pulled = sandbox.vaquita(&["pull", &name]);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert_eq!(pulled.stdout.matches("Pull complete").count(), 1, "{pulled:?}");
    assert_eq!(pulled.stdout.matches("Already exists").count(), 2, "{pulled:?}");
    assert_eq!(sandbox.vaquita(&["check", "--deep"]).code, 0);
}

/// A step of a fixed sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Several processes pull, remove, load, tag and run on one store for some seconds.
#[test]
fn many_processes_on_one_store() {
    const SECONDS: u64 = 8;
    const WORKERS: u64 = 4;
    let seed = std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let sandbox = Sandbox::new("hammer");
    let registry = Registry::start(sandbox.path("registry"), false);
    push_three(&sandbox, &registry, "three:1", "one");
    push_three(&sandbox, &registry, "three:2", "two");
    let archive = sandbox.path("busybox.tar").display().to_string();
    let names = ["three:1", "three:2"].map(|name| format!("{}/{name}", registry.address));
    // What nobody removes has to stay, whatever the others do.
    assert_eq!(sandbox.vaquita(&["pull", "-q", &names[0]]).code, 0);
    assert_eq!(sandbox.vaquita(&["tag", &names[0], "kept:1"]).code, 0);
    // Locks of the dead hold nobody up: they are files, and what holds them is a process.
    for name in ["work", "publish", "container-dead", "layer-00"] {
        fs::write(sandbox.path("run/lock").join(name), "4242").unwrap();
    }
    let until = Instant::now() + Duration::from_secs(SECONDS);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (sandbox, names, archive) = (&sandbox, &names, &archive);
            scope.spawn(move || {
                let mut random = Random(seed * 1000 + worker);
                let mut step = 0;
                while Instant::now() < until {
                    step += 1;
                    let name = &names[random.below(2) as usize];
                    let container = format!("c{worker}-{step}");
                    let own = format!("own{worker}:1");
                    let arguments: Vec<&str> = match random.below(8) {
                        0 | 1 => vec!["pull", "-q", name],
                        2 => vec!["rmi", name],
                        3 => vec!["rmi", "-f", &own],
                        4 => vec!["load", "-q", "-i", archive],
                        5 => vec!["tag", name, &own],
                        6 => vec!["run", "--rm", "--name", &container, name, "true"],
                        _ => vec!["rmi", "busybox:1"],
                    };
                    let outcome = sandbox.vaquita(&arguments);
                    // What another removed, or uses, is refused; nothing else may fail.
                    let refused = ["No such image", "conflict", "Conflict"];
                    let is_refusal = refused.iter().any(|why| outcome.stderr.contains(why));
                    assert!(outcome.code == 0 || is_refusal, "{arguments:?}: {outcome:?}");
                    // What is announced is whole from then on, unless another takes it away again.
                    let warned = outcome.stderr.contains("damaged");
                    assert!(!warned, "{arguments:?}: {outcome:?}");
                }
            });
        }
    });
    let checked = sandbox.vaquita(&["check", "--deep"]);
    let damaged = checked.stdout.lines().filter(|line| line.starts_with("damaged"));
    assert_eq!((checked.code, damaged.count()), (0, 0), "{checked:?}");
    let kept = sandbox.vaquita(&["run", "--rm", "kept:1", "tail", "-n", "1", "/srv/three"]);
    assert_eq!((kept.code, kept.stdout.as_str()), (0, "three one 1999\n"), "{kept:?}");
    for arguments in [["pull", "-q", &names[1]], ["rmi", "-f", "kept:1"]] {
        let outcome = sandbox.vaquita(&arguments);
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
    }
}
