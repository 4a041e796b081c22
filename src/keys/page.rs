//! The reference pages of the book: tables of keys as Markdown.

use super::{Allowed, Key, ShownDefault};

/// A column of such a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// What it has of a key.
    pub cell: fn(&Key) -> String,
}

impl Column {
    /// The name.
    pub const NAME: Self = Self { title: "name", cell: |key| code(key.name) };
    /// The unit.
    pub const UNIT: Self = Self { title: "unit", cell: |key| key.unit().to_owned() };
    /// What the value can be.
    pub const RANGE: Self = Self { title: "range", cell: range };
    /// The default.
    pub const DEFAULT: Self = Self { title: "default", cell: default };
    /// What it does.
    pub const MEANING: Self =
        Self { title: "what it does", cell: |key| key.meaning.trim().to_owned() };
}

/// A text between code marks.
fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

fn range(key: &Key) -> String {
    match key.allowed {
        Allowed::OneOf(words) => words().into_iter().map(code).collect::<Vec<_>>().join(", "),
        _ => key.range(),
    }
}

fn default(key: &Key) -> String {
    match (key.default)() {
        ShownDefault::Words(words) => words,
        value @ ShownDefault::Value(_) => code(value),
    }
}

/// A row of cells.
fn row(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// All keys, a table below each heading.
pub fn tables(keys: &[Key], columns: &[Column]) -> String {
    let mut text = String::new();
    for keys in keys.chunk_by(|one, next| one.group == next.group) {
        let heading = keys.first().map_or("", |key| key.group);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("## {heading}\n\n"));
        text.push_str(&row(columns.iter().map(|column| column.title.to_owned())));
        text.push_str(&format!("|{}\n", "---|".repeat(columns.len())));
        for key in keys {
            text.push_str(&row(columns.iter().map(|column| (column.cell)(key))));
        }
    }
    text
}
