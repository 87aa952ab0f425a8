//! The signature of a basis, laid out for the search that `diff` makes once for every byte of the target.
//!
//! A weak sum is multiplied by an odd constant first: that loses nothing and spreads the sums, which are anything but
//! evenly spread, over 32 bits. The high bits of the product then choose a bucket, the next 8 are the tag that tells
//! blocks of a bucket apart, and a Bloom filter in front answers nearly all of the searches, which find nothing.
//! A tag may stand for several weak sums; the strong sum decides, so nothing but time is lost.
//!
//! Memory, by block of the basis: 32 bytes for the strong sum, 4 for its number, 1 for the tag, half a byte for the
//! bucket and 2.5 for the filter: 40 bytes, 80 MiB for a gigabyte of image. librsync-go takes about 100.

use std::io::{ErrorKind, Read};

use blake2::{Blake2b256, Digest as _};

use super::BLOCK_BYTES;
use super::rollsum::Rollsum;
use crate::error::{Context, Error, Kind, Result};
use crate::stream::Stream;

/// How much of the basis is read at once: whole blocks.
const CHUNK_BYTES: usize = 128 * BLOCK_BYTES;
/// Odd, and the multiplier of Fibonacci hashing: 2^32 divided by the golden ratio.
const SPREAD: u32 = 0x9e37_79b1;
/// Any other odd number, for the bits of the filter.
const SPREAD_BITS: u32 = 0x85eb_ca6b;
/// Bits of the filter by block: what the other tables leave of 40 bytes. One search in 300 passes in vain.
const FILTER_BITS_PER_BLOCK: usize = 20;
/// Blocks by bucket, at least; twice that at most.
const BLOCKS_PER_BUCKET: usize = 8;

type Strong = [u8; 32];

/// The blocks of a basis, to be searched by content.
pub struct Signature {
    filter: Filter,
    /// By bucket, where its blocks begin in `tags` and `numbers`; one more marks the end.
    buckets: Vec<u32>,
    bucket_bits: u32,
    /// Ascending within a bucket.
    tags: Vec<u8>,
    /// The number of the block that each tag stands for.
    numbers: Vec<u32>,
    /// By block number.
    strongs: Vec<Strong>,
}

impl Signature {
    /// Reads the basis to its end. Takes 40 bytes of memory a block, and 8 more while the table is made.
    pub fn of(basis: &mut dyn Stream) -> Result<Signature> {
        let (mut strongs, mut keys) = (Vec::new(), Vec::new());
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let at = strongs.len() as u64 * BLOCK_BYTES as u64;
            let count = fill(basis, &mut chunk)
                .context(|| format!("read basis of the delta from byte {at}"))?;
            // The last block, if short, takes its weak sum from the others like any block, and then never matches: its
            // strong sum is of fewer bytes than a window has.
            for block in chunk[..count].chunks(BLOCK_BYTES) {
                let number = u32::try_from(strongs.len()).map_err(|_| too_long())?;
                grow_by_quarter(&mut strongs);
                grow_by_quarter(&mut keys);
                keys.push(key(Rollsum::of(block).digest(), number));
                strongs.push(strong(block));
            }
            if count < chunk.len() {
                break;
            }
        }
        strongs.shrink_to_fit();
        keys.sort_unstable();
        keep_last_of_equal(&mut keys);
        Ok(Signature::index(&keys, strongs))
    }

    /// Lays out keys that are sorted and differ in their weak sums.
    fn index(keys: &[u64], strongs: Vec<Strong>) -> Signature {
        let bucket_bits = (keys.len() / BLOCKS_PER_BUCKET).checked_ilog2().unwrap_or(0);
        let mut filter = Filter::new(keys.len());
        let mut buckets = Vec::with_capacity((1 << bucket_bits) + 1);
        let mut tags = Vec::with_capacity(keys.len());
        let mut numbers = Vec::with_capacity(keys.len());
        for &key in keys {
            let (spread, number) = ((key >> 32) as u32, key as u32);
            filter.insert(spread);
            let (bucket, tag) = split(spread, bucket_bits);
            while buckets.len() <= bucket {
                buckets.push(tags.len() as u32);
            }
            tags.push(tag);
            numbers.push(number);
        }
        buckets.resize((1 << bucket_bits) + 1, tags.len() as u32);
        Signature { filter, buckets, bucket_bits, tags, numbers, strongs }
    }

    /// False if no block has this weak sum; true for those that have, and for one in 300 of the others.
    #[inline(always)]
    pub(super) fn may_contain(&self, weak: u32) -> bool {
        self.filter.contains(weak.wrapping_mul(SPREAD))
    }

    /// The number of the block whose content is `window`, if it is the last of its weak sum.
    pub(super) fn find(&self, weak: u32, window: &[u8]) -> Option<u32> {
        let (bucket, tag) = split(weak.wrapping_mul(SPREAD), self.bucket_bits);
        let (start, end) = (*self.buckets.get(bucket)?, *self.buckets.get(bucket + 1)?);
        let range = start as usize..end as usize;
        let tags = self.tags.get(range.clone())?;
        let first = tags.partition_point(|&other| other < tag);
        let same = tags.get(first..)?.iter().take_while(|&&other| other == tag).count();
        if same == 0 {
            return None;
        }
        let wanted = strong(window);
        let numbers = self.numbers.get(range)?.get(first..first + same)?;
        numbers.iter().copied().find(|&number| self.strongs.get(number as usize) == Some(&wanted))
    }

    /// What the signature holds on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.strongs.capacity() * size_of::<Strong>()
            + self.numbers.capacity() * 4
            + self.tags.capacity()
            + self.buckets.capacity() * 4
            + self.filter.words.len() * 8
    }
}

/// Block numbers have 32 bits.
fn too_long() -> Error {
    Error::new(Kind::Unsupported, "basis of the delta is longer than 2 TiB")
}

/// Reads until `chunk` is full or the stream ends.
fn fill(basis: &mut dyn Stream, chunk: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        match basis.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A vector that doubles would for a while hold three times what a large signature needs.
fn grow_by_quarter<T>(vector: &mut Vec<T>) {
    if vector.len() == vector.capacity() {
        vector.reserve_exact(vector.len() / 4 + 1024);
    }
}

fn strong(block: &[u8]) -> Strong {
    Blake2b256::digest(block).into()
}

/// Sorts by spread weak sum, then by number.
fn key(weak: u32, number: u32) -> u64 {
    u64::from(weak.wrapping_mul(SPREAD)) << 32 | u64::from(number)
}

fn keep_last_of_equal(keys: &mut Vec<u64>) {
    keys.dedup_by(|next, kept| {
        let same = *next >> 32 == *kept >> 32;
        if same {
            *kept = *next;
        }
        same
    });
}

/// The bucket of a spread weak sum, and its tag in there.
fn split(spread: u32, bucket_bits: u32) -> (usize, u8) {
    let spread = u64::from(spread) << bucket_bits;
    ((spread >> 32) as usize, (spread as u32 >> 24) as u8)
}

/// A Bloom filter with four bits for each key, all in one word: one place in memory, one branch.
struct Filter {
    words: Vec<u64>,
}

impl Filter {
    fn new(keys: usize) -> Filter {
        Filter { words: vec![0; keys * FILTER_BITS_PER_BLOCK / 64 + 1] }
    }

    fn insert(&mut self, spread: u32) {
        let place = self.place(spread);
        if let Some(word) = self.words.get_mut(place) {
            *word |= bits(spread);
        }
    }

    #[inline(always)]
    fn contains(&self, spread: u32) -> bool {
        let bits = bits(spread);
        self.words.get(self.place(spread)).is_some_and(|word| word & bits == bits)
    }

    /// Maps 32 bits to the words without a division.
    #[inline(always)]
    fn place(&self, spread: u32) -> usize {
        ((u64::from(spread) * self.words.len() as u64) >> 32) as usize
    }
}

#[inline(always)]
fn bits(spread: u32) -> u64 {
    let bits = spread.wrapping_mul(SPREAD_BITS);
    let bit = |shift: u32| 1_u64 << (bits >> shift & 63);
    bit(26) | bit(20) | bit(14) | bit(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(count: u32) -> Vec<u8> {
        (0..count).flat_map(|i| i.to_be_bytes().into_iter().cycle().take(BLOCK_BYTES)).collect()
    }

    fn find(signature: &Signature, window: &[u8]) -> Option<u32> {
        let weak = Rollsum::of(window).digest();
        if !signature.may_contain(weak) {
            return None;
        }
        signature.find(weak, window)
    }

    #[test]
    fn finds_every_block_and_nothing_else() {
        for count in [0, 1, 2, 7, 8, 100, 5000] {
            let basis: Vec<u8> = (0..count * 128_u32)
                .flat_map(|i| i.wrapping_mul(0x0101_6b35).to_le_bytes())
                .collect();
            let signature = Signature::of(&mut &basis[..]).unwrap();
            for (number, block) in basis.chunks(BLOCK_BYTES).enumerate() {
                assert_eq!(find(&signature, block), Some(number as u32), "block of {count}");
            }
            assert_eq!(find(&signature, &[0xee; BLOCK_BYTES]), None);
        }
    }

    #[test]
    fn only_the_last_block_of_a_weak_sum_counts() {
        // Swapping bytes that lie symmetrically about a centre keeps both sums: the same weak sum, other content.
        let (mut a, mut b) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
        (a[10], a[13], b[11], b[12]) = (1, 1, 1, 1);
        let weak = Rollsum::of(&a).digest();
        assert_eq!(weak, Rollsum::of(&b).digest());
        let signature = Signature::of(&mut &[&a[..], &b, &a, &b].concat()[..]).unwrap();
        assert_eq!(find(&signature, &a), None);
        assert_eq!(find(&signature, &b), Some(3));
    }

    #[test]
    fn a_short_last_block_never_matches() {
        let basis = [vec![1; BLOCK_BYTES], vec![2; 511]].concat();
        let signature = Signature::of(&mut &basis[..]).unwrap();
        assert_eq!(signature.strongs.len(), 2);
        assert_eq!(find(&signature, &[1; BLOCK_BYTES]), Some(0));
        assert_eq!(signature.find(Rollsum::of(&[2; 511]).digest(), &[2; 511][..510]), None);
    }

    #[test]
    fn an_unreadable_basis_is_an_error_with_its_place() {
        struct Damaged(u64);
        impl Read for Damaged {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    1 => Err(ErrorKind::Interrupted.into()),
                    2 => Ok(buffer.len()),
                    3 => Ok(1),
                    _ => Err(std::io::Error::from_raw_os_error(5)),
                }
            }
        }
        let error = Signature::of(&mut Damaged(0)).err().unwrap();
        let why = "read basis of the delta from byte 65536: Input/output error (os error 5)";
        assert_eq!(error.to_string(), why);
    }

    #[test]
    fn takes_forty_bytes_a_block() {
        for count in [1_000, 1_023, 1_025, 30_000] {
            let signature = Signature::of(&mut &blocks(count)[..]).unwrap();
            let limit = 40 * count as usize + 64;
            assert!(signature.memory_bytes() <= limit, "{} of {limit}", signature.memory_bytes());
        }
    }

    #[test]
    fn the_filter_lets_few_others_pass() {
        let mut filter = Filter::new(10_000);
        (0..10_000_u32).for_each(|i| filter.insert(i.wrapping_mul(SPREAD)));
        assert!((0..10_000_u32).all(|i| filter.contains(i.wrapping_mul(SPREAD))));
        let others = 10_000..110_000_u32;
        let passed = others.filter(|i| filter.contains(i.wrapping_mul(SPREAD))).count();
        assert!(passed < 1_000, "{passed} of 100000");
    }
}
