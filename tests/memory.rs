//! A pull takes no more memory than it promises, whatever windows the layers' encoders chose.

mod link;
mod sandbox;

use std::fs;
use std::time::Duration;

use link::pull::{Running, assert_whole};
use link::{Asked, Fault, Link, Random};
use rustix::process::Signal;
use sandbox::{Registry, Sandbox, fixture, succeed};

/// What a pull promises.
const PULL_BYTES: u64 = 16 << 20;
/// More than any pull here takes.
const LIMIT: Duration = Duration::from_secs(120);
/// What a layer decodes to: more than the largest window and the blocks beside it.
const LAYER_BYTES: usize = 12 << 20;

/// An image of three layers, whose encoder did not know how large they are and names windows of 8 MiB, as podman's and
/// buildkit's do. Gives its ID.
fn push_three(sandbox: &Sandbox, registry: &Registry) -> String {
    let layer = |number: u64| {
        let directory = sandbox.path(&format!("layer-{number}"));
        fs::create_dir_all(&directory).expect("create a layer");
        let mut random = Random::new(number, "contents");
        let words = std::iter::repeat_with(|| format!("{:07x} ", random.below(1 << 28)));
        let text: String = words.take(LAYER_BYTES / 8).collect();
        fs::write(directory.join(format!("text-{number}")), text).expect("write a layer");
        directory
    };
    let archive = sandbox.path("image.tar");
    let id = succeed(fixture("image").arg("-o").arg(&archive).args([1, 2, 3].map(layer)));
    let zstd = ["--oci", "--zstd", "--zstd-option=-1", "--zstd-option=--long=23"];
    let name = format!("{}/three:1", registry.address);
    succeed(fixture("push").args(zstd).arg(name).arg(archive));
    id
}

/// A pull that begins, one that is killed in the middle, and the one that goes on.
#[test]
fn three_layers_with_the_largest_windows() {
    let sandbox = Sandbox::new("memory");
    let registry = Registry::start(sandbox.path("registry"), false);
    let image = push_three(&sandbox, &registry);
    let link = Link::start(&registry.address);
    let reference = format!("{}/three:1", link.address);
    let pull = ["--max-concurrent-downloads", "3", "pull", "-q", &reference];

    let (outcome, peak_bytes) = Running::start(&sandbox, &pull).finish_and_weigh(LIMIT);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    println!("from the start: {} KiB", peak_bytes >> 10);
    assert!(peak_bytes <= PULL_BYTES, "{peak_bytes} bytes");
    assert_whole(&sandbox, &reference, &image, "from the start");
    assert_eq!(sandbox.vaquita(&["rmi", &reference]).code, 0);

    // Who waits for a window loses the connection, as servers do not wait for ever.
    let middle = LAYER_BYTES as u64 / 3;
    link.reset(0, move |asked: &Asked| match (&asked.blob, asked.times_before) {
        (Some(_), 0) => Fault::Cut { after: 600 << 10, reset: true },
        (Some(_), _) => Fault::Stall { after: middle.saturating_sub(asked.start) },
        (None, _) => Fault::Pass,
    });
    let running = Running::start(&sandbox, &pull);
    let is_there = |passed: &link::Passed| passed.asked.start + passed.bytes >= middle;
    assert!(link.wait(LIMIT, |passed| passed.iter().any(is_there)), "no layer comes to its middle");
    running.end_by(Signal::KILL);

    link.reset(0, |_| Fault::Pass);
    let (outcome, peak_bytes) = Running::start(&sandbox, &pull).finish_and_weigh(LIMIT);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let goes_on = |passed: &link::Passed| passed.asked.start > 0;
    assert!(link.passed().iter().any(goes_on), "no layer goes on in its middle");
    println!("from the middle: {} KiB", peak_bytes >> 10);
    assert!(peak_bytes <= PULL_BYTES, "{peak_bytes} bytes");
    assert_whole(&sandbox, &reference, &image, "from the middle");
}
