//! One member against the node that it should have become: every difference in words.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::layer::members::{Member, MemberKind};
use crate::sys::examine::{self, FactKind, Facts};
use crate::sys::file::{open_directory_at, open_file_at};
use crate::sys::node::{Attributes, Mtime};

/// The last seconds that ext4 and xfs can keep, in their older and newer inodes: what is later became this.
const LAST_SECONDS: [i64; 3] = [i32::MAX as i64, 0x3_7fff_ffff, 0x3_ffff_ffff];

/// How the node `name` in `dir` differs from what the member says; `None` if it does not.
pub fn difference(
    dir: BorrowedFd,
    name: &[u8],
    found: &Facts,
    member: &Member,
) -> io::Result<Option<String>> {
    let kind = match &member.kind {
        MemberKind::File { size, .. } => FactKind::File(*size),
        MemberKind::Directory => FactKind::Directory,
        MemberKind::Symlink(target) => {
            if found.kind == FactKind::Symlink && examine::link_target(dir, name)? != *target {
                return Ok(Some("it points elsewhere".into()));
            }
            FactKind::Symlink
        }
        MemberKind::Fifo => FactKind::Fifo,
        MemberKind::CharacterDevice(major, minor) => FactKind::CharacterDevice(*major, *minor),
        MemberKind::BlockDevice(major, minor) => FactKind::BlockDevice(*major, *minor),
        // The name of another node, which is compared where it was made.
        MemberKind::HardLink(_) => return Ok(None),
    };
    if found.kind != kind {
        return Ok(Some(format!("it is a {:?} and was a {kind:?}", found.kind)));
    }
    if let Some(difference) = attributes(&found.attributes, &member.attributes, kind) {
        return Ok(Some(difference));
    }
    xattrs(dir, name, kind, member)
}

fn attributes(found: &Attributes, was: &Attributes, kind: FactKind) -> Option<String> {
    if (found.uid, found.gid) != (was.uid, was.gid) {
        let (uid, gid) = (was.uid, was.gid);
        return Some(format!("its owner is {}:{} and was {uid}:{gid}", found.uid, found.gid));
    }
    if found.mode != was.mode && kind != FactKind::Symlink {
        return Some(format!("its mode is {:o} and was {:o}", found.mode, was.mode));
    }
    if !same_time(found.mtime, was.mtime) {
        let (found, was) = (found.mtime, was.mtime);
        return Some(format!(
            "its time is {}.{:09} and was {}.{:09}",
            found.seconds, found.nanoseconds, was.seconds, was.nanoseconds
        ));
    }
    None
}

/// A file system may keep whole seconds only, and none beyond a certain year.
fn same_time(found: Mtime, was: Mtime) -> bool {
    let whole = found.seconds == was.seconds && found.nanoseconds == 0;
    let clamped = found.seconds < was.seconds && LAST_SECONDS.contains(&found.seconds);
    found == was || whole || clamped
}

/// Attributes that the kernel may change or invent (labels, access lists that say what the mode says) are not compared.
fn is_compared(key: &[u8]) -> bool {
    key.starts_with(b"user.") || key.starts_with(b"trusted.") || key == b"security.capability"
}

fn xattrs(
    dir: BorrowedFd,
    name: &[u8],
    kind: FactKind,
    member: &Member,
) -> io::Result<Option<String>> {
    let opened = match kind {
        FactKind::File(_) => Some(open_file_at(dir, name)?.into()),
        FactKind::Directory => Some(open_directory_at(dir, name)?),
        _ => None,
    };
    let said = |what: &str, key: &[u8]| {
        Ok(Some(format!("its attribute {} {what}", String::from_utf8_lossy(key))))
    };
    for (index, (key, value)) in member.xattrs.iter().enumerate() {
        let is_last = !member.xattrs.iter().skip(index + 1).any(|(later, _)| later == key);
        if !is_compared(key) || !is_last {
            continue;
        }
        let same = match &opened {
            Some(node) => examine::has_xattr(node.as_fd(), key, value)?,
            None if key.starts_with(b"user.") => None,
            None => examine::has_xattr_at(dir, name, key, value)?,
        };
        if same == Some(false) {
            return said("differs", key);
        }
    }
    // A directory that several members describe keeps the attributes of all.
    if let (Some(node), FactKind::File(_)) = (opened, kind) {
        for key in examine::xattr_names(node.as_fd())?.iter().filter(|key| is_compared(key)) {
            if !member.xattrs.iter().any(|(known, _)| known == key) {
                return said("is not one of the layer's", key);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_a_file_system_cannot_keep_are_the_same() {
        let time = |seconds, nanoseconds| Mtime { seconds, nanoseconds };
        for (found, was, same) in [
            (time(7, 5), time(7, 5), true),
            (time(7, 0), time(7, 5), true),
            (time(7, 5), time(7, 0), false),
            (time(8, 0), time(7, 0), false),
            (time(i32::MAX.into(), 0), time(1 << 33, 0), true),
            (time(i32::MAX.into(), 0), time(1, 0), false),
        ] {
            assert_eq!(same_time(found, was), same, "{found:?} {was:?}");
        }
    }
}
