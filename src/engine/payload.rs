//! From what a delta says of one layer to the layer's tar, in each format.

use std::io::{self, Write};

use super::pipe;
use crate::delta::balena::{self, layer::Layer};
use crate::delta::native::Patching;
use crate::delta::{ReadAt, rsync};
use crate::error::{Error, Kind, Result};
use crate::layer::gzip::{FREE_INFLATED_BYTES, MAX_INFLATE_RATIO};
use crate::layer::{Decoder, DecoderState};
use crate::oci::artifact::Format;
use crate::stream::Stream;

/// A few bytes of a delta can ask for the whole basis, any number of times. No layer has everything so often.
const MAX_COPIES_OF_BASIS: u64 = 16;

/// A delta of one layer.
pub struct Payload {
    pub format: Format,
    /// Its length, as it came.
    pub bytes: u64,
    /// Bytes of the layer's tar that had been made when an earlier try ended; only where a native delta can be gone on with.
    pub written: Option<u64>,
}

impl Payload {
    /// The delta of a layer, from its start.
    pub fn new(format: Format, bytes: u64) -> Payload {
        Payload { format, bytes, written: None }
    }

    /// Writes the tar that `delta` makes of `basis`. Success means that the delta was well-formed and that its stream was read to
    /// the end; the diff ID of what was written tells whether it is the right one.
    ///
    /// `note` is given each place to go on from, before anything is made behind it.
    pub fn apply(
        &self,
        delta: &mut Decoder,
        basis: &mut dyn ReadAt,
        out: &mut dyn Write,
        note: &mut dyn FnMut(DecoderState),
    ) -> Result<()> {
        let out = &mut Bounded::new(out, self.bytes, basis.size_bytes());
        if self.format == Format::Balena {
            apply_balena(delta, basis, out)?;
            // A stream that is verified says at its end what it was.
            return pipe::copy(delta, &mut io::sink());
        }
        let mut patching = match self.written {
            None => Patching::begin(delta, basis, out)?,
            Some(written) => Patching::resume(written, basis, out),
        };
        loop {
            if let Some(place) = delta.state() {
                note(place.having_made(patching.written()));
            }
            if !patching.frame(delta)? {
                return patching.finish(delta);
            }
        }
    }
}

/// A layer of a delta image, plain or as a registry has it.
fn apply_balena(layer: &mut dyn Stream, basis: &mut dyn ReadAt, out: &mut dyn Write) -> Result<()> {
    let mut tar = Decoder::open(Box::new(layer), None)?;
    match balena::layer::open(&mut tar)? {
        Layer::Shared => {
            let message = "it is shared with the delta's basis, which lacks it";
            Err(Error::new(Kind::Corrupt, message))
        }
        Layer::Delta(mut member) => {
            rsync::patch(basis, &mut member, out)?;
            member.finish()
        }
    }
}

/// Passes on what a delta can make in good faith, and no more.
pub(super) struct Bounded<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl<'a> Bounded<'a> {
    pub(super) fn new(out: &'a mut dyn Write, delta_bytes: u64, basis_bytes: u64) -> Self {
        let left = FREE_INFLATED_BYTES
            .saturating_add(MAX_INFLATE_RATIO.saturating_mul(delta_bytes))
            .saturating_add(MAX_COPIES_OF_BASIS.saturating_mul(basis_bytes));
        Bounded { out, left }
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| {
            Error::new(Kind::Corrupt, "it makes more of its basis than a layer can be")
        })?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_makes_no_more_than_its_basis_and_itself_can() {
        let (mut made, basis) = (io::sink(), 1 << 20);
        let mut bounded = Bounded::new(&mut made, 1, basis);
        let most = FREE_INFLATED_BYTES + MAX_INFLATE_RATIO + MAX_COPIES_OF_BASIS * basis;
        assert_eq!(bounded.left, most);
        bounded.left = 10;
        bounded.write_all(&[0; 10]).unwrap();
        let error = bounded.write_all(&[0]).unwrap_err();
        assert_eq!(error.to_string(), "it makes more of its basis than a layer can be");
        // What cannot be counted is no limit, not a small one.
        assert_eq!(Bounded::new(&mut made, u64::MAX, u64::MAX).left, u64::MAX);
    }
}
