//! The native delta: one target layer's uncompressed tar from the tars of a basis image, in columns.
//!
//! The basis is the concatenation, bottom to top, of the uncompressed tars of the basis image's layers, as in balena's
//! format; everything is addressed by its offset in it. The target's tar is a list of entries, a header block with the
//! content behind it (extension headers are entries, too). Each entry has a peer, the entry of the basis that it is most
//! like: its header is the peer's with some fields changed, and its content the peer's, or a patch against it (copies
//! from anywhere in the basis with a bytewise difference, and new bytes: bsdiff's scheme), or new. In executables the
//! addresses in copied code and tables are adjusted to where things have moved before the difference is taken
//! (`references`): what is left of a recompiled library is little more than what was changed in its source. Of gzip members
//! it is the contents that are compared, where the packing can be repeated exactly (`gzip`).
//!
//! Making a delta: `Index::of(basis)` (`entries`) once, then `make` for each target layer: it pairs the entries
//! (`peers`), matches contents (`matches`, `pair`) and writes columns (`column`), which `codec` compresses. Applying: `apply`
//! streams the tar. It holds a frame (5 MiB at most), one packed column and 3 MiB of what `codec` learns while it reads the frame, of a
//! predicted patch its steps, and of a gzip member the peer's content (6 MiB at most) and 0.4 MiB for the encoder. `make` holds the two files in hand, 13 bytes for each byte of the old one (`suffixes`), and the basis' index.
//!
//! # Format, version 1
//!
//! Numbers are LEB128, little-endian base 128; signed ones are zigzagged first.
//!
//! ```text
//! delta   = "vqdelta1" basis length:number target length:number frame* 0
//! frame   = count:number (raw:number packed:number)[count] packed bytes of each column         count over 0
//! ```
//!
//! A frame is whole in itself: nothing that one learned is used in the next, so reading can start at any of them. Its columns
//! are, in this order, those of `column::Column`; missing ones are empty. `codec` says how a column is packed; one whose packed length
//! is its raw length is not. Columns are read side by side, by one operation after another:
//!
//! ```text
//! operation = Ops: flags
//!   bits 0-1  content: 0 none, 1 the peer's, 2 a patch, 3 new
//!   bit  2    it has a header; if not, it is a run of bytes
//!   bit  3    the peer is not the next one: Peers has the difference (signed)
//!   bit  4    there is no peer: the header is like the operation's before
//!   bit  5    the header is not the same: Fields has what differs
//!   bit  6    references are predicted in the patch
//!   bit  7    with content 0: it goes on in runs, and the entry's size says nothing of its length (for whoever lists entries);
//!             with content 2 or 3, and a header: it is a gzip member, given open
//! peer    = the offset of a header block in the basis, or for a run of content. The next one is where the peer of the last header ended
//!           (header, content and padding); at a frame's start, 0. The difference is in blocks of 512 bytes for a header, in bytes
//!           for a run, which has a peer only if it is given
//! fields  = Fields: mask:number, one bit for each of `header::FIELDS`, the highest for a header that is given whole (Raw: 512 bytes);
//!           then each field, in `header`'s manner
//! content = its length is the header's size field, for a run Counts: number
//!   patch   = Counts: steps:number, each Copies: length, Extras: length, Seeks: signed. A step copies from the basis and adds the
//!             differences, then takes the extra bytes from Literals. It starts where the copy before ended, moved by the seek; the
//!             first at the peer's content. If references are predicted, `references::Layout` comes first
//!   difference = over all copies of a frame as one string: Gaps: equal bytes, Runs: differing bytes, Values: what is added to
//!             each of them, modulo 256; from the end of Gaps on, all are equal
//!   new     = from Literals
//!   gzip    = Counts: recipe (`gzip::Recipe`), length of the head, which is in Raw, length of the open content; for a patch then
//!             1 if the peer's content is opened as well, 0 if it is taken as it is. Then the open content, as a patch or new.
//!             What is made of it is the head, the deflate stream by the recipe, CRC-32 and length
//! padding = after the content of an entry with a header, zeros up to a whole block (none if the content goes on in runs)
//! ```
//!
//! The tar's end, and whatever is not an entry in it, are runs. A delta carries no checksum of its own: the diff ID of what it
//! makes is what tells, and each length is held against what is there.

mod apply;
pub(super) mod codec;
pub(super) mod column;
pub(super) mod entries;
mod gzip;
pub(super) mod header;
mod make;
mod matches;
mod pair;
mod peers;
mod references;
mod suffixes;
mod watch;

pub use apply::{Patching, apply};
pub use entries::Index;
pub use make::make;
pub use watch::{Content, Made};

/// The first bytes of a delta.
const MAGIC: &[u8; 8] = b"vqdelta1";
/// The unit of a tar.
pub(super) const BLOCK_BYTES: usize = 512;

/// The most steps of a patch with predicted references: each takes 48 bytes of memory.
const MAX_PREDICTED_STEPS: usize = 50_000;

/// The bits of an operation; the format's description has them.
mod flag {
    pub const CONTENT: u8 = 3;
    pub const HAS_HEADER: u8 = 1 << 2;
    pub const PEER_GIVEN: u8 = 1 << 3;
    pub const NO_PEER: u8 = 1 << 4;
    pub const FIELDS_DIFFER: u8 = 1 << 5;
    pub const PREDICTED: u8 = 1 << 6;
    pub const GOES_ON: u8 = 1 << 7;
    pub const GZIP: u8 = 1 << 7;
}

/// Where an operation's content comes from.
mod content {
    pub const NONE: u8 = 0;
    pub const PEER: u8 = 1;
    pub const PATCH: u8 = 2;
    pub const NEW: u8 = 3;
}

/// Zeros between content of so many bytes and the next block.
pub(super) fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % BLOCK_BYTES as u64
}

/// How many bytes, from the first on, two slices have in common.
fn common(one: &[u8], other: &[u8]) -> usize {
    let (words, others) = (one.chunks_exact(8), other.chunks_exact(8));
    let mut length = 0;
    for (a, b) in words.zip(others) {
        // Cannot fail: chunks of eight.
        let differ =
            u64::from_le_bytes(a.try_into().unwrap()) ^ u64::from_le_bytes(b.try_into().unwrap());
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + one[length..].iter().zip(&other[length..]).take_while(|(a, b)| a == b).count()
}
