//! 200 pulls through a link that closes, cuts, stalls, slows, truncates, corrupts and refuses by seed. Each ends whole or
//! with a clear error, in time; and when the link is good again, a pull of the same image completes.
//!
//! `SEED=N cargo test --test bad_link` repeats a run.

mod link;
mod sandbox;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use link::pull::{Running, assert_clear_error, assert_whole, names};
use link::{Asked, Fault, Link, Random};
use sandbox::{Registry, Sandbox, fixture, succeed};

const PULLS: u64 = 200;
/// Each has a store and a link of its own.
const WORKERS: u64 = 8;
/// More than any pull may take, on a machine that is busy.
const PULL_LIMIT: Duration = Duration::from_secs(90);
/// For all of them; a machine with nothing else to do takes a tenth.
const WHOLE_LIMIT: Duration = Duration::from_secs(600);

#[test]
fn two_hundred_pulls_end_whole_or_with_a_clear_error() {
    let seed = link::seed();
    let shared = Sandbox::new("bad-link");
    let registry = Registry::start(shared.path("registry"), false);
    let image = push_image(&shared, &registry);
    let started = Instant::now();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let work = |number| {
            let (image, upstream) = (&image, &registry.address);
            scope.spawn(move || Worker::new(number, upstream, image).pull_all(seed))
        };
        let workers: Vec<_> = (0..WORKERS).map(work).collect();
        workers.into_iter().map(|worker| worker.join().expect("every pull ends well")).collect()
    });
    let mut tally = Tally::default();
    tallies.into_iter().for_each(|other| tally.add(other));
    let took = started.elapsed();
    println!("{} whole, {} failed, in {took:.1?}", tally.whole, tally.failed);
    tally.messages.iter().for_each(|(message, count)| println!("{count:4} {message}"));
    assert_eq!(tally.whole + tally.failed, PULLS);
    // Neither so good a link nor so bad a one that the test says nothing.
    assert!(tally.whole > PULLS / 10 && tally.failed > PULLS / 20, "{tally:?}");
    assert!(took < WHOLE_LIMIT, "{took:?}");
}

/// What came of the pulls through the bad link.
#[derive(Debug, Default)]
struct Tally {
    whole: u64,
    failed: u64,
    /// How often each error, its numbers taken out.
    messages: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.whole += other.whole;
        self.failed += other.failed;
        for (message, count) in other.messages {
            *self.messages.entry(message).or_default() += count;
        }
    }
}

/// Pushes an image of four layers and 3 MB, and gives its ID. `/sums` in it has the sum of every file.
fn push_image(shared: &Sandbox, registry: &Registry) -> String {
    let layer = |name: &str| shared.path("layers").join(name);
    let write = |path: &Path, bytes: &[u8]| {
        fs::create_dir_all(path.parent().expect("it has one")).expect("create a directory");
        fs::write(path, bytes).expect("write a file");
    };
    let mut random = Random::new(1, "contents");
    let mut noise = |size: usize| (0..size).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    write(&layer("base/bin/busybox"), &fs::read("/bin/busybox").expect("busybox-static"));
    succeed(std::process::Command::new("chmod").arg("755").arg(layer("base/bin/busybox")));
    for applet in ["sh", "sha256sum"] {
        let link = layer("base/bin").join(applet);
        std::os::unix::fs::symlink("busybox", link).expect("link an applet");
    }
    write(&layer("base/etc/old"), b"hidden by the last layer\n");
    write(&layer("noise/data/noise"), &noise(1_500_000));
    for number in 0..150 {
        let content = noise(number * 37).repeat(3);
        write(&layer("many/data/many").join(number.to_string()), &content);
    }
    write(&layer("last/etc/.wh.old"), b"");
    let mut sums = String::new();
    for path in ["base/bin/busybox", "noise/data/noise", "many/data/many/99", "many/data/many/149"]
    {
        let sum = sandbox::sha256(&fs::read(layer(path)).expect("read it back"));
        let (_, inside) = path.split_once('/').expect("a layer and a path");
        sums.push_str(&format!("{sum}  /{inside}\n"));
    }
    write(&layer("last/sums"), sums.as_bytes());
    let archive = shared.path("image.tar");
    let layers = ["base", "noise", "many", "last"].map(layer);
    let image = succeed(fixture("image").arg("-o").arg(&archive).args(&layers));
    succeed(fixture("push").arg(format!("{}/bad/link:1", registry.address)).arg(archive));
    image
}

struct Worker<'a> {
    number: u64,
    image: &'a str,
    link: Link,
    sandbox: Sandbox,
    reference: String,
}

impl Worker<'_> {
    fn new<'a>(number: u64, upstream: &str, image: &'a str) -> Worker<'a> {
        let link = Link::start(upstream);
        let sandbox = Sandbox::new(&format!("bad-link-{number}"));
        let reference = format!("{}/bad/link:1", link.address);
        Worker { number, image, link, sandbox, reference }
    }

    fn pull_all(&self, seed: u64) -> Tally {
        let mut tally = Tally::default();
        for pull in (self.number..PULLS).step_by(WORKERS as usize) {
            let mut random = Random::new(seed, &format!("pull {pull}"));
            self.make_bad(random.below(u64::MAX), &mut random);
            let outcome = self.pull();
            let context = format!("SEED={seed}, pull {pull}");
            if outcome.code == 0 {
                tally.whole += 1;
                self.assert_works(&context);
                self.remove(&context);
                continue;
            }
            tally.failed += 1;
            assert_clear_error(&outcome, &["bad/link"], &context);
            *tally.messages.entry(without_numbers(&outcome.stderr)).or_default() += 1;
            // What is there now: thrown away, completed over a good link, or gone on with over the next bad one.
            match random.below(3) {
                0 => fs::remove_dir_all(self.sandbox.data_root()).unwrap_or_default(),
                1 => self.complete(&context),
                _ => {}
            }
        }
        self.complete(&format!("SEED={seed}, the end of worker {}", self.number));
        tally
    }

    /// The link's faults for the next pull: of three kinds of link, by the seed.
    fn make_bad(&self, seed: u64, random: &mut Random) {
        let faults_in_100 = [30, 60, 95][random.below(3) as usize];
        let closing = u32::from(random.below(8) == 0);
        self.link.reset(closing, move |asked| {
            let mut random = Random::new(seed, &format!("{} {}", asked.path, asked.times_before));
            // A manifest is one answer that nothing survives; the layers are what this is about.
            let part = if asked.blob.is_some() { 1 } else { 3 };
            match random.below(100) < faults_in_100 / part {
                true => fault(asked, &mut random),
                false => Fault::Pass,
            }
        });
    }

    fn pull(&self) -> sandbox::Outcome {
        Running::start(&self.sandbox, &["pull", "-q", &self.reference]).finish(PULL_LIMIT)
    }

    /// Over a good link the same pull completes, whatever was left.
    fn complete(&self, context: &str) {
        self.link.reset(0, |_| Fault::Pass);
        let outcome = self.pull();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{context}, good again");
        self.assert_works(context);
        self.remove(context);
    }

    fn assert_works(&self, context: &str) {
        assert_whole(&self.sandbox, &self.reference, self.image, context);
        let script = "sha256sum -c /sums && test ! -e /etc/old";
        let run = self.sandbox.vaquita(&[
            "run",
            "--rm",
            "--net",
            "host",
            &self.reference,
            "sh",
            "-c",
            script,
        ]);
        assert_eq!((run.code, run.stdout.matches(": OK").count()), (0, 4), "{context}: {run:?}");
    }

    /// With the image goes everything.
    fn remove(&self, context: &str) {
        let removed = self.sandbox.vaquita(&["rmi", &self.reference]);
        assert_eq!(removed.code, 0, "{context}: {removed:?}");
        for directory in ["layers", "images", "references", "containers", "stages", "quarantine"] {
            assert_eq!(names(&self.sandbox, directory), [""; 0], "{context}: left in {directory}/");
        }
    }
}

/// Some fault; those of the body at a place that most bodies have.
fn fault(asked: &Asked, random: &mut Random) -> Fault {
    let most = if asked.blob.is_some() { 1 << 20 } else { 600 };
    let place = random.below(most);
    match random.below(12) {
        0 => Fault::Close,
        1 => Fault::Status(500, None),
        2 => Fault::Status(503, None),
        3 => Fault::Status(429, Some(random.below(2) as u32)),
        4 => Fault::Status(429, None),
        5 | 6 => Fault::Cut { after: place, reset: false },
        7 => Fault::Cut { after: place, reset: true },
        8 => Fault::Stall { after: place },
        9 => Fault::Corrupt { at: place },
        10 => Fault::Truncate { to: place },
        _ => Fault::Slow { bytes_per_second: 2 << 20 },
    }
}

/// The message with every number and digest as `N`, to count its kind.
fn without_numbers(message: &str) -> String {
    let words = message.trim().split(' ').map(|word| {
        let is_number = word.chars().filter(char::is_ascii_digit).count() > 0;
        if is_number { "N" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
