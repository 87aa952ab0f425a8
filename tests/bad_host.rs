//! Machines that cannot do what is asked: a full disk, a read-only one, a kernel without overlayfs, a user who is not
//! root. Each is refused in one line, with the right exit status, and the store stays as it was.

#[allow(dead_code, reason = "each test program uses its part")]
mod hostile;
mod sandbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hostile::{Forged, Hostile, Layer, Tar};
use sandbox::refusal::{assert_one_line, keep_archive, refuses, stocked};
use sandbox::{Sandbox, sha256, succeed};

/// A small honest image.
fn small() -> Forged {
    Forged { layers: vec![Layer::of(&Tar::default().member(b'0', "hello", "", b"hello\n").end())] }
}

/// Puts a fresh ext4 of `mebibytes` at the sandbox's data root.
fn mount_disk(sandbox: &Sandbox, mebibytes: u64) {
    let disk = fs::File::create(sandbox.path("disk")).expect("create the disk");
    disk.set_len(mebibytes << 20).expect("size the disk");
    succeed(Command::new("mkfs.ext4").arg("-q").arg(sandbox.path("disk")));
    fs::create_dir_all(sandbox.data_root()).expect("create the data root");
    succeed(
        Command::new("mount")
            .args(["-o", "loop"])
            .arg(sandbox.path("disk"))
            .arg(sandbox.data_root()),
    );
}

#[test]
fn a_full_disk() {
    let (sandbox, hostile) = (Sandbox::new("full"), Hostile::start());
    mount_disk(&sandbox, 32);
    let archive = keep_archive(&sandbox).display().to_string();
    assert_eq!(sandbox.vaquita(&["load", "-q", "-i", &archive]).code, 0);
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(40 << 20)
    .collect();
    let large = Layer::of(&Tar::default().member(b'0', "large", "", &noise).end());
    let digest = format!("sha256:{}", sha256(&large.blob));
    let reference =
        hostile.put_image("large", &Forged { layers: vec![small().layers.remove(0), large] });
    refuses(&sandbox, &["pull", "-q", &reference], 1, &[&digest, "no space left"]);
    // It is not left full: what fits is still pulled.
    let reference = hostile.put_image("small", &small());
    assert_eq!(sandbox.vaquita(&["pull", "-q", &reference]).code, 0);
}

#[test]
fn a_read_only_data_root() {
    let (sandbox, hostile) = (Sandbox::new("readonly"), Hostile::start());
    mount_disk(&sandbox, 32);
    let archive = keep_archive(&sandbox).display().to_string();
    assert_eq!(sandbox.vaquita(&["load", "-q", "-i", &archive]).code, 0);
    succeed(Command::new("mount").args(["-o", "remount,ro"]).arg(sandbox.data_root()));
    let reference = hostile.put_image("small", &small());
    refuses(&sandbox, &["pull", "-q", &reference], 1, &["data", "read-only file system"]);
    refuses(&sandbox, &["load", "-q", "-i", &archive], 1, &["read-only file system"]);
    refuses(&sandbox, &["rmi", "keep:1"], 1, &["read-only file system"]);
    refuses(&sandbox, &["tag", "keep:1", "keep:2"], 1, &["read-only file system"]);
    refuses(&sandbox, &["run", "--rm", "keep:1", "true"], 125, &["read-only file system"]);
    // What only reads goes on.
    let images = sandbox.vaquita(&["images", "-q"]);
    assert_eq!((images.code, images.stdout.lines().count()), (0, 1), "{images:?}");
}

/// The data root lies on two overlays already. The kernel stacks no more than two file systems (FILESYSTEM_MAX_STACK_DEPTH),
/// so it refuses every overlay in there, as one without overlayfs would.
#[test]
fn no_overlayfs() {
    let sandbox = Sandbox::new("nooverlay");
    // A tmpfs below: the machine's own root may be an overlay itself.
    let base = sandbox.path("base");
    fs::create_dir_all(&base).expect("create a directory");
    succeed(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&base));
    for name in ["lower", "upper1", "work1", "middle", "upper2", "work2"] {
        fs::create_dir(base.join(name)).expect("create a directory");
    }
    fs::create_dir_all(sandbox.data_root()).expect("create the data root");
    let overlay = |lower: &Path, number: u8, target: &Path| {
        let base = base.display();
        let options = format!(
            "lowerdir={},upperdir={base}/upper{number},workdir={base}/work{number}",
            lower.display()
        );
        succeed(
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(target),
        );
    };
    overlay(&base.join("lower"), 1, &base.join("middle"));
    overlay(&base.join("middle"), 2, &sandbox.data_root());
    let archive = keep_archive(&sandbox).display().to_string();
    let loaded = sandbox.vaquita(&["load", "-q", "-i", &archive]);
    assert_eq!((loaded.code, loaded.stderr.as_str()), (0, ""), "images need no overlayfs");
    refuses(&sandbox, &["run", "--rm", "keep:1", "true"], 125, &["mount", "overlay", "data"]);
}

#[test]
fn not_root() {
    let sandbox = stocked("notroot");
    // A copy that anyone may start, wherever the build directory is.
    let public = PathBuf::from(format!("/tmp/vaquita-not-root-{}", std::process::id()));
    fs::copy(sandbox::binary(), &public).expect("copy the binary");
    let data = sandbox.data_root();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&public);
        command
            .arg("--data-root")
            .arg(&data)
            .arg("--run-root")
            .arg(sandbox.path("run"))
            .args(arguments);
        sandbox::run(command.current_dir("/"))
    };
    let before = sandbox.listing();
    for (arguments, code) in [
        (vec!["pull", "-q", "127.0.0.1:1/x"], 1),
        (vec!["images"], 1),
        (vec!["run", "--rm", "keep:1", "true"], 125),
        (vec!["rmi", "keep:1"], 1),
    ] {
        assert_one_line(&run(&arguments), &arguments, code, &["root"]);
    }
    assert_eq!(sandbox.listing(), before);
    fs::remove_file(&public).expect("remove the copy");
}
