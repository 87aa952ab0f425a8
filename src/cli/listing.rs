//! Listings as docker prints them: its own table, `table TEMPLATE`, `json`, or a line for each row by a template.

use miniserde::json::{self, Object, Value};

use super::output;
use super::template::{Context, Missing, Template};
use crate::engine::{Filter, Labels};
use crate::error::{Error, Kind, Result};

/// What a kind of listing looks like.
pub struct Listing {
    /// What docker calls the type of a row, for messages.
    pub type_name: &'static str,
    /// Each field and its title.
    pub titles: &'static [(&'static str, &'static str)],
}

/// One row: its fields, as texts for people.
#[derive(Default)]
pub struct Row {
    pub fields: Object,
    pub labels: Labels,
}

impl Row {
    /// Of these fields.
    pub fn of<const N: usize>(fields: [(&str, String); N]) -> Row {
        let mut row = Row::default();
        for (name, text) in fields {
            row.set(name, text);
        }
        row
    }

    /// Adds a field.
    pub fn set(&mut self, name: &str, text: String) {
        self.fields.insert(name.into(), Value::String(text));
    }

    fn cell(&self, name: &str) -> String {
        match self.fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        }
    }
}

impl Listing {
    /// Prints rows by `format`, or as a table of `columns` where there is none.
    pub fn print(&self, rows: Vec<Row>, columns: &[&str], format: Option<&str>) -> Result<()> {
        let format = format.unwrap_or("table").trim_matches(' ');
        if format == "table" || format.is_empty() {
            output::print(&self.table(&rows, columns));
            return Ok(());
        }
        // As docker reads it: a shell's single quotes leave these to us.
        let format = format.replace("\\t", "\t").replace("\\n", "\n");
        match format.strip_prefix("table ") {
            Some(template) => self.template_table(rows, template),
            None if format == "json" => self.lines(rows, "{{json .}}"),
            None => self.lines(rows, &format),
        }
    }

    /// The plain table.
    pub fn table(&self, rows: &[Row], columns: &[&str]) -> String {
        let title = |name: &&str| {
            let known = self.titles.iter().find(|(known, _)| known == name);
            known.map_or(String::new(), |(_, title)| title.to_string())
        };
        let mut cells = vec![columns.iter().map(title).collect::<Vec<String>>()];
        cells.extend(rows.iter().map(|row| columns.iter().map(|name| row.cell(name)).collect()));
        output::table(&cells)
    }

    fn lines(&self, rows: Vec<Row>, template: &str) -> Result<()> {
        let template = parse(template)?;
        for row in rows {
            output::line(&self.execute(&template, row, false)?);
        }
        Ok(())
    }

    fn template_table(&self, rows: Vec<Row>, template: &str) -> Result<()> {
        let template = parse(template)?;
        let mut titles = Row::default();
        self.titles.iter().for_each(|(name, title)| titles.set(name, title.to_string()));
        let mut lines = vec![self.execute(&template, titles, true)?];
        for row in rows {
            lines.push(self.execute(&template, row, false)?);
        }
        let cells = |line: &String| line.split('\t').map(str::to_string).collect();
        let cells: Vec<Vec<String>> = lines.iter().map(cells).collect();
        output::print(&output::table(&cells));
        Ok(())
    }

    fn execute(&self, template: &Template, row: Row, is_header: bool) -> Result<String> {
        let value = Value::Object(row.fields);
        let missing = Missing::Field(self.type_name);
        let context = Context { value: &value, missing, labels: Some(&row.labels), is_header };
        template.execute(&context).map_err(invalid)
    }
}

fn parse(template: &str) -> Result<Template> {
    Template::parse("", template).map_err(invalid)
}

fn invalid(message: String) -> Error {
    Error::new(Kind::Invalid, message)
}

/// The exit code for a template that does not parse, where docker has one of its own: inspect, info and version.
const EXIT_TEMPLATE: i32 = 64;

/// Prints documents by a template, a line each, or as JSON for `json`; gives the exit code. `name` is the template's in
/// messages.
pub fn print_documents(
    name: &'static str,
    documents: &[String],
    format: &str,
    missing: Missing,
) -> Result<i32> {
    let format = if format == "json" { "{{json .}}" } else { format };
    let template = match Template::parse(name, format) {
        Ok(template) => template,
        Err(message) => {
            output::error(&message);
            return Ok(EXIT_TEMPLATE);
        }
    };
    for document in documents {
        let value: Value = json::from_str(document)
            .map_err(|_| Error::new(Kind::Internal, "a document of the engine's own is no JSON"))?;
        let context = Context { value: &value, missing, labels: None, is_header: false };
        output::line(&template.execute(&context).map_err(invalid)?);
    }
    Ok(0)
}

/// A condition, for argh.
pub fn filter(text: &str) -> Result<Filter, String> {
    Filter::parse(text)
}

/// Labels as docker lists them: `a=b,c=d`.
pub fn labels_text(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// At most so many characters, the last an ellipsis, as docker shortens commands.
pub fn shorten(text: &str, most: usize) -> String {
    match text.chars().count() {
        count if count <= most => text.to_string(),
        _ => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The first 12 digits of an ID, with or without its algorithm.
pub fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}
