//! What a long verb tells while it works.

/// One thing that happened. Layers are named by the first 12 digits of their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// The image of a container is not here and will be pulled.
    Missing { reference: String },
    /// A pull begins: the tag or digest, and the repository.
    Pulling { tag: String, repository: String },
    /// A layer is here already.
    LayerExists { layer: String },
    /// A layer is to be fetched; its bytes may have to wait.
    LayerStarted { layer: String },
    /// A layer waits for others to be done.
    LayerWaiting { layer: String },
    /// So many of a layer's compressed bytes have arrived; `total_bytes` is 0 if nobody said how many there are. Sent at a
    /// bounded rate, a few times a second.
    LayerProgress { layer: String, done_bytes: u64, total_bytes: u64 },
    /// A layer's transfer failed for `reason` and goes on in so many seconds.
    LayerRetrying { layer: String, seconds: u64, reason: String },
    /// A layer is committed.
    LayerDone { layer: String },
    /// A pull is done: what the registry's name points at, and whether it is new here.
    Pulled { reference: String, digest: String, is_new: bool },
    /// A push begins, to this repository.
    Pushing { name: String },
    /// A layer is to be pushed. These are named by the first 12 digits of their diff ID.
    LayerPreparing { layer: String },
    /// The registry has the layer already.
    LayerAtRegistry { layer: String },
    /// The registry took the layer from another repository of its own.
    LayerMounted { layer: String, from: String },
    /// A layer was uploaded.
    LayerPushed { layer: String },
    /// A push is done: what the tag stands for at the registry, and the size of that manifest.
    Pushed { tag: String, digest: String, size_bytes: u64 },
    /// The image is a delta; its basis is here.
    DeltaBasis { image: String },
    /// Layers were made by a delta from this image: what was fetched for them, and what they would have taken themselves.
    DeltaUsed { image: String, delta_bytes: u64, layers_bytes: u64 },
    /// Layers were made by an index, with what this image has: what was fetched for them, and what they would have taken.
    IndexUsed { image: String, index_bytes: u64, layers_bytes: u64 },
    /// A layer's index is being made.
    Indexing { layer: String },
    /// It is made.
    Indexed { layer: String },
    /// Signatures of the basis are being made.
    Fingerprinting { image: String },
    /// A layer of the target is being compared with the basis.
    ComputingDelta { layer: String },
    /// A layer of the target is also one of the basis.
    SkippingCommonLayer { layer: String },
    /// A layer's delta is made.
    DeltaDone { layer: String },
}

/// Takes events as they happen.
pub type Report<'a> = &'a mut dyn FnMut(Event);
