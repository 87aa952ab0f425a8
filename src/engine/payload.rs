//! From what a delta says of one layer to the layer's tar, in each format.

use std::io::{self, Write};

use super::pipe;
use crate::delta::balena::{self, layer::Layer};
use crate::delta::{ReadAt, native, rsync};
use crate::error::{Error, Kind, Result};
use crate::layer::Decoder;
use crate::oci::artifact::Format;
use crate::stream::Stream;

/// Writes the tar that `delta` makes of `basis`. Success means that the delta was well-formed and that its stream was read to
/// the end; the diff ID of what was written tells whether it is the right one.
pub fn apply(
    format: Format,
    delta: &mut dyn Stream,
    basis: &mut dyn ReadAt,
    out: &mut dyn Write,
) -> Result<()> {
    match format {
        Format::Native => native::apply(delta, basis, out)?,
        Format::Balena => apply_balena(delta, basis, out)?,
    }
    // A stream that is verified says at its end what it was.
    pipe::copy(delta, &mut io::sink())
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
