//! Fetching the layers of an image side by side, each from where an earlier try left it.
//!
//! Some workers take one layer after another. For each, one thread fetches, verifies and inflates, and another unpacks;
//! what they leave when they are cut short is a stage with a checkpoint. The first failure stops the others, which keep
//! what they have.
//!
//! A layer takes under 2 MiB of memory, and a zstd layer as much more as its window has, up to 8 MiB. So that a pull
//! keeps its promise of 16 MiB, the workers share the memory for windows: who finds too little left waits, with the layer
//! begun and its connection open, until another layer is done. A server that hangs up meanwhile is asked again for the rest.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::{Lanes, Teller, locked};
use super::progress::{Event, Report};
use super::pull::{Committed, layer_record};
use super::{Engine, pipe};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::layer::{self, Checkpoint, Decoder, MAX_PEERS, Resumption, Trail, Unpacked, Windows};
use crate::oci::manifest::Descriptor;
use crate::reference::Reference;
use crate::registry::{Client, Options, Waiting};
use crate::store::{Image, ReferenceRecord, Stage};

/// Between two events about how far a layer is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Memory for the windows of all layers that are decoded at a time: for the largest one, and some small ones beside it.
const MAX_WINDOWS_BYTES: u64 = 9 << 20;

/// A layer to be fetched.
pub(super) struct Wanted<'a> {
    pub blob: &'a Descriptor,
    pub diff_id: Digest,
}

impl Engine {
    /// Fetches and commits `layers`, the first first, some at a time. Those that were committed are added to `committed`,
    /// also after an error, which is the first that occurred.
    pub(super) fn fetch_layers(
        &self,
        reference: &Reference,
        layers: &[Wanted],
        committed: &mut Committed,
        report: Report,
    ) -> Result<()> {
        let lanes = Lanes::new();
        let client = Client::new(self.reporting(&lanes))?;
        let workers = self.concurrency().min(layers.len());
        let fetching = Fetching {
            engine: self,
            client,
            windows: Windows::new(MAX_WINDOWS_BYTES, Arc::clone(&lanes.stop)),
            reference,
            layers,
            peers: self.peer_layers(reference, layers),
            committed: Mutex::new(Vec::new()),
            teller: lanes.teller.clone(),
        };
        for wanted in layers.iter().skip(workers) {
            report(Event::LayerWaiting { layer: wanted.name() });
        }
        let fetched = lanes.run(workers, layers.len(), &|number| fetching.layer(number), report);
        committed
            .0
            .append(&mut fetching.committed.into_inner().unwrap_or_else(PoisonError::into_inner));
        fetched
    }

    /// Makes the layer `diff_id` of the blob `digest`, and commits it, unless it has come meanwhile. `unpack` goes on from the
    /// checkpoint of an earlier try, if there is one; what a failure that may pass leaves is kept for the next.
    pub(super) fn resumably(
        &self,
        diff_id: &Digest,
        digest: &Digest,
        unpack: &mut dyn FnMut(&mut Stage, Option<Checkpoint>) -> Result<Unpacked>,
    ) -> Result<()> {
        let Some(mut stage) = self.store.layer_stage(diff_id)? else { return Ok(()) };
        let from = Checkpoint::load(stage.directory(), digest);
        let resumed = from.is_some();
        let mut result = unpack(&mut stage, from);
        // What an earlier try left may be what is wrong.
        let is_of_stage = |e: &Error| {
            use Kind::{Cancelled, NoSpace, Unauthorized, Unavailable};
            !matches!(e.kind(), Unavailable | Cancelled | NoSpace | Unauthorized)
        };
        if resumed && result.as_ref().is_err_and(is_of_stage) {
            result = unpack(&mut stage, None);
        }
        match result {
            Ok(unpacked) => self.store.commit_layer(stage, diff_id, layer_record(&unpacked)),
            Err(e) => {
                let may_pass = matches!(e.kind(), Kind::Unavailable | Kind::Cancelled);
                if may_pass && layer::staged_bytes(stage.directory()).is_some() {
                    stage.keep();
                }
                Err(e)
            }
        }
    }

    /// The layers that are here and likely to share files with `layers`: those of images of the same repository first.
    fn peer_layers(&self, reference: &Reference, layers: &[Wanted]) -> Vec<Digest> {
        let records = self.store.references().unwrap_or_default();
        let related = |image: &Image| is_of_repository(image, reference, &records);
        // No peers, no links: what cannot be read is no reason to give up a pull.
        let images = self.store.images().unwrap_or_default();
        let mut peers = Vec::new();
        for are_related in [true, false] {
            for image in images.iter().filter(|image| related(image) == are_related) {
                for diff_id in image.config.diff_ids().unwrap_or_default() {
                    let is_wanted = layers.iter().any(|wanted| wanted.diff_id == diff_id);
                    if peers.len() < MAX_PEERS && !is_wanted && !peers.contains(&diff_id) {
                        peers.push(diff_id);
                    }
                }
            }
        }
        peers
    }

    /// The options of a client whose waits are reported.
    fn reporting(&self, lanes: &Lanes) -> Options {
        let mut options = self.registry.clone();
        let teller = lanes.teller.clone();
        options.stop = Arc::clone(&lanes.stop);
        options.on_wait = Some(Arc::new(move |waiting: &Waiting| {
            let Some(blob) = waiting.blob else { return };
            let (layer, reason) = (blob.short(), waiting.error.to_string());
            teller.tell(Event::LayerRetrying { layer, seconds: waiting.seconds, reason });
        }));
        options
    }
}

/// Whether one of `names` is of the image, and of the repository of `reference`.
pub(super) fn is_of_repository(
    image: &Image,
    reference: &Reference,
    names: &[ReferenceRecord],
) -> bool {
    let id = image.id.to_string();
    names
        .iter()
        .filter(|name| name.image == id)
        .any(|name| name.reference().is_ok_and(|name| name.repository() == reference.repository()))
}

impl Wanted<'_> {
    /// As people are shown.
    pub(super) fn name(&self) -> String {
        self.blob.digest().map(|digest| digest.short()).unwrap_or_default()
    }
}

/// One pull's layers, shared by its workers.
struct Fetching<'a> {
    engine: &'a Engine,
    client: Client,
    windows: Windows,
    reference: &'a Reference,
    layers: &'a [Wanted<'a>],
    /// Layers that may have some of their files.
    peers: Vec<Digest>,
    committed: Mutex<Vec<Digest>>,
    teller: Teller,
}

impl Fetching<'_> {
    /// Fetches and commits a layer, unless it has come meanwhile.
    fn layer(&self, number: usize) -> Result<()> {
        let Some(wanted) = self.layers.get(number) else { return Ok(()) };
        self.teller.tell(Event::LayerStarted { layer: wanted.name() });
        let digest = wanted.blob.digest()?;
        let reference = self.reference;
        let unpack = &mut |stage: &mut Stage, from| self.unpack(wanted, stage, from);
        self.engine.resumably(&wanted.diff_id, &digest, unpack).map_err(|e| {
            Error::new(e.kind(), format!("pull layer {digest} of {reference}")).caused_by(e)
        })?;
        locked(&self.committed).push(wanted.diff_id);
        self.teller.tell(Event::LayerDone { layer: wanted.name() });
        Ok(())
    }

    fn unpack(
        &self,
        wanted: &Wanted,
        stage: &mut Stage,
        from: Option<Checkpoint>,
    ) -> Result<Unpacked> {
        let (digest, diff_id) = (wanted.blob.digest()?, wanted.diff_id);
        let name = format!("layer {diff_id}");
        let mut decoder = self.open(wanted, stage, from.as_ref(), &name)?;
        // Only now: while nothing comes, what another way had made of the layer may still be of use.
        if from.is_none() {
            stage.restart()?;
        }
        let trail = Trail::default();
        let peers = self.engine.peers(&mut self.peers.iter());
        let resumption = Resumption { trail: &trail, blob: digest, from, peers };
        let mut progress = Progress { teller: &self.teller, wanted, last: Instant::now() };
        let stage = stage.directory();
        let unpacked = pipe::join(
            |out| {
                let mut chunk = vec![0; pipe::CHUNK_BYTES];
                loop {
                    let count = decoder.read(&mut chunk).context(|| "read".into())?;
                    if count == 0 {
                        return Ok(());
                    }
                    // Before the bytes are passed on: who gets them finds the place that belongs to them.
                    trail.note(&mut decoder);
                    progress.update(decoder.blob_offset());
                    out.write_all(&chunk[..count]).context(|| "pass on".into())?;
                }
            },
            |tar| layer::unpack_resumable(tar, stage, &name, resumption),
        )?;
        if unpacked.diff_id != diff_id {
            let found = unpacked.diff_id;
            let message = format!("{name}: its content has the diff ID {found}");
            return Err(Error::new(Kind::Corrupt, message));
        }
        Ok(unpacked)
    }

    /// The layer's tar, from its start or from the checkpoint.
    fn open(
        &self,
        wanted: &Wanted,
        stage: &Stage,
        from: Option<&Checkpoint>,
        name: &str,
    ) -> Result<Decoder<'_>> {
        let digest = wanted.blob.digest()?;
        let mut room = self.windows.room();
        let connect = |offset| self.client.blob(self.reference, wanted.blob, offset);
        let decoder = match from {
            None => Decoder::open(connect(0)?, Some(digest)),
            Some(from) => {
                let state = from.decoder();
                room.take(state.window_bytes())?;
                let history = from.restore(stage.directory(), name)?;
                Decoder::resume(connect(state.blob_offset())?, state, history, digest)
            }
        };
        Ok(decoder?.within(room))
    }
}

/// Tells how far a layer is, now and then.
struct Progress<'a> {
    teller: &'a Teller,
    wanted: &'a Wanted<'a>,
    last: Instant,
}

impl Progress<'_> {
    fn update(&mut self, done_bytes: u64) {
        if self.last.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.last = Instant::now();
        let total_bytes = self.wanted.blob.size;
        let layer = self.wanted.name();
        self.teller.tell(Event::LayerProgress { layer, done_bytes, total_bytes });
    }
}
