//! Changes to an image's configuration in the words of a Dockerfile, as `import -c` takes them: `CMD ["a"]`, `ENV a=b`.
//! The grammar is Docker's (Dockerfile reference; moby, builder/dockerfile/dispatchers.go and BuildFromConfig). A
//! configuration is kept as the JSON object that it is, so that what nobody here knows stays in it.

use miniserde::json::{Number, Object, Value};

use crate::error::{Error, Kind, Result};
use crate::json;

/// The most ports that one range may stand for: there are no more.
const MAX_PORT: u32 = 65_535;

/// Applies one instruction to the `config` object of an image's configuration.
pub fn apply(config: &mut Object, line: &str) -> Result<()> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
    let applied = match word.as_str() {
        "CMD" => set(config, "Cmd", command(rest)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(rest)),
        "ENV" => environment(config, rest),
        "EXPOSE" => expose(config, rest),
        "HEALTHCHECK" => healthcheck(config, rest),
        "LABEL" => label(config, rest),
        "ONBUILD" => on_build(config, rest),
        "STOPSIGNAL" => {
            let signal = stop_signal(one_word(config, rest)?)?;
            set(config, "StopSignal", Value::String(signal))
        }
        "USER" => {
            let user = one_word(config, rest)?;
            set(config, "User", Value::String(user))
        }
        "VOLUME" => volume(config, rest),
        "WORKDIR" => working_dir(config, rest),
        _ => return Err(invalid(format!("{word} is not a valid change command"))),
    };
    applied.map_err(|e| Error::new(e.kind(), format!("change {line:?}")).caused_by(e))
}

fn invalid(why: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, why)
}

fn set(config: &mut Object, key: &str, value: Value) -> Result<()> {
    config.insert(key.to_string(), value);
    Ok(())
}

fn strings(words: Vec<String>) -> Value {
    Value::Array(words.into_iter().map(Value::String).collect())
}

/// The list in a JSON array of strings, the form that Docker calls exec; `None` if it is not one.
fn exec_form(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    json::parse(text.as_bytes(), "the arguments").ok()
}

/// A command in either form.
fn command(text: &str) -> Value {
    match exec_form(text) {
        Some(words) => strings(words),
        None if text.is_empty() => Value::Null,
        None => strings(vec!["/bin/sh".into(), "-c".into(), text.into()]),
    }
}

fn environment(config: &mut Object, rest: &str) -> Result<()> {
    for (name, value) in pairs(config, "ENV", rest)? {
        let variable = format!("{name}={value}");
        let is_it = |known: &&mut Value| match known {
            Value::String(known) => known.split('=').next() == Some(&name),
            _ => false,
        };
        let known = match config.get_mut("Env") {
            Some(Value::Array(env)) => env.iter_mut().find(is_it),
            _ => None,
        };
        match known {
            Some(known) => *known = Value::String(variable),
            None => push(config, "Env", variable),
        }
    }
    Ok(())
}

fn label(config: &mut Object, rest: &str) -> Result<()> {
    for (name, value) in pairs(config, "LABEL", rest)? {
        insert(config, "Labels", name, Value::String(value));
    }
    Ok(())
}

fn expose(config: &mut Object, rest: &str) -> Result<()> {
    let specs = words(config, rest);
    if specs.is_empty() {
        return Err(invalid("EXPOSE requires at least one argument"));
    }
    for spec in specs {
        let (ports, protocol) = spec.split_once('/').unwrap_or((&spec, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse::<u32>().ok().filter(|port| *port <= MAX_PORT);
        let (Some(first), Some(last)) = (port(first), port(last)) else {
            return Err(invalid(format!("invalid containerPort: {ports}")));
        };
        if first > last || !["tcp", "udp", "sctp"].contains(&&*protocol) {
            return Err(invalid(format!("invalid port specification: {spec}")));
        }
        for port in first..=last {
            insert(config, "ExposedPorts", format!("{port}/{protocol}"), empty());
        }
    }
    Ok(())
}

fn volume(config: &mut Object, rest: &str) -> Result<()> {
    let paths = match exec_form(rest) {
        Some(paths) => paths,
        None => words(config, rest),
    };
    if paths.is_empty() {
        return Err(invalid("VOLUME requires at least one argument"));
    }
    for path in paths {
        let path = path.trim().to_string();
        if path.is_empty() {
            return Err(invalid("VOLUME specified can not be an empty string"));
        }
        insert(config, "Volumes", path, empty());
    }
    Ok(())
}

/// A relative directory is below the one before.
fn working_dir(config: &mut Object, rest: &str) -> Result<()> {
    let path = one_word(config, rest)?;
    let before = match config.get("WorkingDir") {
        Some(Value::String(before)) if !path.starts_with('/') => before.clone(),
        _ => String::new(),
    };
    let mut parts = Vec::new();
    for part in before.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    set(config, "WorkingDir", Value::String(format!("/{}", parts.join("/"))))
}

fn on_build(config: &mut Object, rest: &str) -> Result<()> {
    let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match trigger.as_str() {
        "" => return Err(invalid("ONBUILD requires at least one argument")),
        "ONBUILD" => {
            return Err(invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        }
        "MAINTAINER" | "FROM" => {
            return Err(invalid(format!("{trigger} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    push(config, "OnBuild", rest.to_string());
    Ok(())
}

fn stop_signal(text: String) -> Result<String> {
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'-');
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    let is_valid = match is_number {
        true => text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)),
        false => is_name && name.starts_with(|c: char| c.is_ascii_alphabetic()),
    };
    if is_valid { Ok(text) } else { Err(invalid(format!("Invalid signal: {text}"))) }
}

/// `NONE`, or options and `CMD` with a command in either form.
fn healthcheck(config: &mut Object, rest: &str) -> Result<()> {
    let mut check = Object::new();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        rest = after.trim_start();
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(invalid(format!("unknown flag: {name}"))),
        };
        let number = match key {
            "Retries" => value.parse().ok(),
            _ => duration(value),
        };
        let number =
            number.ok_or_else(|| invalid(format!("invalid value {value:?} of --{name}")))?;
        check.insert(key.into(), Value::Number(Number::U64(number)));
    }
    let (word, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match (word.to_ascii_uppercase().as_str(), exec_form(command)) {
        ("NONE", _) if command.is_empty() => vec!["NONE".to_string()],
        ("NONE", _) => return Err(invalid("HEALTHCHECK NONE takes no arguments")),
        ("CMD", _) if command.is_empty() => {
            return Err(invalid("missing command after HEALTHCHECK CMD"));
        }
        ("CMD", Some(words)) => std::iter::once("CMD".to_string()).chain(words).collect(),
        ("CMD", None) => vec!["CMD-SHELL".into(), command.into()],
        (other, _) => return Err(invalid(format!("unknown type {other:?} in HEALTHCHECK"))),
    };
    check.insert("Test".into(), strings(test));
    set(config, "Healthcheck", Value::Object(check))
}

/// Nanoseconds of a Go duration: `1m30s`, `1.5s`, `0`.
fn duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text == "0" {
        return Some(0);
    }
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut part = whole.parse::<u64>().ok()?.checked_mul(*scale)?;
        let mut place = *scale;
        for digit in fraction.chars() {
            place /= 10;
            part = part.checked_add(u64::from(digit.to_digit(10)?) * place)?;
        }
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

fn empty() -> Value {
    Value::Object(Object::new())
}

/// Appends to the list that `key` is, or becomes.
fn push(config: &mut Object, key: &str, value: String) {
    match config.get_mut(key) {
        Some(Value::Array(list)) => list.push(Value::String(value)),
        _ => drop(config.insert(key.to_string(), strings(vec![value]))),
    }
}

/// Sets a member of the object that `key` is, or becomes.
fn insert(config: &mut Object, key: &str, name: String, value: Value) {
    match config.get_mut(key) {
        Some(Value::Object(map)) => drop(map.insert(name, value)),
        _ => {
            let mut map = Object::new();
            map.insert(name, value);
            config.insert(key.to_string(), Value::Object(map));
        }
    }
}

/// The whole rest of a line as one word.
fn one_word(config: &Object, rest: &str) -> Result<String> {
    match rest {
        "" => Err(invalid("it requires exactly one argument")),
        _ => Ok(expand(config, rest)),
    }
}

fn words(config: &Object, rest: &str) -> Vec<String> {
    split(rest).into_iter().map(|word| expand(config, word)).collect()
}

/// `name=value name=value`, or the old `name value with blanks`.
fn pairs(config: &Object, instruction: &str, rest: &str) -> Result<Vec<(String, String)>> {
    let words = split(rest);
    let first = words
        .first()
        .ok_or_else(|| invalid(format!("{instruction} requires at least one argument")))?;
    if !first.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| invalid(format!("{instruction} must have two arguments")))?;
        return Ok(vec![(expand(config, name), expand(config, value.trim()))]);
    }
    let pair = |word: &&str| {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            invalid(format!("can't find = in {word:?}. Must be of the form: name=value"))
        })?;
        match expand(config, name) {
            name if name.is_empty() => {
                Err(invalid(format!("{instruction} names can not be blank")))
            }
            name => Ok((name, expand(config, value))),
        }
    };
    words.iter().map(pair).collect()
}

/// Words at blanks that are neither quoted nor escaped; quotes and escapes stay in them.
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quote, mut escaped) = (None, None, false);
    for (at, c) in text.char_indices() {
        if c.is_ascii_whitespace() && quote.is_none() && !escaped {
            words.extend(start.take().and_then(|start| text.get(start..at)));
            continue;
        }
        start.get_or_insert(at);
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    words.extend(start.and_then(|start| text.get(start..)));
    words
}

/// Takes quotes and escapes away and puts the values of variables in (Dockerfile reference, "Environment replacement").
fn expand(config: &Object, text: &str) -> String {
    let mut out = String::new();
    let (mut rest, mut quote) = (text, None);
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = after;
        match (c, quote) {
            ('\'', None) | ('"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, Some('\'')) => out.push(c),
            ('\\', _) => {
                let next = after.chars().next();
                // Within double quotes only these need one.
                if quote.is_some() && !next.is_some_and(|c| matches!(c, '"' | '$' | '\\')) {
                    out.push('\\');
                    continue;
                }
                out.extend(next);
                rest = after.get(next.map_or(0, char::len_utf8)..).unwrap_or_default();
            }
            ('$', _) => rest = variable(config, after, &mut out),
            (c, _) => out.push(c),
        }
    }
    out
}

/// Puts in the variable whose name, with or without braces, `text` begins with; gives what is behind it.
fn variable<'a>(config: &Object, text: &'a str, out: &mut String) -> &'a str {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let braced = text.strip_prefix('{').and_then(|inner| inner.split_once('}'));
    let (inner, rest) = match braced {
        Some(found) => found,
        None => {
            let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
            text.split_at(end)
        }
    };
    let end = inner.find(|c| !is_name(c)).unwrap_or(inner.len());
    let (name, modifier) = inner.split_at(end);
    if name.is_empty() {
        out.push('$');
        return text;
    }
    let value = value_of(config, name);
    match (modifier.strip_prefix(":-"), modifier.strip_prefix(":+")) {
        (Some(default), _) if value.is_empty() => out.push_str(&expand(config, default)),
        (_, Some(instead)) if !value.is_empty() => out.push_str(&expand(config, instead)),
        (_, Some(_)) => {}
        _ => out.push_str(value),
    }
    rest
}

/// The value of a variable of the configuration; empty if there is none.
fn value_of<'a>(config: &'a Object, name: &str) -> &'a str {
    let Some(Value::Array(env)) = config.get("Env") else { return "" };
    let value = |variable: &'a Value| match variable {
        Value::String(text) => text.strip_prefix(name)?.strip_prefix('='),
        _ => None,
    };
    env.iter().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<String> {
        let mut config = Object::new();
        for line in lines {
            apply(&mut config, line)?;
        }
        Ok(json::to_string(&config))
    }

    #[test]
    fn speaks_dockers_grammar() {
        for (lines, expected) in [
            (&["CMD [\"a\", \"b c\"]"][..], r#"{"Cmd":["a","b c"]}"#),
            (&["cmd echo $HOME"], r#"{"Cmd":["/bin/sh","-c","echo $HOME"]}"#),
            (&["CMD [a, b]"], r#"{"Cmd":["/bin/sh","-c","[a, b]"]}"#),
            (&["ENTRYPOINT [\"a\"]", "ENTRYPOINT x"], r#"{"Entrypoint":["/bin/sh","-c","x"]}"#),
            (&["ENTRYPOINT []"], r#"{"Entrypoint":[]}"#),
            (&["ENV a=1 b=\"2 3\" c=4\\ 5", "ENV a=6"], r#"{"Env":["a=6","b=2 3","c=4 5"]}"#),
            (&["ENV name value with  blanks"], r#"{"Env":["name=value with  blanks"]}"#),
            (
                &["ENV a=x", "ENV b=$a/${a}y${c:-d}${a:+e} c=\\$a d='$a' e=\"$a\\\"\""],
                r#"{"Env":["a=x","b=x/xyde","c=$a","d=$a","e=x\""]}"#,
            ),
            (&["LABEL a=b c.d=\"e f\""], r#"{"Labels":{"a":"b","c.d":"e f"}}"#),
            (
                &["EXPOSE 80 53/UDP 8000-8002/tcp"],
                r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}}"#,
            ),
            (&["USER app:app"], r#"{"User":"app:app"}"#),
            (&["VOLUME /a /b", "VOLUME [\"/c d\"]"], r#"{"Volumes":{"/a":{},"/b":{},"/c d":{}}}"#),
            (&["WORKDIR /a", "WORKDIR b/../c"], r#"{"WorkingDir":"/a/c"}"#),
            (&["STOPSIGNAL SIGRTMIN+3"], r#"{"StopSignal":"SIGRTMIN+3"}"#),
            (&["ONBUILD RUN make", "ONBUILD COPY . /"], r#"{"OnBuild":["RUN make","COPY . /"]}"#),
            (&["HEALTHCHECK NONE"], r#"{"Healthcheck":{"Test":["NONE"]}}"#),
            (
                &["HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD curl localhost"],
                r#"{"Healthcheck":{"Interval":90000000000,"Retries":3,"Test":["CMD-SHELL","curl localhost"],"Timeout":1500000000}}"#,
            ),
            (&["HEALTHCHECK CMD [\"a\",\"b\"]"], r#"{"Healthcheck":{"Test":["CMD","a","b"]}}"#),
        ] {
            assert_eq!(changed(lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn keeps_what_it_does_not_know() {
        let text = r#"{"Domainname":"x","Env":["PATH=/bin"],"Volumes":null}"#;
        let Ok(Value::Object(mut config)) = json::parse::<Value>(text.as_bytes(), "x") else {
            panic!("no object")
        };
        apply(&mut config, "ENV PATH=/sbin:$PATH").unwrap();
        apply(&mut config, "VOLUME /v").unwrap();
        let expected = r#"{"Domainname":"x","Env":["PATH=/sbin:/bin"],"Volumes":{"/v":{}}}"#;
        assert_eq!(json::to_string(&config), expected);
    }

    #[test]
    fn refuses_by_name() {
        for (line, why) in [
            ("RUN make", "RUN is not a valid change command"),
            ("", " is not a valid change command"),
            ("ENV", "change \"ENV\": ENV requires at least one argument"),
            ("ENV a", "change \"ENV a\": ENV must have two arguments"),
            ("ENV a=b c", "can't find = in \"c\". Must be of the form: name=value"),
            ("ENV =b", "ENV names can not be blank"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
            ("EXPOSE 90-80", "invalid port specification: 90-80"),
            ("EXPOSE 80/icmp", "invalid port specification: 80/icmp"),
            ("USER", "it requires exactly one argument"),
            ("STOPSIGNAL 65", "Invalid signal: 65"),
            ("STOPSIGNAL SIG", "Invalid signal: SIG"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("HEALTHCHECK --interval=5 CMD x", "invalid value \"5\" of --interval"),
            ("HEALTHCHECK --interval= CMD x", "invalid value \"\" of --interval"),
            ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK x", "unknown type \"X\" in HEALTHCHECK"),
        ] {
            let error = changed(&[line]).unwrap_err();
            assert!(error.to_string().ends_with(why), "{line}: {error}");
        }
    }
}
