//! Commit: an image of what a container wrote, over the layers of its image.
//!
//! The layer is packed from the upper directory of the container's overlay, and unpacked into a stage as it is packed: no
//! archive lies on the disk in between. A container that runs is read as it is, as `export` reads it: nothing here can
//! freeze it, so a file that is being written may be in the layer by half.
//!
//! What the engine made in the upper directory to mount on is not part of the layer, as it is not in Docker, which keeps it
//! in a layer of its own: empty /dev, /proc and /sys, and the empty files behind /etc/hostname, /etc/hosts and
//! /etc/resolv.conf; with them an /etc that differs from the image's in nothing else. What was made for the user's sake is
//! in the layer, as in Docker: the targets of `-v` and the working directory.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use miniserde::json::{Object, Value};

use super::pull::Committed;
use super::{Engine, pipe};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::json;
use crate::layer;
use crate::oci::change;
use crate::oci::child::{self, Step};
use crate::reference::Reference;
use crate::store::{Container, ContainerRecord};
use crate::stream::Stream;
use crate::sys::entry::{self, EntryKind};
use crate::sys::file::{open_directory, open_directory_at};
use crate::sys::node::{Attributes, Mtime, Xattr};
use crate::time;

/// What the user says of the image.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The name that it gets.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// The comment in its history.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
}

impl Engine {
    /// Makes an image of a container, running or not, and gives its ID. On success it survives a power cut.
    pub fn commit(&self, name: &str, options: &CommitOptions) -> Result<Digest> {
        let container = self.store.find_container(name)?;
        self.store.collect_or_warn(&[]);
        let work = self.store.work()?;
        let mut committed = Committed(Vec::new());
        let image = self.commit_container(&container, options, &mut committed);
        drop(work);
        self.keep_or_take_back(image, &committed).map_err(|e| {
            Error::new(e.kind(), format!("commit container {}", container.record.name)).caused_by(e)
        })
    }

    fn commit_container(
        &self,
        container: &Container,
        options: &CommitOptions,
        committed: &mut Committed,
    ) -> Result<Digest> {
        let image = self.store.image(&Digest::parse(&container.record.image)?)?;
        let parent: Object = json::parse(&image.config_bytes, "the image's configuration")?;
        let config = execution(parent.get("config"), &container.record, &options.changes)?;
        let diff_id = self.commit_upper(container, committed)?;
        // What is removed meanwhile disappears from the tree without an error.
        self.store.find_container(&container.record.id)?;
        let step = Step {
            created: &time::now(),
            author: &options.author,
            created_by: &split_args(&container.record).1.join(" "),
            comment: &options.message,
            diff_id,
        };
        let text = child::configuration(&parent, config, &step);
        let names: Vec<&Reference> = options.name.iter().collect();
        self.store.commit_image(text.as_bytes(), None, &names)
    }

    /// Commits what the container wrote as a layer; `None` if it wrote nothing.
    fn commit_upper(
        &self,
        container: &Container,
        committed: &mut Committed,
    ) -> Result<Option<Digest>> {
        let path = container.directory.join("diff");
        let upper = open_directory(&path).context(|| format!("open {}", path.display()))?;
        let left_out = mount_points(upper.as_fd(), &self.lowers(&container.record.image)?)?;
        let pack = |out: &mut dyn Write| layer::pack_upper(upper.as_fd(), &left_out, out);
        let store = |tar: &mut dyn Stream| {
            let stage = self.store.stage()?;
            let unpacked = layer::unpack(tar, stage.directory(), "what the container wrote")?;
            match unpacked.diff_id == empty_tar() {
                true => Ok(None),
                false => self.commit_unpacked(stage, &unpacked, committed).map(Some),
            }
        };
        pipe::join(pack, store)
    }
}

/// The diff ID of a layer with nothing in it, which Docker does not count as one (moby, layer/empty.go).
fn empty_tar() -> Digest {
    Digest::of(&[0; 1024])
}

/// What containers of the new image start with: what this one started with, then the changes.
fn execution(
    image: Option<&Value>,
    record: &ContainerRecord,
    changes: &[String],
) -> Result<Object> {
    let mut config = match image {
        Some(Value::Object(config)) => config.clone(),
        _ => Object::new(),
    };
    // They were for the first image that is built on the container's.
    json::remove(&mut config, "OnBuild");
    let (entrypoint, command) = split_args(record);
    for (key, words) in [("Cmd", command), ("Entrypoint", entrypoint), ("Env", &record.env)] {
        match words {
            [] => json::remove(&mut config, key),
            words => {
                let words = words.iter().map(|word| json::text(word)).collect();
                config.insert(key.into(), Value::Array(words));
            }
        }
    }
    for (key, said) in [("User", &record.user), ("WorkingDir", &record.working_dir)] {
        if !said.is_empty() {
            config.insert(key.into(), json::text(said));
        }
    }
    for line in changes {
        change::apply(&mut config, line)?;
    }
    // As in a Dockerfile, a new entry point makes the command void that was for another.
    let sets = |instruction: &str| {
        let word = |line: &String| line.split_whitespace().next().map(str::to_ascii_uppercase);
        changes.iter().any(|line| word(line).as_deref() == Some(instruction))
    };
    let has_entrypoint =
        matches!(config.get("Entrypoint"), Some(Value::Array(words)) if !words.is_empty());
    if sets("ENTRYPOINT") && has_entrypoint && !sets("CMD") {
        json::remove(&mut config, "Cmd");
    }
    Ok(config)
}

/// The entry point and the command of a container.
fn split_args(record: &ContainerRecord) -> (&[String], &[String]) {
    let words = record.entrypoint_words.unwrap_or(0) as usize;
    record.args.split_at_checked(words).unwrap_or((&record.args, &[]))
}

/// The paths in an upper directory that the engine made to mount on; `lowers` are the layers below, the top one first.
fn mount_points(upper: BorrowedFd, lowers: &[PathBuf]) -> Result<Vec<&'static str>> {
    const IN_ETC: [(&str, &str); 3] =
        [("hostname", "etc/hostname"), ("hosts", "etc/hosts"), ("resolv.conf", "etc/resolv.conf")];
    let names = |dir: &_| entry::names(dir).context(|| "list".into());
    let mut found = Vec::new();
    for name in ["dev", "proc", "sys"] {
        if let Ok(dir) = open_directory_at(upper, name.as_bytes())
            && names(&dir)?.is_empty()
        {
            found.push(name);
        }
    }
    let Ok(etc) = open_directory_at(upper, b"etc") else { return Ok(found) };
    let before = found.len();
    let is_empty_file = |name: &str| {
        entry::entry_at(etc.as_fd(), name.as_bytes())
            .is_ok_and(|found| found.kind == EntryKind::File && found.size == 0)
    };
    found.extend(IN_ETC.iter().filter(|(name, _)| is_empty_file(name)).map(|(_, path)| *path));
    if names(&etc)?.len() == found.len() - before && etc_of(upper)? == etc_of_image(lowers)? {
        found.push("etc");
    }
    Ok(found)
}

/// Owner, permissions and extended attributes.
type Look = (Attributes, Vec<Xattr>);

/// What /etc looks like in an image that consists of these layers, the top one first; if it has none, as the engine makes it.
fn etc_of_image(lowers: &[PathBuf]) -> Result<Look> {
    for lower in lowers {
        let tree = open_directory(lower).context(|| format!("open {}", lower.display()))?;
        match entry::entry_at(tree.as_fd(), b"etc") {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Ok(found) if found.kind == EntryKind::Directory => return etc_of(tree.as_fd()),
            _ => break,
        }
    }
    Ok((Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Mtime::default() }, Vec::new()))
}

fn etc_of(tree: BorrowedFd) -> Result<Look> {
    let what = || "look at /etc".to_string();
    let found = entry::entry_at(tree, b"etc").context(what)?;
    let etc = open_directory_at(tree, b"etc").context(what)?;
    let mut xattrs = entry::xattrs(etc.as_fd()).context(what)?;
    xattrs.retain(|(name, _)| !name.starts_with(b"trusted.overlay."));
    Ok((Attributes { mtime: Mtime::default(), ..found.attributes }, xattrs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn the_container_comes_before_the_image_and_changes_before_both() {
        let image = r#"{"Cmd":["c"],"Entrypoint":["e"],"Env":["A=1"],"Labels":{"l":"1"},"OnBuild":["RUN x"],"User":"u"}"#;
        for (args, entrypoint_words, changes, expected) in [
            ("e c", 1, &[][..], r#""Cmd":["c"],"Entrypoint":["e"],"#),
            ("e x y", 1, &[], r#""Cmd":["x","y"],"Entrypoint":["e"],"#),
            ("z", 1, &[], r#""Entrypoint":["z"],"#),
            ("x", 0, &[], r#""Cmd":["x"],"#),
            ("e c", 1, &["CMD [\"n\"]"], r#""Cmd":["n"],"Entrypoint":["e"],"#),
            ("e c", 1, &["entrypoint [\"n\"]"], r#""Entrypoint":["n"],"#),
            ("e c", 1, &["ENTRYPOINT []"], r#""Cmd":["c"],"Entrypoint":[],"#),
            (
                "e c",
                1,
                &["ENTRYPOINT [\"n\"]", "CMD [\"m\"]"],
                r#""Cmd":["m"],"Entrypoint":["n"],"#,
            ),
        ] {
            let image: Value = json::parse(image.as_bytes(), "x").unwrap();
            let record = ContainerRecord {
                args: words(args),
                entrypoint_words: Some(entrypoint_words),
                env: words("A=1 B=2"),
                user: "0".into(),
                working_dir: "/w".into(),
                ..ContainerRecord::default()
            };
            let changes: Vec<String> = changes.iter().map(|line| line.to_string()).collect();
            let config = execution(Some(&image), &record, &changes).unwrap();
            let rest = r#""Env":["A=1","B=2"],"Labels":{"l":"1"},"User":"0","WorkingDir":"/w""#;
            assert_eq!(
                json::to_string(&config),
                format!("{{{expected}{rest}}}"),
                "{args} {changes:?}"
            );
        }
    }

    #[test]
    fn an_empty_tar_is_no_layer_to_docker() {
        let known = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
        assert_eq!(empty_tar().to_string(), known);
    }
}
