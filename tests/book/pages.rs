//! The pages: their texts, blocks, headings and links.

use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page by its path from the root.
pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// All files below `folder` that end so, by their paths from the root.
pub fn below(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|there| there == ending) {
                let name = path.strip_prefix(root()).expect("below the root");
                found.push(name.display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// The README and the pages of the book, with their texts.
pub fn book() -> Vec<(String, String)> {
    let names = [vec!["README.md".to_owned()], below("docs", "md")].concat();
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// A block between fences.
#[derive(Debug)]
pub struct Block {
    /// What stands after the opening fence.
    pub language: String,
    pub text: String,
}

/// A page's blocks, and the text without them.
fn parts(text: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut rest) = (Vec::new(), String::new());
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block { language: language.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed: {open:?}");
    (blocks, rest)
}

/// A page's blocks.
pub fn blocks(text: &str) -> Vec<Block> {
    parts(text).0
}

/// What stands outside of the blocks.
pub fn prose(text: &str) -> String {
    parts(text).1
}

/// The anchors of a page's headings, as code hosts and mdBook make them.
pub fn anchors(text: &str) -> Vec<String> {
    let anchor = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
    };
    prose(text).lines().filter_map(anchor).collect()
}

/// Where a page's links and pictures lead.
pub fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let link = |(at, _): (usize, &str)| {
        let to = prose.get(at + 2..)?;
        Some(to.get(..to.find(')')?)?.to_owned())
    };
    prose.match_indices("](").filter_map(link).collect()
}

/// The cells of a table's row, their code marks left as they are; `\|` is no border.
pub fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let inner = inner.replace("\\|", "\u{0}");
    Some(inner.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect())
}

/// The rows of all tables whose first heading is `first`.
pub fn rows(text: &str, first: &str) -> Vec<Vec<String>> {
    let (mut found, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        match cells(line) {
            None => inside = false,
            Some(row) if row.first().is_some_and(|cell| cell == first) => inside = true,
            Some(row) if inside && row.iter().all(|cell| cell.chars().all(|c| c == '-')) => {}
            Some(row) if inside => found.push(row),
            Some(_) => {}
        }
    }
    found
}
