//! A pull by a native delta that is killed: nothing half-made is seen, the next one goes on near where it stood, and what comes
//! of it is the image.
//!
//! The proxy stops at a seeded byte of the delta's blob, or the pull is killed a seeded time after it has begun.
//! `SEED=N KILLS=N cargo test --test delta_kills` makes other runs, and as many.

mod link;
mod sandbox;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use link::pull::{Running, assert_sound, assert_whole};
use link::{Fault, Link, Passed, Random};
use rustix::process::Signal;
use sandbox::{Registry, Sandbox, fixture, succeed};

/// What a resumed pull may fetch again. A checkpoint stands between two frames of the delta, here 3 to 4 MiB each: one is read while
/// the files of the one before are made, and a window or two may still be on their way to the disk.
const AGAIN_BYTES: u64 = 12 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// Kills before a pull may end.
const KILLS_OF_A_PULL: u64 = 5;

/// A registry with a delta to the image `twice`, and a device that has its basis.
struct Place {
    _registry: Registry,
    /// Where the registry keeps what it has; gone after it.
    _maker: Sandbox,
    link: Link,
    device: Sandbox,
    /// The delta's blob: digest and size.
    blob: (String, u64),
    /// The image that the delta makes.
    image: String,
    reference: String,
}

impl Place {
    fn new() -> Place {
        let maker = Sandbox::new("delta-kills");
        let registry = Registry::start(maker.path("registry"), false);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/odd");
        succeed(Command::new(script).arg(maker.path("layers")));
        let name = |number: u32| format!("{}/app:{number}", registry.address);
        let mut ids = Vec::new();
        for (number, layer) in [(1, "brief"), (2, "twice")] {
            let (archive, layer) =
                (maker.path("image.tar"), maker.path(&format!("layers/{layer}.tar")));
            ids.push(succeed(fixture("image").arg("-o").arg(&archive).arg(layer)));
            succeed(fixture("push").arg(name(number)).arg(archive));
            let pulled = maker.vaquita(&["pull", "-q", &name(number)]);
            assert_eq!(pulled.code, 0, "{pulled:?}");
        }
        let repository = format!("{}/app", registry.address);
        let made = maker.vaquita(&["delta", "create", "--push", &repository, &name(1), &name(2)]);
        assert_eq!(made.code, 0, "{made:?}");
        let (_, manifest) = made.stdout.trim_end().rsplit_once('@').expect("the delta's name");
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
        let url = format!("http://{}/v2/app/manifests/{manifest}", registry.address);
        let document = succeed(Command::new("curl").args(["-sSf", "-H", accept, &url]));
        let (_, layers) = document.split_once("\"layers\"").expect("layers");
        let value = |key: &str| {
            let (_, rest) = layers.split_once(key).expect("a field of the layer");
            rest[..rest.find([',', '"']).expect("its end")].to_string()
        };
        let size = value("\"size\":").parse().expect("a number");
        let blob = (value("\"digest\":\"sha256:"), size);
        assert!(size > AGAIN_BYTES, "a delta of {size} bytes has nothing to go on with");
        let link = Link::start(&registry.address);
        link.keep_pace();
        let device = Sandbox::new("delta-kills-device");
        let pulled = device.vaquita(&["pull", "-q", &format!("{}/app:1", link.address)]);
        assert_eq!(pulled.code, 0, "{pulled:?}");
        let reference = format!("{}/app:2", link.address);
        Place {
            _registry: registry,
            _maker: maker,
            link,
            device,
            blob,
            image: ids.remove(1),
            reference,
        }
    }

    fn start(&self) -> Running {
        Running::start(&self.device, &["pull", "-q", "--delta-only", &self.reference])
    }

    /// The first byte that was asked for of the blob, and the last that came, since the link was reset.
    fn asked(&self, passed: &[Passed]) -> Option<(u64, u64)> {
        let mut of_blob = passed.iter().filter(|p| p.asked.blob.as_ref() == Some(&self.blob.0));
        let first = of_blob.next()?;
        Some((first.asked.start, first.asked.start + first.bytes))
    }

    fn stop_at(&self, stop: u64) {
        let blob = self.blob.0.clone();
        self.link.reset(0, move |asked| match asked.blob.as_ref() == Some(&blob) {
            true => Fault::Stall { after: stop.saturating_sub(asked.start) },
            false => Fault::Pass,
        });
    }
}

#[test]
fn a_delta_that_is_killed_goes_on() {
    let seed = link::seed();
    let mut random = Random::new(seed, "delta-kills");
    let kills = std::env::var("KILLS").map_or(20, |text| text.parse().expect("a number"));
    let place = Place::new();
    let (mut killed, mut resumed) = (0, 0);
    while killed < kills {
        let mut reached = 0;
        for number in 0..KILLS_OF_A_PULL.min(kills - killed) {
            let context = format!("SEED={seed}, kill {killed}");
            let part = place.blob.1 / KILLS_OF_A_PULL;
            let stop = number * part + random.below(part);
            place.stop_at(stop);
            let running = place.start();
            let came = place
                .link
                .wait(LIMIT, |passed| place.asked(passed).is_some_and(|(_, end)| end >= stop));
            if !came {
                let outcome = running.end_by(Signal::KILL);
                panic!("{context}: the delta did not come to byte {stop}: {outcome:?}");
            }
            std::thread::sleep(Duration::from_millis(random.below(300)));
            let outcome = running.end_by(Signal::KILL);
            assert_eq!(outcome.code, 128 + Signal::KILL.as_raw(), "{context}: {outcome:?}");
            killed += 1;
            let (start, end) = place.asked(&place.link.passed()).expect("it was asked for");
            assert!(reached <= start + AGAIN_BYTES, "{context}: {start} after {reached}");
            resumed += u64::from(start > 0);
            reached = end.max(reached);
            let shown = place.device.vaquita(&["inspect", &place.reference]);
            assert_eq!(shown.code, 1, "{context}: {shown:?}");
            assert_sound(&place.device, &context);
        }
        let context = format!("SEED={seed}, after kill {killed}");
        place.link.reset(0, |_| Fault::Pass);
        let outcome = place.start().finish(LIMIT);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{context}");
        let (start, _) = place.asked(&place.link.passed()).expect("it was asked for");
        assert!(reached <= start + AGAIN_BYTES, "{context}: {start} after {reached}");
        assert_whole(&place.device, &place.reference, &place.image, &context);
        let removed = place.device.vaquita(&["rmi", &place.reference]);
        assert_eq!(removed.code, 0, "{context}: {removed:?}");
    }
    println!("{killed} kills, {resumed} pulls went on");
    // The first kills of a pull fall into the first frames, with nothing to go on with.
    assert!(resumed > 0, "none of {killed} went on");
}
