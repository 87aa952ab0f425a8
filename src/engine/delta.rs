//! `image delta`: makes an image whose layers are the differences of one image to another, in balenaEngine's format.
//!
//! Each delta is written to a file of a stage first: its length stands in the tar header before it.

use std::io::{self, Read, Seek, Write};

use fs_err::OpenOptions;

use super::Engine;
use super::basis::Basis;
use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use crate::delta::Sequential;
use crate::delta::balena;
use crate::delta::rsync::{self, Signature};
use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::layer;
use crate::reference::Reference;
use crate::store::Image;
use crate::stream::Stream;
use crate::time;

/// What a delta costs beside the layers that it replaces.
#[derive(Debug)]
pub struct DeltaSummary {
    /// The delta image.
    pub image: Digest,
    /// Uncompressed bytes of the target's layers that differ from the basis.
    pub normal_bytes: u64,
    /// Uncompressed bytes of the deltas.
    pub delta_bytes: u64,
}

impl Engine {
    /// Makes the delta image from `old` to `new` and, where `tag` is given, names it.
    pub fn create_delta(
        &self,
        old: &str,
        new: &str,
        tag: Option<&Reference>,
        report: Report,
    ) -> Result<DeltaSummary> {
        let work = self.store.work()?;
        let mut committed = Committed(Vec::new());
        let names: Vec<&Reference> = tag.into_iter().collect();
        let (old, new) = (self.store.find_image(old)?, self.store.find_image(new)?);
        let summary = self.create_delta_image(&old, &new, &names, &mut committed, report);
        drop(work);
        self.keep_or_take_back(summary, &committed)
    }

    pub(super) fn create_delta_image(
        &self,
        old: &Image,
        new: &Image,
        names: &[&Reference],
        committed: &mut Committed,
        report: Report,
    ) -> Result<DeltaSummary> {
        let (old_layers, new_layers) = (old.config.diff_ids()?, new.config.diff_ids()?);
        report(Event::Fingerprinting { image: old.id.short() });
        let mut basis = Basis::open(&self.store, old)?;
        let signature = Signature::of(&mut Sequential::new(&mut basis))?;

        let shared = balena::count_shared_layers(&old_layers, &new_layers);
        let (mut diff_ids, mut normal_bytes, mut delta_bytes) = (Vec::new(), 0, 0);
        for (index, diff_id) in new_layers.iter().enumerate() {
            let layer = diff_id.short();
            let (stored, length) = if index < shared {
                report(Event::SkippingCommonLayer { layer });
                (self.store_any_layer(&mut balena::layer::SHARED.as_slice())?, 0)
            } else {
                report(Event::ComputingDelta { layer: layer.clone() });
                normal_bytes += self.store.layer(diff_id)?.tar_bytes;
                let made = self.store_delta_layer(&signature, diff_id)?;
                report(Event::DeltaDone { layer });
                made
            };
            committed.0.push(stored);
            diff_ids.push(stored);
            delta_bytes += length;
        }
        let target = String::from_utf8_lossy(&new.config_bytes);
        let config = balena::config::write(&time::now(), &old.id, &target, &diff_ids);
        let image = self.store.commit_image(config.as_bytes(), None, names)?;
        Ok(DeltaSummary { image, normal_bytes, delta_bytes })
    }

    /// Computes one layer's delta and stores the layer that holds it; gives its diff ID and the delta's length.
    fn store_delta_layer(&self, signature: &Signature, diff_id: &Digest) -> Result<(Digest, u64)> {
        let stage = self.store.stage()?;
        let path = stage.path().join("delta");
        let what = || "write a delta".to_string();
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(&path).context(what)?;
        let mut target = self.layer_tar(diff_id)?;
        let mut out = io::BufWriter::new(&file);
        rsync::diff(signature, &mut target, &mut out)?;
        out.flush().context(what)?;
        drop(out);
        let length = file.stream_position().context(what)?;
        file.rewind().context(what)?;
        let header = balena::layer::header(length)?;
        let trailer = balena::layer::trailer(length);
        let mut tar = header.as_slice().chain(file).chain(trailer);
        Ok((self.store_any_layer(&mut tar)?, length))
    }

    /// Stores a layer under whatever diff ID its bytes have.
    fn store_any_layer(&self, tar: &mut dyn Stream) -> Result<Digest> {
        let stage = self.store.stage()?;
        let unpacked = layer::unpack(tar, stage.directory(), "delta layer")?;
        self.store.commit_layer(stage, &unpacked.diff_id, layer_record(&unpacked))?;
        Ok(unpacked.diff_id)
    }
}
