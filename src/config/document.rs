//! JSON documents that belong to the user: keys that are not ours stay as they are when one is written again.

use std::io::ErrorKind;
use std::path::Path;

use fs_err::File;
use miniserde::json::{Object, Value};

use crate::error::{Context, Error, Kind, Result};
use crate::json;
use crate::stream::read_at_most;

/// The object in the file at `path`, which may be empty; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Object>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io("read configuration", e)),
    };
    let mut bytes = Vec::new();
    let limit = json::MAX_DOCUMENT_BYTES as u64 + 1;
    read_at_most(&mut file, limit, &mut bytes).context(|| "read configuration".into())?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Some(Object::new()));
    }
    json::parse(&bytes, &format!("configuration {}", path.display())).map(Some)
}

/// The value of `key` in an object of `path`, which is to be what `read` takes it for; `expected` says what that is.
pub(super) fn get<'a, T>(
    object: &'a Object,
    key: &str,
    path: &Path,
    expected: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| {
            let message = format!("configuration {}: `{key}` is not {expected}", path.display());
            Error::new(Kind::Invalid, message)
        }),
    }
}

/// The value of a key that is a string.
pub(super) fn text(object: &Object, key: &str, path: &Path) -> Result<Option<String>> {
    get(object, key, path, "a string", as_text).map(|text| text.map(str::to_string))
}

/// The value of a key that is an object.
pub(super) fn object<'a>(object: &'a Object, key: &str, path: &Path) -> Result<Option<&'a Object>> {
    get(object, key, path, "an object", as_object)
}

pub(super) fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

pub(super) fn as_object(value: &Value) -> Option<&Object> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// The object at `key`, made if there is none.
pub(super) fn object_mut<'a>(object: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    let value = object.entry(key.to_string()).or_insert_with(|| Value::Object(Object::new()));
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Indented by tabs, as Docker writes its own.
pub(super) fn print(object: &Object) -> String {
    let mut text = String::new();
    print_object(object, 1, &mut text);
    text.push('\n');
    text
}

fn print_object(object: &Object, depth: usize, text: &mut String) {
    if object.is_empty() {
        return text.push_str("{}");
    }
    text.push('{');
    for (index, (key, value)) in object.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.extend(std::iter::repeat_n('\t', depth));
        text.push_str(&json::to_string(key));
        text.push_str(": ");
        match value {
            Value::Object(inner) => print_object(inner, depth + 1, text),
            other => text.push_str(&json::to_string(other)),
        }
    }
    text.push('\n');
    text.extend(std::iter::repeat_n('\t', depth - 1));
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_read() {
        let source = "{\n\t\"a\\u0001\": [1,-2,0.5,true,null,\"é\\\"\"],\n\t\"b\": {\n\t\t\"c\": {}\n\t}\n}\n";
        let object: Object = json::parse(source.as_bytes(), "x").unwrap();
        assert_eq!(print(&object), source);
        assert_eq!(print(&Object::new()), "{}\n");
    }
}
