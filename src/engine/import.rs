//! Import: an image of one layer, made of a tar of its tree.
//!
//! The tar is the layer, byte for byte; what it has for whiteouts are whiteouts. Nothing is known of the image but what the
//! user says, in the words of a Dockerfile (`oci::change`).

use miniserde::json::{Object, Value};

use super::Engine;
use super::pull::{Committed, layer_record};
use crate::digest::Digest;
use crate::error::{Kind, Result};
use crate::json;
use crate::layer::{self, Unpacked};
use crate::oci::change;
use crate::oci::platform::Platform;
use crate::reference::Reference;
use crate::store::Stage;
use crate::stream::Stream;
use crate::time;

/// What the user says of the image.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The name that it gets.
    pub name: Option<Reference>,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// The comment in its history.
    pub message: String,
    /// What it is for; this machine's if not said.
    pub platform: Option<Platform>,
}

impl Engine {
    /// Makes an image of a tar, plain or compressed, and gives its ID. On success it survives a power cut.
    pub fn import(&self, tar: &mut dyn Stream, options: &ImportOptions) -> Result<Digest> {
        let mut config = Object::new();
        for line in &options.changes {
            change::apply(&mut config, line)?;
        }
        self.store.collect_or_warn(&[]);
        let work = self.store.work()?;
        let mut committed = Committed(Vec::new());
        let image = self.import_layer(tar, &mut committed).and_then(|diff_id| {
            let text = configuration(config, &diff_id, options, &time::now());
            let names: Vec<&Reference> = options.name.iter().collect();
            self.store.commit_image(text.as_bytes(), None, &names)
        });
        drop(work);
        // What could not be read will not be tried again from where it stopped.
        let image = image.map_err(|e| match e.kind() {
            Kind::Unavailable => e.with_kind(Kind::Invalid),
            _ => e,
        });
        self.keep_or_take_back(image, &committed)
    }

    fn import_layer(&self, tar: &mut dyn Stream, committed: &mut Committed) -> Result<Digest> {
        let mut plain = layer::Decoder::open(Box::new(tar), None)?;
        let stage = self.store.stage()?;
        let unpacked = layer::unpack(&mut plain, stage.directory(), "the imported tar")?;
        self.commit_unpacked(stage, &unpacked, committed)
    }

    /// Commits a layer of which nothing was known before, unless it turns out to be here.
    pub(super) fn commit_unpacked(
        &self,
        stage: Stage,
        unpacked: &Unpacked,
        committed: &mut Committed,
    ) -> Result<Digest> {
        let diff_id = unpacked.diff_id;
        if !self.store.has_layer(&diff_id) {
            self.store.commit_layer(stage, &diff_id, layer_record(unpacked))?;
            committed.0.push(diff_id);
        }
        Ok(diff_id)
    }
}

/// The configuration as Docker writes one for an import.
fn configuration(config: Object, diff_id: &Digest, options: &ImportOptions, now: &str) -> String {
    let platform = options.platform.clone().unwrap_or_else(Engine::platform);
    let comment = json::text(&options.message);
    let history = json::object(vec![("comment", comment.clone()), ("created", json::text(now))]);
    let diff_ids = json::text(&diff_id.to_string());
    let rootfs = json::object(vec![("diff_ids", array(diff_ids)), ("type", json::text("layers"))]);
    let mut fields = vec![
        ("architecture", json::text(&platform.architecture)),
        ("comment", comment),
        ("config", Value::Object(config)),
        ("created", json::text(now)),
        ("history", array(Value::Object(history))),
        ("os", json::text(&platform.os)),
        ("rootfs", Value::Object(rootfs)),
    ];
    fields.extend(platform.variant.as_deref().map(|variant| ("variant", json::text(variant))));
    json::to_string(&json::object(fields))
}

fn array(value: Value) -> Value {
    Value::Array([value].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::config::ImageConfig;

    #[test]
    fn writes_dockers_configuration() {
        let mut config = Object::new();
        change::apply(&mut config, "CMD [\"/init\"]").unwrap();
        let options = ImportOptions {
            message: "Imported from -".into(),
            platform: Some(Platform::linux("arm", Some("v6"))),
            ..ImportOptions::default()
        };
        let id = Digest::of(b"");
        let written = configuration(config, &id, &options, "2026-01-02T03:04:05Z");
        let expected = format!(
            r#"{{"architecture":"arm","comment":"Imported from -","config":{{"Cmd":["/init"]}},"created":"2026-01-02T03:04:05Z","history":[{{"comment":"Imported from -","created":"2026-01-02T03:04:05Z"}}],"os":"linux","rootfs":{{"diff_ids":["{id}"],"type":"layers"}},"variant":"v6"}}"#
        );
        assert_eq!(written, expected);
        let parsed = ImageConfig::parse(written.as_bytes(), "x").unwrap();
        assert_eq!(parsed.platform(), Some(Platform::linux("arm", Some("v6"))));
    }
}
