//! The source of a template as text and actions, and an action as tokens.

use miniserde::json::{self, Number, Value};

use super::Fault;

/// Text, or what stands between `{{` and `}}`.
#[derive(Debug)]
pub enum Piece<'a> {
    Text(&'a str),
    /// Without trimming marks; and where it begins.
    Action(&'a str, usize),
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// A word: a keyword or a function.
    Word(String),
    /// `.Name`
    Field(String),
    /// `.`
    Dot,
    /// `$name`
    Variable(String),
    Literal(Value),
    /// One of `( ) | , =` and `:` for `:=`.
    Mark(char),
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub position: usize,
    pub end: usize,
    /// Whether white space, or nothing, is before it: `.A .B` is not `.A.B`.
    pub is_apart: bool,
}

fn fault(position: usize, why: impl Into<String>) -> Fault {
    Fault { position, part: None, why: why.into() }
}

/// Splits a source; comments are gone, and so is the space that `{{-` and `-}}` take away.
pub fn pieces(source: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let (mut rest, mut trims) = (source, false);
    loop {
        let at = source.len() - rest.len();
        let (text, action) = match rest.split_once("{{") {
            Some((text, action)) => (text, Some(action)),
            None => (rest, None),
        };
        let text = if trims { text.trim_start() } else { text };
        let Some(action) = action else {
            pieces.push(Piece::Text(text));
            return Ok(pieces);
        };
        let opening = at + rest.len() - action.len();
        let (inner, trims_before) = match action.strip_prefix('-') {
            Some(inner) if inner.starts_with(char::is_whitespace) => (inner, true),
            _ => (action, false),
        };
        pieces.push(Piece::Text(if trims_before { text.trim_end() } else { text }));
        let is_comment = inner.trim_start().starts_with("/*");
        let length = match is_comment {
            true => comment_end(inner).ok_or_else(|| fault(opening, "unclosed comment"))?,
            false => action_end(inner, opening)?,
        };
        let (inner, after) = (&inner[..length], &inner[length + 2..]);
        trims = inner.strip_suffix('-').is_some_and(|i| i.ends_with(char::is_whitespace));
        if !is_comment {
            let inner = if trims { &inner[..inner.len() - 1] } else { inner };
            pieces.push(Piece::Action(inner, source.len() - after.len() - 2 - length));
        }
        rest = after;
    }
}

/// The length up to the `}}` that ends a comment, which must follow its `*/`.
fn comment_end(inner: &str) -> Option<usize> {
    let end = inner.find("*/")? + 2;
    let rest = &inner[end..];
    let close = rest.find("}}")?;
    let between = rest[..close].trim_start();
    matches!(between, "" | "-").then_some(end + close)
}

/// The length up to the `}}` that ends an action: none within a string.
fn action_end(inner: &str, opening: usize) -> Result<usize, Fault> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('`') if c != '`' => {}
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(q) if c == '\n' => return Err(fault(opening, unterminated(q))),
            Some(_) => {}
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            None if inner[at..].starts_with("}}") => return Ok(at),
            None => {}
        }
    }
    Err(fault(opening, quote.map_or("unclosed action", unterminated)))
}

fn unterminated(quote: char) -> &'static str {
    match quote {
        '`' => "unterminated raw quoted string",
        '"' => "unterminated quoted string",
        _ => "unterminated character constant",
    }
}

/// The tokens of an action that begins at `start`.
pub fn tokens(action: &str, start: usize) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut is_apart = true;
    while let Some(c) = action[at..].chars().next() {
        if c.is_ascii_whitespace() {
            (at, is_apart) = (at + c.len_utf8(), true);
            continue;
        }
        let (kind, length) = token(&action[at..], c, start + at)?;
        tokens.push(Token { kind, position: start + at, end: start + at + length, is_apart });
        (at, is_apart) = (at + length, false);
    }
    Ok(tokens)
}

fn token(rest: &str, first: char, position: usize) -> Result<(Kind, usize), Fault> {
    let word = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_string()
    };
    let second = rest[first.len_utf8()..].chars().next().unwrap_or(' ');
    Ok(match first {
        '.' if second.is_ascii_alphabetic() || second == '_' => {
            let name = word(&rest[1..]);
            let length = 1 + name.len();
            (Kind::Field(name), length)
        }
        '.' if !second.is_ascii_digit() => (Kind::Dot, 1),
        '$' => {
            let name = format!("${}", word(&rest[1..]));
            let length = name.len();
            (Kind::Variable(name), length)
        }
        '(' | ')' | '|' | ',' | '=' => (Kind::Mark(first), 1),
        ':' if second == '=' => (Kind::Mark(':'), 2),
        '"' | '`' | '\'' => quoted(rest, first, position)?,
        _ if first.is_ascii_digit() || matches!(first, '+' | '-' | '.') => number(rest, position)?,
        _ if first.is_ascii_alphabetic() || first == '_' => {
            let word = word(rest);
            let length = word.len();
            (Kind::Word(word), length)
        }
        _ => {
            let code = u32::from(first);
            return Err(fault(position, format!("bad character U+{code:04X} '{first}'")));
        }
    })
}

/// A string, or a character constant, which is a number.
fn quoted(rest: &str, quote: char, position: usize) -> Result<(Kind, usize), Fault> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote && quote == '\'' => {
                let code = text.chars().next().map_or(0, u64::from);
                return Ok((Kind::Literal(Value::Number(Number::U64(code))), at + 1));
            }
            c if c == quote => return Ok((Kind::Literal(Value::String(text)), at + 1)),
            '\\' if quote != '`' => {
                let (_, escape) = chars.next().unwrap_or((0, ' '));
                text.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '\\' | '"' | '\'' => escape,
                    _ => return Err(fault(position, "invalid syntax")),
                });
            }
            c => text.push(c),
        }
    }
    Err(fault(position, unterminated(quote)))
}

fn number(rest: &str, position: usize) -> Result<(Kind, usize), Fault> {
    let in_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    let length = rest.find(|c| !in_number(c)).unwrap_or(rest.len());
    let text = &rest[..length];
    let digits = text.strip_prefix('+').unwrap_or(text);
    let value = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(Number::U64),
        None => json::from_str::<Number>(digits).ok(),
    };
    match value {
        Some(value) => Ok((Kind::Literal(Value::Number(value)), length)),
        None => Err(fault(position, format!("bad number syntax: {text:?}"))),
    }
}
