//! What the modules of runtimes share: TOML with its places, and lines of text.

use std::path::Path;

use toml_edit::{DocumentMut, Item, TableLike};

use super::SetupError;

/// Parses TOML for editing.
pub(super) fn parse_toml(path: &Path, text: &str) -> Result<DocumentMut, SetupError> {
    text.parse::<DocumentMut>().map_err(|error| SetupError::Unparsable {
        path: path.to_owned(),
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })
}

/// Number of the line with a byte, from 1 on.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// The item below some keys.
pub(super) fn find<'a>(table: &'a dyn TableLike, keys: &[&str]) -> Option<&'a Item> {
    let (last, way) = keys.split_last()?;
    let mut table = table;
    for key in way {
        table = table.get(key)?.as_table_like()?;
    }
    table.get(last)
}

/// Text, with a line end at its end unless it is empty.
pub(super) fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// The white space at the beginning of a line.
pub(super) fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}
