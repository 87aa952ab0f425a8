//! A layer between its two forms: the tar stream that registries carry, and a tree of files on the disk.
//!
//! One way: a compressed stream is inflated (`decoder`, `gzip`, `zstd`), its tar members are read (`members`), written as files (`tree`,
//! `content`, `unpack`), and made durable while it still arrives (`window`). Beside the tree lies the header record (`record`):
//! everything of the tar that is not file content. The other way: `rebuild` gives back the exact tar from the two, and
//! `pack` makes one of a tree that never was a tar.
//!
//! A pull that is cut short goes on from a checkpoint (`checkpoint`), with the tree as it was then (`journal`, `undo`). Nothing here
//! knows registries, the store or images. Decoders that work side by side share the memory for their windows (`room`).

mod checkpoint;
mod compare;
mod content;
mod decoder;
mod input;
mod journal;
mod members;
mod peers;
mod room;
mod tree;
mod undo;
mod window;
mod zstd;

pub mod archive;
pub mod gzip;
pub mod pack;
pub mod rebuild;
pub mod record;
pub mod unpack;

pub use checkpoint::{Checkpoint, Resumption, Trail, remove_checkpoints, staged_bytes};
pub use compare::{Compared, compare};
pub use decoder::{Decoder, DecoderState};
pub use pack::{pack, pack_upper};
pub use peers::{MAX_PEERS, Peers};
pub use rebuild::LayerTar;
pub use room::{Room, Windows};
pub use unpack::{Unpacked, unpack, unpack_beside, unpack_resumable};
