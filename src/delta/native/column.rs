//! Columns: what operations need, kind by kind, so that like stands beside like when it is compressed.

use std::io::Read;

use super::codec;
use crate::error::{Context, Error, Kind, Result};
use crate::stream::Stream;

/// What a column holds; the format's description says how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Ops,
    Peers,
    Fields,
    Numbers,
    Times,
    Names,
    Prefixes,
    Raw,
    Counts,
    Copies,
    Extras,
    Seeks,
    Gaps,
    Runs,
    Values,
    Literals,
}

/// How many there are.
pub const COLUMNS: usize = 16;
/// A frame is closed when it has as much, raw.
pub const FRAME_BYTES: usize = 3 << 20;
/// What one operation may add to a frame.
pub const OPERATION_BYTES: usize = 2 << 20;
/// What a frame may hold in all: the memory that `apply` needs for it.
const MAX_FRAME_BYTES: usize = FRAME_BYTES + OPERATION_BYTES;

/// The columns of a frame as they are filled.
#[derive(Default)]
pub struct Columns([Vec<u8>; COLUMNS]);

impl Columns {
    /// Raw bytes in all.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    pub fn byte(&mut self, column: Column, byte: u8) {
        self.0[column as usize].push(byte);
    }

    pub fn extend(&mut self, column: Column, bytes: &[u8]) {
        self.0[column as usize].extend_from_slice(bytes);
    }

    pub fn number(&mut self, column: Column, number: u64) {
        put_number(&mut self.0[column as usize], number);
    }

    pub fn signed(&mut self, column: Column, number: i64) {
        self.number(column, (number << 1 ^ number >> 63) as u64);
    }

    /// The frame on the wire; the columns are empty afterwards.
    pub fn pack(&mut self) -> Vec<u8> {
        let columns = std::mem::take(&mut self.0);
        let count = columns.iter().rposition(|raw| !raw.is_empty()).map_or(0, |last| last + 1);
        let (mut head, mut body) = (Vec::new(), Vec::new());
        put_number(&mut head, count as u64);
        for raw in &columns[..count] {
            let is_hopeless = raw.is_empty() || codec::is_noise(raw);
            let packed = if is_hopeless { Vec::new() } else { codec::encode(raw) };
            let is_packed = !is_hopeless && packed.len() < raw.len();
            let packed = if is_packed { &packed } else { raw };
            put_number(&mut head, raw.len() as u64);
            put_number(&mut head, packed.len() as u64);
            body.extend_from_slice(packed);
        }
        head.append(&mut body);
        head
    }
}

/// Appends a number to `bytes`.
pub fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The columns of a frame as they are used up.
pub struct Frame {
    columns: [Vec<u8>; COLUMNS],
    used: [usize; COLUMNS],
    /// Bytes of each as it came.
    packed: [u64; COLUMNS],
}

impl Frame {
    /// Reads the next frame; `None` at the end of the delta. Takes as much memory as its raw bytes and those of one packed column.
    pub fn read(delta: &mut dyn Stream) -> Result<Option<Frame>> {
        let count = read_number(delta)? as usize;
        if count == 0 {
            return Ok(None);
        }
        if count > COLUMNS {
            return Err(corrupt(format!(
                "delta has a frame of {count} columns: {COLUMNS} are known"
            )));
        }
        let mut lengths = [(0, 0); COLUMNS];
        let mut total = 0;
        for (raw, packed) in &mut lengths[..count] {
            (*raw, *packed) = (read_number(delta)?, read_number(delta)?);
            total = raw.saturating_add(total);
            if total > MAX_FRAME_BYTES as u64 || packed > raw {
                let message =
                    format!("delta has a frame of {total} bytes: the limit is {MAX_FRAME_BYTES}");
                return Err(corrupt(message));
            }
        }
        let (columns, used) = Default::default();
        let mut frame = Frame { columns, used, packed: lengths.map(|(_, packed)| packed) };
        for (column, (raw, packed)) in frame.columns.iter_mut().zip(lengths) {
            let mut bytes = vec![0; packed as usize];
            delta.read_exact(&mut bytes).context(|| "read delta".into())?;
            *column = if packed == raw {
                bytes
            } else {
                let damaged = || corrupt("a column of the delta is damaged".into());
                codec::decode(&bytes, raw as usize).ok_or_else(damaged)?
            };
        }
        Ok(Some(frame))
    }

    pub fn byte(&mut self, column: Column) -> Result<u8> {
        Ok(self.take(column, 1)?[0])
    }

    pub fn number(&mut self, column: Column) -> Result<u64> {
        let index = column as usize;
        let mut rest = self.columns[index].get(self.used[index]..).unwrap_or_default();
        let before = rest.len();
        let number = read_number(&mut rest).map_err(|_| ended(column))?;
        self.used[index] += before - rest.len();
        Ok(number)
    }

    pub fn signed(&mut self, column: Column) -> Result<i64> {
        let number = self.number(column)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// The next `count` bytes.
    pub fn take(&mut self, column: Column, count: usize) -> Result<&[u8]> {
        let index = column as usize;
        let rest = self.columns[index].get(self.used[index]..).unwrap_or_default();
        let bytes = rest.get(..count).ok_or_else(|| ended(column))?;
        self.used[index] += count;
        Ok(bytes)
    }

    /// The part of the frame, as it came, that is used: of each column as much as of what it unpacks to.
    pub fn packed_used(&self) -> u64 {
        let columns = self.columns.iter().zip(self.used).zip(self.packed);
        columns.map(|((raw, used), packed)| used as u64 * packed / (raw.len() as u64).max(1)).sum()
    }

    /// Whether a column is used up.
    pub fn is_at_end(&self, column: Column) -> bool {
        self.used[column as usize] >= self.columns[column as usize].len()
    }

    /// Everything must have been used.
    pub fn finish(&self) -> Result<()> {
        match self.columns.iter().zip(self.used).position(|(column, used)| column.len() != used) {
            None => Ok(()),
            Some(column) => Err(corrupt(format!("column {column} of the delta was not used up"))),
        }
    }
}

/// Reads a number of at most 64 bits.
pub fn read_number(from: &mut dyn Stream) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte).context(|| "read delta".into())?;
        number |= u64::from(byte[0] & 127) << shift;
        if byte[0] < 128 {
            return Ok(number);
        }
    }
    Err(corrupt("delta has a number of more than 64 bits".into()))
}

fn ended(column: Column) -> Error {
    corrupt(format!("column {} of the delta ends too early", column as usize))
}

pub fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
}
