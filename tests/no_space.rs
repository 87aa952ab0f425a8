//! A disk that fills up, at every write of a pull: a small ext4 is filled until a seeded or stepped amount of blocks or
//! inodes is left, and an image is pulled. Each failure says so, costs the image that was there nothing and gives the
//! space back; when room is made, the next pull works.

mod link;
mod sandbox;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use link::Random;
use link::pull::{Running, assert_clear_error, assert_sound, assert_whole, names};
use sandbox::{Outcome, Registry, Sandbox, fixture, succeed};

/// The disk: room for both images and the journal.
const DISK_MIB: u64 = 24;
/// What `mkfs.ext4 -b` is given.
const BLOCK_BYTES: u64 = 1024;
/// ext4 gives no block of a directory back; a failed pull may have made some larger.
const TOLERANCE_BYTES: u64 = 64 << 10;
/// More than any pull here takes.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(180);

/// A store on a small disk that holds the image `keep`, and a registry with the image `next`.
struct Case {
    /// Serves until the case ends.
    _registry: Registry,
    sandbox: Sandbox,
    keep: String,
    next: String,
    next_id: String,
    /// What `save` gives of the image that is there.
    kept: String,
}

impl Case {
    fn new(name: &str, mkfs_options: &[&str]) -> Case {
        let sandbox = Sandbox::new(&format!("no-space-{name}"));
        let disk = fs::File::create(sandbox.path("disk")).expect("create the disk");
        disk.set_len(DISK_MIB << 20).expect("size the disk");
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-m", "0", "-b", "1024"]).args(mkfs_options).arg(sandbox.path("disk"));
        succeed(&mut mkfs);
        fs::create_dir_all(sandbox.data_root()).expect("create the data root");
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(sandbox.path("disk")).arg(sandbox.data_root());
        succeed(&mut mount);
        use_reserve(&sandbox);
        let registry = Registry::start(sandbox.path("registry"), false);
        let (keep, _) = push(&sandbox, &registry, "keep");
        let (next, next_id) = push(&sandbox, &registry, "next");
        let mut case =
            Case { _registry: registry, sandbox, keep, next, next_id, kept: String::new() };
        let pulled = case.pull(&case.keep);
        assert_eq!((pulled.code, pulled.stderr.as_str()), (0, ""), "pull what is to be kept");
        case.kept = case.saved();
        // The largest that directories get is what they keep: it counts for nothing below.
        case.pull_next("before the disk is full");
        case
    }

    fn pull(&self, reference: &str) -> Outcome {
        // One layer at a time: then the room that it takes at the most is always the same.
        let command = ["--max-concurrent-downloads=1", "pull", "-q", reference];
        Running::start(&self.sandbox, &command).finish(LIMIT)
    }

    /// With room, `next` is pulled whole, and removed again.
    fn pull_next(&self, context: &str) {
        let outcome = self.pull(&self.next);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{context}, with room");
        assert_whole(&self.sandbox, &self.next, &self.next_id, context);
        self.remove_next(context);
    }

    fn remove_next(&self, context: &str) {
        let removed = self.sandbox.vaquita(&["rmi", &self.next]);
        assert_eq!(removed.code, 0, "{context}: {removed:?}");
    }

    fn saved(&self) -> String {
        let saved = self.sandbox.shell(&format!("vaquita save {} | sha256sum", self.keep), &[]);
        assert_eq!((saved.code, saved.stderr.as_str()), (0, ""), "the image that was there");
        saved.stdout
    }

    /// Bytes and inodes that are free.
    fn free(&self) -> (u64, u64) {
        let disk = rustix::fs::statvfs(self.sandbox.data_root()).expect("the disk's figures");
        (disk.f_bfree * disk.f_frsize, disk.f_ffree)
    }

    fn filler(&self) -> PathBuf {
        self.sandbox.data_root().join("filler")
    }

    /// Leaves `bytes` of the disk, or a block or two less.
    fn leave_bytes(&self, bytes: u64) {
        let file = fs::File::create(self.filler()).expect("make the filler");
        let flags = rustix::fs::FallocateFlags::empty();
        let (mut at, mut piece) = (0, 1 << 20);
        while piece >= BLOCK_BYTES {
            let excess = self.free().0.saturating_sub(bytes);
            let fits = excess >= piece && rustix::fs::fallocate(&file, flags, at, piece).is_ok();
            if fits { at += piece } else { piece /= 2 }
        }
        // What the journal holds of files removed before is free only after its commit.
        rustix::fs::syncfs(&file).expect("sync the disk");
    }

    /// Leaves so many inodes.
    fn leave_inodes(&self, inodes: u64) {
        fs::create_dir(self.filler()).expect("make the filler");
        while self.free().1 > inodes {
            let name = self.filler().join(self.free().1.to_string());
            fs::write(name, "").expect("make a filler's file");
        }
    }

    fn make_room(&self) {
        let removed = match self.filler().is_dir() {
            true => fs::remove_dir_all(self.filler()),
            false => fs::remove_file(self.filler()),
        };
        removed.expect("remove the filler");
        let root = fs::File::open(self.sandbox.data_root()).expect("open the data root");
        rustix::fs::syncfs(&root).expect("sync the disk");
    }

    /// A pull with what `leave` left: true if it fit. If not, it must have failed well.
    fn try_pull(&self, context: &str) -> bool {
        let before = self.free();
        let outcome = self.pull(&self.next);
        if outcome.code == 0 {
            assert_whole(&self.sandbox, &self.next, &self.next_id, context);
            self.make_room();
            self.remove_next(context);
            return true;
        }
        assert_clear_error(&outcome, &["next", "sha256:", "data"], context);
        let line = outcome.stderr.to_lowercase();
        assert!(line.contains("no space left on device"), "{context}: {line}");
        assert_eq!(names(&self.sandbox, "stages"), [""; 0], "{context}: left in stages/");
        let after = self.free();
        assert!(
            after.0 + TOLERANCE_BYTES >= before.0 && after.1 == before.1,
            "{context}: {before:?} bytes and inodes were free, now {after:?}: {line}"
        );
        assert_eq!(self.saved(), self.kept, "{context}: the image that was there");
        self.make_room();
        assert_sound(&self.sandbox, context);
        println!("{context}: {}", line.trim());
        false
    }
}

/// ext4 keeps a fiftieth of the blocks back, which count as free: none on this disk, so that what is left can be used
/// (Documentation/ABI/testing/sysfs-fs-ext4, reserved_clusters).
fn use_reserve(sandbox: &Sandbox) {
    let mut find = Command::new("findmnt");
    let device = succeed(find.args(["-no", "SOURCE"]).arg(sandbox.data_root()));
    let name = device.trim_start_matches("/dev/");
    let setting = format!("/sys/fs/ext4/{name}/reserved_clusters");
    fs::write(&setting, "0").expect("a setting of ext4");
}

/// Pushes an image of three layers: a busybox or a file, small files, and whiteouts.
fn push(sandbox: &Sandbox, registry: &Registry, name: &str) -> (String, String) {
    let mut random = Random::new(1, name);
    let mut noise = |size: usize| (0..size).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let layer = |number: u64| sandbox.path(&format!("{name}-{number}"));
    for number in 0..3 {
        fs::create_dir_all(layer(number).join(name)).expect("create a layer");
    }
    fs::write(layer(0).join(name).join("large"), noise(400_000)).expect("write a file");
    for number in 0..120 {
        let path = layer(1).join(name).join(number.to_string());
        fs::write(path, noise(number * 60)).expect("write a file");
    }
    fs::write(layer(2).join(name).join(".wh.large"), "").expect("write a whiteout");
    fs::write(layer(2).join("text"), name.repeat(50_000)).expect("write a file");
    let archive = sandbox.path(&format!("{name}.tar"));
    let layers = [0, 1, 2].map(layer);
    let id = succeed(fixture("image").arg("-o").arg(&archive).args(layers));
    let reference = format!("{}/{name}:1", registry.address);
    succeed(fixture("push").arg(&reference).arg(archive));
    (reference, id)
}

/// Pulls with ever more room until it fits: in steps of one unit, then coarser, and from the last failure on in units
/// again, where the records that come last are written. After some of the failures it is pulled with room.
fn step(case: &Case, what: &str, unit: u64, coarse: u64, leave: impl Fn(u64)) {
    let mut failures = 0;
    let mut fits_with = |left: u64| {
        let context = format!("{left} {what} left");
        leave(left);
        let fits = case.try_pull(&context);
        failures += u64::from(!fits);
        if !fits && failures % 5 == 0 {
            case.pull_next(&context);
        }
        fits
    };
    let enough = (0..8).chain((1..).map(|n| n * coarse)).find(|&units| fits_with(units * unit));
    let enough = enough.expect("at last there is room enough");
    let fits =
        (enough.saturating_sub(coarse)..enough).filter(|&units| fits_with(units * unit)).count();
    assert!(fits < coarse as usize, "what failed before fits now");
    assert!(failures > 15, "only {failures} pulls failed: the steps are too large");
}

#[test]
fn a_disk_with_ever_more_bytes() {
    let case = Case::new("bytes", &["-N", "2000"]);
    step(&case, "bytes", BLOCK_BYTES, 40, |left| case.leave_bytes(left));
}

#[test]
fn a_disk_with_ever_more_inodes() {
    let case = Case::new("inodes", &["-N", "512"]);
    step(&case, "inodes", 1, 12, |left| case.leave_inodes(left));
}

/// A disk too small for the store itself, and for each size up to one that does.
#[test]
fn disks_of_every_size() {
    let sandbox = Sandbox::new("no-space-sizes");
    let registry = Registry::start(sandbox.path("registry"), false);
    let (next, id) = push(&sandbox, &registry, "next");
    let mut failures = 0;
    for kib in (180..4100).step_by(280) {
        let small = Sandbox::new(&format!("no-space-{kib}"));
        fs::write(small.path("disk"), "").expect("create the disk");
        let disk = fs::File::options().write(true).open(small.path("disk")).expect("the disk");
        disk.set_len(kib << 10).expect("size the disk");
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-m", "0", "-b", "1024", "-O", "^has_journal"]).arg(small.path("disk"));
        succeed(&mut mkfs);
        fs::create_dir_all(small.data_root()).expect("create the data root");
        let mut mount = Command::new("mount");
        succeed(mount.args(["-o", "loop"]).arg(small.path("disk")).arg(small.data_root()));
        use_reserve(&small);
        let outcome = Running::start(&small, &["pull", "-q", &next]).finish(LIMIT);
        let context = format!("a disk of {kib} KiB");
        if outcome.code == 0 {
            assert_whole(&small, &next, &id, &context);
            continue;
        }
        failures += 1;
        assert_clear_error(&outcome, &["next", "sha256:", "data"], &context);
        let line = outcome.stderr.to_lowercase();
        assert!(line.contains("no space left on device"), "{context}: {line}");
        for directory in ["stages", "layers", "images", "references"] {
            assert_eq!(names(&small, directory), [""; 0], "{context}: left in {directory}/");
        }
    }
    assert!((3..12).contains(&failures), "{failures} of 14 disks are too small");
}
