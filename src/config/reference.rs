//! The book's tables of settings.

use super::Settings;
use crate::keys::{Column, Key, tables};

/// The name in the environment.
const ENVIRONMENT: Column =
    Column { title: "environment", cell: |key| format!("`{}`", key.environment()) };
/// The flag, if there is one.
const FLAG: Column = Column {
    title: "flag",
    cell: |key: &Key| key.flag.map_or("—".to_owned(), |flag| format!("`--{flag}`")),
};

impl Settings {
    /// All settings, for the book: a table of Markdown below each heading.
    pub fn reference() -> String {
        let name = Column { title: "name and TOML key", ..Column::NAME };
        let (unit, range) = (Column::UNIT, Column::RANGE);
        let columns = [name, ENVIRONMENT, FLAG, unit, range, Column::DEFAULT, Column::MEANING];
        tables(Self::KEYS, &columns)
    }

    /// The names of v1 that stand for a setting of another name, for the book.
    pub fn v1_names() -> String {
        let mut text = "| v1's name | setting |\n|---|---|\n".to_owned();
        for key in Self::KEYS {
            for name in key.v1_names {
                text.push_str(&format!("| `{name}` | `{}` |\n", key.name));
            }
        }
        text
    }
}
