//! The basis of a delta: the uncompressed layer tars of an image, bottom to top, as one run of bytes.
//!
//! The image may be in a second store, of another data root: that is only read, and nothing of it is locked. balenaOS keeps
//! the running system and the next one in two.

use std::io::{self, Write};
use std::os::fd::AsFd;

use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use super::{Engine, pipe};
use crate::delta::index::Have;
use crate::delta::{ReadAt, Sequential};
use crate::digest::{Digest, HashingWriter};
use crate::error::{Error, Kind, Result};
use crate::layer::{LayerTar, Peers};
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

    /// Whether the image is here, or in the second store that deltas may start from.
    pub(super) fn has_basis(&self, id: &Digest) -> bool {
        self.basis_stores().any(|store| store.has_image(id))
    }

    /// Opens the image that a delta starts from.
    pub(super) fn open_basis(&self, id: &Digest, report: Report) -> Result<Basis> {
        for store in self.basis_stores() {
            match store.image(id) {
                Ok(image) => {
                    report(Event::DeltaBasis { image: id.short() });
                    return Basis::open(store, &image);
                }
                Err(e) if e.kind() == Kind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let message = format!(
            "delta needs its basis, image {id}, which is not here: pull that image first, or the full image"
        );
        Err(Error::new(Kind::NotFound, message))
    }

    /// Whether the layer is here. One that the second store has is copied from there: a delta says nothing of layers that
    /// basis and target share.
    pub(super) fn bring_layer(&self, diff_id: &Digest, committed: &mut Committed) -> Result<bool> {
        if self.store.has_layer(diff_id) {
            return Ok(true);
        }
        let Some(other) = self.basis_stores().find(|store| store.has_layer(diff_id)) else {
            return Ok(false);
        };
        let mut tar = layer_tar(other, diff_id)?;
        let mut copy = |out: &mut dyn Write| pipe::copy(&mut tar, out);
        let copied = self.stage_layer(diff_id, Peers::default(), &mut copy);
        let copied = copied.and_then(|(stage, unpacked)| match unpacked.diff_id {
            found if found == *diff_id => {
                self.store.commit_layer(stage, diff_id, layer_record(&unpacked))
            }
            found => Err(Error::new(Kind::Corrupt, format!("its content has the diff ID {found}"))),
        });
        match copied {
            Ok(()) => committed.0.push(*diff_id),
            Err(e) if e.kind() == Kind::NoSpace => return Err(e),
            Err(e) => {
                log::warn!("copy layer {diff_id} of the delta data root: {e}");
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn basis_stores(&self) -> impl Iterator<Item = &Store> {
        [Some(&self.store), self.basis_store.as_ref()].into_iter().flatten()
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

    /// The lowest layer whose files are not any more what they were. Reads everything below it.
    pub(super) fn damaged(&mut self) -> Option<Digest> {
        self.diff_ids.iter().zip(&mut self.layers).find_map(|(diff_id, tar)| {
            let mut nowhere = io::sink();
            let mut read = HashingWriter::new(&mut nowhere as &mut dyn Write);
            let is_whole = pipe::copy(&mut Sequential::new(tar), &mut read).is_ok();
            (!is_whole || read.finish().0 != *diff_id).then_some(*diff_id)
        })
    }

    /// What an index may find in it.
    pub(super) fn have(&mut self) -> Result<Have> {
        let (mut have, mut start) = (Have::default(), 0);
        let ends = self.ends.clone();
        let mut tars = Sequential::new(self);
        for end in ends {
            have.add(&mut tars, end - start, start)?;
            start = end;
        }
        Ok(have)
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
