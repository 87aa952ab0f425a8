//! balenaEngine's deltas from outside: against a delta image that it made (tests/vectors/balena-delta), on random pairs,
//! and within bounded memory.

use std::io::{self, Cursor, Read, Write};
use std::process::Command;

use vaquita::delta::ReadAt;
use vaquita::delta::balena::{self, BalenaDelta, config, layer};
use vaquita::delta::rsync::{Signature, diff, patch};
use vaquita::digest::{Digest, HashingWriter};
use vaquita::oci::config::ImageConfig;

/// An image as `docker save` lays it out: the configuration and the uncompressed layers.
struct Image {
    config: String,
    layers: Vec<Vec<u8>>,
}

impl Image {
    fn load(name: &str) -> Image {
        let root = env!("CARGO_MANIFEST_DIR");
        let archive = std::fs::read(format!("{root}/tests/vectors/balena-delta/{name}")).unwrap();
        let mut members = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.push((path, content));
        }
        let member =
            |path: &str| members.iter().find(|(other, _)| other == path).unwrap().1.clone();
        let manifest = String::from_utf8(member("manifest.json")).unwrap();
        let paths: Vec<&str> = manifest.split('"').filter(|text| text.contains('.')).collect();
        let configs = paths.iter().find(|path| path.ends_with(".json")).unwrap();
        let layers = paths.iter().filter(|path| path.ends_with("/layer.tar"));
        Image {
            config: String::from_utf8(member(configs)).unwrap(),
            layers: layers.map(|path| member(path)).collect(),
        }
    }

    fn id(&self) -> Digest {
        Digest::of(self.config.as_bytes())
    }

    fn parsed(&self) -> ImageConfig {
        ImageConfig::parse(self.config.as_bytes(), "config").unwrap()
    }

    fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| Digest::of(layer)).collect()
    }
}

fn delta_of(signature: &Signature, target: &[u8]) -> Vec<u8> {
    let mut delta = Vec::new();
    diff(signature, &mut &target[..], &mut delta).unwrap();
    delta
}

fn delta_layer(signature: &Signature, target: &[u8]) -> Vec<u8> {
    let delta = delta_of(signature, target);
    let length = delta.len() as u64;
    [&layer::header(length).unwrap()[..], &delta, layer::trailer(length)].concat()
}

#[test]
fn makes_the_delta_image_that_balena_engine_made() {
    let [old, new, made] = ["v1.tar", "v2.tar", "delta-1-2.tar"].map(Image::load);
    let signature = Signature::of(&mut &old.layers.concat()[..]).unwrap();
    let shared = balena::count_shared_layers(&old.diff_ids(), &new.diff_ids());
    assert_eq!((shared, made.layers.len()), (1, 3));

    let layers = new.layers.iter().enumerate().map(|(index, target)| match index < shared {
        true => layer::SHARED.to_vec(),
        false => delta_layer(&signature, target),
    });
    let layers: Vec<Vec<u8>> = layers.collect();
    for (index, (ours, theirs)) in layers.iter().zip(&made.layers).enumerate() {
        assert!(ours == theirs, "layer {index}: {} bytes for {}", ours.len(), theirs.len());
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    assert_eq!(diff_ids, made.parsed().diff_ids().unwrap());

    let config = config::write("2026-11-21T21:07:58.656639276Z", &old.id(), &new.config, &diff_ids);
    assert_eq!(config, made.config);
    let id = "sha256:740ed81f73918277a817316ca0fbbe54671937a72e9cb463be103d7c6f9bd8d0";
    assert_eq!(Digest::of(config.as_bytes()).to_string(), id);
}

#[test]
fn applies_the_delta_image_that_balena_engine_made() {
    let [old, new, made] = ["v1.tar", "v2.tar", "delta-1-2.tar"].map(Image::load);
    let delta = balena::find(&made.parsed()).unwrap().unwrap();
    assert_eq!(delta, BalenaDelta { base: old.id(), target_config: new.config.clone() });
    assert_eq!(delta.target_id(), new.id());

    let basis = old.layers.concat();
    let wanted = delta.target().unwrap().diff_ids().unwrap();
    for (index, (tar, wanted)) in made.layers.iter().zip(wanted).enumerate() {
        let mut stream = &tar[..];
        let diff_id = match layer::open(&mut stream).unwrap() {
            layer::Layer::Shared => old.diff_ids()[index],
            layer::Layer::Delta(mut member) => {
                let mut target = HashingWriter::new(io::sink());
                patch(&mut &basis[..], &mut member, &mut target).unwrap();
                member.finish().unwrap();
                target.finish().0
            }
        };
        assert_eq!(diff_id, wanted, "layer {index}");
        assert!(stream.is_empty() || index == 0);
    }
}

/// A delta image's layer that is damaged in any one byte makes an error or another diff ID, never a panic.
#[test]
fn every_flipped_byte_is_noticed() {
    let [old, new, made] = ["v1.tar", "v2.tar", "delta-1-2.tar"].map(Image::load);
    let basis = old.layers.concat();
    let wanted = new.diff_ids()[2];
    let mut tar = made.layers[2].clone();
    for place in 512..512 + 2170 {
        tar[place] ^= 0x55;
        let mut stream = &tar[..];
        if let Ok(layer::Layer::Delta(mut member)) = layer::open(&mut stream) {
            let mut target = HashingWriter::new(io::sink());
            let patched = patch(&mut &basis[..], &mut member, &mut target);
            let same = patched.is_ok() && target.finish().0 == wanted;
            assert!(!same, "byte {place}");
        }
        tar[place] ^= 0x55;
    }
}

/// xorshift64*: reproducible, and no dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit as u64).max(1)) as usize
    }

    /// Bytes of one of the characters that files have: noise, text, zeros, a short period.
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let (kind, period) = (self.below(4), 1 + self.below(700));
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        for at in 0..length {
            bytes.push(match kind {
                0 => self.next() as u8,
                1 => b'a' + self.below(4) as u8,
                2 => 0,
                _ => bytes.get(at.wrapping_sub(period)).copied().unwrap_or(self.next() as u8),
            });
        }
        bytes
    }

    /// Inserts, removes, overwrites or moves a piece.
    fn edit(&mut self, bytes: &mut Vec<u8>) {
        let (at, length) = (self.below(bytes.len() + 1), self.below(3000));
        let end = bytes.len().min(at + length);
        match self.below(4) {
            0 => {
                let new = self.bytes(length);
                bytes.splice(at..at, new);
            }
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1),
            _ => {
                let piece: Vec<u8> = bytes.drain(at..end).collect();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
        }
    }
}

/// Gives every read and write as few bytes as it pleases.
struct Ragged<T>(T, Random);

impl<T: Read> Read for Ragged<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1 + self.1.below(2000));
        self.0.read(&mut buffer[..length])
    }
}

impl ReadAt for Ragged<&[u8]> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1 + self.1.below(2000));
        self.0.read_at(offset, &mut buffer[..length])
    }

    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

#[test]
fn patch_undoes_diff_on_random_pairs() {
    for seed in 1..=500_u64 {
        let random = &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut basis = Vec::new();
        for _ in 0..random.below(6) {
            let length = random.below(20_000);
            basis.extend(random.bytes(length));
        }
        let mut target = basis.clone();
        (0..random.below(8)).for_each(|_| random.edit(&mut target));

        let ragged = |bytes| Ragged(bytes, Random(seed));
        let signature = Signature::of(&mut ragged(&basis[..])).unwrap();
        let mut delta = Vec::new();
        diff(&signature, &mut ragged(&target[..]), &mut delta).unwrap();
        assert!(delta == delta_of(&signature, &target), "seed {seed}: delta depends on the reads");

        let mut patched = Vec::new();
        patch(&mut ragged(&basis[..]), &mut ragged(&delta[..]), &mut patched).unwrap();
        assert!(patched == target, "seed {seed}");
    }
}

/// A basis of any size whose bytes are computed.
struct Computed(u64);

impl ReadAt for Computed {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.0 - offset).unwrap_or(usize::MAX));
        buffer[..length].fill((offset >> 20) as u8);
        Ok(length)
    }

    fn size_bytes(&self) -> u64 {
        self.0
    }
}

fn peak_memory_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Measures this process, which does nothing else: see the test below.
fn measure_memory_of_patch() {
    let basis_bytes = 5_u64 << 30;
    let copy = [&[0x54][..], &0_u64.to_be_bytes(), &basis_bytes.to_be_bytes()].concat();
    let literal = [&[0x44][..], &(64_u64 << 20).to_be_bytes()].concat();
    let head = [b"rs\x02\x36", &copy[..], &literal].concat();
    let mut delta = Cursor::new(head).chain(io::repeat(7).take(64 << 20)).chain(&[0_u8][..]);
    let mut longest = LongestWrite(0, 0);

    // Once before, so that the code is in memory.
    let small = [&b"rs\x02\x36"[..], &[0x48], &[0; 9], &[0x41, 1, 7, 0]].concat();
    patch(&mut Computed(1), &mut &small[..], &mut LongestWrite(0, 0)).unwrap();
    let before = peak_memory_bytes();
    patch(&mut Computed(basis_bytes), &mut delta, &mut longest).unwrap();
    let grown = peak_memory_bytes() - before;

    assert_eq!(longest.0, (5 << 30) + (64 << 20));
    assert!(longest.1 <= 64 << 10, "a write of {} bytes", longest.1);
    assert!(grown <= 256 << 10, "peak memory grew by {grown} bytes");
}

/// The bytes written, and the longest write.
struct LongestWrite(u64, usize);

impl Write for LongestWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0, self.1) = (self.0 + bytes.len() as u64, self.1.max(bytes.len()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says to the test's second process that it is the one to measure.
const ALONE: &str = "VAQUITA_MEASURE_ALONE";

#[test]
fn patch_takes_little_memory_whatever_the_lengths() {
    if std::env::var_os(ALONE).is_some() {
        return measure_memory_of_patch();
    }
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "patch_takes_little_memory_whatever_the_lengths"]).env(ALONE, "1");
    let output = test.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
