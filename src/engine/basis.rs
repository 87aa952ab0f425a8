//! The basis of a delta: the uncompressed layer tars of an image, bottom to top, as one run of bytes.

use std::io::{self, Read};
use std::os::fd::AsFd;

use super::Engine;
use super::progress::{Event, Report};
use crate::delta::ReadAt;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::layer::LayerTar;
use crate::store::{Image, Store};

/// The layers of an image joined without separators (balenaEngine's basis stream).
pub struct Basis {
    /// Which they are.
    pub diff_ids: Vec<Digest>,
    layers: Vec<LayerTar>,
    /// Where each layer ends in the whole, in bytes.
    ends: Vec<u64>,
}

impl Engine {
    /// Opens a layer that is here as the tar that it was.
    pub(super) fn layer_tar(&self, diff_id: &Digest) -> Result<LayerTar> {
        layer_tar(&self.store, diff_id)
    }

    /// Opens the image that a delta starts from.
    pub(super) fn open_basis(&self, id: &Digest, report: Report) -> Result<Basis> {
        let image = self.store.image(id).map_err(|e| {
            let message = format!(
                "delta needs its basis, image {id}, which is not here: pull that image first, or the full image"
            );
            if e.kind() == Kind::NotFound { Error::new(Kind::NotFound, message) } else { e }
        })?;
        report(Event::DeltaBasis { image: id.short() });
        Basis::open(&self.store, &image)
    }
}

fn layer_tar(store: &Store, diff_id: &Digest) -> Result<LayerTar> {
    let directory = store.open_layer(diff_id)?;
    LayerTar::open(directory.as_fd(), &format!("layer {diff_id}"))
}

impl Basis {
    /// Opens all layers of `image` for reading as one.
    pub(super) fn open(store: &Store, image: &Image) -> Result<Basis> {
        let (mut layers, mut ends, mut end) = (Vec::new(), Vec::new(), 0);
        let diff_ids = image.config.diff_ids()?;
        for diff_id in &diff_ids {
            let layer = layer_tar(store, diff_id)?;
            end += layer.size_bytes();
            layers.push(layer);
            ends.push(end);
        }
        Ok(Basis { diff_ids, layers, ends })
    }
}

impl ReadAt for Basis {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // The first layer that ends behind the offset; empty layers never do.
        let index = self.ends.partition_point(|&end| end <= offset);
        let Some(layer) = self.layers.get_mut(index) else { return Ok(0) };
        let start = self.ends.get(index.wrapping_sub(1)).copied().unwrap_or(0);
        layer.read_at(offset - start, buffer)
    }

    fn size_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// Reads a `ReadAt` from the start.
pub struct Sequential<'a> {
    source: &'a mut dyn ReadAt,
    offset: u64,
}

impl<'a> Sequential<'a> {
    /// From offset 0 on.
    pub fn new(source: &'a mut dyn ReadAt) -> Self {
        Sequential { source, offset: 0 }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}
