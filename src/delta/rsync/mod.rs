//! The rsync algorithm and librsync's delta format, as far as balenaEngine uses them.
//!
//! The basis is cut into blocks of 512 bytes. Each has a weak sum, cheap to slide along the target byte by byte, and a
//! strong one (BLAKE2b with a 32-byte digest) that is asked when the weak one is known. What matches becomes a copy
//! from the basis, everything between becomes a literal. Signatures stay in memory; only deltas travel.
//!
//! A delta is the magic `72 73 02 36` and operations, each one byte and its big-endian operands, up to the first END:
//!
//! | op | operands | meaning |
//! | --- | --- | --- |
//! | 0x00 | | END; nothing may follow |
//! | 0x01 to 0x40 | | literal of as many bytes as the op says |
//! | 0x41 to 0x44 | length in 1, 2, 4 or 8 bytes | literal; its bytes follow |
//! | 0x45 to 0x54 | position, length | copy from the basis; op - 0x45 = 4 * p + l, widths 1 << p and 1 << l bytes |
//! | 0x55 to 0xff | | reserved: refused |
//!
//! The writer makes the same bytes as librsync-go 0.5 to 0.9, on which the digests of balenaEngine's delta layers
//! depend: the narrowest operands, no short literals (0x01 to 0x40), adjacent copies joined, literals cut at 16 MiB, and
//! of equal weak sums in the basis only the last block counts.

mod diff;
mod patch;
mod rollsum;
mod signature;

pub use diff::diff;
pub use patch::patch;
pub use signature::Signature;

/// The length of a block of the basis. The format does not record it; other lengths make other deltas.
pub const BLOCK_BYTES: usize = 512;
/// The first bytes of every delta.
pub const DELTA_MAGIC: [u8; 4] = [0x72, 0x73, 0x02, 0x36];

const OP_END: u8 = 0x00;
/// The longest literal whose length is the op itself.
const OP_LITERAL_64: u8 = 0x40;
/// Literal with a length of 1 byte; those of 2, 4 and 8 bytes follow.
const OP_LITERAL_N1: u8 = 0x41;
const OP_LITERAL_N8: u8 = 0x44;
/// Copy with position and length of 1 byte each; the other widths follow.
const OP_COPY_N1_N1: u8 = 0x45;
const OP_COPY_N8_N8: u8 = 0x54;
