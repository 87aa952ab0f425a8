//! Checkpoints: a real one, of a layer that was cut short, with bytes of it changed and its checksum made right again; beside
//! it an undo log of whatever comes.
#![no_main]

use std::fs::{self, File};
use std::io::{self, Read};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vaquita::digest::Digest;
use vaquita::layer::{Checkpoint, Decoder, Peers, Resumption, Trail, unpack_resumable};

mod scratch;

const FILE_BYTES: usize = 12 << 20;

/// A stage in which a layer was cut short.
struct Stage {
    scratch: scratch::Scratch,
    directory: File,
    blob: Digest,
    /// The checkpoint's body.
    body: Vec<u8>,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let scratch = scratch::Scratch::new();
    let directory = scratch.stage();
    let tar = tar();
    let blob = Digest::of(&tar);
    let trail = Trail::default();
    let cut = &tar[..tar.len() - 4096];
    let mut noting = Noting(Decoder::open(Box::new(cut), Some(blob)).unwrap(), &trail);
    let resumption = Resumption { trail: &trail, blob, from: None, peers: Peers::default() };
    use std::os::fd::AsFd;
    unpack_resumable(&mut noting, directory.as_fd(), "x", resumption).err().expect("it was cut");
    let slot = ["checkpoint.0", "checkpoint.1"]
        .map(|name| fs::read(scratch.0.join("stage").join(name)).unwrap_or_default())
        .into_iter()
        .max_by_key(Vec::len)
        .unwrap();
    let length = u32::from_le_bytes(slot[12..16].try_into().unwrap()) as usize;
    Stage { scratch, directory, blob, body: slot[20..20 + length].to_vec() }
});

struct Noting<'a>(Decoder<'a>, &'a Trail);

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.note(&mut self.0);
        Ok(count)
    }
}

/// One file, in the ustar format.
fn tar() -> Vec<u8> {
    let mut head = [0; 512];
    head[..4].copy_from_slice(b"file");
    head[100..108].copy_from_slice(b"0000644\0");
    head[108..116].copy_from_slice(b"0000000\0");
    head[116..124].copy_from_slice(b"0000000\0");
    head[124..136].copy_from_slice(format!("{FILE_BYTES:011o}\0").as_bytes());
    head[136..148].copy_from_slice(b"00000000000\0");
    head[148..156].fill(b' ');
    head[156] = b'0';
    head[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let content = (0..FILE_BYTES as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    head.into_iter().chain(content).chain([0; 1024]).collect()
}

/// CRC-32, a bit a step.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

fuzz_target!(|input: &[u8]| {
    let stage = &*STAGE;
    let (undo, edits) = input.split_at(input.len() / 3);
    let mut body = stage.body.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % body.len();
        body[at] = edit[2];
    }
    let mut slot = b"vqresume".to_vec();
    for number in [2, body.len() as u32, crc(&body)] {
        slot.extend(number.to_le_bytes());
    }
    slot.extend(body);
    let path = stage.scratch.0.join("stage");
    fs::write(path.join("checkpoint.0"), slot).unwrap();
    let _ = fs::remove_file(path.join("checkpoint.1"));
    let head = [undo.len() as u32, crc(undo)].map(u32::to_le_bytes);
    fs::write(path.join("undo"), [head.as_flattened(), undo].concat()).unwrap();
    use std::os::fd::AsFd;
    let directory = stage.directory.as_fd();
    vaquita::layer::staged_bytes(directory);
    let Some(checkpoint) = Checkpoint::load(directory, &stage.blob) else { return };
    let Ok(history) = checkpoint.restore(directory, "x") else { return };
    let rest = Box::new(io::repeat(7).take(1 << 16));
    let resumed = Decoder::resume(rest, checkpoint.decoder(), history, stage.blob);
    let Ok(mut resumed) = resumed else { return };
    let _ = io::copy(&mut resumed, &mut io::sink());
});
