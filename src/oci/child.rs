//! The configuration of an image that has all of another and one step more, as Docker writes it (moby, image/image.go,
//! NewChildImage). Both are JSON objects, so that what nobody here knows of a history stays in it.

use miniserde::json::{Array, Object, Value};

use crate::digest::Digest;
use crate::json;

/// What of the parent holds for the child as well.
const KEPT: [&str; 5] = ["architecture", "os", "os.features", "os.version", "variant"];

/// The step that was taken. What is empty is not said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step<'a> {
    /// When, as RFC 3339.
    pub created: &'a str,
    /// Who.
    pub author: &'a str,
    /// The command.
    pub created_by: &'a str,
    /// Whatever there is to note.
    pub comment: &'a str,
    /// The layer that it made, if it made one.
    pub diff_id: Option<Digest>,
}

/// The child's configuration; `config` is what its containers start with.
pub fn configuration(parent: &Object, config: Object, step: &Step) -> String {
    let mut document = Object::new();
    for key in KEPT {
        document.extend(parent.get(key).map(|value| (key.to_string(), value.clone())));
    }
    let mut entry = Object::new();
    for (key, said) in [
        ("author", step.author),
        ("comment", step.comment),
        ("created", step.created),
        ("created_by", step.created_by),
    ] {
        if !said.is_empty() {
            entry.insert(key.into(), json::text(said));
        }
    }
    for key in ["author", "created"] {
        document.extend(entry.get(key).map(|said| (key.to_string(), said.clone())));
    }
    let mut diff_ids = match parent.get("rootfs") {
        Some(Value::Object(rootfs)) => list(rootfs.get("diff_ids")),
        _ => Array::new(),
    };
    match step.diff_id {
        Some(diff_id) => diff_ids.push(json::text(&diff_id.to_string())),
        None => drop(entry.insert("empty_layer".into(), Value::Bool(true))),
    }
    let mut history = list(parent.get("history"));
    history.push(Value::Object(entry));
    let rootfs =
        json::object(vec![("diff_ids", Value::Array(diff_ids)), ("type", json::text("layers"))]);
    document.insert("config".into(), Value::Object(config));
    document.insert("history".into(), Value::Array(history));
    document.insert("rootfs".into(), Value::Object(rootfs));
    json::to_string(&document)
}

fn list(value: Option<&Value>) -> Array {
    match value {
        Some(Value::Array(list)) => list.clone(),
        _ => Array::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = r#"{"architecture":"arm","author":"x","config":{"Cmd":["old"]},"container":"c","created":"2020",
        "history":[{"created":"2020","more":[1]}],"os":"linux","parent":"p","rootfs":{"type":"layers","diff_ids":["a"]},
        "variant":"v7"}"#;

    fn child(parent: &str, step: &Step) -> String {
        let Ok(Value::Object(parent)) = json::parse(parent.as_bytes(), "x") else {
            panic!("no object")
        };
        configuration(&parent, json::object(vec![("Cmd", Value::Null)]), step)
    }

    #[test]
    fn appends_a_layer_and_a_step() {
        let id = Digest::of(b"");
        let step = Step {
            created: "2026",
            author: "me",
            created_by: "sh -c x",
            comment: "why",
            diff_id: Some(id),
        };
        let expected = format!(
            concat!(
                r#"{{"architecture":"arm","author":"me","config":{{"Cmd":null}},"created":"2026","history":[{{"created":"2020","#,
                r#""more":[1]}},{{"author":"me","comment":"why","created":"2026","created_by":"sh -c x"}}],"os":"linux","#,
                r#""rootfs":{{"diff_ids":["a","{}"],"type":"layers"}},"variant":"v7"}}"#
            ),
            id
        );
        assert_eq!(child(PARENT, &step), expected);
    }

    #[test]
    fn a_step_without_a_layer_says_so() {
        let step = Step { created: "2026", ..Step::default() };
        let parent = r#"{"history":null,"rootfs":{"type":"layers","diff_ids":["a"]}}"#;
        assert_eq!(
            child(parent, &step),
            r#"{"config":{"Cmd":null},"created":"2026","history":[{"created":"2026","empty_layer":true}],"rootfs":{"diff_ids":["a"],"type":"layers"}}"#
        );
    }
}
