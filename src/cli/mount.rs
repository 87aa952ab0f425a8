//! Images and containers as directories of the host: `mount` and `umount`.

use std::path::Path;

use argh::FromArgs;

use crate::engine::Engine;
use crate::error::Result;

/// Mount the tree of an image or container on a directory, read-only. It needs nothing else, not even /proc, so it serves an
/// initramfs; the image or container stays as long as it is mounted
#[derive(FromArgs)]
#[argh(subcommand, name = "mount")]
pub struct Mount {
    /// make it writable: what is written is kept in memory, until it is unmounted
    #[argh(switch, short = 'w')]
    pub writable: bool,
    /// container or image, by name or ID
    #[argh(positional, arg_name = "image|container")]
    pub name: String,
    /// directory to mount it on
    #[argh(positional, arg_name = "target")]
    pub target: String,
}

/// Unmount what `mount` mounted
#[derive(FromArgs)]
#[argh(subcommand, name = "umount")]
pub struct Umount {
    /// directory that it is mounted on
    #[argh(positional, arg_name = "target")]
    pub target: String,
}

/// `mount`.
pub fn mount(engine: &Engine, args: &Mount) -> Result<()> {
    engine.mount(&args.name, Path::new(&args.target), args.writable)
}

/// `umount`.
pub fn unmount(engine: &Engine, args: &Umount) -> Result<()> {
    engine.unmount(Path::new(&args.target))
}
