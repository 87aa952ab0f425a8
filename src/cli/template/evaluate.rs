//! Executes the tree of a template for one value.

use miniserde::json::{Number, Value};

use super::syntax::{Branch, Command, Node, Operand, Pipe, What};
use super::{Context, Fault, Missing, functions, printing};

/// How much a template may do: nodes executed, so that nested loops over a large document end.
const MAX_STEPS: usize = 1_000_000;
/// The longest output for one value, in bytes.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// Documents' maps, whose keys may be missing without being an error; docker knows them by their types.
const MAPS: &[&str] = &[
    "Labels",
    "Volumes",
    "ExposedPorts",
    "Networks",
    "Ports",
    "PortBindings",
    "Data",
    "Options",
    "Sysctls",
    "Tmpfs",
    "Annotations",
];

/// The output for the value of `context`.
pub fn execute(nodes: &[Node], context: &Context) -> Result<String, Fault> {
    let variables = vec![("$".to_string(), context.value.clone())];
    let mut state = State { context, variables, out: String::new(), steps: 0 };
    state.nodes(nodes, context.value)?;
    Ok(state.out)
}

/// Where execution goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct State<'a> {
    context: &'a Context<'a>,
    /// The innermost last.
    variables: Vec<(String, Value)>,
    out: String,
    steps: usize,
}

fn fault(operand: &Operand, part: &str, why: impl Into<String>) -> Fault {
    Fault { position: operand.position, part: Some(part.into()), why: why.into() }
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Fault> {
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        printing::print(&value, &mut self.out);
                    } else {
                        self.set_variables(pipe, vec![value]);
                    }
                }
                Node::Branch { kind, pipe, body, otherwise } => {
                    let known = self.variables.len();
                    let flow = self.branch(*kind, pipe, body, otherwise, dot)?;
                    self.variables.truncate(known);
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::Next)
    }

    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.len() > MAX_OUTPUT_BYTES {
            let why = "the template does too much".to_string();
            return Err(Fault { position: 0, part: Some(String::new()), why });
        }
        Ok(())
    }

    fn branch(
        &mut self,
        kind: Branch,
        pipe: &Pipe,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, Fault> {
        let value = self.pipe(pipe, dot)?;
        if kind == Branch::Range {
            return self.range(pipe, value, body, otherwise, dot);
        }
        let holds = printing::is_true(&value);
        let new_dot = if kind == Branch::With && holds { value.clone() } else { Value::Null };
        self.set_variables(pipe, vec![value]);
        match (kind, holds) {
            (Branch::With, true) => self.nodes(body, &new_dot),
            (_, true) => self.nodes(body, dot),
            (_, false) => self.nodes(otherwise, dot),
        }
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        value: Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, Fault> {
        let index = |at: usize| Value::Number(Number::U64(at as u64));
        let elements: Vec<(Value, Value)> = match value {
            Value::Null => Vec::new(),
            Value::Array(array) => {
                array.into_iter().enumerate().map(|(at, value)| (index(at), value)).collect()
            }
            Value::Object(object) => {
                object.into_iter().map(|(key, value)| (Value::String(key), value)).collect()
            }
            other => {
                let text = pipe.commands.last().map_or("", |command| &command.text);
                let why = format!("range can't iterate over {}", printing::text(&other));
                return Err(match pipe.commands.last().and_then(|c| c.operands.first()) {
                    Some(operand) => fault(operand, text, why),
                    None => Fault { position: 0, part: Some(text.into()), why },
                });
            }
        };
        if elements.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let known = self.variables.len();
        for (key, value) in elements {
            self.step()?;
            match pipe.variables.len() {
                0 => {}
                1 => self.set_variables(pipe, vec![value.clone()]),
                _ => self.set_variables(pipe, vec![key, value.clone()]),
            }
            let flow = self.nodes(body, &value)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn set_variables(&mut self, pipe: &Pipe, values: Vec<Value>) {
        for (name, value) in pipe.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known.filter(|_| pipe.is_assignment) {
                Some((_, known)) => *known = value,
                None => self.variables.push((name.clone(), value)),
            }
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, Fault> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    /// A command's value; `last` is that of the one before it in the pipe.
    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Null) };
        if let What::Function(name) = &first.what {
            let value = self.call(name, command, rest, dot, last)?;
            return self.follow(first, value);
        }
        if let Some(labels) = self.context.labels
            && matches!(first.what, What::Dot)
            && first.fields == ["Label"]
            && let Some(argument) = self.only_argument(rest, dot, &last)?
        {
            let label = printing::text(&argument);
            return Ok(Value::String(match self.context.is_header {
                true => label.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " "),
                false => labels.get(&label).cloned().unwrap_or_default(),
            }));
        }
        if !rest.is_empty() || last.is_some() {
            let why = format!("{} is not a method but has arguments", first.text);
            return Err(fault(first, &first.text, why));
        }
        self.operand(first, dot)
    }

    fn only_argument(
        &mut self,
        rest: &[Operand],
        dot: &Value,
        last: &Option<Value>,
    ) -> Result<Option<Value>, Fault> {
        match (rest, last) {
            ([only], None) => self.operand(only, dot).map(Some),
            ([], last) => Ok(last.clone()),
            _ => Ok(None),
        }
    }

    fn call(
        &mut self,
        name: &str,
        command: &Command,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault> {
        let mut arguments = Vec::new();
        for operand in operands {
            let value = self.operand(operand, dot)?;
            // What follows the answer is not looked at.
            let decides = match name {
                "and" => !printing::is_true(&value),
                "or" => printing::is_true(&value),
                _ => false,
            };
            if decides {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(last);
        let is_row = matches!(self.context.missing, Missing::Field(_));
        let manner = functions::Manner { is_header: self.context.is_header, is_row };
        functions::call(name, &arguments, manner).map_err(|why| {
            let place = command.operands.first().map_or(0, |operand| operand.position);
            Fault { position: place, part: Some(command.text.clone()), why }
        })
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Fault> {
        let value = match &operand.what {
            What::Dot => return self.walk(operand, dot),
            What::Nil => Value::Null,
            What::Literal(value) => value.clone(),
            What::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                return match known {
                    Some((_, value)) => self.walk(operand, value),
                    None => Err(fault(operand, &operand.text, "undefined variable")),
                };
            }
            What::Function(name) => {
                let command = Command { operands: Vec::new(), text: operand.text.clone() };
                self.call(name, &command, &[], dot, None)?
            }
            What::Pipe(pipe) => self.pipe(pipe, dot)?,
        };
        self.follow(operand, value)
    }

    fn follow(&self, operand: &Operand, value: Value) -> Result<Value, Fault> {
        if operand.fields.is_empty() { Ok(value) } else { self.walk(operand, &value) }
    }

    /// Follows an operand's fields from a value.
    fn walk(&self, operand: &Operand, from: &Value) -> Result<Value, Fault> {
        let mut value = from;
        let mut owner = "";
        for name in &operand.fields {
            let is_map = MAPS.contains(&owner);
            value = match value {
                Value::Object(object) => match (object.get(name), self.context.missing) {
                    (Some(found), _) => found,
                    (None, _) if is_map => return Ok(Value::Null),
                    (None, Missing::Key) => {
                        let why = format!("map has no entry for key {name:?}");
                        return Err(fault(operand, &operand.text, why));
                    }
                    (None, Missing::Field(type_name)) => {
                        let why = format!("can't evaluate field {name} in type {type_name}");
                        return Err(fault(operand, &operand.text, why));
                    }
                },
                Value::Null if is_map => return Ok(Value::Null),
                Value::Null => {
                    let why = format!("nil pointer evaluating interface {{}}.{name}");
                    return Err(fault(operand, &operand.text, why));
                }
                _ => {
                    let why = format!("can't evaluate field {name} in type interface {{}}");
                    return Err(fault(operand, &operand.text, why));
                }
            };
            owner = name;
        }
        Ok(value.clone())
    }
}
