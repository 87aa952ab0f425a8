//! The index of a layer: with it, a device that has some older image, whichever, fetches of the layer only what it lacks.
//!
//! No pair of images is computed. The layer's tar is cut into groups of some 32 entries, and long contents in them into
//! pieces, in places that depend on the bytes alone (`walk`). A blob has every piece packed by itself, of every group what
//! is not content, and at its end a head that names the groups by their hashes. A device cuts what it has in the same way
//! (`Have`). A group that it has anywhere, whatever its times and the directory that it is in, costs some ten bytes and the
//! times. Of the others it fetches the detail, by Range, and then the pieces that it has nowhere (`Layer`). A piece that a layer
//! has twice is stored twice, and of two layers of an image each has its own: so a layer's blob depends on the layer alone, and
//! all images that have the layer share it.
//!
//! Everything comes in the order of the tar, so `apply` streams it: it holds a piece, twice `WINDOW_BYTES` of what it wrote last,
//! what `codec` learns, one detail in plain, the head and the details packed, and 16 bytes for each group and piece of the basis, as
//! many as `have::MAX_REMEMBERED`. Making holds nine bytes for each of the 4 MiB of the tar that are packed at a time, and 3 MiB a thread (`make`).
//!
//! # Format, version 1
//!
//! Numbers are LEB128, frames and how their columns are packed are those of `delta::native`.
//!
//! ```text
//! blob   = pieces details head                 how long the head is stands beside the blob
//! head   = "vqindex1" check:[8] tar:number pieces:number frame* 0
//! ```
//!
//! `check` begins the SHA-256 of what follows it; `tar` is the length of the layer's tar, `pieces` that of the pieces. Each
//! frame of the head has in its columns, for one group after the other:
//!
//! ```text
//! Raw    begin of the group's hash: [6]        Copies   length of its detail in the blob: number
//! Counts length in the tar: number             Extras   length of its pieces in the blob: number
//! Prefixes, Names   its directory: bytes in common with the last one's, the other bytes, and a zero
//! Times  for each header of the group with a time of its own: the difference to the last one, at first 0: signed
//! ```
//!
//! A header has a time of its own if its time is eleven octal digits and a zero, and its checksum six, a zero and a space, and
//! right. If all headers of a group have one, the group has a directory: what all paths in it, but those of headers that
//! extend an entry, begin with, up to a slash, and are not all of; a path begins in the field of the prefix, or of the name
//! if that is empty. Elsewhere in the index headers have no directory; their time, if it is of their own, is 0, and their
//! checksum is as that makes it. A group's hash is the SHA-256 of its headers and then of the SHA-256 of its parts in order:
//! of a header `h`, of a padding or a given content the bytes, of a piece its SHA-256.
//!
//! A detail is a frame. In it, one after another:
//!
//! ```text
//! Ops = 0 header: what differs from the one before in the detail, at first zeros, in Fields as in `native::header`
//!     | 1 content: all of it, from Literals
//!     | 2 piece: Counts: length, 0 for the rest of the content; Copies: packed length; Values: begin of its SHA-256: [5]
//!     | 3 padding: zeros to the next block
//!     | 4 padding: other bytes, from Literals
//! ```
//!
//! A piece is packed by `native::codec` (`Packer`), after the last `WINDOW_BYTES` of the tar before it; one whose packed length
//! is its length is not packed. Whoever writes an index may cut as they like, but what a device has is found only where it was cut alike.

mod apply;
mod directory;
mod have;
mod head;
mod make;
mod times;
mod walk;

use crate::delta::native::BLOCK_BYTES;
use crate::delta::native::header::{self, Block};
use crate::digest::Digest;

pub use apply::{Fetch, apply};
pub use have::Have;
pub use head::{Layer, Span, bytes_of, join};
pub use make::make;

/// The first bytes of a head.
const MAGIC: &[u8; 8] = b"vqindex1";
/// Of the tar before a piece, what it may copy from.
const WINDOW_BYTES: usize = 256 << 10;
/// The longest piece.
const MAX_PIECE: usize = 64 << 10;
/// The shortest, where a content is cut.
const MIN_PIECE: usize = 2 << 10;
/// Behind that, a cut is at one byte in 2^12.
const PIECE_BITS: u32 = 12;
/// A group ends behind one entry in 2^5.
const GROUP_BITS: u32 = 5;
/// Entries, and runs of what is none, in a group.
const MAX_GROUP: usize = 128;
/// The longest content that is given in the detail.
const GIVEN_BYTES: u64 = 32;
/// The same of an extension header.
const MAX_EXTENSION_BYTES: u64 = 4096;

const HASH_BYTES: usize = 6;
const PIECE_HASH_BYTES: usize = 5;

/// The operations of a detail.
mod op {
    pub const HEADER: u8 = 0;
    pub const GIVEN: u8 = 1;
    pub const PIECE: u8 = 2;
    pub const ZEROS: u8 = 3;
    pub const PADDING: u8 = 4;
}

/// The first `count` bytes, at most eight, as a number.
fn number_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// By what a group is looked for.
fn group_key(digest: &Digest) -> u64 {
    number_of(&digest.as_bytes()[..HASH_BYTES])
}

/// By what a piece is looked for: the begin of its hash, and its length, which is under 2^24.
fn piece_key(hash: &[u8], length: usize) -> u64 {
    number_of(&hash[..PIECE_HASH_BYTES]) << 24 | length as u64
}

/// The length of what follows the header in the tar; `None` if it does not say.
fn content_bytes(block: &Block) -> Option<u64> {
    // Of links and directories, the size says nothing.
    let has_content = !matches!(header::kind(block), b'1'..=b'6');
    if has_content { header::size(block) } else { Some(0) }
}

/// The last bytes of a tar that goes by: `WINDOW_BYTES` of them, or more.
struct Window(Vec<u8>);

impl Window {
    fn new() -> Window {
        Window(Vec::with_capacity(2 * WINDOW_BYTES))
    }

    /// Has room for a piece without growing.
    fn make_room(&mut self) {
        if self.0.len() + MAX_PIECE > self.0.capacity() {
            self.0.drain(..self.0.len() - WINDOW_BYTES);
        }
    }
}

const _: () = assert!(MAX_PIECE <= WINDOW_BYTES && MAX_PIECE < 1 << 24 && BLOCK_BYTES < MIN_PIECE);

#[cfg(test)]
mod tests {
    use super::times::with_time;
    use super::*;
    use crate::error::Result;

    /// Bytes that cannot be packed.
    pub fn noise(seed: u64, count: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..count).map(|_| byte()).collect()
    }

    /// A tar of files, of a time that the number of the files gives.
    pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        tar_at(1_700_000_000 + files.len() as u64, files)
    }

    fn tar_at(time: u64, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, content) in files {
            let mut block = [0; BLOCK_BYTES];
            block[..name.len()].copy_from_slice(name.as_bytes());
            block[100..108].copy_from_slice(b"0000644\0");
            block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            block[156] = b'0';
            block[257..265].copy_from_slice(b"ustar\x0000");
            tar.extend_from_slice(&with_time(&block, time));
            tar.extend_from_slice(content);
            tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK_BYTES, 0);
        tar
    }

    fn made(tar: &[u8]) -> (Vec<u8>, u64) {
        let mut blob = Vec::new();
        let head = make(&mut &tar[..], tar.len() as u64, &mut blob).unwrap();
        (blob, head)
    }

    fn part(blob: &[u8], span: &Span) -> Vec<u8> {
        blob[span.start as usize..span.end as usize].to_vec()
    }

    /// What a device with `old` makes of a blob, and what it fetched.
    fn applied(old: &[u8], blob: &[u8], head: u64) -> Result<(Vec<u8>, u64)> {
        let mut have = Have::default();
        have.add(&mut &old[..], old.len() as u64, 0)?;
        let start = blob.len() as u64 - head;
        let mut layer = Layer::read(&part(blob, &(start..blob.len() as u64)), blob.len() as u64)?;
        let details = layer.missing_details(&have)?;
        layer.take_details(details.iter().flat_map(|span| part(blob, span)).collect());
        let mut pieces = layer.missing_pieces(&have)?;
        let bytes = head + bytes_of(&details) + bytes_of(&pieces);
        pieces.reverse();
        let mut out = Vec::new();
        let mut fetch = |span: Span, buffer: &mut [u8]| {
            assert_eq!(pieces.pop(), Some(span.clone()));
            buffer.copy_from_slice(&part(blob, &span));
            Ok(())
        };
        apply(&layer, &have, &mut &old[..], &mut fetch, &mut out)?;
        assert!(pieces.is_empty());
        Ok((out, bytes))
    }

    #[test]
    fn makes_the_layer_of_anything_or_nothing() {
        let (a, b) = (noise(1, 150_000), noise(2, 9_000));
        let text = include_bytes!("mod.rs");
        let new =
            tar(&[("a", &a), ("b", &b), ("c", text), ("dir/short", b"short"), ("empty", b"")]);
        let (blob, head) = made(&new);
        let other = [&a[..70_000], b"gone", &a[70_000..]].concat();
        for (old, most) in [
            (vec![], 170_000),
            (b"no tar".to_vec(), 170_000),
            (new.clone(), 200),
            (tar(&[("a", &a), ("c", text)]), 11_000),
            (tar(&[("other/name", &other), ("x", text), ("y", &b)]), 66_000),
        ] {
            let (made, bytes) = applied(&old, &blob, head).unwrap();
            assert!(made == new, "from {} bytes: {} of {}", old.len(), made.len(), new.len());
            assert!(bytes < most, "{bytes} from {} bytes", old.len());
        }
    }

    #[test]
    fn other_times_cost_only_themselves() {
        let content = noise(1, 3000);
        let names: Vec<String> = (0..200).map(|number| format!("usr/lib/file{number}")).collect();
        let files: Vec<(&str, &[u8])> =
            names.iter().map(|name| (&name[..], &content[..])).collect();
        let (old, new) = (tar_at(1, &files), tar_at(1_700_000_000, &files));
        let (blob, head) = made(&new);
        let (made, bytes) = applied(&old, &blob, head).unwrap();
        assert!(made == new);
        assert!(bytes < 300, "{bytes}");
    }

    #[test]
    fn another_directory_costs_little() {
        let content = noise(1, 3000);
        let files = |version: &str| -> Vec<u8> {
            let name = |number| format!("opt/app-{version}/lib/d{}/file{number}", number / 40);
            let names: Vec<String> = (0..200).map(name).collect();
            let files = names.iter().map(|name| (&name[..], &content[..]));
            tar(&files.collect::<Vec<_>>())
        };
        let (old, new) = (files("1.2"), files("1.10"));
        let (blob, head) = made(&new);
        let (made, bytes) = applied(&old, &blob, head).unwrap();
        assert!(made == new);
        assert!(bytes < 500, "{bytes}");
    }

    #[test]
    fn odd_tars_come_back() {
        let mut odd = tar(&[("a", &noise(1, 700)), ("b", b"12")]);
        // Padding that is not zero, a time that is no number, a checksum in another style; and no end.
        odd[512 + 701] = 1;
        odd[1536 + 512 + 2] = 7;
        let mut tars = vec![odd, vec![7; 200_000], vec![0; 300_000], noise(5, 100)];
        let mut spaces = tar(&[("a", b"content")]);
        spaces[136..148].fill(b' ');
        let sum = header::sum(spaces[..512].try_into().unwrap());
        spaces[148..156].copy_from_slice(format!("{sum:6o}\0 ").as_bytes());
        tars.push(spaces);
        for tar in &tars {
            let (blob, head) = made(tar);
            for old in [&[][..], tar] {
                assert!(applied(old, &blob, head).unwrap().0 == *tar, "{} bytes", tar.len());
            }
        }
    }

    #[test]
    fn random_pairs() {
        for seed in 1..25_u64 {
            println!("seed {seed}");
            let random = noise(seed, 64);
            let mut contents: Vec<Vec<u8>> = Vec::new();
            for number in 0..usize::from(random[0] % 20) {
                let length =
                    usize::from(random[number % 64]) * usize::from(random[(number + 1) % 64]) / 8;
                contents.push(noise(seed * 100 + number as u64, length));
            }
            let names: Vec<String> =
                (0..contents.len()).map(|number| format!("d{}/f{number}", number % 3)).collect();
            let files = |skip: usize| -> Vec<(&str, &[u8])> {
                let pairs = names.iter().zip(&contents).enumerate();
                let kept = pairs.filter(|(number, _)| number % skip != 1);
                kept.map(|(_, (name, content))| (&name[..], &content[..])).collect()
            };
            let (old, new) = (tar(&files(usize::from(random[1] % 7) + 2)), tar(&files(1000)));
            let (blob, head) = made(&new);
            assert!(applied(&old, &blob, head).unwrap().0 == new);
        }
    }

    #[test]
    fn damage_is_an_error_or_the_same() {
        let old = tar(&[("a", b"the old content of a file, which is long enough to be a piece")]);
        let new = tar(&[
            ("a", b"a new content of a file, which is long enough to be a piece"),
            ("b", b"x"),
        ]);
        let (blob, head) = made(&new);
        for old in [&old[..], &[]] {
            for at in 0..blob.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut damaged = blob.clone();
                    damaged[at] ^= flip;
                    if let Ok((made, _)) = applied(old, &damaged, head) {
                        assert!(made.len() <= 2 * new.len());
                    }
                }
                for head in [at as u64, head] {
                    let _ = applied(old, &blob[..at.max(head as usize)], head.min(at as u64));
                }
            }
        }
    }

    /// A head that is whole, of lengths that are not so.
    #[test]
    fn lengths_that_lie_are_found_out() {
        use crate::delta::native::column::{Column, Columns, put_number};
        let head = |tar: u64, pieces: u64, groups: &[(u64, u64, u64)]| {
            let mut rest = Vec::new();
            put_number(&mut rest, tar);
            put_number(&mut rest, pieces);
            let mut columns = Columns::default();
            for &(tar, detail, pieces) in groups {
                columns.extend(Column::Raw, &[1; HASH_BYTES]);
                columns.number(Column::Counts, tar);
                columns.number(Column::Copies, detail);
                columns.number(Column::Extras, pieces);
                columns.number(Column::Prefixes, 0);
                columns.byte(Column::Names, 0);
            }
            rest.extend(columns.pack());
            put_number(&mut rest, 0);
            [MAGIC, &Digest::of(&rest).as_bytes()[..8], &rest].concat()
        };
        let whole = head(10, 4, &[(10, 3, 4)]);
        let blob_bytes = whole.len() as u64 + 7;
        assert!(Layer::read(&whole, blob_bytes).is_ok());
        for (tar, pieces, group) in [
            (11, 4, (10, 3, 4)),
            (10, 5, (10, 3, 4)),
            (10, 4, (10, 2, 4)),
            (10, 4, (10, 4, 4)),
            (10, 4, (10, 3, 5)),
            (10, 4, (10, 3, u64::MAX)),
            (10, 4, (10, u64::MAX, 4)),
            (10, u64::MAX, (10, 3, 4)),
            (u64::MAX, 4, (10, 3, 4)),
        ] {
            let head = head(tar, pieces, &[group]);
            assert!(Layer::read(&head, head.len() as u64 + 7).is_err(), "{tar} {pieces} {group:?}");
        }
        assert!(Layer::read(&whole, whole.len() as u64 - 1).is_err());
        assert!(Layer::read(&whole[..20], blob_bytes).is_err());
    }

    #[test]
    fn joins_spans_that_lie_close() {
        assert_eq!(join(&[0..2, 4..4, 4..6, 9..12], 2), [0..6, 9..12]);
        assert_eq!(bytes_of(&[0..2, 4..6]), 4);
    }

    /// The format's test vector: a tar of one file.
    #[test]
    fn the_format_stays_what_it_is() {
        let (blob, head) = made(&tar(&[("etc/release", &[b'x'; 40])]));
        let hex: String = blob.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "800fd3e70000002000815b360000000f04040000020203030101080801010909030302020000",
            "0000000000000a0a00020302f302c806500072656c6561736500003075737461720030300080",
            "080708bd913ff6825f70bf18a07671696e6465783140e8e1b897d41c5a80100f0b0000000000",
            "000000050505050101060602020101010182c49fd50c6574632f000047f734c7fa7480104a0f",
            "00",
        );
        assert_eq!((hex.as_str(), head), (expected, 64));
    }
}
