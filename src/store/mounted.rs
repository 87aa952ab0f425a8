//! Which images, containers and layers are mounted for the host to see: what the mount table says, by the names that
//! `engine::mount` gives to its mounts. It tells the truth after a crash, a reboot, or a move to another place.
//!
//! Mounts in other mount namespaces are not seen, such as those of containers; containers have records.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Store;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};

/// What the kernel knows of our mounts (proc_pid_mountinfo(5)).
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// A mount of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Mounted {
    /// What it shows.
    pub what: MountedTree,
    /// Where.
    pub at: PathBuf,
}

/// What a mount shows.
#[derive(Debug, PartialEq, Eq)]
pub enum MountedTree {
    /// An image of several layers, or writable.
    Image(Digest),
    /// The one layer of an image.
    Layer(Digest),
    /// A container, by its ID.
    Container(String),
}

impl Mounted {
    /// The name for a mount of an image.
    pub fn image_name(data_root: &Path, id: &Digest) -> PathBuf {
        data_root.join("images").join(id.hex())
    }

    /// The name for a mount of a container.
    pub fn container_name(data_root: &Path, id: &str) -> PathBuf {
        data_root.join("containers").join(id)
    }
}

impl Store {
    /// The directory in the run root that `engine::mount` makes before it mounts anything.
    pub fn mounts_directory(&self) -> PathBuf {
        self.run_root.join("mounts")
    }

    /// All mounts of ours that this process can see. Without /proc it sees none: that is an error, unless nothing was mounted
    /// in this boot.
    pub fn mounted(&self) -> Result<Vec<Mounted>> {
        match fs_err::read(MOUNT_TABLE) {
            Ok(table) => Ok(table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()),
            Err(_) if !self.mounts_directory().exists() => Ok(Vec::new()),
            Err(e) => Err(Error::io("look for mounted images", e)),
        }
    }

    /// Refuses if a mount shows the tree, or might, because there is no /proc to tell. `what` begins the sentence. The
    /// caller holds the publish lock, so that nothing is mounted meanwhile.
    pub(super) fn refuse_if_mounted(
        &self,
        what: &str,
        shows: &dyn Fn(&MountedTree) -> bool,
    ) -> Result<()> {
        let mounted = self.mounted().map_err(|e| {
            let message = format!("{what}: it may be mounted: mount /proc to find out");
            Error::new(e.kind(), message).caused_by(e)
        })?;
        match mounted.iter().find(|mounted| shows(&mounted.what)) {
            None => Ok(()),
            Some(mounted) => {
                let message =
                    format!("conflict: {what}: it is mounted on {}", mounted.at.display());
                Err(Error::new(Kind::Conflict, message))
            }
        }
    }
}

/// The mount of one line, if it is ours. The data root is not compared: an initramfs mounts from where the disk is then,
/// and the system that it boots finds the store elsewhere.
fn parse_line(line: &[u8]) -> Option<Mounted> {
    // ID, parent, device, root, mount point, options, tags of any number, a dash, type, source, options.
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.by_ref().nth(3)?;
    let at = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (fields.next()?, fields.next()?);
    let text = String::from_utf8(unescape(if kind == b"overlay" { source } else { root })).ok()?;
    let mut parts = text.rsplit('/');
    let what = match (parts.next()?, parts.next()?, parts.next()) {
        (id, "images", _) if kind == b"overlay" => MountedTree::Image(Digest::from_hex(id)?),
        (id, "containers", _) if kind == b"overlay" => {
            Digest::from_hex(id)?;
            MountedTree::Container(id.to_string())
        }
        ("fs", diff_id, Some("layers")) => MountedTree::Layer(Digest::from_hex(diff_id)?),
        _ => return None,
    };
    Some(Mounted { what, at })
}

/// Undoes the octal escapes of the mount table: `\040` is a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\')
        {
            Some(code) => {
                text.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                text.push(byte);
                rest = after;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ours_in_the_mount_table() {
        let id = Digest::of(b"x");
        let hex = id.hex();
        let ours = |what| Some(Mounted { what, at: "/new root".into() });
        for (root, tail, expected) in [
            (
                "/",
                format!("- overlay /data/images/{hex} ro,lowerdir=0:1"),
                ours(MountedTree::Image(id)),
            ),
            (
                "/",
                format!("shared:1 - overlay /d\\040d/containers/{hex} rw"),
                ours(MountedTree::Container(hex.clone())),
            ),
            (
                &format!("/v/layers/{hex}/fs"),
                "- ext4 /dev/vda ro".into(),
                ours(MountedTree::Layer(id)),
            ),
            ("/", "- overlay overlay rw".into(), None),
            ("/", format!("- ext4 /dev/images/{hex} rw"), None),
            ("/", "- overlay /data/images/name rw".into(), None),
            (&format!("/v/layers/{hex}"), "- ext4 /dev/vda ro".into(), None),
            ("/", "- tmpfs tmpfs".into(), None),
        ] {
            let line = format!("36 35 98:0 {root} /new\\040root ro,relatime {tail}");
            assert_eq!(parse_line(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(parse_line(b""), None);
    }
}
