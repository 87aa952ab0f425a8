//! Holds the layering of the code: a module imports only from lines above its own, a crate is used by its owner alone,
//! unsafe code stands in `src/sys` alone.

use std::fs;
use std::path::{Path, PathBuf};

/// The design's layers, bottom first. Modules of one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["sys"],
    &["error", "time", "units", "base64", "stream", "strings", "queue"],
    &["digest", "json", "crc"],
    &["reference", "config"],
    &["oci"],
    &["delta"],
    &["layer"],
    &["registry", "store", "container"],
    &["engine"],
    &["cli"],
];

/// Crates and the modules that may use them. What is not listed here may be used anywhere.
const OWNERS: &[(&str, &[&str])] = &[
    ("rustix", &["sys"]),
    ("libc", &["sys"]),
    ("heapless", &["sys"]),
    ("sha2", &["digest", "registry"]),
    ("blake2", &["delta"]),
    ("tar", &["layer"]),
    ("miniz_oxide", &["layer", "delta"]),
    ("serde", &["layer"]),
    ("postcard", &["layer"]),
    ("ureq", &["registry"]),
    ("rustls", &["registry"]),
    ("argh", &["cli"]),
];

/// A source file: its top-level module and its text without comments and strings of paths.
struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_string();
                let code = fs::read_to_string(&path).unwrap();
                let without_comments = code.lines().map(|line| line.split("//").next().unwrap());
                let text = without_comments.collect::<Vec<_>>().join("\n");
                found.push(Source { path: relative.to_path_buf(), module, text });
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&module))
}

/// Every name that follows `prefix` and ends with `::` or is imported whole.
fn names_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

fn uses_crate(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    text.match_indices(&path).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn modules_import_from_above_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.module != "lib" && s.module != "main") {
        let Some(own) = rank(&source.module) else {
            wrong.push(format!(
                "{}: module {} is in no layer",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for name in names_after(&source.text, "crate::").filter(|name| *name != source.module) {
            match rank(name) {
                Some(other) if other < own => {}
                _ => wrong.push(format!("{}: uses crate::{name}", source.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_are_used_by_their_owners() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, owners) in OWNERS {
            if !owners.contains(&source.module.as_str()) && uses_crate(&source.text, name) {
                wrong.push(format!("{}: {name} belongs to {owners:?}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_sys_alone() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.module != "sys") {
        for word in ["unsafe ", "unsafe{", "allow(unsafe_code)"] {
            if source.text.contains(word) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_test_sees_what_it_looks_for() {
    assert!(uses_crate("use tar::Builder;", "tar"));
    assert!(!uses_crate("crate::layer::tar::Builder; start::x", "tar"));
    let names: Vec<&str> =
        names_after("use crate::sys::file; crate::json::parse", "crate::").collect();
    assert_eq!(names, ["sys", "json"]);
}
