//! Deltas in a pull: found where the image is, chosen by what they cost, applied, and never a reason to fail.
//!
//! The registry is asked for deltas only if something is missing and there is an image that could be a basis. The cheapest
//! whose basis is here is taken if it is smaller than the layers that it stands for. Each layer that it makes is verified
//! by its diff ID and committed. An index (`index`) is looked at where no delta saves three quarters of that. Whatever goes
//! wrong is one warning, and what is then still missing comes as layers; only a full disk and who no longer wants the image
//! end the pull.

use std::io::Write;
use std::os::fd::OwnedFd;

use super::basis::Basis;
use super::payload::Payload;
use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use super::{Engine, fetch, pipe};
use crate::delta::balena::BalenaDelta;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::layer::{self, Decoder, DecoderState, MAX_PEERS, Peers, Resumption, Trail, Unpacked};
use crate::oci::artifact::{self, DELTA_TYPE, Format, Offer};
use crate::oci::manifest::{Descriptor, Manifest};
use crate::reference::Reference;
use crate::registry::Client;
use crate::store::{LayerRecord, Stage};

/// Which deltas a pull may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deltas {
    /// Those that cost less than the layers.
    #[default]
    IfCheaper,
    /// None.
    Never,
    /// Whatever there is, and never a layer.
    Only,
}

/// An image whose layers are to be made.
pub(super) struct Target<'a> {
    pub client: &'a Client,
    pub reference: &'a Reference,
    /// The digest of the image's own manifest.
    pub manifest: Digest,
    pub image: Digest,
    pub diff_ids: &'a [Digest],
    /// How they may be made.
    pub deltas: Deltas,
}

/// Where the deltas of layers are.
struct Source<'a> {
    client: &'a Client,
    reference: &'a Reference,
    format: Format,
}

impl Engine {
    /// Makes layers of `missing` by a delta, if there is one and the target lets it. What was made is no longer among them.
    pub(super) fn patch_missing(
        &self,
        target: &Target,
        missing: &mut Vec<fetch::Wanted>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let deltas = target.deltas;
        if deltas == Deltas::Never || missing.is_empty() {
            return Ok(());
        }
        let patched = match self.basis_store.is_some() || self.store.images_are_here()? {
            true => self.patch_by_best(target, missing, committed, report),
            false => Ok(()),
        };
        match patched {
            Ok(()) if deltas == Deltas::Only && !missing.is_empty() => {
                let message = format!(
                    "pull {}: no delta makes it of an image that is here",
                    target.reference.familiar()
                );
                Err(Error::new(Kind::NotFound, message))
            }
            Err(e)
                if deltas == Deltas::IfCheaper
                    && !matches!(e.kind(), Kind::Cancelled | Kind::NoSpace) =>
            {
                log::warn!("{e}; the layers are pulled instead");
                Ok(())
            }
            patched => patched,
        }
    }

    fn patch_by_best(
        &self,
        target: &Target,
        missing: &mut Vec<fetch::Wanted>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let list = target.client.referrers(target.reference, &target.manifest, DELTA_TYPE)?;
        let is_to_target = |offer: &Offer| offer.target == target.image;
        let offers = list.iter().filter_map(|entry| Offer::read(entry).filter(is_to_target));
        let (indices, deltas_to): (Vec<Offer>, Vec<Offer>) =
            offers.partition(|offer| offer.format == Format::Index);
        let layers_bytes = bytes_of(missing);
        let below = (target.deltas == Deltas::IfCheaper).then_some(layers_bytes);
        let delta = cheapest(&mut deltas_to.into_iter(), below, &|basis| self.has_basis(basis));
        // A look at an index costs a reading of the basis: what saves most of the bytes already is not put to the question.
        let is_good = |delta: &Offer| delta.bytes < layers_bytes / 4;
        let index = indices.first().filter(|_| !delta.as_ref().is_some_and(is_good));
        let named = |offer: &Offer, e: Error| {
            let (delta, basis) = (offer.artifact, offer.basis.short());
            let message = match offer.format {
                Format::Index => format!("index {delta}"),
                _ => format!("delta {delta} from image {basis}"),
            };
            Error::new(e.kind(), message).caused_by(e)
        };
        if let Some(index) = index {
            let most = delta.as_ref().map(|delta| delta.bytes);
            let used = self.make_by_index(index, target, most, missing, committed, report);
            if used.map_err(|e| named(index, e))? {
                return Ok(());
            }
        }
        let Some(delta) = delta else { return Ok(()) };
        self.patch_by(&delta, target, missing, committed, report).map_err(|e| named(&delta, e))
    }

    /// Makes what `offer` makes of `missing`.
    fn patch_by(
        &self,
        offer: &Offer,
        target: &Target,
        missing: &mut Vec<fetch::Wanted>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let reference = target.reference.at(offer.artifact);
        let manifest = target.client.resolve(&reference, &Engine::platform())?.manifest;
        check(&manifest, offer, target)?;
        let mut basis = self.open_basis(&offer.basis, report)?;
        let (mut delta_bytes, mut layers_bytes) = (0, 0);
        while let Some((wanted, blob)) = missing.iter().find_map(|wanted| {
            Some((wanted, blob_for(&wanted.diff_id, &manifest, offer.format, target)?))
        }) {
            let (diff_id, layer) = (wanted.diff_id, wanted.name());
            report(Event::LayerStarted { layer: layer.clone() });
            let Target { client, reference, .. } = *target;
            let source = Source { client, reference, format: offer.format };
            self.patch_layer(&source, blob, &mut basis, wanted, report)
                .map_err(|e| Error::new(e.kind(), format!("layer {diff_id}")).caused_by(e))?;
            committed.0.push(diff_id);
            report(Event::LayerDone { layer });
            delta_bytes += blob.size;
            layers_bytes += wanted.blob.size;
            missing.retain(|wanted| wanted.diff_id != diff_id);
        }
        report(Event::DeltaUsed { image: offer.basis.short(), delta_bytes, layers_bytes });
        Ok(())
    }

    /// Fetches the layers of a balena delta image, and makes and commits the target's, one after another: all read the
    /// same basis.
    pub(super) fn patch_layers(
        &self,
        client: &Client,
        reference: &Reference,
        layers: &[fetch::Wanted],
        delta: &BalenaDelta,
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        if layers.is_empty() {
            return Ok(());
        }
        let mut basis = self.open_basis(&delta.base, report)?;
        let source = Source { client, reference, format: Format::Balena };
        for wanted in layers {
            let layer = wanted.name();
            report(Event::LayerStarted { layer: layer.clone() });
            self.patch_layer(&source, wanted.blob, &mut basis, wanted, report).map_err(|e| {
                let message = format!("pull layer {} of {reference}", wanted.blob.digest);
                Error::new(e.kind(), message).caused_by(e)
            })?;
            committed.0.push(wanted.diff_id);
            report(Event::LayerDone { layer });
        }
        Ok(())
    }

    /// Fetches the delta of one layer, from where an earlier try left it, and makes and commits the layer. Progress is told of the
    /// layer, in bytes of its delta.
    fn patch_layer(
        &self,
        source: &Source,
        blob: &Descriptor,
        basis: &mut Basis,
        wanted: &fetch::Wanted,
        report: Report,
    ) -> Result<()> {
        let (digest, diff_id) = (blob.digest()?, &wanted.diff_id);
        let (name, layer) = (format!("layer {diff_id}"), wanted.name());
        self.resumably(diff_id, &digest, &mut |stage, from| {
            let mut payload = Payload::new(source.format, blob.size);
            let connect = |offset| source.client.blob(source.reference, blob, offset);
            let mut delta = match &from {
                None => Decoder::plain(connect(0)?, Some(digest)),
                Some(from) => {
                    let (place, _) = (from.decoder(), from.restore(stage.directory(), &name)?);
                    payload.written = Some(place.tar_offset());
                    Decoder::resume(connect(place.blob_offset())?, place, Vec::new(), digest)?
                }
            };
            if from.is_none() {
                stage.restart()?;
            }
            let trail = Trail::default();
            let peers = self.peers(&mut basis.diff_ids.iter().rev());
            let resumption = Resumption { trail: &trail, blob: digest, from, peers };
            let mut note = |place: DecoderState| {
                let (done_bytes, total_bytes) = (place.blob_offset(), blob.size);
                report(Event::LayerProgress { layer: layer.clone(), done_bytes, total_bytes });
                trail.add(place);
            };
            let unpacked = pipe::join(
                |out| payload.apply(&mut delta, basis, out, &mut note),
                |tar| layer::unpack_resumable(tar, stage.directory(), &name, resumption),
            )?;
            verified(unpacked, diff_id, basis)
        })
    }

    /// Patches the basis with the delta of a layer, in a stage in which files that are equal to the basis's are links to them.
    pub(super) fn stage_patched_layer(
        &self,
        payload: &Payload,
        delta: &mut Decoder,
        basis: &mut Basis,
        diff_id: &Digest,
    ) -> Result<(Stage, LayerRecord)> {
        let peers = self.peers(&mut basis.diff_ids.iter().rev());
        let mut apply = |out: &mut dyn Write| payload.apply(delta, basis, out, &mut |_| {});
        let (stage, unpacked) = self.stage_layer(diff_id, peers, &mut apply)?;
        let unpacked = verified(unpacked, diff_id, basis)?;
        Ok((stage, layer_record(&unpacked)))
    }

    /// Unpacks the uncompressed tar that `produce` writes, with links to what `peers` have of its files. Whether it is the layer
    /// `diff_id` is for the caller to see.
    pub(super) fn stage_layer(
        &self,
        diff_id: &Digest,
        peers: Peers,
        produce: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<(Stage, Unpacked)> {
        let (stage, name) = (self.store.stage()?, format!("layer {diff_id}"));
        let unpacked =
            pipe::join(produce, |tar| layer::unpack_beside(tar, stage.directory(), &name, peers))?;
        Ok((stage, unpacked))
    }

    /// Layers opened to look for files in, the most likely first. One that cannot be opened has no files to offer.
    pub(super) fn peers(&self, layers: &mut dyn Iterator<Item = &Digest>) -> Peers {
        let opened = layers.filter_map(|diff_id| self.store.open_layer(diff_id).ok());
        Peers::new(opened.take(MAX_PEERS).map(OwnedFd::from).collect())
    }
}

/// What was made, if it is the layer; or what it is of the basis that it is not.
pub(super) fn verified(
    unpacked: Unpacked,
    diff_id: &Digest,
    basis: &mut Basis,
) -> Result<Unpacked> {
    if unpacked.diff_id == *diff_id {
        return Ok(unpacked);
    }
    let found = unpacked.diff_id;
    let why = match basis.damaged() {
        Some(damaged) => format!("layer {damaged} of the basis is damaged (see `check --deep`)"),
        None => "the basis is whole, so the delta is wrong".into(),
    };
    let message = format!("its content has the diff ID {found}, not {diff_id}: {why}");
    Err(Error::new(Kind::Corrupt, message))
}

/// What the layers weigh as they would be fetched.
pub(super) fn bytes_of(missing: &[fetch::Wanted]) -> u64 {
    missing.iter().fold(0, |sum, wanted| sum.saturating_add(wanted.blob.size))
}

/// The delta that weighs least of those whose basis is here, if it weighs less than `below`. Of two that weigh the same
/// the native one: its blobs are read once.
fn cheapest(
    offers: &mut dyn Iterator<Item = Offer>,
    below: Option<u64>,
    is_here: &dyn Fn(&Digest) -> bool,
) -> Option<Offer> {
    let mut best: Option<Offer> = None;
    for offer in offers {
        let rank = |offer: &Offer| (offer.bytes, offer.format != Format::Native);
        let is_better = best.as_ref().is_none_or(|best| rank(&offer) < rank(best));
        if is_better && below.is_none_or(|below| offer.bytes < below) && is_here(&offer.basis) {
            best = Some(offer);
        }
    }
    best
}

/// Refuses what is not the delta that a list said it is.
pub(super) fn check(manifest: &Manifest, offer: &Offer, target: &Target) -> Result<()> {
    let corrupt = |message: String| Err(Error::new(Kind::Corrupt, message));
    let subject = manifest.subject.as_ref().map_or("nothing", |subject| &subject.digest);
    if subject != target.manifest.to_string() {
        return corrupt(format!("its subject is {subject}, not {}", target.manifest));
    }
    let (found, wanted) = (manifest.layers.len(), target.diff_ids.len());
    if offer.format == Format::Balena && found != wanted {
        return corrupt(format!("it has {found} layers, its target {wanted}"));
    }
    Ok(())
}

/// The blob of a delta or an index that makes the layer `diff_id`.
pub(super) fn blob_for<'a>(
    diff_id: &Digest,
    manifest: &'a Manifest,
    format: Format,
    target: &Target,
) -> Option<&'a Descriptor> {
    let is_it = |blob: &&Descriptor| artifact::layer_of(blob) == Some(*diff_id);
    match format {
        Format::Native | Format::Index => manifest.layers.iter().find(is_it),
        Format::Balena => manifest.layers.get(target.diff_ids.iter().position(|id| id == diff_id)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_cheapest_whose_basis_is_here() {
        let offer = |name: &str, format, bytes| {
            let (artifact, basis) = (Digest::of(b"artifact"), Digest::of(name.as_bytes()));
            Offer { artifact, format, basis, target: Digest::of(b"target"), bytes }
        };
        use Format::{Balena, Native};
        let offers = [
            offer("old", Native, 50),
            offer("older", Balena, 40),
            offer("absent", Native, 10),
            offer("older", Native, 40),
        ];
        for (here, below, expected) in [
            (&["old", "older"][..], Some(100), Some(3)),
            (&["old"], Some(100), Some(0)),
            (&["old"], Some(50), None),
            (&["old"], None, Some(0)),
            (&["other"], None, None),
            (&[], None, None),
        ] {
            let is_here = |id: &Digest| here.iter().any(|name| Digest::of(name.as_bytes()) == *id);
            let chosen = cheapest(&mut offers.iter().cloned(), below, &is_here);
            assert_eq!(chosen, expected.map(|index: usize| offers[index].clone()), "{here:?}");
        }
    }
}
