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
    /// A layer's bytes begin to arrive.
    LayerStarted { layer: String },
    /// A layer is committed.
    LayerDone { layer: String },
    /// A pull is done: what the registry's name points at, and whether it is new here.
    Pulled { reference: String, digest: String, is_new: bool },
    /// The image is a delta; its basis is here.
    DeltaBasis { image: String },
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
