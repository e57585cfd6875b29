//! What people read: the only place that writes to standard output and standard error, but for the screen of `top`.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use super::exit::Failure;

/// Prints text to standard output. A reader that went away (`| head`) is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints one line of JSON to standard output.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// Prints JSON to standard output, laid out for people if they are there.
pub(super) fn print_json_document(value: &impl Serialize) -> anyhow::Result<()> {
    if is_terminal() { print(&format!("{}\n", serde_json::to_string_pretty(value)?)) } else { print_json(value) }
}

/// Says on standard error why the program fails.
pub(super) fn complain(failure: &Failure) {
    let _ = writeln!(io::stderr(), "layermesh: {failure}");
}

/// Says something on standard error.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A table with a header, its columns aligned and nothing drawn between; `right` names columns of numbers.
pub(super) fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `1 peer`, `2 peers`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_without_trailing_space() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];
        assert_eq!(table(&["NAME", "SIZE"], &[1], rows), "NAME  SIZE\na        1\nlong   100\n");
        assert_eq!(counted(1, "peer", "peers"), "1 peer");
        assert_eq!(counted(0, "peer", "peers"), "0 peers");
    }
}
