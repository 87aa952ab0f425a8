//! What a comparison of a layer with its tar notices, change by change.

use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tar::{EntryType, Header};

use vaquita::digest::Digest;
use vaquita::error::Kind;
use vaquita::layer::{Compared, compare, unpack};
use vaquita::sys::file::open_directory;
use vaquita::sys::node;

struct Stage(PathBuf);

impl Drop for Stage {
    fn drop(&mut self) {
        // The test's own failure is what matters.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Stage {
    fn of(tar: &[u8], name: &str) -> Stage {
        let directory = format!("vaquita-compare-{}-{name}", std::process::id());
        let stage = Stage(std::env::temp_dir().join(directory));
        fs::create_dir_all(&stage.0).unwrap();
        unpack(&mut &tar[..], open_directory(&stage.0).unwrap().as_fd(), "layer").unwrap();
        stage
    }

    fn compare(&self, diff_id: &Digest) -> Result<Compared, String> {
        compare(open_directory(&self.0).unwrap().as_fd(), "layer", diff_id).map_err(|error| {
            assert!(matches!(error.kind(), Kind::Corrupt | Kind::NotFound | Kind::Internal));
            error.to_string()
        })
    }
}

fn add(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(3);
    header.set_gid(4);
    header.set_mtime(1_600_000_000);
    header.set_size(content.len() as u64);
    if link.is_empty() {
        tar.append_data(&mut header, path, content).unwrap();
    } else {
        tar.append_link(&mut header, path, link).unwrap();
    }
}

fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, EntryType::Directory, "etc", "", b"");
    tar.append_pax_extensions([("SCHILY.xattr.trusted.mark", &b"kept"[..])]).unwrap();
    add(&mut tar, EntryType::Regular, "etc/passwd", "", b"root:x:0:0\n");
    add(&mut tar, EntryType::Link, "etc/passwd-", "etc/passwd", b"");
    add(&mut tar, EntryType::Symlink, "lib", "usr/lib", b"");
    add(&mut tar, EntryType::Regular, "usr/lib/deep/file", "", &[7; 70_000]);
    add(&mut tar, EntryType::Regular, "lib/through", "", b"a link");
    add(&mut tar, EntryType::Regular, "etc/.wh.gone", "", b"");
    add(&mut tar, EntryType::Regular, "usr/lib/deep/.wh..wh..opq", "", b"");
    add(&mut tar, EntryType::Fifo, "pipe", "", b"");
    add(&mut tar, EntryType::Regular, "twice", "", b"first");
    add(&mut tar, EntryType::Regular, "twice", "", b"second");
    tar.into_inner().unwrap()
}

fn shell(directory: &Path, script: &str) {
    let done = Command::new("sh").arg("-ec").arg(script).current_dir(directory).status();
    assert!(done.unwrap().success(), "{script}");
}

fn set(path: &Path, name: &str, value: &[u8]) {
    let file = fs::File::open(path).unwrap();
    node::set_xattr(file.as_fd(), name.as_bytes(), value).unwrap();
}

/// As the layer's own members have it, after a change that is to be seen by itself.
fn restore_time(path: &Path) {
    shell(path.parent().unwrap(), &format!("touch -hd @1600000000 {}", path.display()));
}

#[test]
fn a_whole_layer_is_whole() {
    let tar = layer();
    let stage = Stage::of(&tar, "whole");
    assert_eq!(stage.compare(&Digest::of(&tar)), Ok(Compared::Whole));
    // Other layers may share its inodes.
    fs::hard_link(stage.0.join("fs/etc/passwd"), stage.0.join("elsewhere")).unwrap();
    assert_eq!(stage.compare(&Digest::of(&tar)), Ok(Compared::Whole));
    let error = stage.compare(&Digest::of(b"another")).unwrap_err();
    assert_eq!(error, format!("its files have the diff ID {}", Digest::of(&tar)));
}

#[test]
fn names_what_differs() {
    type Change = fn(&Path);
    let changes: &[(&str, Change, &str)] = &[
        (
            "mode",
            |fs| fs::set_permissions(fs.join("etc"), Permissions::from_mode(0o700)).unwrap(),
            r#""etc": its mode is 700 and was 755"#,
        ),
        (
            "owner",
            |fs| shell(fs, "chown 3:5 usr/lib/deep/file"),
            r#""usr/lib/deep/file": its owner is 3:5 and was 3:4"#,
        ),
        (
            "time",
            |fs| shell(fs, "touch -d @7 etc/passwd"),
            r#""etc/passwd": its time is 7.000000000 and was 1600000000.000000000"#,
        ),
        (
            "target",
            |fs| {
                fs::remove_file(fs.join("lib")).unwrap();
                symlink("./usr/lib", fs.join("lib")).unwrap();
                restore_time(&fs.join("lib"));
            },
            r#""lib": it points elsewhere"#,
        ),
        (
            "kind",
            |fs| {
                fs::remove_file(fs.join("pipe")).unwrap();
                fs::write(fs.join("pipe"), "").unwrap();
            },
            r#""pipe": it is a File(0) and was a Fifo"#,
        ),
        ("missing", |fs| fs::remove_file(fs.join("pipe")).unwrap(), r#""pipe": it is missing"#),
        (
            "extra",
            |fs| fs::write(fs.join("usr/lib/more"), "").unwrap(),
            r#""usr/lib/more": it is not one of the layer's"#,
        ),
        (
            "link",
            |fs| {
                fs::remove_file(fs.join("etc/passwd-")).unwrap();
                fs::copy(fs.join("etc/passwd"), fs.join("etc/passwd-")).unwrap();
                restore_time(&fs.join("etc"));
            },
            r#""etc/passwd-": it is no link to the same file"#,
        ),
        ("whiteout", |fs| fs::remove_file(fs.join("etc/gone")).unwrap(), r#""etc": its time"#),
        (
            "whiteout2",
            |fs| {
                fs::remove_file(fs.join("etc/gone")).unwrap();
                restore_time(&fs.join("etc"));
            },
            r#""etc/.wh.gone": it is missing"#,
        ),
        (
            "whiteout3",
            |fs| {
                fs::remove_file(fs.join("etc/gone")).unwrap();
                fs::write(fs.join("etc/gone"), "").unwrap();
                restore_time(&fs.join("etc"));
            },
            r#""etc/.wh.gone": it hides nothing"#,
        ),
        (
            "opaque",
            |fs| set(&fs.join("usr/lib/deep"), "trusted.overlay.opaque", b"n"),
            r#""usr/lib/deep": what it hides of the layers below has changed"#,
        ),
        (
            "attribute",
            |fs| set(&fs.join("etc/passwd"), "trusted.mark", b"other"),
            r#""etc/passwd": its attribute trusted.mark differs"#,
        ),
        (
            "attribute2",
            |fs| set(&fs.join("etc/passwd"), "trusted.more", b"x"),
            r#""etc/passwd": its attribute trusted.more is not one of the layer's"#,
        ),
        (
            "implied",
            |fs| fs::set_permissions(fs.join("usr"), Permissions::from_mode(0o700)).unwrap(),
            r#""usr": it was a directory of mode 755"#,
        ),
        (
            "content",
            |fs| {
                let mut bytes = fs::read(fs.join("usr/lib/deep/file")).unwrap();
                bytes[60_000] ^= 1;
                fs::write(fs.join("usr/lib/deep/file"), bytes).unwrap();
                restore_time(&fs.join("usr/lib/deep/file"));
            },
            "its files have the diff ID sha256:",
        ),
        (
            "shadowed",
            |fs| fs::write(fs.join("../shadowed/0"), "fir5t").unwrap(),
            "its files have the diff ID sha256:",
        ),
        (
            "shorter",
            |fs| fs::write(fs.join("lib/through"), "a lin").unwrap(),
            "it has 5 bytes and had 6",
        ),
    ];
    let tar = layer();
    for (name, change, expected) in changes {
        let stage = Stage::of(&tar, name);
        change(&stage.0.join("fs"));
        let error = stage.compare(&Digest::of(&tar)).expect_err(name);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_layer_that_replaces_its_own_symlinks_is_compared_by_content() {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, EntryType::Symlink, "lib", "usr/lib", b"");
    add(&mut tar, EntryType::Regular, "usr/lib/file", "", b"1");
    add(&mut tar, EntryType::Regular, "lib/other", "", b"2");
    add(&mut tar, EntryType::Regular, "lib", "", b"no link");
    let tar = tar.into_inner().unwrap();
    let stage = Stage::of(&tar, "symlinks");
    let compared = stage.compare(&Digest::of(&tar)).unwrap();
    assert!(matches!(compared, Compared::Contents(_)), "{compared:?}");
    fs::write(stage.0.join("fs/usr/lib/other"), "3").unwrap();
    stage.compare(&Digest::of(&tar)).unwrap_err();
}
