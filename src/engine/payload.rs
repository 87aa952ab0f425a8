//! What a delta says of one layer: made from a basis and the layer's tar, and made into that tar again.

use std::io::{self, Write};

use super::basis::Sequential;
use super::pipe;
use crate::delta::ReadAt;
use crate::delta::balena::{self, layer::Layer};
use crate::delta::rsync::{self, Signature};
use crate::error::{Context, Error, Kind, Result};
use crate::layer::Decoder;
use crate::layer::gzip::GzipWriter;
use crate::oci::artifact::Format;
use crate::stream::Stream;

/// Writes the native delta that makes `target` of `basis`; it is compressed. A stand-in for `delta::native`.
pub fn make(basis: &mut dyn ReadAt, target: &mut dyn ReadAt, out: &mut dyn Write) -> Result<()> {
    let signature = Signature::of(&mut Sequential::new(basis))?;
    let mut out = GzipWriter::new(out, 9);
    rsync::diff(&signature, &mut Sequential::new(target), &mut out)?;
    out.finish().context(|| "write a delta".into())
}

fn apply_native(delta: &mut dyn Stream, basis: &mut dyn ReadAt, out: &mut dyn Write) -> Result<()> {
    rsync::patch(basis, &mut Decoder::open(Box::new(delta), None)?, out)
}

/// Writes the tar that `delta` makes of `basis`. Success means that the delta was well-formed and that its stream was read to
/// the end; the diff ID of what was written tells whether it is the right one.
pub fn apply(
    format: Format,
    delta: &mut dyn Stream,
    basis: &mut dyn ReadAt,
    out: &mut dyn Write,
) -> Result<()> {
    match format {
        Format::Native => apply_native(delta, basis, out)?,
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
