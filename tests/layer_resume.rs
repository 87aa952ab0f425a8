//! Layers whose unpacking is cut short, again and again, and gone on with from their checkpoints.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vaquita::digest::Digest;
use vaquita::layer::*;
use vaquita::sys::file::open_directory;

/// What may be fetched again after each cut: the promise of issue and design.
const MAX_AGAIN_BYTES: u64 = 4 << 20;

/// A directory of its own for each test, removed in the end.
struct Stage(PathBuf);

impl Stage {
    fn new(name: &str) -> Stage {
        let path =
            std::env::temp_dir().join(format!("vaquita-resume-{}-{name}", std::process::id()));
        fs_err::create_dir_all(&path).unwrap();
        Stage(path)
    }

    fn clear(&self) {
        fs_err::remove_dir_all(&self.0).unwrap();
        fs_err::create_dir_all(&self.0).unwrap();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The test's own failure is what matters.
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

/// xorshift32.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }

    fn noise(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn member(kind: u8, name: &str, link: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.as_old_mut().linkflag = [kind];
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(mode.into());
    header.set_gid(7);
    header.set_mtime(1_600_000_000 + name.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// About 15 MB: small files in an order that comes back to directories left long ago, large ones of noise and of text,
/// links, whiteouts, members that come twice and directories that change their attributes.
fn sample(seed: u32) -> Vec<u8> {
    let mut random = Random(seed);
    let mut tar = Vec::new();
    for number in 0..40 {
        tar.extend(member(b'5', &format!("d{number}"), "", 0o750, b""));
    }
    for number in 0..900_u32 {
        let directory = random.below(40);
        let name = format!("d{directory}/f{number}");
        let size = random.below(9000) as usize;
        tar.extend(member(b'0', &name, "", 0o600 + number % 64, &random.noise(size)));
        match random.below(40) {
            0 => tar.extend(member(b'1', &format!("d{directory}/l{number}"), &name, 0o600, b"")),
            1 => tar.extend(member(b'2', &format!("s{number}"), &name, 0o777, b"")),
            2 => tar.extend(member(b'0', &format!("d{directory}/.wh.w{number}"), "", 0, b"")),
            3 => tar.extend(member(b'5', &format!("d{directory}"), "", 0o711, b"")),
            4 => tar.extend(member(b'0', &name, "", 0o644, b"once more")),
            5 => tar.extend(member(b'0', &format!("d{directory}/.wh..wh..opq"), "", 0, b"")),
            6 => tar.extend(member(b'0', &format!("new{number}/deep/file"), "", 0o644, b"x")),
            7 => tar.extend(changing(number, directory)),
            _ => {}
        }
        if number == 300 {
            tar.extend(member(b'0', "noise", "", 0o644, &random.noise(6_000_000)));
        }
        if number == 600 {
            let text: Vec<u8> =
                (0..400_000_u32).flat_map(|i| i.wrapping_mul(i).to_string().into_bytes()).collect();
            tar.extend(member(b'0', "text", "", 0o644, &text));
        }
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// One name as everything in turn, and, of the same directory that others are in, a whiteout that becomes a directory.
fn changing(number: u32, directory: u32) -> Vec<u8> {
    let (name, below) = (format!("c{}", number % 3), format!("c{}/in", number % 3));
    let hidden = format!("d{directory}/.wh.h{number}");
    let shown = format!("d{directory}/h{number}");
    [
        member(b'5', &name, "", 0o700 + number % 8, b""),
        member(b'0', &below, "", 0o600, format!("first of {number}").as_bytes()),
        member(b'0', &format!("c{}/gone", number % 3), "", 0o600, b"not below the next"),
        member(b'2', &name, "elsewhere", 0o777, b""),
        member(b'6', &name, "", 0o600, b""),
        member(b'0', &name, "", 0o600, b"a file"),
        member(b'5', &name, "", 0o750, b""),
        member(b'0', &below, "", 0o644, format!("second of {number}").as_bytes()),
        member(b'0', &hidden, "", 0, b""),
        member(b'5', &shown, "", 0o755, b""),
        member(b'0', &format!("d{directory}/.wh.h{number}"), "", 0, b""),
    ]
    .concat()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = gzip::GzipWriter::new(&mut out, 1);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap();
    out
}

/// Gives `left` bytes of `rest`, then fails as a lost link does.
struct Cut<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.rest.is_empty() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let limit = buffer.len().min(self.left);
        let count = self.rest.read(&mut buffer[..limit])?;
        self.left -= count;
        Ok(count)
    }
}

struct Noting<'a> {
    decoder: Decoder<'a>,
    trail: &'a Trail,
}

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.trail.note(&mut self.decoder);
        Ok(count)
    }
}

/// One try: fetches at most `limit` bytes of `blob` and says from where.
fn attempt(stage: &Path, blob: &[u8], limit: usize) -> (u64, vaquita::error::Result<Unpacked>) {
    attempt_as(stage, blob, &Digest::of(blob), limit)
}

fn attempt_as(
    stage: &Path,
    blob: &[u8],
    digest: &Digest,
    limit: usize,
) -> (u64, vaquita::error::Result<Unpacked>) {
    attempt_beside(stage, blob, digest, limit, &[])
}

/// With other layers, in which files may be found.
fn attempt_beside(
    stage: &Path,
    blob: &[u8],
    digest: &Digest,
    limit: usize,
    peers: &[&Path],
) -> (u64, vaquita::error::Result<Unpacked>) {
    let peers = Peers::new(peers.iter().map(|path| open_directory(path).unwrap()).collect());
    let opened = open_directory(stage).unwrap();
    let from = Checkpoint::load(opened.as_fd(), digest);
    if from.is_none() {
        fs_err::remove_dir_all(stage).unwrap();
        fs_err::create_dir(stage).unwrap();
    }
    let opened = open_directory(stage).unwrap();
    let start = from.as_ref().map_or(0, |from| from.decoder().blob_offset());
    let reader = Box::new(Cut { rest: &blob[start as usize..], left: limit });
    let decoder = match &from {
        None => Decoder::open(reader, Some(*digest)),
        Some(from) => {
            let history = from.restore(opened.as_fd(), "layer x").unwrap();
            Decoder::resume(reader, from.decoder(), history, *digest)
        }
    };
    let trail = Trail::default();
    let result = decoder.and_then(|decoder| {
        let mut tar = Noting { decoder, trail: &trail };
        let resumption = Resumption { trail: &trail, blob: *digest, from, peers };
        unpack_resumable(&mut tar, opened.as_fd(), "layer x", resumption)
    });
    (start, result)
}

/// Every node below `path`: its attributes, its content's digest, its attributes of overlayfs.
fn tree(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![path.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs_err::read_dir(&directory).unwrap() {
            let at = entry.unwrap().path();
            let stat = fs_err::symlink_metadata(&at).unwrap();
            let content = match stat.file_type() {
                kind if kind.is_dir() => {
                    pending.push(at.clone());
                    let mut value = [0; 8];
                    let opaque = rustix::fs::lgetxattr(&at, "trusted.overlay.opaque", &mut value);
                    format!("directory, opaque {}", opaque.is_ok())
                }
                kind if kind.is_file() => Digest::of(&fs_err::read(&at).unwrap()).to_string(),
                kind if kind.is_symlink() => fs_err::read_link(&at).unwrap().display().to_string(),
                _ => format!("device {}", stat.rdev()),
            };
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            // The times of directories that no member names are those of their making.
            let named = !stat.is_dir() || !at.display().to_string().contains("/new");
            let is_device = stat.mode() & 0o170_000 == 0o020_000;
            let mtime = if named && !is_device { stat.mtime() } else { 0 };
            let described = format!(
                "{:o} {}:{} {mtime} {links} {content}",
                stat.mode(),
                stat.uid(),
                stat.gid()
            );
            found.insert(at.strip_prefix(path).unwrap().to_path_buf(), described);
        }
    }
    found
}

fn assert_same(
    expected: &BTreeMap<PathBuf, String>,
    found: &BTreeMap<PathBuf, String>,
    what: &str,
) {
    for (path, node) in expected {
        assert_eq!(found.get(path), Some(node), "{what}: {}", path.display());
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{what}: {} is too much", path.display());
    }
}

#[test]
fn a_layer_that_is_cut_again_and_again_becomes_the_same() {
    for (seed, packed) in [(1, true), (2, false), (3, true)] {
        let stage = Stage::new(&format!("cut-{seed}"));
        let tar = sample(seed);
        let blob = if packed { gzipped(&tar) } else { tar.clone() };
        let (_, whole) = attempt(&stage.0, &blob, blob.len());
        let whole = whole.unwrap();
        assert_eq!(whole.diff_id, Digest::of(&tar));
        let expected = tree(&stage.0.join("fs"));

        stage.clear();
        let mut random = Random(seed);
        let (mut reached, mut cuts, mut went_on) = (0, 0, 0);
        let resumed = loop {
            let limit = 2_000_000 + random.below(6_000_000) as usize;
            let (start, result) = attempt(&stage.0, &blob, limit);
            let what = format!("seed {seed}, cut {cuts}, from {start} after {reached}");
            assert!(start + MAX_AGAIN_BYTES >= reached, "{what}: {} bytes again", reached - start);
            went_on += u32::from(start > 0);
            match result {
                Ok(unpacked) => break unpacked,
                Err(error) => {
                    assert!(error.to_string().contains("onnection reset"), "{what}: {error}")
                }
            }
            reached = start + limit as u64;
            cuts += 1;
            assert!(cuts < 200, "{what}: no progress");
        };
        assert_eq!(resumed, whole, "seed {seed}");
        assert!(went_on >= 2, "seed {seed}: went on {went_on} times of {cuts}");
        assert_same(&expected, &tree(&stage.0.join("fs")), &format!("seed {seed}"));
        let mut back = Vec::new();
        let opened = open_directory(&stage.0).unwrap();
        LayerTar::open(opened.as_fd(), "layer x").unwrap().read_to_end(&mut back).unwrap();
        assert!(back == tar, "seed {seed}: the tar has changed");
    }
}

/// A usual layer: sorted, nothing twice.
fn usual(seed: u32) -> Vec<u8> {
    let mut random = Random(seed);
    let mut tar = Vec::new();
    for directory in 0..60 {
        tar.extend(member(b'5', &format!("d{directory:02}"), "", 0o755, b""));
        for number in 0..20 {
            let size = random.below(20_000) as usize;
            let name = format!("d{directory:02}/f{number:02}");
            tar.extend(member(b'0', &name, "", 0o644, &random.noise(size)));
        }
        if directory == 30 {
            tar.extend(member(b'0', "d30/large", "", 0o644, &random.noise(9_000_000)));
        }
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[test]
fn little_is_fetched_again() {
    let stage = Stage::new("again");
    let tar = usual(5);
    for blob in [gzipped(&tar), tar.clone()] {
        stage.clear();
        let mut random = Random(5);
        let mut reached = 0;
        loop {
            let limit = 5_000_000 + random.below(3_000_000) as usize;
            let (start, result) = attempt(&stage.0, &blob, limit);
            assert!(start + MAX_AGAIN_BYTES >= reached, "{} bytes again", reached - start);
            if let Ok(unpacked) = result {
                assert_eq!(unpacked.diff_id, Digest::of(&tar));
                break;
            }
            reached = start + limit as u64;
        }
    }
}

/// What comes after a checkpoint is not verified: another's bytes must leave nothing behind.
#[test]
fn what_was_never_verified_leaves_nothing() {
    let stage = Stage::new("forged");
    let tar = usual(9);
    let digest = Digest::of(&tar);
    attempt(&stage.0, &tar, tar.len()).1.unwrap();
    let expected = tree(&stage.0.join("fs"));

    stage.clear();
    attempt(&stage.0, &tar, 9_000_000).1.unwrap_err();
    let opened = open_directory(&stage.0).unwrap();
    let checkpoint = Checkpoint::load(opened.as_fd(), &digest).unwrap();
    let at = checkpoint.tar_offset() as usize;
    // The forger takes over at the next member behind the checkpoint.
    let mut blocks = (at.next_multiple_of(512)..tar.len()).step_by(512);
    let is_header = |at: &usize| tar.get(at + 257..at + 262) == Some(&b"ustar"[..]);
    let next = blocks.find(is_header).unwrap();
    let mut forged = tar[..next].to_vec();
    forged.extend(member(b'5', "d00", "", 0o777, b""));
    forged.extend(member(b'0', "d00/.wh..wh..opq", "", 0, b""));
    forged.extend(member(b'0', "d00/f00", "", 0o4755, b"forged"));
    forged.extend(member(b'0', "d59/f00", "", 0o4755, b"forged"));
    forged.extend(member(b'0', "etc/shadow", "", 0o644, b"forged"));
    forged.extend(member(b'2', "d58", "d00", 0o777, b""));
    let length = forged.len();
    forged.extend(vec![0; 1_000_000]);
    let start = checkpoint.decoder().blob_offset() as usize;
    attempt_as(&stage.0, &forged, &digest, length - start).1.unwrap_err();
    assert!(stage.0.join("fs/etc/shadow").exists(), "the forgery was not unpacked");
    while attempt(&stage.0, &tar, tar.len()).1.is_err() {}
    assert_same(&expected, &tree(&stage.0.join("fs")), "forged");
}

fn inode(path: PathBuf) -> u64 {
    fs_err::metadata(path).unwrap().ino()
}

/// The next version of a layer: most files as they were, some changed, some only looking the same.
#[test]
fn equal_files_become_links_and_others_do_not() {
    let (old, new, alone) = (Stage::new("old"), Stage::new("new"), Stage::new("alone"));
    let mut random = Random(11);
    let large = random.noise(7_000_000);
    let mut late = large.clone();
    late[6_500_000] ^= 1;
    let files = |content: [&[u8]; 3], mode: u32| {
        let mut tar = member(b'5', "d", "", 0o755, b"");
        tar.extend(member(b'0', "d/same", "", 0o640, b"as it was"));
        tar.extend(member(b'0', "d/empty", "", 0o640, b""));
        tar.extend(member(b'0', "d/changed", "", 0o640, content[0]));
        tar.extend(member(b'0', "d/mode", "", mode, b"other attributes"));
        tar.extend(member(b'0', "d/large", "", 0o640, &large));
        tar.extend(member(b'0', "d/late", "", 0o640, content[1]));
        tar.extend(member(b'1', "d/link", "d/same", 0o640, b""));
        tar.extend(member(b'0', "d/new", "", 0o640, content[2]));
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    let first = files([b"content 1", &large, b""], 0o600);
    let second = files([b"content 2", &late, b"new"], 0o644);
    attempt(&old.0, &first, first.len()).1.unwrap();
    attempt(&alone.0, &second, second.len()).1.unwrap();

    // Cut short in the middle of comparing, and of writing.
    let digest = Digest::of(&second);
    let mut went_on = 0;
    let unpacked = loop {
        let (start, result) = attempt_beside(&new.0, &second, &digest, 5_000_000, &[&old.0]);
        went_on += u32::from(start > 0);
        if let Ok(unpacked) = result {
            break unpacked;
        }
    };
    assert!(went_on > 1, "{went_on}");
    assert_eq!(unpacked.diff_id, Digest::of(&second));
    for (name, is_shared) in [
        ("same", true),
        ("empty", true),
        ("large", true),
        ("link", true),
        ("changed", false),
        ("mode", false),
        ("late", false),
    ] {
        let inodes = [&old, &new].map(|stage| inode(stage.0.join("fs/d").join(name)));
        let old_inode = if name == "link" { inode(old.0.join("fs/d/same")) } else { inodes[0] };
        assert_eq!(old_inode == inodes[1], is_shared, "{name}");
    }
    // The link's count differs, the rest must not.
    let without_links = |stage: &Stage| {
        let nodes = tree(&stage.0.join("fs")).into_iter();
        let described = nodes.map(|(path, node)| {
            let words: Vec<&str> = node.split(' ').collect();
            (path, [&words[..3], &words[4..]].concat().join(" "))
        });
        described.collect::<BTreeMap<_, _>>()
    };
    assert_same(&without_links(&alone), &without_links(&new), "beside another");
    assert!(fs_err::read(old.0.join("fs/d/late")).unwrap() == large, "the peer was changed");
    let mut back = Vec::new();
    let opened = open_directory(&new.0).unwrap();
    LayerTar::open(opened.as_fd(), "layer x").unwrap().read_to_end(&mut back).unwrap();
    assert!(back == second);
}
