//! What a template is once it is parsed.

use miniserde::json::Value;

/// A piece of a template.
#[derive(Debug)]
pub enum Node {
    /// Copied as it is.
    Text(String),
    /// Evaluated and printed, unless it only sets a variable.
    Print(Pipe),
    /// `if`, `with` or `range`, what is done for it, and else.
    Branch { kind: Branch, pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    /// `break`
    Break,
    /// `continue`
    Continue,
}

/// The actions that have a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    If,
    With,
    Range,
}

/// Commands, each given the value of the one before as its last argument.
#[derive(Debug, Default)]
pub struct Pipe {
    /// Variables that take the value, with their `$`.
    pub variables: Vec<String>,
    /// Whether they exist already (`=`).
    pub is_assignment: bool,
    pub commands: Vec<Command>,
}

/// A function with its arguments, or a lone operand.
#[derive(Debug)]
pub struct Command {
    /// At least one.
    pub operands: Vec<Operand>,
    /// As it stands in the source.
    pub text: String,
}

/// A value, and the fields to follow from it.
#[derive(Debug)]
pub struct Operand {
    pub what: What,
    pub fields: Vec<String>,
    /// Where messages say that it stands.
    pub position: usize,
    pub text: String,
}

#[derive(Debug)]
pub enum What {
    Dot,
    Nil,
    Variable(String),
    Function(String),
    Literal(Value),
    Pipe(Pipe),
}
