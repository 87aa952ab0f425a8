//! Reading and writing JSON documents, with limits.
//!
//! miniserde says only that a document is wrong, not where; so syntax, nesting and size are looked at first, and the
//! message can tell bad syntax (with its place) from a field of the wrong type.

use miniserde::json::{Object, Value};
use miniserde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// The largest document accepted, in bytes: registries cap manifests at 4 MiB (OCI distribution spec, "Pushing Manifests").
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The deepest nesting accepted; real documents stay under ten.
pub const MAX_DEPTH: usize = 64;

/// Parses `bytes`; `what` names the document in the error: "manifest of busybox:latest".
pub fn parse<T: Deserialize>(bytes: &[u8], what: &str) -> Result<T> {
    let invalid = |why: String| Error::new(Kind::Invalid, format!("parse {what}: {why}"));
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(invalid(format!("{} bytes, the limit is {MAX_DOCUMENT_BYTES}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| invalid(e.to_string()))?;
    check_nesting(text).map_err(invalid)?;
    miniserde::json::from_str(text).map_err(|_| {
        let syntax_ok = miniserde::json::from_str::<AnyObject>(text).is_ok();
        let why =
            if syntax_ok { "a field is missing or has the wrong type" } else { "not valid JSON" };
        invalid(why.into())
    })
}

/// Any object, every field skipped: what tells bad syntax from an unexpected field.
#[derive(Deserialize)]
struct AnyObject {}

/// The document as one line of JSON.
pub fn to_string<T: Serialize>(document: &T) -> String {
    miniserde::json::to_string(document)
}

/// A string as a value.
pub fn text(text: &str) -> Value {
    Value::String(text.to_string())
}

/// An object with these fields.
pub fn object(fields: Vec<(&str, Value)>) -> Object {
    let mut object = Object::new();
    for (key, value) in fields {
        object.insert(key.to_string(), value);
    }
    object
}

/// Removes a field, if it is there.
pub fn remove(object: &mut Object, key: &str) {
    retain(object, &|field| field != key);
}

/// Keeps the fields whose names `is_kept` takes. The object is made anew: to remove from a BTreeMap in place is 3 KB of code.
pub fn retain(object: &mut Object, is_kept: &dyn Fn(&str) -> bool) {
    for (key, value) in std::mem::take(object) {
        if is_kept(&key) {
            object.insert(key, value);
        }
    }
}

fn check_nesting(text: &str) -> Result<(), String> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} deep at byte {offset}"));
        }
    }
    Ok(())
}

/// `text` as a JSON string, quotes included, escaped as Go's encoding/json does it (`<`, `>` and `&` too): documents
/// whose digest must equal one made by Docker's engine need the same bytes.
pub fn quote_as_go(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                quoted.push_str(&format!("\\u{:04x}", c as u32));
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    struct Document {
        name: String,
    }

    fn refusal(text: &str) -> String {
        parse::<Document>(text.as_bytes(), "x").unwrap_err().to_string()
    }

    #[test]
    fn takes_fields_out() {
        let mut object = object(vec![("b", text("1")), ("a", text("2")), ("c", text("3"))]);
        remove(&mut object, "b");
        remove(&mut object, "x");
        assert_eq!(to_string(&object), r#"{"a":"2","c":"3"}"#);
        retain(&mut object, &|key| key > "b");
        assert_eq!(to_string(&object), r#"{"c":"3"}"#);
    }

    #[test]
    fn parses_and_refuses() {
        assert_eq!(parse::<Document>(br#"{"name":"[{","more":[]}"#, "x").unwrap().name, "[{");
        assert_eq!(refusal("{"), "parse x: not valid JSON");
        assert_eq!(refusal("{}"), "parse x: a field is missing or has the wrong type");
        assert_eq!(refusal(&"[".repeat(10_000)), "parse x: nested more than 64 deep at byte 64");
    }

    #[test]
    fn quotes_like_go() {
        assert_eq!(quote_as_go("a\"<b>\u{1}é\\\n"), r#""a\"\u003cb\u003e\u0001é\\\n""#);
    }
}
