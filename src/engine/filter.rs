//! The conditions of listings and prunes: `name=value`, as docker's `--filter` takes them.

use crate::error::{Error, Kind, Result};
use crate::strings::Strings;
use crate::time;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Such as `label`.
    pub name: String,
    /// Such as `vendor=x`.
    pub value: String,
}

/// Labels of an image or a container.
pub type Labels = Strings;

impl Filter {
    /// Parses `name=value`; the error is docker's.
    pub fn parse(text: &str) -> Result<Filter, String> {
        let (name, value) =
            text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let name = name.trim().to_ascii_lowercase();
        Ok(Filter { name, value: value.trim().into() })
    }
}

/// Refuses a condition that is not among `known`.
pub(super) fn check(filters: &[Filter], known: &[&str]) -> Result<()> {
    match filters.iter().find(|filter| !known.contains(&filter.name.as_str())) {
        None => Ok(()),
        Some(filter) => Err(Error::new(Kind::Invalid, format!("invalid filter '{}'", filter.name))),
    }
}

/// The values given for one name.
pub(super) fn values<'a>(filters: &'a [Filter], name: &str) -> Vec<&'a str> {
    filters.iter().filter(|f| f.name == name).map(|f| f.value.as_str()).collect()
}

/// The truth given for one name; `None` if there is none.
pub(super) fn truth(filters: &[Filter], name: &str) -> Result<Option<bool>> {
    match values(filters, name).last() {
        None => Ok(None),
        Some(&("true" | "1" | "True" | "TRUE" | "t" | "T")) => Ok(Some(true)),
        Some(&("false" | "0" | "False" | "FALSE" | "f" | "F")) => Ok(Some(false)),
        Some(other) => {
            let message = format!("invalid filter '{name}=[{other}]'");
            Err(Error::new(Kind::Invalid, message))
        }
    }
}

/// Whether labels satisfy every `label` condition, `key` or `key=value`, and no `label!` one.
pub(super) fn labels_match(filters: &[Filter], labels: &Labels) -> bool {
    let has = |condition: &str| match condition.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.get(condition).is_some(),
    };
    values(filters, "label").into_iter().all(has) && !values(filters, "label!").into_iter().any(has)
}

/// The earliest of the `until` conditions, in seconds since the epoch.
pub(super) fn until(filters: &[Filter], now: u64) -> Result<Option<u64>> {
    let moments: Result<Vec<u64>> =
        values(filters, "until").into_iter().map(|text| moment(text, now)).collect();
    Ok(moments?.into_iter().min())
}

/// A moment as docker takes it: seconds since the epoch, a span before now (`24h`, `1h30m`), or a date and time, in
/// UTC unless it says otherwise.
fn moment(text: &str, now: u64) -> Result<u64> {
    let whole_seconds = text.split('.').next().unwrap_or_default();
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && let Ok(seconds) = whole_seconds.parse()
    {
        return Ok(seconds);
    }
    if let Some(span) = span_seconds(text) {
        return Ok(now.saturating_sub(span));
    }
    ["", "Z", ":00Z", ":00:00Z", "T00:00:00Z"]
        .iter()
        .find_map(|end| time::parse(&format!("{text}{end}")))
        .ok_or_else(|| {
            let message = format!("failed to parse value as time or duration: {text:?}");
            Error::new(Kind::Invalid, message)
        })
}

/// Go's durations in hours, minutes and seconds; what is shorter counts for nothing.
fn span_seconds(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3_600,
            "m" => 60,
            "s" => 1,
            "ms" | "us" | "ns" => 0,
            _ => return None,
        };
        sum = sum.saturating_add(number.saturating_mul(seconds));
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Go's path.Match: `*` and `?` match anything but a slash, `[a-z]` and `[^a-z]` a character, `\` the next one.
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit: one character more is the star's.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let matched = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(_), Some(&c)) => one_matches(&pattern[p..], c),
            _ => None,
        };
        match (matched, star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((after, from))) if text.get(from).is_some_and(|c| *c != '/') => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// The length of the pattern's first item, if it matches.
fn one_matches(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (c != '/').then_some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', set @ ..] => {
            let end = set.iter().skip(1).position(|c| *c == ']')? + 1;
            let (set, negated) = match set.get(..end)? {
                ['^', rest @ ..] => (rest, true),
                set => (set, false),
            };
            (in_set(set, c) != negated && c != '/').then_some(end + 2)
        }
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

fn in_set(mut set: &[char], c: char) -> bool {
    loop {
        set = match set {
            [low, '-', high, rest @ ..] if (*low..=*high).contains(&c) => return true,
            [_, '-', _, rest @ ..] => rest,
            [one, ..] if *one == c => return true,
            [_, rest @ ..] => rest,
            [] => return false,
        };
    }
}

/// What no name has, and what means something in regular expressions. A dot means itself here.
const UNKNOWN_SIGNS: &[char] = &['*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\'];

/// Refuses what `has_part` would not take as docker does, whose conditions on names and IDs are regular expressions.
pub(super) fn check_parts(filters: &[Filter], name: &str) -> Result<()> {
    match values(filters, name).iter().find(|value| value.contains(UNKNOWN_SIGNS)) {
        None => Ok(()),
        Some(value) => {
            let message = format!(
                "filter '{name}={value}': of regular expressions only ^ at the start and $ at the end are known"
            );
            Err(Error::new(Kind::Unsupported, message))
        }
    }
}

/// Whether a text has a part, at its start with `^`, at its end with `$`: what of docker's expressions is used for names
/// and IDs.
pub(super) fn has_part(part: &str, text: &str) -> bool {
    match (part.strip_prefix('^'), part.strip_suffix('$')) {
        (Some(rest), Some(_)) => rest.strip_suffix('$') == Some(text),
        (Some(start), None) => text.starts_with(start),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => text.contains(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*", "busy/box", false),
            ("*/*", "team/box", true),
            ("*:latest", "busybox:latest", true),
            ("*a*b", "xaxab", true),
            ("*a*b", "xaxa", false),
            ("b?sy", "busy", true),
            ("b?sy", "b/sy", false),
            ("[a-c]usy", "busy", true),
            ("[^a-c]usy", "busy", false),
            ("[]usy", "busy", false),
            ("\\*", "*", true),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("[", "[", false),
            ("\\", "\\", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
        let many = "*a".repeat(200);
        assert!(!matches_pattern(&many, &"a".repeat(150)), "and it ends");
    }

    #[test]
    fn moments() {
        let now = 1_700_000_000;
        for (text, at) in [
            ("1600000000", 1_600_000_000),
            ("1600000000.25", 1_600_000_000),
            ("24h", now - 86_400),
            ("1h30m5s", now - 5_405),
            ("300ms", now),
            ("99999999999h", 0),
            ("2024-01-01", 1_704_067_200),
            ("2024-01-01T01:00:00", 1_704_070_800),
            ("2024-01-01T01:00", 1_704_070_800),
            ("2024-01-01T01:00:00+01:00", 1_704_067_200),
        ] {
            assert_eq!(moment(text, now).unwrap(), at, "{text}");
        }
        for text in ["", ".", "soon", "h", "12x"] {
            assert!(moment(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn conditions() {
        let parse = |texts: &[&str]| -> Vec<Filter> {
            texts.iter().map(|text| Filter::parse(text).unwrap()).collect()
        };
        let labels = Labels::from_iter([("a".into(), "b=c".into()), ("x".into(), String::new())]);
        for (filters, expected) in [
            (&["label=a"][..], true),
            (&["label=a=b=c", "label=x"], true),
            (&["label=a=b", "label=x"], false),
            (&["label!=x"], false),
            (&["LABEL!=y"], true),
        ] {
            assert_eq!(labels_match(&parse(filters), &labels), expected, "{filters:?}");
        }
        assert!(Filter::parse("label").is_err());
        let message = check(&parse(&["label=x", "nope=1"]), &["label"]).unwrap_err().to_string();
        assert_eq!(message, "invalid filter 'nope'");
        assert_eq!(truth(&parse(&["dangling=1"]), "dangling").unwrap(), Some(true));
        let message = truth(&parse(&["dangling=x"]), "dangling").unwrap_err().to_string();
        assert_eq!(message, "invalid filter 'dangling=[x]'");
        assert!(check_parts(&parse(&["name=^/web.1-a_b$", "id=a|b"]), "name").is_ok());
        let message = check_parts(&parse(&["name=web", "name=a|b"]), "name").unwrap_err();
        assert!(message.to_string().starts_with("filter 'name=a|b': of regular expressions only"));
        for (part, text, expected) in [
            ("eb", "web1", true),
            ("^web", "web1", true),
            ("^web$", "web1", false),
            ("1$", "web1", true),
        ] {
            assert_eq!(has_part(part, text), expected, "{part}");
        }
    }
}
