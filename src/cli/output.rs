//! Text for people: standard output that may close early, one-line errors, tables and JSON in Docker's layout.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Kind, Result};
use log::{LevelFilter, Log, Metadata, Record};

/// Writes to standard output. A reader that has gone away is not an error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // There is nobody left to tell.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The same with a line end.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// How many lines `line_aside` has written: whoever redraws a part of the screen must know that it moved.
static LINES_ASIDE: AtomicUsize = AtomicUsize::new(0);

/// The number of lines written to standard error so far.
pub fn lines_aside() -> usize {
    LINES_ASIDE.load(Ordering::Relaxed)
}

/// A line of what goes on, where standard output is a container's.
pub fn line_aside(text: &str) {
    LINES_ASIDE.fetch_add(1, Ordering::Relaxed);
    // Standard error may be closed: an init script can start us without.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// One line on standard error: what failed and why.
pub fn error(message: &str) {
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line_aside(&format!("vaquita: {message}"));
}

/// Does something to each name; one that fails is reported and the rest goes on, as docker does.
pub fn each(
    command: &str,
    names: &[String],
    act: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<i32> {
    if names.is_empty() {
        let message = format!("'vaquita {command}' requires at least 1 argument");
        return Err(Error::new(Kind::Invalid, message));
    }
    let mut code = 0;
    for name in names {
        if let Err(e) = act(name) {
            error(&e.to_string());
            code = 1;
        }
    }
    Ok(code)
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let level = record.level().as_str().to_ascii_lowercase();
        error(&format!("{level}: {}", record.args()));
    }

    fn flush(&self) {}
}

/// Sends warnings, or with `debug` everything of ours, to standard error.
pub fn start_log(debug: bool) {
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Warn });
    // Fails only if a logger is set already, and then that one serves.
    let _ = log::set_logger(&Stderr);
}

/// Columns as Docker lays them out: at least ten wide, three apart; the last one is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    const MIN_WIDTH: usize = 10;
    const GAP: usize = 3;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count() + GAP).max().unwrap_or(0).max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let pad = widths.get(column).map_or(0, |width| width - cell.chars().count());
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    text
}

/// Compact JSON, indented by four spaces a level as `docker inspect` prints it.
pub fn indent_json(compact: &str) -> String {
    let mut text = String::new();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut bytes = compact.chars().peekable();
    while let Some(c) = bytes.next() {
        if in_string {
            text.push(c);
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '{' | '[' if matches!(bytes.peek(), Some('}' | ']')) => {
                text.push(c);
                text.extend(bytes.next());
            }
            '{' | '[' => {
                depth += 1;
                text.push(c);
                new_line(&mut text, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_like_docker() {
        let row = |cells: &[&str]| cells.iter().map(|cell| cell.to_string()).collect();
        let rows = [row(&["REPOSITORY", "TAG", "SIZE"]), row(&["busybox", "latest", "4MB"])];
        assert_eq!(table(&rows), "REPOSITORY   TAG       SIZE\nbusybox      latest    4MB\n");
    }

    #[test]
    fn indents_json() {
        let expected = "[\n    {\n        \"a\": \"{\\\"\",\n        \"b\": []\n    }\n]";
        assert_eq!(indent_json(r#"[{"a":"{\"","b":[]}]"#), expected);
    }
}
