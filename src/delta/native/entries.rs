//! The entries of a tar, and how to find among those of a basis what one is like.

use std::collections::HashMap;

use super::{BLOCK_BYTES, header, padding};
use crate::delta::ReadAt;
use crate::digest::Hasher;
use crate::error::{Context, Result};

/// Samples kept of a file's content.
const SAMPLES: usize = 8;
/// Files below are not sampled.
const MIN_SAMPLED_BYTES: u64 = 512;
/// Files with a sample in common that are remembered for it.
const MAX_PER_SAMPLE: usize = 8;
/// Read at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// The longest name that an extension header is read for.
const MAX_EXTENSION_BYTES: u64 = 1 << 16;

/// An entry: a header block and the content behind it.
pub struct Entry {
    /// Of the header block, in the tar or the basis.
    pub offset: u64,
    /// The content's length in bytes.
    pub bytes: u64,
    /// The type in the header: `x`, `g`, `L` and `K` extend the entry behind.
    pub kind: u8,
    /// The name, from the extension headers where they have it.
    pub path: Vec<u8>,
    /// Of the content.
    pub hash: [u8; 16],
    /// The smallest hashes of windows of the content.
    pub samples: Vec<u32>,
}

impl Entry {
    /// Where the content is.
    pub fn content(&self) -> u64 {
        self.offset + BLOCK_BYTES as u64
    }

    /// The offset behind content and padding.
    pub fn end(&self) -> u64 {
        self.content() + self.bytes + padding(self.bytes)
    }

    /// Whether it extends the one behind.
    pub fn is_extension(&self) -> bool {
        matches!(self.kind, b'x' | b'g' | b'L' | b'K')
    }

    /// Whether it is a file with content.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, b'0' | 0 | b'7') && self.bytes > 0
    }
}

/// Reads all entries of `tar`. What is not an entry (the end's zeros) lies between them.
pub fn entries(tar: &mut dyn ReadAt) -> Result<Vec<Entry>> {
    let (mut entries, mut offset, mut path) = (Vec::new(), 0, None);
    let mut buffer = vec![0; BUFFER_BYTES];
    let gears = gears();
    while offset + BLOCK_BYTES as u64 <= tar.size_bytes() {
        let mut block = [0; BLOCK_BYTES];
        read_exact(tar, offset, &mut block)?;
        let size = if header::is_header(&block) { header::size(&block) } else { None };
        let kind = header::kind(&block);
        // Of links and directories, the size says nothing.
        let has_content = !matches!(kind, b'1'..=b'6');
        let bytes = size.map(|size| if has_content { size } else { 0 });
        let Some(bytes) =
            bytes.filter(|&bytes| bytes <= tar.size_bytes() - offset - BLOCK_BYTES as u64)
        else {
            offset += BLOCK_BYTES as u64;
            continue;
        };
        let mut entry =
            Entry { offset, bytes, kind, path: Vec::new(), hash: [0; 16], samples: Vec::new() };
        let mut digester = Digester::new(&gears);
        let mut left = bytes;
        let mut at = entry.content();
        while left > 0 {
            let count = left.min(BUFFER_BYTES as u64) as usize;
            read_exact(tar, at, &mut buffer[..count])?;
            digester.update(&buffer[..count], entry.is_file() && bytes >= MIN_SAMPLED_BYTES);
            left -= count as u64;
            at += count as u64;
        }
        (entry.hash, entry.samples) = digester.finish();
        if entry.is_extension() {
            if bytes <= MAX_EXTENSION_BYTES.min(BUFFER_BYTES as u64) {
                path = extended_path(kind, &buffer[..bytes as usize]).or(path);
            }
        } else {
            entry.path = path.take().unwrap_or_else(|| header::path(&block));
        }
        offset = entry.end();
        entries.push(entry);
    }
    Ok(entries)
}

/// Fills `buffer` from `offset`; the caller knows that there is as much.
pub fn read_exact(from: &mut dyn ReadAt, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let what = || format!("read the tar at byte {}", offset + filled as u64);
        let count = from.read_at(offset + filled as u64, &mut buffer[filled..]).context(what)?;
        if count == 0 {
            return Err(super::column::corrupt(format!("{}: it ends there", what())));
        }
        filled += count;
    }
    Ok(())
}

/// The path that an extension header's content gives the next entry.
fn extended_path(kind: u8, content: &[u8]) -> Option<Vec<u8>> {
    match kind {
        b'L' => Some(content.split(|&byte| byte == 0).next()?.to_vec()),
        b'x' => content.split(|&byte| byte == b'\n').find_map(|line| {
            let record = line.splitn(2, |&byte| byte == b' ').nth(1)?;
            Some(record.strip_prefix(b"path=")?.to_vec())
        }),
        _ => None,
    }
}

/// Hashes and samples a content.
struct Digester<'a> {
    hasher: Hasher,
    gears: &'a [u32; 256],
    rolling: u32,
    samples: Vec<u32>,
}

impl<'a> Digester<'a> {
    fn new(gears: &'a [u32; 256]) -> Self {
        Digester { hasher: Hasher::new(), gears, rolling: 0, samples: Vec::new() }
    }

    fn update(&mut self, bytes: &[u8], is_sampled: bool) {
        self.hasher.update(bytes);
        if !is_sampled {
            return;
        }
        let mut largest = self
            .samples
            .last()
            .copied()
            .filter(|_| self.samples.len() == SAMPLES)
            .unwrap_or(u32::MAX);
        for &byte in bytes {
            // The hash of the last 32 bytes; one in eight may be a sample.
            self.rolling = (self.rolling << 1).wrapping_add(self.gears[usize::from(byte)]);
            if self.rolling >> 29 != 0 {
                continue;
            }
            let sample = self.rolling.wrapping_mul(0x9e37_79b1);
            if sample < largest && !self.samples.contains(&sample) {
                let place = self.samples.partition_point(|&other| other < sample);
                self.samples.insert(place, sample);
                self.samples.truncate(SAMPLES);
                if self.samples.len() == SAMPLES {
                    largest = self.samples[SAMPLES - 1];
                }
            }
        }
    }

    fn finish(self) -> ([u8; 16], Vec<u32>) {
        let digest = self.hasher.finish();
        // Cannot fail: a digest has 32 bytes.
        (digest.as_bytes()[..16].try_into().unwrap(), self.samples)
    }
}

/// A random word for each byte.
pub fn gears() -> [u32; 256] {
    let mut state = 1_u64;
    std::array::from_fn(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    })
}

/// The entries of a basis, to be found by what they are like.
pub struct Index {
    pub(super) entries: Vec<Entry>,
    by_path: HashMap<Vec<u8>, usize>,
    by_shape: HashMap<Vec<u8>, usize>,
    by_hash: HashMap<[u8; 16], usize>,
    by_sample: HashMap<u32, Vec<u32>>,
}

impl Index {
    /// Reads the whole basis.
    pub fn of(basis: &mut dyn ReadAt) -> Result<Index> {
        let entries = entries(basis)?;
        let mut index = Index {
            entries: Vec::new(),
            by_path: HashMap::new(),
            by_shape: HashMap::new(),
            by_hash: HashMap::new(),
            by_sample: HashMap::new(),
        };
        for (number, entry) in entries.iter().enumerate() {
            if entry.is_extension() {
                continue;
            }
            // Of several layers' files of a path the uppermost is the one.
            index.by_path.insert(entry.path.clone(), number);
            if !entry.is_file() {
                continue;
            }
            index.by_shape.insert(shape(&entry.path), number);
            index.by_hash.entry(entry.hash).or_insert(number);
            for &sample in &entry.samples {
                let numbers = index.by_sample.entry(sample).or_default();
                if numbers.len() < MAX_PER_SAMPLE {
                    numbers.push(number as u32);
                }
            }
        }
        index.entries = entries;
        Ok(index)
    }

    /// An entry of the same path.
    pub fn of_path(&self, path: &[u8]) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    /// A file whose path differs in numbers at most.
    pub fn of_shape(&self, path: &[u8]) -> Option<usize> {
        self.by_shape.get(&shape(path)).copied()
    }

    /// A file of the same content.
    pub fn of_content(&self, hash: &[u8; 16]) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    /// The file that has the most samples of the content in common, and how many.
    pub fn most_similar(&self, entry: &Entry) -> Option<(usize, usize)> {
        let mut votes: HashMap<u32, usize> = HashMap::new();
        for number in entry.samples.iter().filter_map(|sample| self.by_sample.get(sample)).flatten()
        {
            *votes.entry(*number).or_default() += 1;
        }
        let best =
            votes.into_iter().max_by_key(|&(number, count)| (count, std::cmp::Reverse(number)));
        best.map(|(number, count)| (number as usize, count))
    }
}

/// A path with each run of digits made one sign.
fn shape(path: &[u8]) -> Vec<u8> {
    let mut shape = Vec::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'0'..=b'9' if shape.last() == Some(&b'#') => {}
            b'0'..=b'9' => shape.push(b'#'),
            byte => shape.push(byte),
        }
    }
    shape
}
