//! The functions: docker's (json, split, join, title, lower, upper, pad, truncate) and those of Go's templates that
//! people use.

use std::cmp::Ordering;

use miniserde::json::{self, Array, Number, Value};

use super::printing;

const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "html", "index", "join", "json", "le", "len", "lower", "lt", "ne",
    "not", "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate",
    "upper",
];

/// The longest padding, in characters.
const MAX_PADDING: usize = 10_000;

/// What functions have to know of what they are called for.
#[derive(Clone, Copy)]
pub struct Manner {
    /// They see titles of columns, and leave them alone.
    pub is_header: bool,
    /// Documents are rows of a listing, which docker writes with `<`, `>` and `&` escaped.
    pub is_row: bool,
}

/// Whether there is a function of this name.
pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function that is known.
pub fn call(name: &str, arguments: &[Value], manner: Manner) -> Result<Value, String> {
    let (least, most) = match name {
        "json" | "title" | "lower" | "upper" | "len" | "not" => (1, 1),
        "split" | "join" | "truncate" | "ne" | "lt" | "le" | "gt" | "ge" => (2, 2),
        "pad" => (3, 3),
        "eq" => (2, usize::MAX),
        "slice" => (1, 3),
        "and" | "or" | "index" | "printf" => (1, usize::MAX),
        _ => (0, usize::MAX),
    };
    if !(least..=most).contains(&arguments.len()) {
        let at_least = if least == most { "" } else { "at least " };
        let got = arguments.len();
        return Err(format!("wrong number of args for {name}: want {at_least}{least} got {got}"));
    }
    let answer = match arguments {
        [] => Ok(Value::String(printing::join(arguments, name == "println"))),
        [first, rest @ ..] if manner.is_header => match (name, rest) {
            ("json", _) => Ok(Value::String(String::new())),
            ("title" | "lower" | "upper" | "truncate" | "split" | "join", _) => Ok(first.clone()),
            _ => apply(name, first, rest, manner),
        },
        [first, rest @ ..] => apply(name, first, rest, manner),
    };
    answer.map_err(|why| format!("error calling {name}: {why}"))
}

fn apply(name: &str, first: &Value, rest: &[Value], manner: Manner) -> Result<Value, String> {
    let text = |text: String| Ok(Value::String(text));
    let truth = |holds: bool| Ok(Value::Bool(holds));
    match name {
        "json" => text(to_json(first, manner)),
        "lower" => text(string(first)?.to_ascii_lowercase()),
        "upper" => text(string(first)?.to_ascii_uppercase()),
        "title" => text(title(string(first)?)),
        "html" => text(escape(&printing::text(first))),
        "split" => {
            let separator = string(argument(rest, 0)?)?;
            let part = |part: &str| Value::String(part.into());
            let parts: Array = match separator {
                "" => string(first)?.chars().map(|c| part(c.encode_utf8(&mut [0; 4]))).collect(),
                _ => string(first)?.split(separator).map(part).collect(),
            };
            Ok(Value::Array(parts))
        }
        "join" => text(join(first, string(argument(rest, 0)?)?)?),
        "pad" => text(pad(string(first)?, argument(rest, 0)?, argument(rest, 1)?)?),
        "truncate" => {
            let length = whole(argument(rest, 0)?)?;
            let first = string(first)?;
            text(first.get(..length).unwrap_or(first).into())
        }
        "len" => length(first).map(|length| Value::Number(Number::U64(length as u64))),
        "index" => rest.iter().try_fold(first.clone(), |value, key| index(&value, key)),
        "slice" => slice(first, rest),
        "not" => truth(!printing::is_true(first)),
        // The evaluation has stopped at the argument that decides; here is the last one.
        "and" | "or" => Ok(rest.last().unwrap_or(first).clone()),
        "eq" => {
            for other in rest {
                if is_equal(first, other)? {
                    return truth(true);
                }
            }
            truth(false)
        }
        "ne" => truth(!is_equal(first, argument(rest, 0)?)?),
        "lt" => truth(order(first, argument(rest, 0)?)?.is_lt()),
        "le" => truth(order(first, argument(rest, 0)?)?.is_le()),
        "gt" => truth(order(first, argument(rest, 0)?)?.is_gt()),
        "ge" => truth(order(first, argument(rest, 0)?)?.is_ge()),
        "printf" => text(printing::format(string(first)?, rest)),
        "print" | "println" => {
            let mut all = vec![first.clone()];
            all.extend(rest.iter().cloned());
            let end = if name == "println" { "\n" } else { "" };
            text(printing::join(&all, name == "println") + end)
        }
        _ => Err("not defined".into()),
    }
}

fn argument(rest: &[Value], at: usize) -> Result<&Value, String> {
    rest.get(at).ok_or_else(|| "an argument is missing".into())
}

fn string(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(text) => Ok(text),
        other => {
            Err(format!("wrong type for value; expected string; got {}", printing::text(other)))
        }
    }
}

fn whole(value: &Value) -> Result<usize, String> {
    let number = match value {
        Value::Number(number) => printing::integer(number),
        _ => None,
    };
    let number = number.ok_or_else(|| {
        format!("wrong type for value; expected int; got {}", printing::text(value))
    })?;
    usize::try_from(number).map_err(|_| format!("index out of range: {number}"))
}

fn to_json(value: &Value, manner: Manner) -> String {
    let text = json::to_string(value);
    match value {
        // These characters occur within strings only.
        Value::Object(_) if manner.is_row => {
            text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
        }
        _ => text,
    }
}

/// Go's strings.Title: the first letter of each word.
fn title(text: &str) -> String {
    let mut starts = true;
    let letter = |c: char| {
        let out = if starts { c.to_ascii_uppercase() } else { c };
        starts = !(c.is_ascii_alphanumeric() || c == '_' || c == '\'');
        out
    };
    text.chars().map(letter).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn join(value: &Value, separator: &str) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Array(array) => {
            let parts: Result<Vec<&str>, String> = array.iter().map(string).collect();
            Ok(parts?.join(separator))
        }
        other => Err(format!("expected []string; got {}", printing::text(other))),
    }
}

fn pad(text: &str, before: &Value, after: &Value) -> Result<String, String> {
    let (before, after) = (whole(before)?.min(MAX_PADDING), whole(after)?.min(MAX_PADDING));
    Ok(match text {
        "" => String::new(),
        text => " ".repeat(before) + text + &" ".repeat(after),
    })
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(array) => Ok(array.len()),
        Value::Object(object) => Ok(object.len()),
        Value::Null => Err("len of nil pointer".into()),
        other => Err(format!("len of {}", printing::text(other))),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match value {
        Value::Array(array) => {
            let at = whole(key)?;
            array.get(at).cloned().ok_or_else(|| format!("index out of range: {at}"))
        }
        Value::Object(object) => {
            let are_texts = object.values().all(|value| matches!(value, Value::String(_)));
            let absent = if are_texts { Value::String(String::new()) } else { Value::Null };
            Ok(object.get(string(key)?).cloned().unwrap_or(absent))
        }
        // Go's nil map of strings.
        Value::Null if matches!(key, Value::String(_)) => Ok(Value::String(String::new())),
        Value::Null => Err("index of untyped nil".into()),
        Value::String(text) => {
            let at = whole(key)?;
            let byte =
                text.as_bytes().get(at).ok_or_else(|| format!("index out of range: {at}"))?;
            Ok(Value::Number(Number::U64(u64::from(*byte))))
        }
        other => Err(format!("can't index item of type {}", printing::text(other))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = length(value)?;
    let from = bounds.first().map_or(Ok(0), whole)?;
    let to = bounds.get(1).map_or(Ok(length), whole)?;
    let outside = || format!("index out of range: {to}");
    match value {
        Value::String(text) => {
            text.get(from..to).map(|part| Value::String(part.into())).ok_or_else(outside)
        }
        Value::Array(array) => {
            let part = array.get(from..to).ok_or_else(outside)?;
            Ok(Value::Array(part.iter().cloned().collect()))
        }
        other => Err(format!("can't slice item of type {}", printing::text(other))),
    }
}

fn is_equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(matches!((a, b), (Value::Null, Value::Null))),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        _ => order(a, b).map(Ordering::is_eq),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => {
            Ok(match (printing::integer(a), printing::integer(b)) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal),
            })
        }
        (Value::String(_) | Value::Number(_), Value::String(_) | Value::Number(_)) => {
            Err("incompatible types for comparison".into())
        }
        _ => Err("invalid type for comparison".into()),
    }
}

fn float(number: &Number) -> f64 {
    match number {
        Number::U64(number) => *number as f64,
        Number::I64(number) => *number as f64,
        Number::F64(number) => *number,
    }
}
