//! Layers by an index (`delta::index`): what is lacked of them is fetched in parts, the rest is in an image that is here.
//!
//! The basis is one image: of those of the same repository, or else of all, the one that shares the most layers with the target. It
//! is read once. Of each missing layer the head and the missing details are fetched; then it is known what the layer costs, and
//! the layers are made for which that is little enough. Unpacking a piece takes far longer than inflating: unless nothing but
//! deltas is wanted, only who saves half of a layer's bytes pays for them so.

use std::io::Read;

use super::basis::Basis;
use super::patch::{self, Deltas, Target};
use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use super::{Engine, fetch};
use crate::delta::index::{self, Have, Layer, Span};
use crate::error::{Context, Error, Kind, Result};
use crate::layer::gzip::{FREE_INFLATED_BYTES, MAX_INFLATE_RATIO};
use crate::oci::artifact::{self, Offer};
use crate::oci::manifest::Descriptor;
use crate::reference::Reference;
use crate::registry::Client;
use crate::store::{Image, Store};
use crate::stream::Stream;

/// Parts are fetched as one if so much or less lies between them: what a request costs beside its answer, and some time.
const GAP_BYTES: u64 = 4 << 10;
/// A layer's index has to save one in so many of its bytes.
const LEAST_SAVED: u64 = 2;
/// Of what a layer weighs, the head may be one in so many: it is fetched before anybody knows what is saved.
const LOOK_SHARE: u64 = 16;
/// The largest head, which is held in memory.
const MAX_HEAD_BYTES: u64 = 4 << 20;

/// What is known of a layer before its pieces are fetched.
pub(super) struct Plan {
    layer: Layer,
    /// What is to be fetched yet.
    pieces: Vec<Span>,
    /// What the layer costs in all.
    pub bytes: u64,
}

/// Gives the spans of a blob, one behind another.
pub(super) type Parts<'a> = dyn FnMut(&[Span]) -> Result<Vec<u8>> + 'a;

/// A layer that is to be made.
struct Planned<'a> {
    wanted: &'a fetch::Wanted<'a>,
    blob: Remote<'a>,
    plan: Plan,
}

impl Engine {
    /// Makes layers of `missing` by the index that `offer` tells of, if all are then had for less than `most` bytes. Those that
    /// were made are no longer among them; false if there are none.
    pub(super) fn make_by_index(
        &self,
        offer: &Offer,
        target: &Target,
        most: Option<u64>,
        missing: &mut Vec<fetch::Wanted>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<bool> {
        let Some((image, mut basis)) = self.closest_image(target)? else { return Ok(false) };
        let Target { client, reference, deltas, .. } = *target;
        let manifest = client.resolve(&reference.at(offer.artifact), &Engine::platform())?.manifest;
        patch::check(&manifest, offer, target)?;
        let is_only = deltas == Deltas::Only;
        // A layer may be there twice.
        let is_first =
            |at: usize| missing[..at].iter().all(|one| one.diff_id != missing[at].diff_id);
        let looked_at = missing.iter().enumerate().filter_map(|(at, wanted)| {
            let blob = patch::blob_for(&wanted.diff_id, &manifest, offer.format, target)?;
            let head = artifact::head_of(blob).filter(|&bytes| bytes <= MAX_HEAD_BYTES)?;
            let is_cheap = is_only || head <= wanted.blob.size / LOOK_SHARE;
            (is_cheap && is_first(at)).then_some((wanted, Remote { client, reference, blob }, head))
        });
        let looked_at: Vec<_> = looked_at.collect();
        if looked_at.is_empty() {
            return Ok(false);
        }
        report(Event::DeltaBasis { image: image.clone() });
        let (have, mut planned) = (basis.have()?, Vec::new());
        for (wanted, blob, head) in looked_at {
            let plan = blob.plan(head, wanted.blob.size, &have).map_err(|e| of_layer(wanted, e))?;
            if is_only || plan.bytes <= wanted.blob.size / LEAST_SAVED {
                planned.push(Planned { wanted, blob, plan });
            }
        }
        let sum = |bytes: &dyn Fn(&Planned) -> u64| {
            planned.iter().fold(0_u64, |sum, layer| sum.saturating_add(bytes(layer)))
        };
        let (index_bytes, layers_bytes) =
            (sum(&|layer| layer.plan.bytes), sum(&|layer| layer.wanted.blob.size));
        let others = patch::bytes_of(missing).saturating_sub(layers_bytes);
        let total = others.saturating_add(index_bytes);
        if planned.is_empty() || most.is_some_and(|most| total >= most) {
            return Ok(false);
        }
        for layer in &planned {
            let (diff_id, name) = (layer.wanted.diff_id, layer.wanted.name());
            report(Event::LayerStarted { layer: name.clone() });
            self.make_planned(layer, &have, &mut basis, report)
                .map_err(|e| of_layer(layer.wanted, e))?;
            committed.0.push(diff_id);
            report(Event::LayerDone { layer: name });
        }
        let made: Vec<_> = planned.iter().map(|layer| layer.wanted.diff_id).collect();
        missing.retain(|wanted| !made.contains(&wanted.diff_id));
        report(Event::IndexUsed { image, index_bytes, layers_bytes });
        Ok(true)
    }

    fn make_planned(
        &self,
        layer: &Planned,
        have: &Have,
        basis: &mut Basis,
        report: Report,
    ) -> Result<()> {
        let Planned { wanted, blob, plan } = layer;
        let total_bytes = plan.bytes;
        let mut done_bytes = total_bytes - joined_bytes(&plan.pieces);
        let mut parts = blob.parts(&plan.pieces);
        let mut fetch = |span: Span, buffer: &mut [u8]| {
            let fetched = parts.read(&span, buffer)?;
            // A line for each request, not for each piece.
            if fetched > 0 {
                done_bytes += fetched;
                let layer = wanted.name();
                report(Event::LayerProgress { layer, done_bytes, total_bytes });
            }
            Ok(())
        };
        let peers = self.peers(&mut basis.diff_ids.iter().rev());
        let (stage, unpacked) = self.stage_layer(&wanted.diff_id, peers, &mut |out| {
            index::apply(&plan.layer, have, basis, &mut fetch, out)
        })?;
        let unpacked = patch::verified(unpacked, &wanted.diff_id, basis)?;
        self.store.commit_layer(stage, &wanted.diff_id, layer_record(&unpacked))
    }

    /// The image that most likely has files of the target, opened, and its short name.
    fn closest_image(&self, target: &Target) -> Result<Option<(String, Basis)>> {
        let mut best: Option<(_, &Store, Image)> = None;
        for store in self.basis_stores() {
            let names = store.references()?;
            for image in store.images()? {
                let Ok(diff_ids) = image.config.diff_ids() else { continue };
                let is_related = fetch::is_of_repository(&image, target.reference, &names);
                let shared = target.diff_ids.iter().filter(|id| diff_ids.contains(id)).count();
                let rank = (is_related, shared, image.config.created.clone());
                if best.as_ref().is_none_or(|(other, ..)| rank > *other) {
                    best = Some((rank, store, image));
                }
            }
        }
        let open = |(_, store, image): (_, &Store, Image)| {
            Ok((image.id.short(), Basis::open(store, &image)?))
        };
        best.map(open).transpose()
    }
}

fn of_layer(wanted: &fetch::Wanted, e: Error) -> Error {
    Error::new(e.kind(), format!("layer {}", wanted.diff_id)).caused_by(e)
}

/// Finds out what a layer costs for who has `have`; `parts` gives parts of the index, which has `blob_bytes`.
pub(super) fn plan(
    parts: &mut Parts,
    blob_bytes: u64,
    head_bytes: u64,
    have: &Have,
) -> Result<Plan> {
    let head = parts(std::slice::from_ref(&(blob_bytes - head_bytes..blob_bytes)))?;
    let mut layer = Layer::read(&head, blob_bytes)?;
    let details = layer.missing_details(have)?;
    layer.take_details(parts(&details)?);
    let pieces = layer.missing_pieces(have)?;
    let known = head_bytes.saturating_add(joined_bytes(&details));
    let bytes = known.saturating_add(joined_bytes(&pieces));
    Ok(Plan { layer, pieces, bytes })
}

/// What is fetched for the spans, with what lies between those that are joined.
fn joined_bytes(spans: &[Span]) -> u64 {
    index::bytes_of(&index::join(spans, GAP_BYTES))
}

/// The index of a layer in a registry.
#[derive(Clone, Copy)]
struct Remote<'a> {
    client: &'a Client,
    reference: &'a Reference,
    blob: &'a Descriptor,
}

impl<'a> Remote<'a> {
    /// Finds out what the layer costs, which weighs `layer_bytes` as it is.
    fn plan(&self, head_bytes: u64, layer_bytes: u64, have: &Have) -> Result<Plan> {
        let mut read = |spans: &[Span]| -> Result<Vec<u8>> {
            let mut bytes = vec![0; index::bytes_of(spans) as usize];
            let (mut rest, mut parts) = (&mut bytes[..], self.parts(spans));
            for span in spans {
                let (part, others) = rest.split_at_mut((span.end - span.start) as usize);
                parts.read(span, part)?;
                rest = others;
            }
            Ok(bytes)
        };
        let plan = plan(&mut read, self.blob.size, head_bytes, have)?;
        let limit = layer_bytes.saturating_mul(MAX_INFLATE_RATIO).max(FREE_INFLATED_BYTES);
        if plan.layer.tar_bytes > limit {
            let message = format!("{} bytes: the limit is {limit}", plan.layer.tar_bytes);
            return Err(Error::new(Kind::Corrupt, message));
        }
        Ok(plan)
    }

    /// Some spans, to be read in order.
    fn parts(&self, spans: &[Span]) -> Parted<'a> {
        let joined = index::join(spans, GAP_BYTES).into_iter();
        Parted { blob: *self, joined, stream: None, at: 0..0 }
    }
}

/// Spans of a blob, which come in order. Those that lie close come by one request.
struct Parted<'a> {
    blob: Remote<'a>,
    /// What is still to be asked for.
    joined: std::vec::IntoIter<Span>,
    stream: Option<Box<dyn Stream + Send>>,
    /// Where the stream is in the blob, and where it ends.
    at: Span,
}

impl Parted<'_> {
    /// Fills `buffer`, which has the span's length. Gives what was asked for on the way, in bytes.
    fn read(&mut self, span: &Span, buffer: &mut [u8]) -> Result<u64> {
        let mut asked_bytes = 0;
        while span.end > self.at.end && !span.is_empty() {
            let next = || Error::new(Kind::Internal, "a part was read that was not asked for");
            self.at = self.joined.next().ok_or_else(next)?;
            let Remote { client, reference, blob } = self.blob;
            self.stream = Some(client.blob_part(reference, blob, self.at.clone())?);
            asked_bytes += self.at.end - self.at.start;
        }
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let what = || "read the index".to_string();
        let gap = span.start.saturating_sub(self.at.start);
        std::io::copy(&mut stream.take(gap), &mut std::io::sink()).context(what)?;
        stream.read_exact(buffer).context(what)?;
        self.at.start = self.at.start.max(span.end);
        Ok(asked_bytes)
    }
}
