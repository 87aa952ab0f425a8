//! Tokens to a tree.

use miniserde::json::Value;

use super::lexer::{self, Kind, Piece, Token};
use super::syntax::{Branch, Command, Node, Operand, Pipe, What};
use super::{Fault, functions};

/// How deep actions and parentheses may nest, together.
const MAX_NESTING: usize = 64;

/// Parses a whole template.
pub fn parse(source: &str) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        source,
        pieces: lexer::pieces(source)?.into_iter(),
        variables: vec!["$".into()],
        tokens: Vec::new().into_iter().peekable(),
        nesting: 0,
        ranges: 0,
        end: 0,
    };
    match parser.nodes()? {
        (nodes, Stop::EndOfSource) => Ok(nodes),
        (_, Stop::End) => Err(parser.fault("unexpected {{end}}")),
        (_, Stop::Else) => Err(parser.fault("unexpected {{else}}")),
    }
}

/// What ended a list of nodes.
#[derive(PartialEq, Eq)]
enum Stop {
    EndOfSource,
    End,
    Else,
}

struct Parser<'a> {
    source: &'a str,
    pieces: std::vec::IntoIter<Piece<'a>>,
    /// Those of the action at hand.
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    /// Names in scope, the innermost last.
    variables: Vec<String>,
    nesting: usize,
    ranges: usize,
    /// Where the last token ended.
    end: usize,
}

impl Parser<'_> {
    fn fault(&self, why: impl Into<String>) -> Fault {
        Fault { position: self.end, part: None, why: why.into() }
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.nesting += 1;
        match self.nesting > MAX_NESTING {
            true => Err(self.fault(format!("nested more than {MAX_NESTING} deep"))),
            false => Ok(()),
        }
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next();
        self.end = token.as_ref().map_or(self.end, |token| token.end);
        token
    }

    /// Takes the next token if it is this word.
    fn takes_word(&mut self, wanted: &str) -> bool {
        let is = matches!(self.tokens.peek(), Some(Token { kind: Kind::Word(word), .. }) if word == wanted);
        if is {
            self.next();
        }
        is
    }

    fn takes_mark(&mut self, wanted: char) -> bool {
        let is = matches!(self.tokens.peek(), Some(Token { kind: Kind::Mark(mark), .. }) if *mark == wanted);
        if is {
            self.next();
        }
        is
    }

    fn expect_end(&mut self, of: &str) -> Result<(), Fault> {
        match self.next() {
            None => Ok(()),
            Some(token) => Err(self.unexpected(&token, of)),
        }
    }

    fn unexpected(&self, token: &Token, of: &str) -> Fault {
        let text = self.source.get(token.position..token.end).unwrap_or_default();
        self.fault(format!("unexpected <{text}> in {of}"))
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (action, start) = match piece {
                Piece::Text("") => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.into()));
                    continue;
                }
                Piece::Action(action, start) => (action, start),
            };
            self.tokens = lexer::tokens(action, start)?.into_iter().peekable();
            self.end = start;
            if self.takes_word("end") {
                self.expect_end("end")?;
                return Ok((nodes, Stop::End));
            }
            if self.takes_word("else") {
                return Ok((nodes, Stop::Else));
            }
            nodes.push(self.action()?);
        }
        Ok((nodes, Stop::EndOfSource))
    }

    fn action(&mut self) -> Result<Node, Fault> {
        for (word, kind) in [("if", Branch::If), ("with", Branch::With), ("range", Branch::Range)] {
            if self.takes_word(word) {
                return self.branch(word, kind);
            }
        }
        for (word, node) in [("break", Node::Break), ("continue", Node::Continue)] {
            if self.takes_word(word) {
                return match self.ranges {
                    0 => Err(self.fault(format!("{{{{{word}}}}} outside {{{{range}}}}"))),
                    _ => self.expect_end(word).map(|()| node),
                };
            }
        }
        let pipe = self.pipe("command", 1)?;
        self.expect_end("command")?;
        Ok(Node::Print(pipe))
    }

    fn branch(&mut self, word: &str, kind: Branch) -> Result<Node, Fault> {
        self.deeper()?;
        let known = self.variables.len();
        let pipe = self.pipe(word, if kind == Branch::Range { 2 } else { 1 })?;
        self.expect_end(word)?;
        self.ranges += usize::from(kind == Branch::Range);
        let (body, stop) = self.nodes()?;
        self.ranges -= usize::from(kind == Branch::Range);
        let otherwise = match stop {
            Stop::End => Vec::new(),
            Stop::EndOfSource => return Err(self.fault("unexpected EOF")),
            Stop::Else if self.takes_word(word) && kind != Branch::Range => {
                vec![self.branch(word, kind)?]
            }
            Stop::Else => {
                self.expect_end("else")?;
                match self.nodes()? {
                    (nodes, Stop::End) => nodes,
                    (_, Stop::Else) => return Err(self.fault("expected end; found {{else}}")),
                    (_, Stop::EndOfSource) => return Err(self.fault("unexpected EOF")),
                }
            }
        };
        self.variables.truncate(known);
        self.nesting -= 1;
        Ok(Node::Branch { kind, pipe, body, otherwise })
    }

    /// A pipe that may set so many variables.
    fn pipe(&mut self, of: &str, most_variables: usize) -> Result<Pipe, Fault> {
        let mut pipe = Pipe::default();
        self.variables_of(&mut pipe, most_variables)?;
        loop {
            let command = self.command(of)?;
            pipe.commands.push(command);
            if !self.takes_mark('|') {
                break;
            }
        }
        for command in pipe.commands.iter().skip(1) {
            if let [Operand { what: What::Literal(_) | What::Nil | What::Dot, fields, text, .. }] =
                &command.operands[..]
                && fields.is_empty()
            {
                let why = format!("non executable command in pipeline stage 2: {text}");
                return Err(self.fault(why));
            }
        }
        if !pipe.is_assignment {
            self.variables.extend(pipe.variables.iter().cloned());
        }
        Ok(pipe)
    }

    /// `$x :=`, `$x =`, or `$i, $x :=`, if that is what begins here.
    fn variables_of(&mut self, pipe: &mut Pipe, most: usize) -> Result<(), Fault> {
        let mut ahead = self.tokens.clone();
        let mut names = Vec::new();
        while let Some(Token { kind: Kind::Variable(name), .. }) = ahead.next() {
            names.push(name);
            match ahead.next().map(|token| token.kind) {
                Some(Kind::Mark(',')) if most > 1 => {}
                Some(Kind::Mark(mark @ (':' | '='))) => {
                    pipe.is_assignment = mark == '=';
                    if names.len() > most {
                        return Err(self.fault("too many declarations"));
                    }
                    for name in names.iter().filter(|_| pipe.is_assignment) {
                        self.check_variable(name)?;
                    }
                    pipe.variables = names;
                    self.tokens = ahead;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn check_variable(&self, name: &str) -> Result<(), Fault> {
        match self.variables.iter().any(|known| known == name) {
            true => Ok(()),
            false => Err(self.fault(format!("undefined variable {name:?}"))),
        }
    }

    fn command(&mut self, of: &str) -> Result<Command, Fault> {
        let mut operands: Vec<Operand> = Vec::new();
        let start = self.tokens.peek().map_or(self.end, |token| token.position);
        while let Some(token) = self.tokens.peek() {
            if matches!(token.kind, Kind::Mark(')' | '|')) {
                break;
            }
            if !operands.is_empty() && !token.is_apart {
                let token = token.clone();
                return Err(self.unexpected(&token, "operand"));
            }
            let operand = self.operand(of)?;
            operands.push(operand);
        }
        if operands.is_empty() {
            return Err(self.fault(format!("missing value for {of}")));
        }
        let text = self.source.get(start..self.end).unwrap_or_default().into();
        Ok(Command { operands, text })
    }

    fn operand(&mut self, of: &str) -> Result<Operand, Fault> {
        let Some(token) = self.next() else { return Err(self.fault("unexpected end of action")) };
        let start = token.position;
        let mut fields = Vec::new();
        let what = match token.kind {
            Kind::Field(name) => {
                fields.push(name);
                What::Dot
            }
            Kind::Dot => What::Dot,
            Kind::Variable(name) => {
                self.check_variable(&name)?;
                What::Variable(name)
            }
            Kind::Literal(value) => What::Literal(value),
            Kind::Word(word) => match word.as_str() {
                "true" | "false" => What::Literal(Value::Bool(word == "true")),
                "nil" => What::Nil,
                _ if functions::is_known(&word) => What::Function(word),
                "define" | "template" | "block" | "end" | "else" => {
                    return Err(self.fault(format!("unexpected {{{{{word}}}}}")));
                }
                _ => return Err(self.fault(format!("function {word:?} not defined"))),
            },
            Kind::Mark('(') => {
                self.deeper()?;
                let pipe = self.pipe("parenthesized pipeline", 0)?;
                if !self.takes_mark(')') {
                    return Err(self.fault("unclosed left paren"));
                }
                self.nesting -= 1;
                What::Pipe(pipe)
            }
            Kind::Mark(_) => return Err(self.unexpected(&token, of)),
        };
        let mut position = start;
        while let Some(Token { kind: Kind::Field(name), is_apart: false, position: at, .. }) =
            self.tokens.peek()
        {
            // Go gives the place of the second field.
            if position == start {
                position = *at;
            }
            fields.push(name.clone());
            self.next();
        }
        let text = self.source.get(start..self.end).unwrap_or_default().into();
        Ok(Operand { what, fields, position, text })
    }
}
