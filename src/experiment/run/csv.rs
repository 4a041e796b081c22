//! The tables of a run as CSV files beside it.

use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;

use super::results::{TABLES, open};

/// Writes `run-01.db` as `run-01.jobs.csv` and so on; answers with the files.
///
/// # Errors
/// What cannot be read or written, in words.
pub fn export(path: &Path) -> Result<Vec<PathBuf>, String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let connection = open(path).map_err(|why| named(&why))?;
    let mut files = Vec::new();
    for (table, columns) in TABLES {
        let file = path.with_extension(format!("{table}.csv"));
        let mut writer = csv::Writer::from_path(&file).map_err(|why| named(&why))?;
        let names = columns.iter().filter_map(|column| column.split(' ').next());
        writer.write_record(names).map_err(|why| named(&why))?;
        let mut select =
            connection.prepare(&format!("SELECT * FROM {table}")).map_err(|why| named(&why))?;
        let mut rows = select.query([]).map_err(|why| named(&why))?;
        while let Some(row) = rows.next().map_err(|why| named(&why))? {
            for column in 0..columns.len() {
                let cell = row.get_ref(column).map_err(|why| named(&why))?;
                writer.write_field(text(cell)).map_err(|why| named(&why))?;
            }
            writer.write_record(None::<&[u8]>).map_err(|why| named(&why))?;
        }
        writer.flush().map_err(|why| named(&why))?;
        files.push(file);
    }
    Ok(files)
}

fn text(cell: ValueRef<'_>) -> String {
    match cell {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
    }
}
