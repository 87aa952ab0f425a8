//! Values as Go's fmt prints them, and what Go's templates take for true.

use miniserde::json::{Number, Value};

/// Whether `if` takes it: nothing that is zero or empty.
pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(Number::F64(number)) => *number != 0.0,
        Value::Number(number) => integer(number) != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(array) => !array.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

/// A number as an integer, if it is one.
pub fn integer(number: &Number) -> Option<i128> {
    match number {
        Number::U64(number) => Some(i128::from(*number)),
        Number::I64(number) => Some(i128::from(*number)),
        Number::F64(_) => None,
    }
}

/// Appends it as an action prints it: Go's `%v`.
pub fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        value => print_part(value, out),
    }
}

/// The same as a text of its own.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

fn print_part(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(number.to_string().trim_end_matches(".0")),
        Value::String(text) => out.push_str(text),
        Value::Array(array) => {
            out.push('[');
            for (at, value) in array.iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                print_part(value, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push_str("map[");
            for (at, (key, value)) in object.iter().enumerate() {
                out.push_str(if at > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                print_part(value, out);
            }
            out.push(']');
        }
    }
}

/// Go's `print` (a space between operands of which neither is a string) and `println` (a space always).
pub fn join(arguments: &[Value], spaces_always: bool) -> String {
    let mut out = String::new();
    let mut last_was_text = true;
    for (at, value) in arguments.iter().enumerate() {
        let is_text = matches!(value, Value::String(_));
        if at > 0 && (spaces_always || !is_text && !last_was_text) {
            out.push(' ');
        }
        print_part(value, &mut out);
        last_was_text = is_text;
    }
    out
}

/// Go's `%q`, as far as escapes go.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What Go calls the type of a value.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(Number::F64(_)) => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's Sprintf for the verbs `v s d q t x X f c %`, with `-`, `0`, `+`, width and precision.
pub fn format(pattern: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut rest = pattern;
    while let Some((text, after)) = rest.split_once('%') {
        out.push_str(text);
        let (directive, after) = Directive::parse(after);
        rest = after;
        match (directive.verb, arguments.len()) {
            (None, _) => out.push_str("%!(NOVERB)"),
            (Some('%'), _) => out.push('%'),
            (Some(verb), 0) => out.push_str(&format!("%!{verb}(MISSING)")),
            (Some(verb), _) => {
                out.push_str(&directive.apply(verb, arguments.next().unwrap_or(&Value::Null)));
            }
        }
    }
    out.push_str(rest);
    if arguments.len() > 0 {
        let extra: Vec<String> =
            arguments.map(|value| format!("{}={}", type_name(value), text(value))).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// The widest that anything is padded to, or the most decimals.
const MAX_WIDTH: usize = 1_000;

struct Directive {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    verb: Option<char>,
}

impl Directive {
    /// What stands behind a `%`, and the rest.
    fn parse(text: &str) -> (Directive, &str) {
        let flags_end = text.find(|c| !"-+# 0".contains(c)).unwrap_or(text.len());
        let (flags, rest) = text.split_at(flags_end);
        let (width, mut rest) = leading_number(rest);
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let (number, after) = leading_number(after);
            (precision, rest) = (Some(number), after);
        }
        let verb = rest.chars().next();
        let rest = &rest[verb.map_or(0, char::len_utf8)..];
        let left = flags.contains('-');
        let zeros = flags.contains('0') && !left;
        (Directive { left, zeros, plus: flags.contains('+'), width, precision, verb }, rest)
    }

    fn apply(&self, verb: char, value: &Value) -> String {
        let cut = |text: &str| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_string(),
        };
        let body = match (verb, value) {
            ('v' | 's', Value::String(text)) => cut(text),
            ('q', Value::String(text)) => quote(&cut(text)),
            ('x', Value::String(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
            ('d' | 'x' | 'X' | 'c', Value::Number(number)) => match integer(number) {
                Some(number) => self.integer(verb, number),
                None => bad_verb(verb, value),
            },
            ('f', Value::Number(Number::F64(number))) => self.float(*number),
            ('t', Value::Bool(_)) | ('v', _) => text(value).replace("<no value>", "<nil>"),
            ('s', Value::Array(_) | Value::Object(_)) => text(value),
            _ => bad_verb(verb, value),
        };
        let missing = self.width.saturating_sub(body.chars().count());
        let is_number = matches!(value, Value::Number(_));
        match (self.left, self.zeros && is_number, body.strip_prefix(['-', '+'])) {
            (true, ..) => body + &" ".repeat(missing),
            (_, true, Some(digits)) => format!("{}{}{digits}", &body[..1], "0".repeat(missing)),
            (_, true, None) => "0".repeat(missing) + &body,
            _ => " ".repeat(missing) + &body,
        }
    }

    fn integer(&self, verb: char, number: i128) -> String {
        let sign = if number < 0 {
            "-"
        } else if self.plus {
            "+"
        } else {
            ""
        };
        let absolute = number.unsigned_abs() as u64;
        match verb {
            'x' => format!("{sign}{absolute:x}"),
            'X' => format!("{sign}{absolute:X}"),
            'c' => char::from_u32(absolute as u32).unwrap_or('\u{fffd}').to_string(),
            _ => format!("{sign}{absolute}"),
        }
    }

    /// In integers: the library's float formatting would cost 8 KB. What does not fit is printed in the shortest form.
    fn float(&self, number: f64) -> String {
        let decimals = self.precision.unwrap_or(6).min(9) as u32;
        let scaled = number.abs() * 10_f64.powi(decimals as i32);
        if !scaled.is_finite() || scaled > 1e18 {
            return number_text(number);
        }
        let sign = if number < 0.0 {
            "-"
        } else if self.plus {
            "+"
        } else {
            ""
        };
        let rounded = (scaled + 0.5) as u64;
        let scale = 10_u64.pow(decimals);
        match decimals {
            0 => format!("{sign}{rounded}"),
            _ => {
                let width = decimals as usize;
                format!("{sign}{}.{:0width$}", rounded / scale, rounded % scale)
            }
        }
    }
}

fn number_text(number: f64) -> String {
    Number::F64(number).to_string()
}

fn bad_verb(verb: char, value: &Value) -> String {
    match value {
        Value::Null => format!("%!{verb}(<nil>)"),
        value => format!("%!{verb}({}={})", type_name(value), text(value)),
    }
}

fn leading_number(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().unwrap_or(0).min(MAX_WIDTH), rest)
}
