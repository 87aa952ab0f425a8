//! Check: every record is read, and what it names is looked up. Nothing is changed here.
//!
//! A finding says what is wrong, where, and what may be done about it; `engine::check` does that on demand. The rules:
//! what cannot be read is set aside, never deleted; what another version of the engine wrote is left alone; what a crash
//! left of unfinished work is no damage.

use std::path::{Path, PathBuf};

use miniserde::Deserialize;

use super::images::LEAVING;
use super::quarantine::{DAMAGED, disk_bytes};
use super::record;
use super::{ContainerRecord, ContainerState, ReferenceRecord, Store, list};
use crate::delta::ReadAt;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::layer::LayerTar;
use crate::oci::manifest::{Document, Manifest, OCI_MANIFEST};
use crate::sys::lock::Mode;

/// What a check came upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `image sha256:...`, `reference docker.io/library/app:1`.
    pub object: String,
    /// What is wrong with it, or what there is to know of it.
    pub cause: String,
    /// Where it is.
    pub path: PathBuf,
    /// What may be done.
    pub remedy: Remedy,
}

/// What may be done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It is no damage: there is nothing to do.
    Nothing,
    /// It is no damage: the collector will remove it.
    Collect,
    /// Move it under `quarantine/`.
    SetAside,
    /// Move a container's state there and begin a new one.
    RenewState,
    /// Fetch an image's configuration by its digest.
    FetchImage(Digest),
    /// Fetch a layer, if an image has it; else set it aside.
    FetchLayer(Digest),
    /// Another version of the engine may know what to do.
    Leave,
}

impl Finding {
    /// Whether something is not as it was announced.
    pub fn is_damage(&self) -> bool {
        !matches!(self.remedy, Remedy::Nothing | Remedy::Collect)
    }
}

/// What a check of the records came to.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// Every layer that has a place, whole or not.
    pub layers: Vec<Digest>,
    pub images: usize,
    pub references: usize,
    pub containers: usize,
}

impl Store {
    /// Reads every record. Nobody publishes meanwhile.
    pub fn check(&self) -> Result<Checked> {
        let mut check = Check { store: self, result: Checked::default(), used: Vec::new() };
        if !self.data_root.exists() {
            return Ok(check.result);
        }
        let _publish = self.publish()?;
        check.version()?;
        for name in list(&self.path("references"))? {
            check.reference(&name);
        }
        for name in list(&self.path("images"))? {
            check.image(&name);
        }
        for name in list(&self.path("layers"))? {
            check.layer(&name);
        }
        for name in list(&self.path("containers"))? {
            check.container(&name)?;
        }
        check.unfinished()?;
        Ok(check.result)
    }

    /// The same as it came; none if it cannot be read.
    pub fn manifest_bytes(&self, id: &Digest) -> Option<Vec<u8>> {
        self.manifest(id).ok().flatten()?;
        fs_err::read(self.path("images").join(id.hex()).join("manifest.json")).ok()
    }

    /// The manifest that an image was pulled by; none if it was loaded, or made from a delta.
    pub fn manifest(&self, id: &Digest) -> Result<Option<Manifest>> {
        let path = self.path("images").join(id.hex()).join("manifest.json");
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("read the manifest of image {id}"), e)),
        };
        let what = format!("manifest of image {id}");
        match Document::parse(&bytes, OCI_MANIFEST, &what)? {
            Document::Manifest(manifest) if manifest.config.digest()? == *id => Ok(Some(manifest)),
            _ => Err(Error::new(Kind::Corrupt, format!("{what}: it is another's"))),
        }
    }

    /// Begins a new state for a container whose old one cannot be read; that goes to `quarantine/`.
    pub fn renew_state(&self, state: &Path) -> Result<()> {
        self.quarantine(state)?;
        let Some(directory) = state.parent() else { return Ok(()) };
        let error = "its state was damaged".to_string();
        let new = ContainerState { version: record::VERSION, error, ..Default::default() };
        let _publish = self.publish()?;
        record::write(directory, "state.json", &new)
    }
}

/// Whether this is what a torn replacement of a record leaves (`sys::file::replace`).
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".new")
}

struct Check<'a> {
    store: &'a Store,
    result: Checked,
    /// The layers of the images that can be read.
    used: Vec<Digest>,
}

impl Check<'_> {
    fn tell(&mut self, object: String, cause: impl Into<String>, path: PathBuf, remedy: Remedy) {
        self.result.findings.push(Finding { object, cause: cause.into(), path, remedy });
    }

    /// An error of something that is read; `remedy` if it is damage and not merely of another version.
    fn fault(&mut self, object: String, error: &Error, path: PathBuf, remedy: Remedy) {
        let remedy = if error.kind() == Kind::Unsupported { Remedy::Leave } else { remedy };
        self.tell(object, error.to_string(), path, remedy);
    }

    /// A name that is none of ours, or half of ours.
    fn stray(&mut self, kind: &str, path: PathBuf) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let object = format!("{kind} {name:?}");
        if is_leftover(&name) {
            self.tell(object, "a record was being replaced", path, Remedy::Collect);
        } else {
            self.tell(object, "this is no name of the store's", path, Remedy::SetAside);
        }
    }

    /// `Store::open` has refused every content but the right one.
    fn version(&mut self) -> Result<()> {
        let path = self.store.path("version");
        let holds = |name: &str| Ok::<_, Error>(!list(&self.store.path(name))?.is_empty());
        if !path.exists() && (holds("images")? || holds("layers")?) {
            let cause = "it is missing; the next command that writes puts it back";
            self.tell("store version".into(), cause, path, Remedy::Nothing);
        }
        for name in list(&self.store.data_root)?.iter().filter(|name| is_leftover(name)) {
            self.stray("file", self.store.path(name));
        }
        Ok(())
    }

    /// The record, or a finding.
    fn read<T: Deserialize>(&mut self, object: &str, path: &Path, remedy: Remedy) -> Option<T> {
        match record::read(path) {
            Ok(Some(found)) => return Some(found),
            Ok(None) => self.tell(object.into(), "it is missing", path.into(), remedy),
            Err(e) => self.fault(object.into(), &e, path.into(), remedy),
        }
        None
    }

    fn reference(&mut self, name: &str) {
        let path = self.store.path("references").join(name);
        if Digest::from_hex(name).is_none() {
            return self.stray("reference", path);
        }
        let object = format!("reference {name}");
        let found: Option<ReferenceRecord> = self.read(&object, &path, Remedy::SetAside);
        let Some(found) = found else { return };
        self.result.references += 1;
        let object = format!("reference {}", found.name);
        if Digest::of(found.name.as_bytes()).hex() != name {
            self.tell(object, "its record has another's name", path, Remedy::SetAside);
            return;
        }
        match found.reference().and_then(|_| Digest::parse(&found.image)) {
            Err(e) => self.fault(object, &e, path, Remedy::SetAside),
            Ok(id) if self.store.path("images").join(id.hex()).exists() => {}
            Ok(id) if self.store.is_leaving(&id) => {
                self.tell(object, "its image was removed", path, Remedy::Collect);
            }
            Ok(id) => {
                let cause = format!("its image {id} is missing");
                self.tell(object, cause, path, Remedy::FetchImage(id));
            }
        }
    }

    fn image(&mut self, name: &str) {
        let path = self.store.path("images").join(name);
        if name.starts_with(LEAVING) {
            let object = format!("image {name}");
            return self.tell(object, "it was being removed", path, Remedy::Collect);
        }
        let Some(id) = Digest::from_hex(name) else { return self.stray("image", path) };
        let object = format!("image {id}");
        self.result.images += 1;
        let diff_ids = match self.store.image(&id).and_then(|image| image.config.diff_ids()) {
            Ok(diff_ids) => diff_ids,
            Err(e) if e.kind() == Kind::NotFound => {
                let cause = "config.json is missing";
                return self.tell(object, cause, path, Remedy::FetchImage(id));
            }
            Err(e) => return self.fault(object, &e, path, Remedy::FetchImage(id)),
        };
        for diff_id in &diff_ids {
            let layer = self.store.layer_path(diff_id);
            if !layer.exists() {
                let cause = format!("its layer {diff_id} is missing");
                self.tell(object.clone(), cause, layer, Remedy::FetchLayer(*diff_id));
            }
        }
        match self.store.manifest(&id) {
            Ok(Some(manifest)) if manifest.layers.len() != diff_ids.len() => {
                let cause = "its manifest has another number of layers";
                self.tell(object, cause, path.join("manifest.json"), Remedy::SetAside);
            }
            Ok(_) => {}
            Err(e) => self.fault(object, &e, path.join("manifest.json"), Remedy::SetAside),
        }
        self.used.extend(diff_ids);
    }

    /// The record, and of the files that there are a tree and a header record of the right tar.
    fn layer(&mut self, name: &str) {
        let path = self.store.path("layers").join(name);
        let Some(diff_id) = Digest::from_hex(name) else { return self.stray("layer", path) };
        let object = format!("layer {diff_id}");
        self.result.layers.push(diff_id);
        let remedy = Remedy::FetchLayer(diff_id);
        if path.join(DAMAGED).exists() {
            let cause = "it was found damaged and could not be fetched again";
            return self.tell(object, cause, path, remedy);
        }
        let opened = self.store.layer(&diff_id).and_then(|record| {
            let directory = self.store.open_layer(&diff_id)?;
            let tar = LayerTar::open(super::root_fd(&directory), &object)?;
            Ok((tar.diff_id() == diff_id && tar.size_bytes() == record.tar_bytes).then_some(()))
        });
        match opened {
            Ok(Some(())) if self.used.contains(&diff_id) => {}
            Ok(Some(())) => {
                self.tell(object, "no image has it", path, Remedy::Nothing);
            }
            Ok(None) => self.tell(object, "its header record is another's", path, remedy),
            Err(e) => self.fault(object, &e, path, remedy),
        }
    }

    fn container(&mut self, name: &str) -> Result<()> {
        let path = self.store.path("containers").join(name);
        if Digest::from_hex(name).is_none() {
            self.stray("container", path);
            return Ok(());
        }
        let object = format!("container {name}");
        self.result.containers += 1;
        for name in list(&path)?.iter().filter(|name| is_leftover(name)) {
            self.leftover_of(&object, path.join(name))?;
        }
        let record: Option<ContainerRecord> =
            self.read(&object, &path.join("container.json"), Remedy::SetAside);
        let Some(record) = record else {
            // The whole container goes, not its record alone.
            if let Some(found) = self.result.findings.last_mut() {
                found.path = path;
            }
            return Ok(());
        };
        let state = path.join("state.json");
        self.read::<ContainerState>(&object, &state, Remedy::RenewState);
        if record.id != name {
            self.tell(object, "its record is another's", path, Remedy::SetAside);
            return Ok(());
        }
        let object = format!("container {} ({})", record.name, name.get(..12).unwrap_or(name));
        for part in ["diff", "work"].iter().filter(|part| !path.join(part).is_dir()) {
            let cause = format!("its directory {part:?} is missing");
            self.tell(object.clone(), cause, path.clone(), Remedy::SetAside);
        }
        match Digest::parse(&record.image) {
            Err(e) => self.fault(object, &e, path, Remedy::SetAside),
            Ok(id) if !self.store.path("images").join(id.hex()).exists() => {
                let cause = format!("its image {id} is missing");
                self.tell(object, cause, path, Remedy::FetchImage(id));
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// The runner of a container replaces its state without the publish lock: while it lives, this is no leftover.
    fn leftover_of(&mut self, object: &str, path: PathBuf) -> Result<()> {
        let id = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let lock = self.store.container_lock(id.unwrap_or_default(), Mode::TryShared)?;
        if lock.is_some() {
            let cause = "a record was being replaced";
            self.tell(object.into(), cause, path, Remedy::Collect);
        }
        Ok(())
    }

    /// What is under way, or was when the power went, and what was set aside.
    fn unfinished(&mut self) -> Result<()> {
        let directory = self.store.path("stages");
        for name in list(&directory)? {
            let path = directory.join(&name);
            let cause = format!("unfinished, {} bytes", disk_bytes(path.clone()));
            self.tell(format!("stage {name}"), cause, path, Remedy::Collect);
        }
        for (path, bytes) in self.store.quarantined()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let cause = format!("kept to be looked at, {bytes} bytes; yours to remove");
            self.tell(format!("quarantine {name}"), cause, path, Remedy::Nothing);
        }
        Ok(())
    }
}
