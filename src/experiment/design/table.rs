//! Tables of comma-separated values, as recorded data comes: a line of column names, then rows. Cells have
//! no quotes. Empty lines are passed over.

use std::ops::RangeInclusive;

use crate::types::shortened;

/// Bytes of a line at most: the counts of a week have 10,080 columns.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Characters of a cell that a message quotes.
const QUOTED: usize = 40;

/// A table whose header was read; its rows are what comes next.
pub(super) struct Table<'a> {
    names: Vec<&'a str>,
    line: usize,
    rest: std::iter::Zip<std::str::Lines<'a>, std::ops::RangeFrom<usize>>,
}

/// A row with as many cells as the table has columns.
pub(super) struct Row<'a> {
    line: usize,
    text: &'a str,
}

/// The next line that is not empty, with its number.
fn next_line<'a>(
    lines: &mut impl Iterator<Item = (&'a str, usize)>,
) -> Option<Result<(&'a str, usize), String>> {
    let (text, line) = lines.find(|(text, _)| !text.trim().is_empty())?;
    Some(match text.len() > LINE_BYTES_MAX {
        true => {
            Err(format!("line {line} has {} bytes, at most {LINE_BYTES_MAX} are taken", text.len()))
        }
        false => Ok((text.trim(), line)),
    })
}

impl<'a> Table<'a> {
    /// Reads the header of `text`.
    pub(super) fn new(text: &'a str) -> Result<Self, String> {
        // Programs of some systems mark a text by it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rest = text.lines().zip(1..);
        let (header, line) = next_line(&mut rest).unwrap_or(Err("it is empty".to_owned()))?;
        Ok(Self { names: header.split(',').map(str::trim).collect(), line, rest })
    }

    /// The names of the columns.
    pub(super) fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The line of the header.
    pub(super) fn line(&self) -> usize {
        self.line
    }
}

impl<'a> Iterator for Table<'a> {
    type Item = Result<Row<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let (text, line) = match next_line(&mut self.rest)? {
            Ok(found) => found,
            Err(why) => return Some(Err(why)),
        };
        let row = Row { line, text };
        let (cells, columns) = (row.cells().count(), self.names.len());
        Some(match cells == columns {
            true => Ok(row),
            false => {
                Err(row.wrong(format!("it has {cells} cells, and there are {columns} columns")))
            }
        })
    }
}

impl<'a> Row<'a> {
    /// Its cells in order.
    pub(super) fn cells(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.split(',').map(str::trim)
    }

    /// The first `N` cells; those that are not there are empty.
    pub(super) fn columns<const N: usize>(&self) -> [&'a str; N] {
        let mut columns = [""; N];
        columns.iter_mut().zip(self.cells()).for_each(|(column, cell)| *column = cell);
        columns
    }

    /// What is wrong, with the line.
    pub(super) fn wrong(&self, why: impl std::fmt::Display) -> String {
        format!("line {}: {why}", self.line)
    }

    /// A cell as a number of that range.
    pub(super) fn number(
        &self,
        what: &str,
        cell: &str,
        range: RangeInclusive<f64>,
    ) -> Result<f64, String> {
        let number = cell.parse::<f64>().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (cell, low, high) = (shortened(cell, QUOTED), range.start(), range.end());
            self.wrong(format!("{what} is {cell:?}, which is no number from {low} to {high}"))
        })
    }

    /// A cell as a whole number.
    pub(super) fn whole(&self, what: &str, cell: &str) -> Result<u32, String> {
        cell.parse().map_err(|_| {
            let cell = shortened(cell, QUOTED);
            self.wrong(format!(
                "{what} is {cell:?}, which is no whole number from 0 to {}",
                u32::MAX
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_header_and_rows_of_as_many_cells() {
        let mut table = Table::new("\u{feff}\n a , b\r\n\n1,2\r\n3\n").expect("a header");
        assert_eq!((table.names(), table.line()), (&["a", "b"][..], 2));
        let row = table.next().expect("a row").expect("whole");
        assert_eq!((row.columns(), row.columns()), (["1", "2"], ["1", "2", ""]));
        let short = table.next().expect("a row").err().expect("too short");
        assert_eq!(short, "line 5: it has 1 cells, and there are 2 columns");
        assert!(table.next().is_none());
        assert!(Table::new(" \n").is_err());
    }

    #[test]
    fn lines_that_are_too_long_are_refused_by_their_number() {
        let long = format!("a\n{}\n", "1".repeat(LINE_BYTES_MAX + 1));
        let why = Table::new(&long).expect("a header").next().expect("a row").err();
        assert!(why.expect("too long").starts_with("line 2 has 262145 bytes"));
        assert!(Table::new(&"a".repeat(LINE_BYTES_MAX + 1)).is_err());
    }
}
