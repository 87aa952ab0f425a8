//! Whole layers, made here, unpacked as root and given back.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use vaquita::delta::ReadAt;
use vaquita::digest::Digest;
use vaquita::error::{Error, Kind, Result};
use vaquita::layer::*;
use vaquita::sys::file::open_directory;
use vaquita::sys::node;
use vaquita::sys::remove::remove_tree;

/// A directory of its own for each test, removed in the end.
struct Stage(PathBuf);

impl Stage {
    fn new(name: &str) -> Stage {
        let path =
            std::env::temp_dir().join(format!("vaquita-layer-{}-{name}", std::process::id()));
        fs_err::create_dir_all(&path).unwrap();
        Stage(path)
    }

    fn unpack(&self, tar: &[u8]) -> Result<Unpacked> {
        let stage = self.0.join("stage");
        let base = open_directory(&self.0).unwrap();
        remove_tree(base.as_fd(), b"stage").unwrap();
        fs_err::create_dir(&stage).unwrap();
        unpack(&mut &tar[..], open_directory(&stage).unwrap().as_fd(), "layer x")
    }

    fn open(&self) -> LayerTar {
        LayerTar::open(open_directory(&self.0.join("stage")).unwrap().as_fd(), "layer x").unwrap()
    }

    fn fs(&self, path: &str) -> PathBuf {
        self.0.join("stage/fs").join(path)
    }

    /// Unpacks, and holds digest, length, both ways of reading back, and the number of open files against the tar.
    fn round_trip(&self, tar: &[u8], what: &str) -> Unpacked {
        let unpacked = self.unpack(tar).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(unpacked.diff_id, Digest::of(tar), "{what}");
        assert_eq!(unpacked.tar_bytes, tar.len() as u64, "{what}");
        let mut layer = self.open();
        let mut back = Vec::new();
        layer.read_to_end(&mut back).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(
            back == tar,
            "{what}: differs at {:?}",
            back.iter().zip(tar).position(|(a, b)| a != b)
        );
        assert_eq!(layer.size_bytes(), tar.len() as u64);
        let mut random = Random(17);
        for _ in 0..50 {
            let offset = random.below(tar.len() as u32 + 10) as usize;
            let mut piece = vec![0; random.below(3000) as usize];
            let count = layer.read_at(offset as u64, &mut piece).unwrap();
            let expected = &tar[offset.min(tar.len())..(offset + piece.len()).min(tar.len())];
            assert!(piece[..count] == *expected, "{what}: {} bytes at {offset}", piece.len());
        }
        let stage = open_directory(&self.0.join("stage")).unwrap();
        compare(stage.as_fd(), "layer x", &unpacked.diff_id)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        unpacked
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
        if limit == 0 { 0 } else { self.next() % limit }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// One member, names put into the header as they are; the padding is not zeros.
fn member(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.as_old_mut().linkflag = [kind];
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    with_header(&mut header, content)
}

fn with_header(header: &mut Header, content: &[u8]) -> Vec<u8> {
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), b'P');
    bytes
}

fn device(kind: u8, name: &str, major: u32, minor: u32) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(EntryType::new(kind));
    header.set_size(0);
    header.set_mode(0o666);
    header.set_device_major(major).unwrap();
    header.set_device_minor(minor).unwrap();
    with_header(&mut header, b"")
}

fn file(name: &str, content: &str) -> Vec<u8> {
    member(b'0', name, "", content.as_bytes())
}

fn directory(name: &str) -> Vec<u8> {
    member(b'5', name, "", b"")
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    member(b'2', name, target, b"")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    member(b'1', name, target, b"")
}

/// `LENGTH KEY=VALUE\n`.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
    member(b'x', "PaxHeaders/x", "", &records)
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    node::xattr(fs_err::File::open(path).unwrap().as_fd(), name.as_bytes()).unwrap()
}

#[test]
fn restores_everything_that_a_tar_says() {
    let stage = Stage::new("restores");
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(130));
    let capability = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut owned = Header::new_ustar();
    owned.set_path("bin/su").unwrap();
    owned.set_size(3);
    owned.set_mode(0o104755);
    owned.set_uid(1000);
    owned.set_gid(5);
    owned.set_mtime(1);
    let mut blank = Header::new_old();
    blank.set_path("blank").unwrap();
    blank.set_size(0);
    let tar = archive(&[
        directory("./"),
        directory("bin/"),
        with_header(&mut owned, b"elf"),
        pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("mtime", b"1234567890.123456789"),
            ("uid", b"3000000"),
            ("gid", b"2999999"),
        ]),
        file("bin/ping", "ping"),
        link("bin/ping6", "/bin/ping"),
        symlink("bin/sh", "/absolute/target"),
        symlink("up", "../../.."),
        member(b'6', "fifo", "", b""),
        device(b'3', "null", 1, 3),
        member(b'L', "././@LongLink", "", format!("{long}\0").as_bytes()),
        file("short", "long name"),
        pax(&[("path", "caf\u{e9}".as_bytes()), ("linkpath", "d\u{e9}j\u{e0}".as_bytes())]),
        symlink("cafe", "deja"),
        with_header(&mut blank, b""),
        member(0, "old-directory/", "", b""),
        member(b'7', "contiguous", "", b"c"),
        member(b'g', "pax_global_header", "", &pax_record("comment", b"0123")),
        file("/rooted/../etc/./passwd", "root"),
    ]);
    let unpacked = stage.round_trip(&tar, "everything");
    assert_eq!((unpacked.file_count, unpacked.file_bytes), (6, 3 + 4 + 9 + 1 + 4));
    let about = |path: &str| {
        let data = fs_err::symlink_metadata(stage.fs(path)).unwrap();
        (data.mode() & 0o7777, data.uid(), data.gid(), data.mtime(), data.mtime_nsec())
    };
    assert_eq!(about("bin/su"), (0o4755, 1000, 5, 1, 0));
    assert_eq!(about("bin/ping"), (0o644, 3_000_000, 2_999_999, 1_234_567_890, 123_456_789));
    assert_eq!(about("bin"), (0o644, 0, 0, 1_600_000_000, 0));
    assert_eq!(about("null"), (0o666, 0, 0, 0, 0));
    assert_eq!(about("blank"), (0, 0, 0, 0, 0));
    assert_eq!(about("bin/sh").3, 1_600_000_000);
    assert_eq!(about("fifo").0, 0o644);
    assert_eq!(about("etc").0, 0o755);
    assert!(fs_err::symlink_metadata(stage.fs("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(xattr(&stage.fs("bin/ping"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&stage.fs("bin/ping"), "user.note").unwrap(), b"a\nb");
    assert_eq!(fs_err::metadata(stage.fs("bin/ping6")).unwrap().nlink(), 2);
    assert_eq!(fs_err::read_link(stage.fs("bin/sh")).unwrap(), Path::new("/absolute/target"));
    assert_eq!(fs_err::read_link(stage.fs("caf\u{e9}")).unwrap(), Path::new("d\u{e9}j\u{e0}"));
    assert_eq!(fs_err::read(stage.fs(&long)).unwrap(), b"long name");
    assert_eq!(fs_err::read(stage.fs("etc/passwd")).unwrap(), b"root");
    assert!(stage.fs("old-directory").is_dir() && !stage.0.join("stage/shadowed").exists());
}

#[test]
fn makes_whiteouts_as_overlayfs_wants_them() {
    let stage = Stage::new("whiteouts");
    let tar = archive(&[
        directory("a/"),
        file("a/.wh.gone", ""),
        file("a/.wh..wh..opq", ""),
        file("a/kept", "x"),
        file("a/.wh.kept", ""),
        directory("a/merged/"),
        file("a/merged/file", "y"),
        file("a/.wh.merged", ""),
        file("a/.wh.replaced", ""),
        directory("a/replaced/"),
        file("a/.wh.file", ""),
        file("a/file", "z"),
        file("a/.wh.implied", "whiteouts with a payload exist"),
        file("a/implied/file", "i"),
        file(".wh..wh.plnk/1.2", "aufs"),
        file("new/.wh.deep", ""),
    ]);
    let unpacked = stage.round_trip(&tar, "whiteouts");
    assert_eq!(unpacked.file_count, 4);
    for path in ["a/gone", "new/deep"] {
        let data = fs_err::symlink_metadata(stage.fs(path)).unwrap();
        assert!(data.file_type().is_char_device() && data.rdev() == 0, "{path}");
    }
    for (path, opaque) in
        [("a", true), ("a/merged", true), ("a/replaced", true), ("a/implied", true), ("new", false)]
    {
        let expected = opaque.then(|| b"y".to_vec());
        assert_eq!(xattr(&stage.fs(path), "trusted.overlay.opaque"), expected, "{path}");
    }
    for (path, content) in
        [("a/kept", "x"), ("a/merged/file", "y"), ("a/file", "z"), ("a/implied/file", "i")]
    {
        assert_eq!(fs_err::read(stage.fs(path)).unwrap(), content.as_bytes(), "{path}");
    }
    assert!(!stage.fs(".wh..wh.plnk").exists());
}

#[test]
fn packs_what_overlayfs_keeps_as_a_layer() {
    let stage = Stage::new("upper");
    let path = |name: &str| stage.0.join("upper").join(name);
    fs_err::create_dir_all(path("opaque")).unwrap();
    fs_err::create_dir_all(path("left/out")).unwrap();
    fs_err::write(path("opaque/file"), "text").unwrap();
    let upper = open_directory(&stage.0.join("upper")).unwrap();
    let set = |name: &str, key: &[u8], value: &[u8]| {
        let directory = open_directory(&path(name)).unwrap();
        node::set_xattr(directory.as_fd(), key, value).unwrap();
    };
    set("opaque", b"trusted.overlay.opaque", b"y");
    set("opaque", b"trusted.overlay.origin", b"x");
    // One node, as the kernel makes them.
    node::make_character_device(upper.as_fd(), b"gone", 0, 0).unwrap();
    node::make_link(upper.as_fd(), b"gone", upper.as_fd(), b"gone too").unwrap();

    let packed = || {
        let mut tar = Vec::new();
        pack_upper(upper.as_fd(), &["left"], &mut tar).map(|()| tar)
    };
    let tar = packed().unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let members = archive.entries().unwrap().map(|entry| {
        let header = entry.unwrap().header().clone();
        format!("{} {:o}", header.path().unwrap().display(), header.mode().unwrap())
    });
    let expected = [
        ".wh.gone 600",
        ".wh.gone too 600",
        "opaque/ 755",
        "opaque/.wh..wh..opq 755",
        "opaque/file 644",
    ];
    assert_eq!(members.collect::<Vec<_>>(), expected);
    stage.round_trip(&tar, "upper");
    for name in ["gone", "gone too"] {
        let metadata = fs_err::symlink_metadata(stage.fs(name)).unwrap();
        assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0, "{name}");
    }
    assert_eq!(xattr(&stage.fs("opaque"), "trusted.overlay.opaque"), Some(b"y".to_vec()));
    assert_eq!(xattr(&stage.fs("opaque"), "trusted.overlay.origin"), None);

    fs_err::write(path("opaque/.wh.x"), "").unwrap();
    let error = packed().unwrap_err().to_string();
    assert!(error.starts_with("pack \"opaque/.wh.x\": "), "{error}");
    set("opaque", b"trusted.overlay.redirect", b"/other");
    let error = packed().unwrap_err().to_string();
    let why = "pack \"opaque\": its content is in another layer, says trusted.overlay.redirect";
    assert_eq!(error, why);
}

#[test]
fn follows_relative_symlinks_that_stay_inside() {
    let stage = Stage::new("follows");
    let tar = archive(&[
        directory("usr/lib/"),
        symlink("lib", "usr/lib"),
        file("lib/x", "one"),
        symlink("usr/lib/up", "../../etc/"),
        directory("etc/"),
        file("lib/up/conf", "two"),
        file("lib/new/y", "three"),
        link("etc/hard", "lib/x"),
        // From here on the name means another directory; what was written through it stays where it is.
        directory("lib/"),
        file("lib/x", "four"),
    ]);
    stage.round_trip(&tar, "links");
    for (path, content) in [
        ("usr/lib/x", "one"),
        ("etc/conf", "two"),
        ("usr/lib/new/y", "three"),
        ("etc/hard", "one"),
        ("lib/x", "four"),
    ] {
        assert_eq!(fs_err::read(stage.fs(path)).unwrap(), content.as_bytes(), "{path}");
    }
    for (path, mtime) in
        [("usr/lib", 1_600_000_000), ("etc", 1_600_000_000), ("lib", 1_600_000_000)]
    {
        assert_eq!(fs_err::symlink_metadata(stage.fs(path)).unwrap().mtime(), mtime, "{path}");
    }
}

#[test]
fn keeps_what_the_tar_has_and_the_tree_has_not() {
    let stage = Stage::new("shadowed");
    let tar = archive(&[
        file("f", "first"),
        file("f", "second, longer"),
        link("hard", "f"),
        file("f", "third"),
        directory("d/"),
        file("d/a", "in the first d"),
        file("d/a", "in the first d, again"),
        file("d/sub/b", "deep"),
        file("d", "d is a file"),
        directory("d/"),
        file("d/a", "in the second d"),
        symlink("d", "elsewhere"),
        symlink("f", "d"),
        file("s", ""),
        member(b'6', "s", "", b""),
        file("s", "after the fifo"),
    ]);
    stage.round_trip(&tar, "shadowed");
    assert_eq!(fs_err::read(stage.fs("hard")).unwrap(), b"second, longer");
    assert_eq!(fs_err::read(stage.fs("s")).unwrap(), b"after the fifo");
    assert_eq!(fs_err::read_link(stage.fs("d")).unwrap(), Path::new("elsewhere"));
    assert_eq!(fs_err::read_dir(stage.0.join("stage/shadowed")).unwrap().count(), 8);
}

#[test]
fn refuses_each_bad_input_by_name() {
    let stage = Stage::new("refuses");
    fs_err::write(stage.0.join("outside"), b"untouched").unwrap();
    let escape = symlink("out", "../..");
    let mut wrong_sum = file("f", "x");
    wrong_sum[0] ^= 1;
    let mut bad_size = file("f", "x");
    bad_size[124] = b'x';
    let sum: u32 =
        bad_size[..148].iter().chain(&bad_size[156..512]).map(|b| u32::from(*b)).sum::<u32>() + 256;
    bad_size[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![file("../outside", "x")], r#"member "../outside": its name climbs out of the layer"#),
        (vec![file("a/../../outside", "x")], "climbs out of the layer"),
        (
            vec![escape.clone(), file("out/outside", "x")],
            r#"member "out/outside": the path leads out of the root"#,
        ),
        (
            vec![symlink("abs", "/tmp"), file("abs/f", "x")],
            r#"through a symlink to the absolute path "/tmp""#,
        ),
        (vec![symlink("loop", "loop"), file("loop/f", "x")], "through too many symlinks"),
        (
            vec![file("f", ""), file("f/g", "x")],
            r#"member "f/g": open its parent directory: Not a directory"#,
        ),
        (
            vec![link("l", "../outside")],
            r#"member "l": hard link target "../outside": its name climbs out"#,
        ),
        (
            vec![escape.clone(), link("l", "out/outside")],
            r#"hard link to "out/outside": the path leads out"#,
        ),
        (vec![link("l", "none")], r#"hard link to "none": the layer has no such file"#),
        (
            vec![link("l", "none/none")],
            r#"hard link to "none/none": open its parent directory: No such file"#,
        ),
        (
            vec![file(".wh.w", ""), link("l", "w")],
            r#"hard link to "w": the layer has no such file"#,
        ),
        (vec![directory("d"), link("l", "d")], r#"hard link to "d": it is a directory"#),
        (vec![file("d/f", ""), link("d", "d/f")], r#"hard link to "d/f""#),
        (vec![device(b'4', "sda", 8, 0)], r#"member "sda": block device 8:0 is none of those"#),
        (vec![device(b'3', "mem", 1, 1)], r#"member "mem": character device 1:1 is none of those"#),
        (
            vec![device(b'3', "forged", 0, 0)],
            r#"member "forged": the character device 0:0 would be a whiteout"#,
        ),
        (vec![file(".wh...", "")], "a whiteout of no name"),
        (vec![file("d/.wh..", "")], "a whiteout of no name"),
        (vec![file(".wh.", "")], "a whiteout of no name"),
        (
            vec![pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]), directory("d")],
            "only overlayfs may set",
        ),
        (vec![file(".", "")], "the root of the layer can only be a directory"),
        (vec![wrong_sum], "no tar header at byte 0"),
        (vec![bad_size], r#"member "f": bad size in its header"#),
        (vec![vec![7; 1024]], "no tar header at byte 0"),
        (vec![vec![0; 512], file("f", "")], "a lone block of zeros before byte 512"),
        (vec![member(b'Z', "z", "", b"")], r#"member "z": unknown kind of member 'Z'"#),
        (vec![symlink("s", "")], "a symlink without a target"),
        (vec![pax(&[("uid", b"4294967295")]), file("f", "")], "user ID 4294967295 is too large"),
        (vec![member(b'x', "x", "", b"9 a=b\n"), file("f", "")], "malformed PAX records"),
        (vec![pax(&[("path", b"a\0b")]), file("f", "")], "its name has a NUL byte"),
        (vec![pax(&[("path", &b"n/".repeat(3000))]), file("f", "")], "its name is too long"),
        (vec![pax(&[("path", &[b'n'; 300])]), file("f", "")], "File name too long"),
        (
            vec![member(b'L', "L", "", &vec![b'n'; 2 << 20])],
            "its header has more than 1048576 bytes",
        ),
        (
            vec![file(".wh.w", &"x".repeat(2 << 20)), file("f", "")],
            "its header has more than 1048576 bytes",
        ),
        (
            vec![pax(&[("size", b"18446744073709551615")]), file("f", "")],
            "18446744073709551615 bytes is impossible",
        ),
        (vec![pax(&[("mtime", b"0")])], "ends between a member's long name and the member"),
    ];
    for (members, why) in &cases {
        let error = stage.unpack(&archive(members)).expect_err(why);
        let text = error.to_string();
        assert!(
            text.starts_with("unpack layer x: ") && text.contains(why),
            "{text:?} lacks {why:?}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
    for cut in [100, 512, 600, 1100, 1800] {
        let whole = [file("f", &"x".repeat(700)), file("g", "x")].concat();
        let error = stage.unpack(&whole[..cut]).unwrap_err();
        let why = format!("the tar ends too early, at byte {cut}");
        assert!(
            error.to_string().contains(&why) && error.kind() == Kind::Corrupt,
            "{cut}: {error}"
        );
    }
    assert_eq!(fs_err::read(stage.0.join("outside")).unwrap(), b"untouched");
    assert_eq!(fs_err::read_dir(&stage.0).unwrap().count(), 2);
}

/// Old GNU sparse format: the map in the header and in one block after it.
fn gnu_sparse(name: &str, size: u64, map: &[(u64, &[u8])]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o600);
    let content: Vec<u8> = map.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    header.set_size(content.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    gnu.set_is_extended(map.len() > 4);
    let mut more = tar::GnuExtSparseHeader::new();
    for (number, (offset, bytes)) in map.iter().enumerate() {
        let slot =
            if number < 4 { &mut gnu.sparse[number] } else { &mut more.sparse_mut()[number - 4] };
        slot.set_offset(*offset);
        slot.set_length(bytes.len() as u64);
    }
    let mut bytes = with_header(&mut header, &content);
    if map.len() > 4 {
        bytes.splice(512..512, more.as_bytes().iter().copied());
    }
    bytes
}

#[test]
fn keeps_holes_of_sparse_files_in_all_four_formats() {
    let stage = Stage::new("sparse");
    let block = [b'a'; 512];
    let map: &[(u64, &[u8])] = &[
        (0, &block),
        (1024, &block),
        (4096, &block),
        (8192, &block),
        (1 << 20, &block),
        (3 << 20, b""),
    ];
    let mut expected = vec![0; 3 << 20];
    for (offset, bytes) in map {
        expected[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    let content: Vec<u8> = map.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let size = (3_u64 << 20).to_string();
    let pairs: Vec<String> =
        map.iter().map(|(offset, bytes)| format!("{offset},{}", bytes.len())).collect();
    let mut prefix =
        format!("{}\n{}\n", map.len(), pairs.join("\n").replace(',', "\n")).into_bytes();
    prefix.resize(512, 0);
    let numbers: Vec<(String, String)> =
        map.iter().map(|(offset, bytes)| (offset.to_string(), bytes.len().to_string())).collect();
    let mut zero: Vec<(&str, &[u8])> = vec![("GNU.sparse.size", size.as_bytes())];
    for (offset, len) in &numbers {
        zero.push(("GNU.sparse.offset", offset.as_bytes()));
        zero.push(("GNU.sparse.numbytes", len.as_bytes()));
    }
    let tar = archive(&[
        gnu_sparse("old", 3 << 20, map),
        pax(&zero),
        member(b'0', "v0.0", "", &content),
        pax(&[
            ("GNU.sparse.name", b"v0.1"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", pairs.join(",").as_bytes()),
        ]),
        member(b'0', "GNUSparseFile.1/x", "", &content),
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.name", b"v1.0"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ]),
        member(b'0', "GNUSparseFile.1/x", "", &[&prefix[..], &content].concat()),
        gnu_sparse("hole", 5_000_000, &[]),
    ]);
    let unpacked = stage.round_trip(&tar, "sparse");
    assert_eq!(unpacked.file_bytes, 4 * (3 << 20) + 5_000_000);
    for name in ["old", "v0.0", "v0.1", "v1.0"] {
        assert!(fs_err::read(stage.fs(name)).unwrap() == expected, "{name}");
        assert!(fs_err::metadata(stage.fs(name)).unwrap().blocks() < 100, "{name} has no holes");
    }
    assert_eq!(fs_err::metadata(stage.fs("hole")).unwrap().len(), 5_000_000);
    for (map, why) in [
        (vec![(512, &block[..]), (0, &block[..])], "out of order"),
        (vec![((3 << 20) - 10, &block[..])], "out of order or too long"),
        (vec![(u64::MAX / 4, &block[..])], "out of order or too long"),
    ] {
        let error =
            stage.unpack(&archive(&[gnu_sparse("s", 3 << 20, &map)])).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// A random but valid sequence of members, with every kind of replacement.
fn random_tar(seed: u32) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(2_654_435_761) | 1);
    let names = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "e/f/g", "d", "e"];
    let mut members = Vec::new();
    let mut files: Vec<&str> = Vec::new();
    for _ in 0..random.below(60) {
        let name = names[random.below(names.len() as u32) as usize];
        // Only directories have something below them, so that every sequence is valid.
        let leaf = name.len() == 1 && name != "d" && name != "e" || name.len() > 1 && name != "d/e";
        match random.below(10) {
            0..=4 if leaf => {
                let count = [0, 1, 511, 512, 513, 5000, 70_000][random.below(7) as usize];
                members.push(member(b'0', name, "", &random.bytes(count)));
                files.push(name);
            }
            5 if leaf => {
                members.push(symlink(name, "a"));
                files.retain(|file| *file != name);
            }
            6 if leaf && !files.is_empty() => {
                let target = files[random.below(files.len() as u32) as usize];
                members.push(link(name, target));
                files.push(name);
            }
            7 if !leaf => members.push(directory(name)),
            8 if !leaf && name == "d" => {
                members.push(file("d", "replaces a directory"));
                members.push(directory("d"));
                files.retain(|file| !file.starts_with("d/"));
            }
            _ => {}
        }
    }
    let mut tar = members.concat();
    let trailer = [0, 512, 1024, 10_240, 100_000][random.below(5) as usize];
    tar.resize(tar.len() + trailer, 0);
    if trailer > 1024 && random.below(2) == 0 {
        tar.extend(random.bytes(1000));
    }
    tar
}

#[test]
fn gives_back_random_tars_exactly() {
    let stage = Stage::new("random");
    for seed in 1..80 {
        stage.round_trip(&random_tar(seed), &format!("seed {seed}"));
    }
    stage.round_trip(b"", "the empty stream");
    stage.round_trip(&[0; 512], "one block of zeros");
    let unpadded = file("f", "no padding at the end");
    stage.round_trip(&unpadded[..512 + 21], "no padding");
}

#[test]
fn notices_files_that_changed() {
    let stage = Stage::new("changed");
    stage.unpack(&archive(&[file("dir/name", "content")])).unwrap();
    for (change, why) in [
        (
            Box::new(|path: &Path| fs_err::write(path, b"cont")) as Box<dyn Fn(&Path) -> _>,
            "it has 4 bytes and had 7",
        ),
        (Box::new(|path: &Path| fs_err::remove_file(path)), "No such file"),
        (Box::new(|path: &Path| fs_err::create_dir(path)), "Is a directory"),
    ] {
        change(&stage.fs("dir/name")).unwrap();
        let error = stage.open().read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(r#"read "dir/name" of layer x"#) && error.contains(why), "{error}");
    }
}

#[test]
fn passes_errors_of_the_stream_on() {
    let stage = Stage::new("stream");
    fs_err::create_dir(stage.0.join("stage")).unwrap();
    struct Lost;
    impl Read for Lost {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::new(Kind::Unavailable, "connection lost").into())
        }
    }
    let head = file("f", "content");
    let dir = open_directory(&stage.0.join("stage")).unwrap();
    let error = unpack(&mut head[..515].chain(Lost), dir.as_fd(), "layer x").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let expected = "unpack layer x: member \"f\": read the tar stream: connection lost";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn unpacks_from_gzip() {
    let stage = Stage::new("gzip");
    let tar = random_tar(99);
    let mut packed = Vec::new();
    let mut writer = gzip::GzipWriter::new(&mut packed, 6);
    writer.write_all(&tar).unwrap();
    writer.finish().unwrap();
    fs_err::create_dir(stage.0.join("stage")).unwrap();
    let dir = open_directory(&stage.0.join("stage")).unwrap();
    let mut reader = Decoder::open(Box::new(&packed[..]), None).unwrap();
    let unpacked = unpack(&mut reader, dir.as_fd(), "layer x").unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&tar));
    assert_eq!(
        fs_err::metadata(stage.0.join("stage/record")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// A tmpfs with the given options on `stage`; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, options: &str) -> Mount {
        fs_err::create_dir_all(&path).unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "vaquita-test"])
            .arg(&path)
            .status();
        assert!(status.unwrap().success(), "mount needs root");
        Mount(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

fn failure(stage: &Path, tar: &[u8]) -> Error {
    let dir = open_directory(stage).unwrap();
    unpack(&mut &tar[..], dir.as_fd(), "layer x").unwrap_err()
}

#[test]
fn says_which_member_met_a_full_or_read_only_disk() {
    let stage = Stage::new("disks");
    let tar = archive(&[file("small", "x"), directory("d"), file("d/large", &"x".repeat(1 << 20))]);
    let full = Mount::new(stage.0.join("full"), "size=256k");
    let error = failure(&full.0, &tar);
    let expected =
        "unpack layer x: member \"d/large\": write file: No space left on device (os error 28)";
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NoSpace, expected));
    let few = Mount::new(stage.0.join("few"), "nr_inodes=5");
    let error = failure(&few.0, &tar);
    let expected =
        "unpack layer x: member \"d/large\": make file: No space left on device (os error 28)";
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NoSpace, expected));
    let read_only = Mount::new(stage.0.join("read-only"), "ro");
    let error = failure(&read_only.0, &tar).to_string();
    assert_eq!(
        error,
        "unpack layer x: make the header record: Read-only file system (os error 30)"
    );
}

#[test]
fn keeps_members_beyond_the_window_whole() {
    let stage = Stage::new("large");
    let mut random = Random(3);
    let large = random.bytes(20 << 20);
    let small: Vec<Vec<u8>> = (0..700).map(|n| file(&format!("s/{n}"), "small")).collect();
    let tar = archive(&[small.concat(), member(b'0', "large", "", &large), file("after", "x")]);
    stage.round_trip(&tar, "large");
    assert!(fs_err::read(stage.fs("large")).unwrap() == large);
}

#[test]
fn gives_back_the_layers_that_docker_saved() {
    let stage = Stage::new("saved");
    let mut names = Vec::new();
    for image in ["v1.tar", "v2.tar"] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/balena-delta").join(image);
        let mut archive = tar::Archive::new(fs_err::File::open(path).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if let Some(id) = name.strip_suffix("/layer.tar") {
                let mut tar = Vec::new();
                entry.read_to_end(&mut tar).unwrap();
                let unpacked = stage.round_trip(&tar, &name);
                assert_eq!(unpacked.diff_id.hex(), id);
                names.push(name);
            }
        }
    }
    assert_eq!(names.len(), 5);
}

/// The processor's time of this thread for a tar of one path so deep.
fn time_of_depth(stage: &Stage, depth: usize) -> std::time::Duration {
    let deep = "d/".repeat(depth) + "file";
    let tar = archive(&[
        pax(&[("path", deep.as_bytes())]),
        file("f", "deep"),
        pax(&[("SCHILY.xattr.user.unkept", b"on a symlink")]),
        symlink("s", "f"),
    ]);
    let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let started = clock();
    stage.round_trip(&tar, "deep");
    (clock() - started).try_into().unwrap()
}

/// Eight times as deep: 64 times as much if each level were walked to from the top.
#[test]
fn makes_deep_paths_in_linear_time() {
    let least = |depth: usize| {
        let name = format!("deep-{depth}");
        (0..3).map(|_| time_of_depth(&Stage::new(&name), depth)).min().unwrap()
    };
    let (shallow, deep) = (least(250), least(2000));
    assert!(deep < 30 * shallow, "{deep:?}, and {shallow:?} for an eighth");
    let stage = Stage::new("deep");
    time_of_depth(&stage, 2000);
    let mut component = open_directory(&stage.fs("")).unwrap();
    for _ in 0..2000 {
        component = vaquita::sys::file::open_directory_at(component.as_fd(), b"d").unwrap();
    }
    assert!(node::kind_at(component.as_fd(), b"file").unwrap() == Some(node::NodeKind::File));
}
