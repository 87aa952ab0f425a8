//! The lines of all layers on a terminal, redrawn where they changed.
//!
//! Between two drawings the cursor stands at the start of the line below the lines. A drawing goes up to each line that
//! changed and back down; nothing is hidden or saved, so there is nothing to give back. The lines never take more than
//! the screen's height less one, beyond which a terminal cannot go up: of more layers, those that are done leave
//! upwards for good, and those that wait are counted in the last line.
//!
//! Where something else was written below the lines, or they may have been wrapped by a narrower window, they are left
//! as they are and drawn once more below.

use super::Status;
use super::bar::{self, Speed};

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
}

impl Default for Size {
    /// The size of a terminal that does not know its own.
    fn default() -> Size {
        Size { rows: 24, columns: 80 }
    }
}

/// What is on the terminal, and what is to be there.
pub struct Screen {
    moving_word: &'static str,
    size: Size,
    layers: Vec<Layer>,
    /// The lines as they were drawn last, above the cursor.
    drawn: Vec<String>,
    lines_aside: usize,
}

struct Layer {
    id: String,
    status: Status,
    text: String,
    speed: Option<Speed>,
}

impl Layer {
    fn is_done(&self) -> bool {
        matches!(self.status, Status::Done(_))
    }

    fn is_waiting(&self) -> bool {
        matches!(self.status, Status::Waiting(_))
    }
}

impl Screen {
    /// An empty one; `moving_word` is what docker says of a layer whose bytes come.
    pub fn new(moving_word: &'static str) -> Screen {
        let size = Size::default();
        Screen { moving_word, size, layers: Vec::new(), drawn: Vec::new(), lines_aside: 0 }
    }

    /// Takes the terminal's size and the number of lines that others have written to it. If what was drawn may have
    /// moved, it is left behind.
    pub fn forget_if_moved(&mut self, size: Size, lines_aside: usize) {
        let widest = self.drawn.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let is_wrapped = widest >= size.columns;
        let is_above = self.drawn.len() >= size.rows;
        if is_wrapped || is_above || lines_aside != self.lines_aside {
            self.drawn.clear();
        }
        (self.size, self.lines_aside) = (size, lines_aside);
    }

    /// A line below the layers' lines, which are final with it.
    pub fn line(&mut self, text: &str) -> String {
        self.layers.clear();
        self.drawn.clear();
        let mut text = printable(text, "\n");
        text.push('\n');
        text
    }

    /// A new status of a layer, of a new one below the others.
    pub fn status(&mut self, id: &str, status: Status, now_ms: u64) -> String {
        let id = printable(id, "");
        let at = match self.layers.iter().position(|layer| layer.id == id) {
            Some(at) => at,
            None => {
                let text = String::new();
                self.layers.push(Layer { id, status: status.clone(), text, speed: None });
                self.layers.len() - 1
            }
        };
        if let Some(layer) = self.layers.get_mut(at) {
            let room = self.size.columns.saturating_sub(layer.id.len() + 3);
            layer.text = match &status {
                Status::Waiting(text) | Status::Done(text) => text.to_string(),
                Status::Busy(text) => printable(text, ""),
                Status::Moving { done_bytes, total_bytes } => {
                    let speed = layer.speed.get_or_insert_with(|| Speed::new(now_ms, *done_bytes));
                    let speed = speed.update(now_ms, *done_bytes);
                    bar::render(self.moving_word, *done_bytes, *total_bytes, speed, room)
                }
            };
            layer.status = status;
        }
        self.draw()
    }

    fn draw(&mut self) -> String {
        let room = self.size.rows.saturating_sub(1).max(1);
        let leaving = self.take_leaving(room);
        let lines = self.lines(room);
        let mut out = String::new();
        if leaving.is_empty() && lines.len() >= self.drawn.len() {
            for (at, (line, drawn)) in lines.iter().zip(&self.drawn).enumerate() {
                if line != drawn {
                    let up = self.drawn.len() - at;
                    out.push_str(&format!("\x1b[{up}A{line}\x1b[K\r\x1b[{up}B"));
                }
            }
            write_lines(&mut out, lines.get(self.drawn.len()..).unwrap_or_default());
        } else {
            if !self.drawn.is_empty() {
                out.push_str(&format!("\x1b[{}A\x1b[J", self.drawn.len()));
            }
            write_lines(&mut out, &leaving);
            write_lines(&mut out, &lines);
        }
        self.drawn = lines;
        out
    }

    /// The lines of layers that are done, if not all layers fit; they are forgotten.
    fn take_leaving(&mut self, room: usize) -> Vec<String> {
        if self.layers.len() <= room {
            return Vec::new();
        }
        let columns = self.size.columns;
        let done = self.layers.iter().filter(|layer| layer.is_done());
        let lines = done.map(|layer| line_of(layer, columns)).collect();
        self.layers.retain(|layer| !layer.is_done());
        lines
    }

    /// What is to be seen, at most `room` lines: layers at work before those that wait.
    fn lines(&self, room: usize) -> Vec<String> {
        let columns = self.size.columns;
        if self.layers.len() <= room {
            return self.layers.iter().map(|layer| line_of(layer, columns)).collect();
        }
        let busy = self.layers.iter().filter(|layer| !layer.is_waiting());
        let waiting = self.layers.iter().filter(|layer| layer.is_waiting());
        let shown = busy.chain(waiting).take(room - 1);
        let mut lines: Vec<String> = shown.map(|layer| line_of(layer, columns)).collect();
        let more = format!("... and {} more layers", self.layers.len() - lines.len());
        lines.push(cut(more, columns));
        lines
    }
}

fn line_of(layer: &Layer, columns: usize) -> String {
    cut(format!("{}: {}", layer.id, layer.text), columns)
}

/// The last column stays free: a terminal may wrap as soon as it is written.
fn cut(line: String, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

fn write_lines(out: &mut String, lines: &[String]) {
    for line in lines {
        out.push_str(line);
        out.push('\n');
    }
}

/// Registries and errors may say anything; a terminal must not obey it.
fn printable(text: &str, allowed: &str) -> String {
    text.chars().map(|c| if c.is_control() && !allowed.contains(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Status = Status::Done("Pull complete");
    const WAITING: Status = Status::Waiting("Waiting");

    fn screen(rows: usize, columns: usize) -> Screen {
        let mut screen = Screen::new("Downloading");
        screen.forget_if_moved(Size { rows, columns }, 0);
        screen
    }

    fn moving(done_bytes: u64) -> Status {
        Status::Moving { done_bytes, total_bytes: 2_000_000 }
    }

    #[test]
    fn redraws_what_changed() {
        let mut screen = screen(24, 60);
        assert_eq!(screen.line("latest: Pulling from app"), "latest: Pulling from app\n");
        assert_eq!(screen.status("a", WAITING, 0), "a: Waiting\n");
        assert_eq!(screen.status("b", WAITING, 0), "b: Waiting\n");
        assert_eq!(
            screen.status("a", moving(0), 0),
            "\x1b[2Aa: Downloading [>            ]       0B/2MB\x1b[K\r\x1b[2B"
        );
        assert_eq!(
            screen.status("a", moving(1_000_000), 500),
            "\x1b[2Aa: Downloading [======>      ]      1MB/2MB 2MB/s\x1b[K\r\x1b[2B"
        );
        assert_eq!(screen.status("b", DONE, 600), "\x1b[1Ab: Pull complete\x1b[K\r\x1b[1B");
        assert_eq!(screen.status("b", DONE, 600), "");
        assert_eq!(screen.line("Digest: x\nStatus: y"), "Digest: x\nStatus: y\n");
        assert_eq!(screen.status("c", DONE, 700), "c: Pull complete\n");
    }

    #[test]
    fn more_layers_than_lines() {
        let mut screen = screen(4, 80);
        for id in ["a", "b", "c"] {
            screen.status(id, WAITING, 0);
        }
        assert_eq!(screen.status("d", WAITING, 0), "\x1b[1A... and 2 more layers\x1b[K\r\x1b[1B");
        assert_eq!(
            screen.status("d", Status::Busy("Retrying in 2 seconds (reset)".into()), 0),
            "\x1b[3Ad: Retrying in 2 seconds (reset)\x1b[K\r\x1b[3B\x1b[2Aa: Waiting\x1b[K\r\x1b[2B"
        );
        assert_eq!(
            screen.status("a", DONE, 0),
            "\x1b[3A\x1b[Ja: Pull complete\nb: Waiting\nc: Waiting\nd: Retrying in 2 seconds (reset)\n"
        );
        assert_eq!(screen.status("b", DONE, 0), "\x1b[3Ab: Pull complete\x1b[K\r\x1b[3B");
    }

    #[test]
    fn a_window_that_shrinks_and_lines_of_others() {
        let mut screen = screen(24, 80);
        screen.status("a", WAITING, 0);
        screen.status("b", WAITING, 0);
        let after = |screen: &mut Screen, rows, columns, lines_aside| {
            screen.forget_if_moved(Size { rows, columns }, lines_aside);
            screen.status("b", WAITING, 0)
        };
        assert_eq!(after(&mut screen, 24, 11, 0), "", "both fit still");
        let cut = "a: Waitin\nb: Waitin\n";
        assert_eq!(after(&mut screen, 24, 10, 0), cut, "they may be wrapped");
        assert_eq!(after(&mut screen, 24, 10, 1), cut, "a line was written below");
        assert_eq!(after(&mut screen, 24, 10, 1), "");
        assert_eq!(after(&mut screen, 2, 10, 1), "... and 2\n");
        assert_eq!(after(&mut screen, 1, 1, 1), "\n");
        assert_eq!(after(&mut screen, 0, 0, 1), "\n");
    }

    #[test]
    fn a_terminal_is_not_commanded_from_afar() {
        let mut screen = screen(24, 80);
        assert_eq!(screen.line("x\x1b[2J\x07"), "x [2J \n");
        let status = Status::Busy("reset\r\x1b[1A".into());
        assert_eq!(screen.status("a\n", status, 0), "a : reset  [1A\n");
    }
}
