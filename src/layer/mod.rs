//! A layer between its two forms: the tar stream that registries carry, and a tree of files on the disk.
//!
//! One way: a compressed stream is inflated (`gzip`), its tar members are read (`members`), written as files (`tree`,
//! `unpack`), and made durable while it still arrives (`window`). Beside the tree lies the header record (`record`):
//! everything of the tar that is not file content. The other way: `rebuild` gives back the exact tar from the two.
//!
//! A caller glues the stages; each is a reader over a reader:
//! Nothing here knows registries, the store or images.

mod crc;
mod members;
mod tree;
mod window;

pub mod archive;
pub mod gzip;
pub mod rebuild;
pub mod record;
pub mod unpack;

pub use gzip::open_compressed;
pub use rebuild::LayerTar;
pub use unpack::{Unpacked, unpack};
