//! Random pairs of images through everything: made, pushed, found by a pull, applied, verified, in both formats.
//!
//! `SEED=N PAIRS=N cargo test --test random_pairs` makes others, and as many.

#[path = "push/fake.rs"]
mod fake;
mod pairs;
mod sandbox;

use std::fs;
use std::thread;

use fake::Fake;
use pairs::{Random, changed, made_sound, some_members, sparse_member, tar_of};
use sandbox::{Sandbox, sha256};

/// Of files, in bytes.
const SIZES: [usize; 5] = [0, 10, 300, 1500, 6000];
/// Pairs that are tried at a time.
const THREADS: u64 = 2;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The layers of an image, as tars, bottom first.
type Layers = Vec<Vec<u8>>;

/// Two versions of an image of up to three layers, of which some may be the same.
fn pair(random: &mut Random) -> (Layers, Layers) {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for _ in 0..1 + random.below(3) {
        let members = made_sound(some_members(random, &SIZES));
        let sparse = if random.below(4) == 0 { sparse_member(random) } else { Vec::new() };
        let was = [&sparse[..], &tar_of(&members)].concat();
        let sparse = if random.below(8) == 0 { sparse_member(random) } else { sparse };
        let is = match random.below(6) {
            0 => was.clone(),
            1 => tar_of(&[]),
            _ => {
                let members = made_sound(changed(&members, random, &SIZES));
                [&sparse[..], &tar_of(&members)].concat()
            }
        };
        old.push(was);
        new.push(is);
    }
    match random.below(8) {
        0 => old.truncate(1),
        1 => new.truncate(1),
        2 => new.reverse(),
        _ => {}
    }
    (old, new)
}

/// A `docker save` archive of images by name, and the ID of the last.
fn archive(images: &[(&str, &Layers)]) -> (Vec<u8>, String) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    let (mut manifests, mut id) = (Vec::new(), String::new());
    let quoted = |words: &[String]| {
        words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(",")
    };
    for (name, layers) in images {
        let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let diff_ids: Vec<String> = digests.iter().map(|hex| format!("sha256:{hex}")).collect();
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            quoted(&diff_ids)
        );
        id = sha256(config.as_bytes());
        let paths: Vec<String> = digests.iter().map(|hex| format!("{hex}/layer.tar")).collect();
        for (path, layer) in paths.iter().zip(layers.iter()) {
            add(path, layer);
        }
        add(&format!("{id}.json"), config.as_bytes());
        let paths = quoted(&paths);
        manifests
            .push(format!(r#"{{"Config":"{id}.json","RepoTags":["{name}"],"Layers":[{paths}]}}"#));
    }
    add("manifest.json", format!("[{}]", manifests.join(",")).as_bytes());
    (builder.into_inner().unwrap(), format!("sha256:{id}"))
}

/// What is done with each pair: `$R` is the registry, `$N` the number. The last lines are the image IDs that came of the two pulls.
const SCRIPT: &str = r#"set -e
vaquita load -q -i pair.tar >/dev/null
for format in native balena; do
    vaquita tag new:1 $R/$format:$N
    vaquita push -q $R/$format:$N >/dev/null
    vaquita delta create --format $format --push $R/$format:$N old:1 new:1 >/dev/null
done
vaquita rmi new:1 $R/native:$N $R/balena:$N >/dev/null
for format in native balena; do
    vaquita pull -q --delta-only $R/$format:$N >/dev/null
    vaquita check --deep >/dev/null
    vaquita inspect $R/$format:$N | sed -n 's/^ *"Id": "\(.*\)",$/\1/p'
    vaquita rmi $R/$format:$N >/dev/null
done
vaquita rmi -f old:1 >/dev/null
vaquita images -aq
ls data/layers data/stages"#;

fn try_pairs(first: u64, count: u64, registry: &str, thread: u64) {
    let sandbox = Sandbox::new(&format!("random-pairs-{thread}"));
    for seed in (first..first + count).filter(|seed| seed % THREADS == thread) {
        let (old, new) = pair(&mut Random(seed));
        let (bytes, id) = archive(&[("old:1", &old), ("new:1", &new)]);
        fs::write(sandbox.path("pair.tar"), bytes).unwrap();
        let variables = [("R".to_string(), registry.to_string()), ("N".into(), seed.to_string())];
        let outcome = sandbox.shell(SCRIPT, &variables);
        let expected = format!("{id}\n{id}\ndata/layers:\n\ndata/stages:\n");
        assert_eq!((outcome.code, &outcome.stdout), (0, &expected), "SEED={seed}: {outcome:?}");
        assert_eq!(outcome.stderr, "", "SEED={seed}");
    }
}

#[test]
fn random_pairs_in_both_formats() {
    let (first, count) = (number("SEED", 1), number("PAIRS", 60));
    let fake = Fake::start();
    fake.state().keeps_lists = true;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let registry = &fake.authority;
            scope.spawn(move || try_pairs(first, count, registry, thread));
        }
    });
}
