//! Layers by an index (`delta::index`): what is lacked of them is fetched in parts, the rest is in an image that is here.
//!
//! The basis is one image, that of the same repository which shares the most layers with the target, or of any other if there is
//! none. It is read once. Of each missing layer the head and the missing details are fetched; then it is known what the layer
//! costs, and the layers are made for which that is little enough. Unpacking a piece takes a hundred times as long as inflating:
//! by default only who saves half of a layer's bytes pays for them so.

use std::io::Read;

use super::basis::Basis;
use super::progress::{Event, Report};
use super::pull::Committed;
use super::{Deltas, Engine, fetch, patch};
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
pub const GAP_BYTES: u64 = 2 << 10;
/// A layer's index has to save one in so many of its bytes.
const LEAST_SAVED: u64 = 2;
/// Of what a layer weighs, the head may be one in so many: it is fetched before anybody knows what is saved.
const LOOK_SHARE: u64 = 16;
/// The largest head, which is held in memory.
const MAX_HEAD_BYTES: u64 = 4 << 20;

/// A layer that is to be made.
struct Planned<'a> {
    wanted: &'a fetch::Wanted<'a>,
    blob: &'a Descriptor,
    plan: Plan,
}

/// What is known of a layer before its pieces are fetched.
pub(super) struct Plan {
    pub layer: Layer,
    /// What is to be fetched yet.
    pub pieces: Vec<Span>,
    /// What the layer costs in all.
    pub bytes: u64,
}

/// Gives the spans of a blob, one behind another.
pub(super) type Parts<'a> = dyn FnMut(&[Span]) -> Result<Vec<u8>> + 'a;

impl Engine {
    /// Makes layers of `missing` by the index that `offer` tells of, if they cost less than `most` together. Those that were
    /// made are no longer among them; false if there are none.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn make_by_index(
        &self,
        offer: &Offer,
        target: &patch::Target,
        deltas: Deltas,
        most: Option<u64>,
        missing: &mut Vec<fetch::Wanted>,
        committed: &mut Committed,
        report: Report,
    ) -> Result<bool> {
        let Some((image, mut basis)) = self.closest_image(target)? else { return Ok(false) };
        let patch::Target { client, reference, .. } = target;
        let manifest = client.resolve(&reference.at(offer.artifact), &Engine::platform())?.manifest;
        patch::check(&manifest, offer, target)?;
        let (mut have, mut planned) = (None, Vec::new());
        for wanted in missing.iter() {
            let found = patch::blob_for(&wanted.diff_id, &manifest, offer.format, target);
            let Some((blob, head)) = found.and_then(|blob| Some((blob, artifact::head_of(blob)?)))
            else {
                continue;
            };
            let is_only = deltas == Deltas::Only;
            if head > MAX_HEAD_BYTES || !is_only && head > wanted.blob.size / LOOK_SHARE {
                continue;
            }
            let have = match &have {
                Some(have) => have,
                None => {
                    report(Event::DeltaBasis { image: image.clone() });
                    have.insert(basis.have()?)
                }
            };
            let mut parts = |spans: &[Span]| -> Result<Vec<u8>> {
                let mut bytes = vec![0; index::bytes_of(spans) as usize];
                let (mut rest, mut blob) =
                    (&mut bytes[..], Parted::new(client, reference, blob, spans));
                for span in spans {
                    let (part, others) = rest.split_at_mut((span.end - span.start) as usize);
                    blob.read(span, part)?;
                    rest = others;
                }
                Ok(bytes)
            };
            let plan = plan(&mut parts, blob.size, head, have).map_err(|e| {
                Error::new(e.kind(), format!("layer {}", wanted.diff_id)).caused_by(e)
            })?;
            let limit = wanted.blob.size.saturating_mul(MAX_INFLATE_RATIO).max(FREE_INFLATED_BYTES);
            if plan.layer.tar_bytes > limit {
                let (bytes, id) = (plan.layer.tar_bytes, wanted.diff_id);
                let message = format!("layer {id}: {bytes} bytes: the limit is {limit}");
                return Err(Error::new(Kind::Corrupt, message));
            }
            if is_only || plan.bytes <= wanted.blob.size / LEAST_SAVED {
                planned.push(Planned { wanted, blob, plan });
            }
        }
        let cost = planned.iter().fold(0, |sum, layer| layer.plan.bytes.saturating_add(sum));
        let others =
            missing.iter().filter(|one| !planned.iter().any(|p| p.wanted.diff_id == one.diff_id));
        let total = others.fold(cost, |sum, wanted| wanted.blob.size.saturating_add(sum));
        let Some(have) =
            have.filter(|_| !planned.is_empty() && most.is_none_or(|most| total < most))
        else {
            return Ok(false);
        };
        let (mut layers_bytes, mut made) = (0, Vec::new());
        for Planned { wanted, blob, plan } in &planned {
            let (diff_id, layer) = (wanted.diff_id, wanted.name());
            report(Event::LayerStarted { layer: layer.clone() });
            let mut blob = Parted::new(client, reference, blob, &plan.pieces);
            let peers = self.peers(&mut basis.diff_ids.iter().rev());
            let staged = self.stage_layer(&diff_id, peers, &mut |out| {
                let fetch = &mut |span, buffer: &mut [u8]| blob.read(&span, buffer);
                index::apply(&plan.layer, &have, &mut basis, fetch, out)
            });
            staged
                .and_then(|(stage, record)| self.store.commit_layer(stage, &diff_id, record))
                .map_err(|e| Error::new(e.kind(), format!("layer {diff_id}")).caused_by(e))?;
            committed.0.push(diff_id);
            report(Event::LayerDone { layer });
            layers_bytes += wanted.blob.size;
            made.push(diff_id);
        }
        drop(planned);
        missing.retain(|wanted| !made.contains(&wanted.diff_id));
        report(Event::IndexUsed { image, index_bytes: cost, layers_bytes });
        Ok(true)
    }

    /// The image that most likely has files of the target, opened, and its short name.
    fn closest_image(&self, target: &patch::Target) -> Result<Option<(String, Basis)>> {
        let mut best: Option<(_, &Store, Image)> = None;
        for store in self.basis_stores() {
            let names = store.references()?;
            for image in store.images()? {
                let Ok(diff_ids) = image.config.diff_ids() else { continue };
                let id = image.id.to_string();
                let is_related = names.iter().filter(|name| name.image == id).any(|name| {
                    let name = name.reference();
                    name.is_ok_and(|name| name.repository() == target.reference.repository())
                });
                let shared = target.diff_ids.iter().filter(|id| diff_ids.contains(id)).count();
                let rank = (is_related, shared, image.config.created.clone());
                if best.as_ref().is_none_or(|(other, ..)| rank > *other) {
                    best = Some((rank, store, image));
                }
            }
        }
        best.map(|(_, store, image)| Ok((image.id.short(), Basis::open(store, &image)?)))
            .transpose()
    }
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
    let joined = |spans: &[Span]| index::bytes_of(&index::join(spans, GAP_BYTES));
    let bytes = head_bytes.saturating_add(joined(&details)).saturating_add(joined(&pieces));
    Ok(Plan { layer, pieces, bytes })
}

/// A blob at a registry, of which some spans are read in order. Those that lie close come by one request.
struct Parted<'a> {
    client: &'a Client,
    reference: &'a Reference,
    blob: &'a Descriptor,
    /// What is still to be asked for.
    joined: std::vec::IntoIter<Span>,
    stream: Option<Box<dyn Stream + Send>>,
    /// Where the stream is in the blob, and where it ends.
    at: Span,
}

impl<'a> Parted<'a> {
    fn new(
        client: &'a Client,
        reference: &'a Reference,
        blob: &'a Descriptor,
        spans: &[Span],
    ) -> Self {
        let joined = index::join(spans, GAP_BYTES).into_iter();
        Parted { client, reference, blob, joined, stream: None, at: 0..0 }
    }

    /// Fills `buffer`, which has the span's length.
    fn read(&mut self, span: &Span, buffer: &mut [u8]) -> Result<()> {
        while span.end > self.at.end && !span.is_empty() {
            let next = || Error::new(Kind::Internal, "a part was read that was not asked for");
            self.at = self.joined.next().ok_or_else(next)?;
            self.stream =
                Some(self.client.blob_part(self.reference, self.blob, self.at.clone())?);
        }
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let what = || "read the index".to_string();
        let gap = span.start.saturating_sub(self.at.start);
        std::io::copy(&mut stream.take(gap), &mut std::io::sink()).context(what)?;
        stream.read_exact(buffer).context(what)?;
        self.at.start = self.at.start.max(span.end);
        Ok(())
    }
}
