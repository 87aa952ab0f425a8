//! Which paths a layer has: a hash of each, for a layer may have more paths than there is memory for their names.
//!
//! The hash is for damage, not for deceit: two paths of one layer that share one can hide a file that is too much.

use std::hash::{DefaultHasher, Hasher};

use super::Location;

/// Paths that are kept, members and the directories above them: 16 bytes each.
pub const MAX_PATHS: usize = 1 << 19;

/// A member makes it.
pub const REAL: u8 = 1;
/// A member hides it in the layers below.
pub const WHITEOUT: u8 = 2;
/// A member makes it opaque.
pub const OPAQUE: u8 = 4;
/// It is the directory above a member.
pub const IMPLIED: u8 = 8;
/// A member makes it a symlink.
pub const SYMLINK: u8 = 16;
/// More than one member makes it.
pub const REPEATED: u8 = 32;

/// What the members say of one path.
#[derive(Clone, Copy)]
pub struct Expectation {
    hash: u64,
    /// The last member that makes it, if `REAL`.
    pub member: u32,
    /// Everything that was said of it.
    pub flags: u8,
}

/// Everything that the members say.
#[derive(Default)]
pub struct Expected {
    paths: Vec<Expectation>,
}

impl Expected {
    /// Takes in what `member` says of a path; false if there is no room.
    pub fn add(&mut self, location: &Location, member: u32, flags: u8) -> bool {
        if self.paths.len() >= MAX_PATHS {
            self.settle();
        }
        let hash = hash(location.shadowed, &location.path);
        self.paths.push(Expectation { hash, member, flags });
        self.paths.len() < MAX_PATHS
    }

    /// Joins what was said of the same path; to be called before `find`.
    pub fn settle(&mut self) {
        self.paths.sort_unstable_by_key(|path| (path.hash, path.flags & REAL, path.member));
        self.paths.dedup_by(|next, first| {
            if next.hash != first.hash {
                return false;
            }
            let repeated = if next.flags & first.flags & REAL != 0 { REPEATED } else { 0 };
            first.member = if next.flags & REAL != 0 { next.member } else { first.member };
            first.flags |= next.flags | repeated;
            true
        });
    }

    /// What is known of a path.
    pub fn find(&self, shadowed: bool, path: &[u8]) -> Option<Expectation> {
        self.find_hash(hash(shadowed, path))
    }

    /// The same by its hash.
    pub fn find_hash(&self, hash: u64) -> Option<Expectation> {
        let found = self.paths.binary_search_by_key(&hash, |path| path.hash).ok()?;
        self.paths.get(found).copied()
    }

    /// Whether a symlink was replaced: then members may have gone through it that later ones could not.
    pub fn has_replaced_symlink(&self) -> bool {
        self.paths.iter().any(|path| path.flags & SYMLINK != 0 && path.flags & REPEATED != 0)
    }
}

/// The hash by which a path is known.
pub fn hash(shadowed: bool, path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(shadowed.into());
    hasher.write(path);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_holds_and_a_real_one_before_a_whiteout() {
        let mut expected = Expected::default();
        let at = |path: &str| Location { shadowed: false, path: path.as_bytes().to_vec() };
        for (path, member, flags) in [
            ("a", 1, REAL),
            ("a", 7, WHITEOUT),
            ("a", 5, REAL | SYMLINK),
            ("b", 0, IMPLIED),
            ("b", 2, OPAQUE),
        ] {
            assert!(expected.add(&at(path), member, flags));
        }
        expected.settle();
        let a = expected.find(false, b"a").unwrap();
        assert_eq!((a.member, a.flags), (5, REAL | WHITEOUT | SYMLINK | REPEATED));
        assert_eq!(expected.find(false, b"b").unwrap().flags, IMPLIED | OPAQUE);
        assert!(expected.find(true, b"a").is_none());
        assert!(expected.has_replaced_symlink());
    }
}
