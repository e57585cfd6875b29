//! How far a command is, for people who watch: the one place that says how that looks.
//!
//! A row says what it is about, how much of it is done, how fast, how long it takes yet, and where the bytes come from. It is
//! drawn on standard error. Invariant: nothing is drawn where that is no terminal, with `--json`, or on a terminal that
//! cannot go back; and nothing of it stays when the command ends, however it ends.

use std::{
    fmt::Write,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::words;
use crate::config::units::show_bytes;

/// How often a row without a bar is drawn again, so that its time goes on.
const TICK: Duration = Duration::from_millis(200);
/// Of something that is not counted in bytes, all of it.
pub(super) const WHOLE: u64 = 1000;

/// A row of bytes.
const BYTES: &str = "{prefix:<12} [{bar:12}] {share:>5} {done:>9} {rate:>11} {left:>12} {msg}";
/// A row of something else.
const PARTS: &str = "{prefix:<12} [{bar:12}] {share:>5} {left:>12} {msg}";
/// A row of what nobody can say how long it takes.
const STEP: &str = "{spinner} {msg}, {elapsed}";

/// Rows of a command, one below the other. Dropping it takes them away.
#[derive(Debug)]
pub(super) struct Progress {
    rows: MultiProgress,
    shown: bool,
}

impl Progress {
    /// For people, unless the command speaks JSON.
    pub(super) fn new(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self::drawn(!json && !dumb && io::stderr().is_terminal())
    }

    /// Without anything to see.
    #[cfg(test)]
    pub(super) fn hidden() -> Self {
        Self::drawn(false)
    }

    fn drawn(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { rows: MultiProgress::with_draw_target(target), shown }
    }

    /// Whether somebody sees it.
    pub(super) fn is_shown(&self) -> bool {
        self.shown
    }

    /// A row of so many bytes that come from somewhere.
    pub(super) fn bytes(&self, name: &str, bytes: u64, from: &str) -> ProgressBar {
        named(self.rows.add(ProgressBar::new(bytes).with_style(style(BYTES))), name, from)
    }

    /// The same above another one.
    pub(super) fn bytes_above(&self, below: &ProgressBar, name: &str, bytes: u64) -> ProgressBar {
        named(self.rows.insert_before(below, ProgressBar::new(bytes).with_style(style(BYTES))), name, "")
    }

    /// A row of something that has [`WHOLE`] parts.
    pub(super) fn parts(&self, name: &str, doing: &str) -> ProgressBar {
        named(self.rows.add(ProgressBar::new(WHOLE).with_style(style(PARTS))), name, doing)
    }

    /// A row that says what is done now, and for how long.
    pub(super) fn step(&self, doing: &str) -> ProgressBar {
        let row = self.rows.add(ProgressBar::new_spinner().with_style(style(STEP)));
        row.set_message(words::plain(doing));
        if self.shown {
            row.enable_steady_tick(TICK);
        }
        row
    }

    /// Writes something else meanwhile.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.rows.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let _ = self.rows.clear();
    }
}

fn named(row: ProgressBar, name: &str, message: &str) -> ProgressBar {
    row.set_prefix(words::plain(name));
    row.set_message(words::plain(message));
    row
}

/// The beginning of a digest, as the name of its row.
pub(super) fn short_digest(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// The templates are constants, so the fallback is never seen.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars("=> ")
        .with_key("share", |state: &ProgressState, text: &mut dyn Write| put(text, &share(state)))
        .with_key("done", |state: &ProgressState, text: &mut dyn Write| put(text, &show_bytes(state.pos())))
        .with_key("rate", |state: &ProgressState, text: &mut dyn Write| put(text, &words::rate(speed(state))))
        .with_key("left", |state: &ProgressState, text: &mut dyn Write| put(text, &left(state)))
}

/// What is written is a row that is put together in memory.
fn put(text: &mut dyn Write, words: &str) {
    let _ = text.write_str(words);
}

fn share(state: &ProgressState) -> String {
    words::percent(state.pos(), state.len().unwrap_or(0))
}

/// How much a second, lately.
fn speed(state: &ProgressState) -> u64 {
    state.per_sec() as u64
}

/// How long it takes yet; nothing of what is done or stands still.
fn left(state: &ProgressState) -> String {
    let missing = state.len().unwrap_or(0).saturating_sub(state.pos());
    match words::left(missing, speed(state)) {
        Some(left) if missing > 0 => format!("{} left", words::show_left(Some(left))),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal of a hundred columns that keeps the rows written on it.
    #[derive(Debug, Clone, Default)]
    struct Rows(Arc<Mutex<Vec<String>>>);

    impl Rows {
        fn last(&self) -> String {
            self.0.lock().unwrap().iter().rev().find(|row| !row.trim().is_empty()).cloned().unwrap()
        }

        fn write(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push(text.trim_end().to_owned());
            Ok(())
        }
    }

    impl TermLike for Rows {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.write(text)
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn on_a_terminal() -> (Progress, Rows) {
        let rows = Rows::default();
        let target = ProgressDrawTarget::term_like(Box::new(rows.clone()));
        (Progress { rows: MultiProgress::with_draw_target(target), shown: true }, rows)
    }

    #[test]
    fn a_row_says_how_much_how_fast_how_long_and_where_from() {
        let (progress, rows) = on_a_terminal();
        let row = progress.bytes("0123456789ab", 100 << 20, "from registry ghcr.io\x1b[2J");
        row.set_position(50 << 20);
        row.tick();
        let shown = rows.last();
        assert!(shown.starts_with("0123456789ab [======>     ]  50 %  50.0 MiB "), "{shown}");
        assert!(shown.contains("iB/s ") && shown.contains(" s left "), "{shown}");
        assert!(shown.ends_with(" from registry ghcr.io\u{fffd}[2J"), "{shown}");
        row.finish_and_clear();
        let row = progress.parts("patch", "comparing");
        row.set_position(WHOLE / 4);
        row.tick();
        let shown = rows.last();
        assert!(shown.starts_with("patch        [===>        ]  25 % ") && shown.ends_with(" comparing"), "{shown}");
    }

    #[test]
    fn what_nobody_can_count_has_a_row_too() {
        let (progress, rows) = on_a_terminal();
        let row = progress.step("asking the node");
        row.tick();
        assert!(rows.last().ends_with(" asking the node, 0s"), "{}", rows.last());
    }

    #[test]
    fn nothing_is_drawn_for_programs() {
        let progress = Progress::new(true);
        let row = progress.bytes("a", 10, "b");
        row.set_position(5);
        assert!(!progress.is_shown() && row.is_hidden());
        assert_eq!(short_digest("sha256:0123456789abcdef"), "0123456789ab");
    }
}
