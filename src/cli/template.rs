//! Go templates (Go's text/template, as docker's `--format` takes them) over JSON values: text in, text out.
//!
//! What there is: fields, variables, literals, pipes and parentheses; `if`, `with` and `range` with `else`, `break` and
//! `continue`; trimming, comments; docker's functions and those of Go that people use (`functions`). What there is not:
//! `define`, `template` and `block`, complex numbers, methods, but for `.Label` of docker's listings.
//!
//! A template is parsed once (`lexer`, `parser`) and executed for each value (`evaluate`). Messages are those of Go, with
//! line and column. Where Go tells a missing field of a struct from a missing key of a map, `Missing` says which it is.

mod evaluate;
mod functions;
mod lexer;
mod parser;
mod printing;
mod syntax;

use miniserde::json::Value;

use crate::strings::Strings;
use syntax::Node;

/// The longest template accepted, in bytes.
const MAX_TEMPLATE_BYTES: usize = 64 << 10;

/// A parsed template.
pub struct Template {
    /// What messages call it; empty but for `version`.
    name: &'static str,
    source: String,
    nodes: Vec<Node>,
}

/// What the absence of a field means.
#[derive(Clone, Copy, Debug)]
pub enum Missing {
    /// The value is a row of a listing, of this type in docker.
    Field(&'static str),
    /// The value is a document that may lack anything.
    Key,
}

/// What a template is executed for.
pub struct Context<'a> {
    /// `.` and `$`.
    pub value: &'a Value,
    /// What a missing field is.
    pub missing: Missing,
    /// What `.Label "name"` looks in.
    pub labels: Option<&'a Strings>,
    /// The value holds the titles of columns, which functions leave as they are.
    pub is_header: bool,
}

/// What is wrong with a template, or was when it was executed; where, in bytes of the source.
#[derive(Debug)]
struct Fault {
    position: usize,
    /// The part that failed, if it was executed.
    part: Option<String>,
    why: String,
}

impl Template {
    /// Parses; the error is Go's message.
    pub fn parse(name: &'static str, source: &str) -> Result<Template, String> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("template is longer than {MAX_TEMPLATE_BYTES} bytes"));
        }
        let mut template = Template { name, source: source.into(), nodes: Vec::new() };
        template.nodes = parser::parse(source).map_err(|fault| template.message(fault))?;
        Ok(template)
    }

    /// What it makes of one value; the error is Go's message.
    pub fn execute(&self, context: &Context) -> Result<String, String> {
        evaluate::execute(&self.nodes, context).map_err(|fault| self.message(fault))
    }

    fn message(&self, fault: Fault) -> String {
        /// More of the failed part is not shown.
        const SHOWN: usize = 20;
        let before = self.source.get(..fault.position).unwrap_or(&self.source);
        let line = before.matches('\n').count() + 1;
        let name = self.name;
        let Some(part) = fault.part else {
            return format!("template parsing error: template: {name}:{line}: {}", fault.why);
        };
        let column = before.rfind('\n').map_or(before.len(), |at| before.len() - at);
        let short = match part.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}...", &part[..end]),
            None => part,
        };
        let why = fault.why;
        format!(
            "template parsing error: template: {name}:{line}:{column}: executing \"{name}\" at <{short}>: {why}"
        )
    }
}

#[cfg(test)]
mod tests;
