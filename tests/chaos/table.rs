//! What each fault cost, as a table.

use std::io::Write;

/// The table's head.
pub const HEAD: &str = "| fault | calls | lost | bar | on the lost node | entry gone | p99 before | during \
                        | from 6 s after | all lists right after | memory, most | |\n\
                        |---|---|---|---|---|---|---|---|---|---|---|---|\n";

/// Says something though the test runner holds back what tests print.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A row of these cells.
pub fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Milliseconds, or nothing.
pub fn ms(time: Option<f64>) -> String {
    time.map_or_else(String::new, |time| format!("{time:.0} ms"))
}
