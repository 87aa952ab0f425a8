//! `WWW-Authenticate`: what a registry asks for when it answers 401 (RFC 9110, section 11.6.1). Pure text.
//!
//! One header may carry several challenges, and the comma that separates them also separates parameters; a word is a
//! parameter's name only if `=` and a value follow. What cannot be read ends the list: a client loses nothing by not
//! understanding a challenge, it only has one less to answer.

/// The most challenges looked at in one answer.
const MAX_CHALLENGES: usize = 16;
/// The most parameters kept of one challenge.
const MAX_PARAMETERS: usize = 32;

/// One challenge: a scheme in lower case and its parameters, names in lower case, in the order given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of the parameter `name` (lower case).
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header value, in order.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut cursor = Cursor { rest: header };
    loop {
        cursor.skip(|b| matches!(b, b' ' | b'\t' | b','));
        let word = cursor.take(is_token).to_ascii_lowercase();
        if word.is_empty() || challenges.len() > MAX_CHALLENGES {
            return challenges;
        }
        match (challenges.last_mut(), cursor.value()) {
            (_, Value::Broken) | (None, Value::Is(_)) => return challenges,
            (Some(challenge), Value::Is(value)) => {
                if challenge.parameters.len() < MAX_PARAMETERS {
                    challenge.parameters.push((word, value));
                }
            }
            (_, Value::Absent) => {
                cursor.skip_token68();
                challenges.push(Challenge { scheme: word, ..Challenge::default() });
            }
        }
    }
}

/// What follows a word: `= value` makes it a parameter, anything else a scheme.
enum Value {
    Absent,
    Is(String),
    Broken,
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        self.take(belongs);
    }

    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let end = self.rest.bytes().position(|b| !belongs(b)).unwrap_or(self.rest.len());
        // Cannot fail: every predicate accepts ASCII only, so `end` lies on a character boundary.
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn value(&mut self) -> Value {
        let before = self.rest;
        self.skip(is_space);
        let Some(rest) = self.rest.strip_prefix('=') else {
            self.rest = before;
            return Value::Absent;
        };
        self.rest = rest;
        self.skip(is_space);
        match self.rest.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted),
            None => match self.take(is_token) {
                "" => Value::Broken,
                value => Value::Is(value.to_string()),
            },
        }
    }

    fn quoted(&mut self, text: &'a str) -> Value {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '"' => {
                    self.rest = text.get(offset + 1..).unwrap_or_default();
                    return Value::Is(value);
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => value.push(c),
            }
        }
        Value::Broken
    }

    /// Passes over credentials in one word (`Negotiate abc==`): it is one only if a comma or the end follows.
    fn skip_token68(&mut self) {
        let before = self.rest;
        self.skip(is_space);
        self.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.skip(|b| b == b'=');
        self.skip(is_space);
        if !self.rest.is_empty() && !self.rest.starts_with(',') {
            self.rest = before;
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull""#,
                "bearer realm=https://a/t service=s scope=repository:x:pull",
            ),
            (r#"Basic realm="a b""#, "basic realm=a b"),
            ("BASIC", "basic"),
            (
                r#"Basic realm="x", Bearer Realm = "y" , service=z"#,
                "basic realm=x; bearer realm=y service=z",
            ),
            (r#"Negotiate abc==, Basic realm="\"q\\,""#, r#"negotiate; basic realm="q\,"#),
            ("Basic, Bearer realm=y", "basic; bearer realm=y"),
            (r#" ,, Basic realm="é""#, "basic realm=é"),
            (r#"Bearer realm="unclosed"#, "bearer"),
            (r#"realm="x""#, ""),
            ("", ""),
            ("é", ""),
            (r#"Bearer realm=,Basic"#, "bearer; basic"),
        ] {
            let shown: Vec<String> = parse(header)
                .iter()
                .map(|c| {
                    let pairs = c.parameters.iter().map(|(k, v)| format!(" {k}={v}"));
                    c.scheme.clone() + &pairs.collect::<String>()
                })
                .collect();
            assert_eq!(shown.join("; "), expected, "{header}");
        }
    }

    #[test]
    fn bounds_what_it_keeps() {
        assert!(parse(&"Basic, ".repeat(10_000)).len() <= MAX_CHALLENGES + 1);
        let many = format!("Bearer {}", "a=b,".repeat(10_000));
        assert_eq!(parse(&many)[0].parameters.len(), MAX_PARAMETERS);
    }
}
