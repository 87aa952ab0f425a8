//! The time in a header, which says nothing of a content: a group is known whatever its times.

use std::ops::Range;

use crate::delta::native::header::{self, Block};

const TIME: Range<usize> = 136..148;

/// The header with another time.
pub fn with_time(block: &Block, time: u64) -> Block {
    let mut block = *block;
    print(&mut block[TIME], time, 11, 0);
    let sum = header::sum(&block);
    print(&mut block[header::CHECKSUM], sum, 6, b' ');
    block
}

/// Octal digits, a zero, and `last` to the end.
fn print(field: &mut [u8], mut value: u64, digits: usize, last: u8) {
    field.fill(last);
    field[digits] = 0;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// The header without its time, and the time; `None` if it has none of its own.
pub fn timeless(block: &Block) -> Option<(Block, u64)> {
    let time = header::parse(&block[TIME])?;
    let plain = with_time(block, 0);
    (with_time(&plain, time) == *block).then_some((plain, time))
}
