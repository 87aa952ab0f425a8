//! The Zstandard decoder against the command `zstd`, on damaged streams, and resumed at every block.

use std::cell::Cell;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use vaquita::digest::Digest;
use vaquita::layer::{Decoder, DecoderState};

/// What `zstd` makes of `content` with these options; from standard input, so that it does not know the size.
fn packed(options: &[&str], content: &[u8]) -> Vec<u8> {
    let mut child = Command::new("zstd")
        .args(["-q", "-c"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("zstd is installed");
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(content).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "zstd {options:?}");
    output.stdout
}

/// With the size of the content in its header, as one segment if that is small.
fn sized(options: &[&str], content: &[u8]) -> Vec<u8> {
    let size = format!("--stream-size={}", content.len());
    packed(&[&[size.as_str()], options].concat(), content)
}

fn reader(bytes: &[u8]) -> Decoder<'_> {
    Decoder::open(Box::new(bytes), Some(Digest::of(bytes))).unwrap()
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    reader(bytes).read_to_end(&mut out).map(|_| out).map_err(|error| error.to_string())
}

/// A xorshift generator.
fn random(seed: u32) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    }
}

fn noise(seed: u32, count: usize) -> Vec<u8> {
    let mut random = random(seed);
    (0..count).map(|_| random(256) as u8).collect()
}

/// Words, numbers, copies of what went before from near and far, runs, noise.
fn mixture(seed: u32, count: usize) -> Vec<u8> {
    let mut random = random(seed);
    let mut out: Vec<u8> = Vec::with_capacity(count + 4000);
    while out.len() < count {
        let most = 1 + random(4000);
        let length = 1 + random(most);
        match random(6) {
            0 => {
                let letters = 1 + random(25);
                (0..length).for_each(|_| out.push(b'a' + random(letters) as u8));
            }
            1 => (0..length).for_each(|i| out.extend((i as u16).to_le_bytes())),
            2 => out.extend(std::iter::repeat_n(random(256) as u8, length)),
            3 => (0..length / 4).for_each(|_| out.push(random(256) as u8)),
            _ if out.is_empty() => {}
            _ => {
                let most = 1 + random(out.len());
                let offset = 1 + random(most);
                for _ in 0..length {
                    out.push(out[out.len() - offset]);
                }
            }
        }
    }
    out.truncate(count);
    out
}

/// A real tar: this repository's sources and tests, in an order that does not change, without what cargo-fuzz built there: that may
/// be gigabytes.
fn real_tar() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("tar")
        .args(["--sort=name", "--exclude=tests/fuzz/target", "-c", "-C"])
        .arg(root)
        .args(["src", "tests", "Cargo.lock", "targets"])
        .output()
        .expect("tar is installed");
    assert!(output.status.success());
    let mut bytes = output.stdout;
    bytes.extend(std::fs::read("/bin/busybox").expect("busybox-static is installed"));
    bytes
}

const OPTIONS: &[&[&str]] = &[
    &["--fast=5"],
    &["-1"],
    &["-3"],
    &["-9"],
    &["-19"],
    &["--ultra", "-22", "--long=23"],
    &["-3", "-T0", "-B512K"],
    &["-3", "--long=23"],
    &["-3", "--no-check"],
    &["-3", "--no-compress-literals"],
    &["-5", "--zstd=wlog=10,clog=10,hlog=10"],
];

#[test]
fn reads_what_the_command_writes() {
    let contents = [
        ("nothing", Vec::new()),
        ("a byte", vec![7]),
        ("short", b"abcabcabcabcabcabcabcabcabcabcabd".to_vec()),
        ("one block", mixture(1, 131_072)),
        ("a block and a byte", mixture(2, 131_073)),
        ("a run", vec![0; 1_000_000]),
        ("noise", noise(3, 300_000)),
        ("mixture", mixture(4, 9_000_000)),
        ("tar", real_tar()),
    ];
    for (name, content) in &contents {
        for options in OPTIONS {
            for bytes in [packed(options, content), sized(options, content)] {
                let out =
                    unpacked(&bytes).unwrap_or_else(|error| panic!("{name} {options:?}: {error}"));
                assert!(out == *content, "{name} {options:?}: the output differs");
            }
        }
    }
}

#[test]
fn reads_small_contents_of_every_size() {
    for size in 0..600 {
        let content = mixture(size as u32 + 1, size);
        let bytes = sized(&[["-1", "-19"][size % 2]], &content);
        assert!(unpacked(&bytes).unwrap() == content, "{size} bytes");
    }
}

/// The frame of pzstd and zstd:chunked that decoders pass over.
fn skippable(bytes: &[u8]) -> Vec<u8> {
    [&[0x5e, 0x2a, 0x4d, 0x18][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

#[test]
fn reads_several_frames() {
    let (one, two) = (mixture(5, 300_000), mixture(6, 10));
    let frames = [
        skippable(&noise(1, 100_000)),
        packed(&["-3"], &one),
        skippable(b""),
        sized(&["-19", "--no-check"], &two),
        packed(&[], b""),
        sized(&["-1"], &one),
        skippable(b"the end"),
    ];
    let bytes = frames.concat();
    assert!(unpacked(&bytes).unwrap() == [&one[..], &two, &one].concat());
    assert_eq!(unpacked(&frames[0]).unwrap(), b"");
    for (tail, why) in [
        (&b"garbage"[..], "no zstd frame before compressed byte"),
        (&[0, 0, 0, 0], "no zstd frame before compressed byte"),
        (&[0x28, 0xb5], "ends too early at compressed byte"),
        (&frames[0][..1000], "ends too early at compressed byte"),
    ] {
        let error = unpacked(&[&bytes, tail].concat()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

/// Gives bytes in small, uneven pieces, and says when it has been read to its end.
struct Dribble<'a>(&'a [u8], &'a Cell<bool>);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = (1 + self.0.len() % 700).min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        self.1.set(count == 0);
        Ok(count)
    }
}

#[test]
fn ends_only_after_the_inner_end() {
    let content = mixture(7, 400_000);
    let bytes = packed(&["-3"], &content);
    let ended = Cell::new(false);
    let mut reader = Decoder::open(Box::new(Dribble(&bytes, &ended)), None).unwrap();
    let mut out = vec![0; content.len()];
    reader.read_exact(&mut out).unwrap();
    assert!(out == content && !ended.get());
    assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0);
    assert!(ended.get());
}

#[test]
fn finds_every_truncation() {
    for options in [&["-3"][..], &["-19", "--no-check"]] {
        let content = mixture(8, 3000);
        let bytes = packed(options, &content);
        // What lacks the magic number is no zstd.
        for length in 4..bytes.len() {
            let error = unpacked(&bytes[..length]).unwrap_err();
            assert!(error.contains(&format!("too early at compressed byte {length}")), "{error}");
        }
    }
}

/// With a checksum no flipped bit gives a wrong output; flips in the checksum's own flag aside, each is an error.
#[test]
fn finds_every_flipped_bit() {
    for (seed, options) in [(9, &["-3"][..]), (10, &["-19"]), (11, &["--fast=3"])] {
        let content = mixture(seed, 2500);
        let bytes = sized(options, &content);
        for bit in 32..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(out) = unpacked(&bad) {
                // Some bits have no meaning: the unused one of the descriptor, some of a window larger than the content.
                assert!(out == content, "bit {bit} of {options:?} changes the output");
            }
        }
    }
}

#[test]
fn survives_random_damage() {
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = random(seed);
    for round in 0..300 {
        let content = mixture(round + 20, 1 + random(200_000));
        let mut bytes = packed(&["--no-check", ["-1", "-3", "-19"][random(3)]], &content);
        for _ in 0..1 + random(4) {
            let at = 4 + random(bytes.len() - 4);
            bytes[at] = random(256) as u8;
        }
        let mut out = Vec::new();
        let mut reader = reader(&bytes);
        if reader.read_to_end(&mut out).is_err() {
            assert!(reader.read(&mut [0; 10]).is_err(), "it goes on after an error");
            assert!(reader.state().is_none(), "it has a state after an error");
        }
    }
}

#[test]
fn refuses_what_it_cannot_serve() {
    let large = vec![b'x'; 9 << 20];
    for (bytes, why) in [
        (packed(&["--long=24"], &large), "needs a window of 16777216 bytes, the limit is 8388608"),
        (
            [&[0x28, 0xb5, 0x2f, 0xfd, 1, 0, 7][..], &[0; 9]].concat(),
            "zstd frame needs dictionary 7, at compressed byte 7",
        ),
    ] {
        let error = unpacked(&bytes).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    // A larger window than the content can use is no reason.
    let content = mixture(12, 5_000_000);
    let bytes = sized(&["--long=27"], &content);
    assert!(unpacked(&bytes).unwrap() == content);
}

#[test]
fn refuses_a_bomb() {
    // Blocks of 128 KiB in four bytes each, in a frame with that window.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    for _ in 0..4000 {
        let header: u32 = (128 << 10) << 3 | 1 << 1;
        bytes.extend(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    let mut reader = reader(&bytes);
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    let error = loop {
        match reader.read(&mut buffer) {
            Ok(count) => total += count,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("inflates to more than 256 times its size"), "{error}");
    assert_eq!(total, 256 << 20);
}

/// Every place where a state can be taken, with what was handed out before.
fn states(bytes: &[u8]) -> (Vec<DecoderState>, Vec<u8>) {
    let mut reader = reader(bytes);
    let (mut found, mut out) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 50_000];
    loop {
        if let Some(state) = reader.state() {
            assert_eq!(state.tar_offset(), out.len() as u64);
            found.push(state);
        }
        match reader.read(&mut buffer).unwrap() {
            0 => return (found, out),
            count => out.extend(&buffer[..count]),
        }
    }
}

#[test]
fn resumes_at_every_block() {
    let content = [mixture(13, 3_000_000), real_tar(), vec![1; 500_000]].concat();
    let small = mixture(14, 100);
    let mut largest = 0;
    for options in [&["-1"][..], &["-3"], &["-19", "--no-check"], &["-3", "--zstd=wlog=12"]] {
        let bytes = [
            packed(options, &content),
            skippable(b"between"),
            sized(options, &small),
            sized(options, &content),
        ]
        .concat();
        let digest = Digest::of(&bytes);
        let (states, out) = states(&bytes);
        assert!(out == [&content[..], &small, &content].concat(), "{options:?}");
        assert!(states.len() > 20, "{} states", states.len());
        // Every one of a small window; with large windows some.
        for state in states.iter().step_by(5) {
            let (offset, made) = (state.blob_offset() as usize, state.tar_offset() as usize);
            let need = state.history_bytes() as usize;
            assert!(need <= made && need <= 8 << 20);
            let encoded = postcard::to_allocvec(state).unwrap();
            largest = largest.max(encoded.len());
            let state: DecoderState = postcard::from_bytes(&encoded).unwrap();
            let history = out[made - need..made].to_vec();
            let mut resumed =
                Decoder::resume(Box::new(&bytes[offset..]), &state, history, digest).unwrap();
            // A good part of the rest: all of it would take minutes.
            let mut part = vec![0; (out.len() - made).min(1 << 20)];
            resumed.read_exact(&mut part).unwrap();
            assert!(part == out[made..made + part.len()], "{options:?} at {offset}");
        }
        let state = &states[states.len() / 3];
        let (offset, made) = (state.blob_offset() as usize, state.tar_offset() as usize);
        let mut tail = Vec::new();
        Decoder::resume(Box::new(&bytes[offset..]), state, out[..made].to_vec(), digest)
            .unwrap()
            .read_to_end(&mut tail)
            .unwrap();
        assert!(tail == out[made..], "{options:?} to the end");
    }
    println!("largest state: {largest} bytes");
    assert!(largest < 1024, "a state of {largest} bytes");
}

/// States from a damaged checkpoint: an error at once or later, or any output; no panic.
#[test]
fn survives_hostile_states() {
    let content = real_tar();
    let bytes = packed(&["-3"], &content);
    let digest = Digest::of(&bytes);
    let (states, out) = states(&bytes);
    let state = &states[states.len() / 2];
    let (offset, made) = (state.blob_offset() as usize, state.tar_offset() as usize);
    let good = postcard::to_allocvec(state).unwrap();
    let resume = |state: &DecoderState, history: &[u8]| -> Result<(), String> {
        let mut part = vec![0; 300_000];
        let mut reader =
            Decoder::resume(Box::new(&bytes[offset..]), state, history.to_vec(), digest)
                .map_err(|error| error.to_string())?;
        reader.read_exact(&mut part).map_err(|error| error.to_string())
    };
    resume(state, &out[..made]).unwrap();
    let need = state.history_bytes() as usize;
    let error = resume(state, &out[made - need + 1..made]).unwrap_err();
    assert_eq!(error, "resume zstd stream: the output before it is missing");
    let mut refused = 0;
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff, good[at] ^ 1, good[at].wrapping_add(1)] {
            let mut bad = good.clone();
            bad[at] = value;
            let Ok(state) = postcard::from_bytes::<DecoderState>(&bad) else { continue };
            refused += usize::from(resume(&state, &out[..made]).is_err());
        }
    }
    assert!(refused > 20, "only {refused} were refused");
}
