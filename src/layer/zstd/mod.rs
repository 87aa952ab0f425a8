//! Zstandard streams (RFC 8878), decoded by code of our own: what a decoder knows can be saved between two blocks, so that
//! a pull goes on in the middle of a frame after a power cut. None of the crates can do that.
//!
//! `reader` walks frames and blocks. A block is literals (`literals`, with the codes of `huffman`) and sequences
//! (`sequences`, with the tables of `fse`), which together append to the `window`. Everything that must be fast is read
//! by `bits` from its end to its start. Frame headers are `frame`'s, checksums `xxhash`'s. Dictionaries are refused.

mod bits;
mod frame;
mod fse;
mod huffman;
mod literals;
mod reader;
mod sequences;
mod window;
mod xxhash;

pub use reader::{ZstdReader, ZstdState};

/// The largest window: what RFC 8878, section 3.1.1.1.2, recommends to support at the least, and what the command
/// `zstd` uses up to level 19. A frame that asks for more is refused, unless its content is known to be smaller.
pub const MAX_WINDOW_BYTES: u64 = 8 << 20;

/// Whether `head`, the first bytes of a stream, begins a frame that decoders pass over: what precedes the first real frame
/// of pzstd and zstd:chunked.
pub fn begins_with_skippable(head: &[u8]) -> bool {
    let word = head.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    word.is_some_and(|word| word & !0xf == frame::SKIPPABLE_MAGIC)
}
