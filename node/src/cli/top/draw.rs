//! What is known, drawn.
//!
//! Pure: the same sight gives the same cells. Nothing here may fail, however small the terminal is.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Span,
};

use super::{
    model::{Device, Problem, Seen, State, Transfer},
    panes::{Extent, Pane, Panes},
    words::{self, UNKNOWN, percent},
};
use crate::{admin::types::Severity, cli::output::counted, config::units::show_bytes};

/// Columns from which on a transfer needs one row; with fewer, where it comes from has a row of its own.
const WIDE: u16 = 116;
/// Rows from which on there is room for a title, the uplink's bar, what is wrong, and the keys.
const TALL: u16 = 14;
/// Rows from which on there is room for what is wrong.
const MIDDLE: u16 = 7;
/// Empty cells between two columns.
const GAP: u16 = 2;

/// How much a terminal can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    /// The sixteen colours that every terminal has names for.
    Colours,
    /// Bold and reversed.
    Plain,
    /// Text alone.
    Nothing,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self == Self::Colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn modifier(self, modifier: Modifier) -> Style {
        if self == Self::Nothing { Style::new() } else { Style::new().add_modifier(modifier) }
    }

    fn severity(self, severity: Severity) -> Style {
        match severity {
            Severity::Error => self.colour(Color::Red).patch(self.modifier(Modifier::BOLD)),
            Severity::Warning => self.colour(Color::Yellow),
            Severity::Note => self.colour(Color::Cyan),
        }
    }

    fn state(self, state: State) -> Style {
        match state {
            State::Distrusted => self.colour(Color::Red),
            State::Fetching => self.colour(Color::Yellow),
            State::Getting => self.colour(Color::Green),
            State::Idle => Style::new(),
            State::Apart => self.modifier(Modifier::DIM),
        }
    }
}

/// Draws all of it; returns how much of the pane's list had room.
pub(super) fn draw(frame: &mut Frame<'_>, seen: &Seen, panes: &Panes, paint: Paint) -> Extent {
    let area = frame.area();
    Sheet { buffer: frame.buffer_mut(), area, row: 0, paint }.all(seen, panes)
}

/// A sheet that is written on from above.
struct Sheet<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    /// The next row.
    row: u16,
    paint: Paint,
}

/// A column of a table.
struct Column {
    title: &'static str,
    /// Cells; of the first column the least, which takes what the others leave.
    width: u16,
    right: bool,
    /// Columns with a higher rank give way first.
    rank: u8,
}

const fn column(title: &'static str, width: u16, right: bool, rank: u8) -> Column {
    Column { title, width, right, rank }
}

const TRANSFERS: [Column; 7] = [
    column("WHAT", 12, false, 0),
    column("SIZE", 8, true, 4),
    column("PROGRESS", 14, false, 3),
    column("", 5, true, 1),
    column("RATE", 10, true, 2),
    column("LEFT", 10, true, 5),
    column("WHERE FROM", 40, false, 6),
];
/// Place of the column that goes into a row of its own on narrow terminals.
const WHERE_FROM: usize = 6;
/// Place of the column with the bar.
const PROGRESS: usize = 2;

const DEVICES: [Column; 8] = [
    column("DEVICE", 12, false, 0),
    column("STATE", 15, false, 1),
    column("FROM IT", 10, true, 2),
    column("TO IT", 10, true, 3),
    column("HOLDS", 20, true, 4),
    column("PLATFORM", 14, false, 5),
    column("VERSION", 8, false, 6),
    column("ID", 7, false, 7),
];
/// Place of the column that has a colour.
const STATE: usize = 1;

/// Where columns that have room are: each by its place, with its first cell and its width. The first takes what is left.
fn fit(columns: &[Column], width: u16) -> Vec<(usize, u16, u16)> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let widths = kept.iter().map(|&at| columns[at].width).sum::<u16>();
        widths + GAP * (kept.len().saturating_sub(1) as u16)
    };
    while kept.len() > 1 && needed(&kept) > width {
        let last = kept.iter().enumerate().max_by_key(|(_, at)| columns[**at].rank).map_or(0, |(index, _)| index);
        kept.remove(last);
    }
    let spare = width.saturating_sub(needed(&kept));
    let mut x = 0;
    let mut placed = Vec::with_capacity(kept.len());
    for (index, at) in kept.into_iter().enumerate() {
        let wide = columns[at].width + if index == 0 { spare } else { 0 };
        let wide = wide.min(width.saturating_sub(x));
        placed.push((at, x, wide));
        x += wide + GAP;
    }
    placed
}

impl Sheet<'_> {
    fn all(mut self, seen: &Seen, panes: &Panes) -> Extent {
        let height = self.area.height;
        if height >= TALL {
            self.title(seen, panes);
        }
        self.site(seen, height);
        if height >= TALL {
            self.uplink(seen);
        }
        if height >= MIDDLE {
            self.verdict(seen);
        }
        self.tabs(seen, panes.pane);
        let keys = u16::from(height >= TALL);
        let room = self.left().saturating_sub(keys);
        let extent = if panes.help { self.help(room) } else { self.pane(seen, panes, room) };
        if keys > 0 {
            self.row = height - 1;
            self.keys(panes);
        }
        extent
    }

    /// Rows that are left.
    fn left(&self) -> u16 {
        self.area.height.saturating_sub(self.row)
    }

    /// Writes text into a row, from a column on and no wider than `width`; what has no room ends in an ellipsis.
    fn text(&mut self, x: u16, width: u16, text: &str, style: Style) {
        let width = width.min(self.area.width.saturating_sub(x));
        if self.left() == 0 || width == 0 {
            return;
        }
        let (x, y) = (self.area.x + x, self.area.y + self.row);
        if Span::raw(text).width() <= usize::from(width) {
            self.buffer.set_stringn(x, y, text, usize::from(width), style);
            return;
        }
        let (end, _) = self.buffer.set_stringn(x, y, text, usize::from(width - 1), style);
        self.buffer.set_stringn(end, y, "…", 1, style);
    }

    /// The same at the right end of the cells.
    fn text_right(&mut self, x: u16, width: u16, text: &str, style: Style) {
        let used = u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX).min(width);
        self.text(x + width - used, used, text, style);
    }

    /// A whole row of text.
    fn line(&mut self, text: &str, style: Style) {
        self.text(0, self.area.width, text, style);
        self.row = self.row.saturating_add(1);
    }

    fn title(&mut self, seen: &Seen, panes: &Panes) {
        let state = match (&seen.lost, panes.paused) {
            (Some(_), _) => "no answer",
            (None, true) => "paused",
            (None, false) => "live",
        };
        let width = self.area.width;
        let room = width.saturating_sub(state.len() as u16 + GAP);
        self.text(0, room, &seen.title, self.paint.modifier(Modifier::BOLD));
        let style = if state == "live" { self.paint.colour(Color::Green) } else { self.paint.colour(Color::Yellow) };
        self.text_right(0, width, state, style);
        self.row += 1;
    }

    /// The site in a line: as many of its parts as have room, and where there is no other place for it, that nobody answers.
    fn site(&mut self, seen: &Seen, height: u16) {
        if let Some(lost) = seen.lost.as_ref().filter(|_| height < MIDDLE) {
            return self.line(lost, self.paint.severity(Severity::Error));
        }
        let mut text = String::new();
        for part in &seen.site {
            let longer = if text.is_empty() { part.clone() } else { format!("{text}  {part}") };
            if !text.is_empty() && Span::raw(&longer).width() > usize::from(self.area.width) {
                break;
            }
            text = longer;
        }
        self.line(&text, Style::new());
    }

    fn uplink(&mut self, seen: &Seen) {
        let Some(uplink) = seen.uplink else {
            return self.line("Nothing came over the uplink in the last hour.", self.paint.modifier(Modifier::DIM));
        };
        let told = format!("{} came, one copy is {}", show_bytes(uplink.crossed), show_bytes(uplink.copy));
        let width = self.area.width;
        let used = told.len() as u16 + GAP;
        let bar = width.saturating_sub(used);
        if bar < 8 {
            return self.line(&told, Style::new());
        }
        let drawn = words::line_bar(uplink.crossed, uplink.copy, usize::from(bar));
        let surplus = uplink.crossed > uplink.copy;
        self.text(0, bar, &drawn, self.paint.colour(if surplus { Color::Red } else { Color::Yellow }));
        self.text(bar + GAP, width, &told, Style::new());
        self.row += 1;
    }

    /// Whether all is well, else the worst that is not.
    fn verdict(&mut self, seen: &Seen) {
        if let Some(lost) = &seen.lost {
            return self.line(lost, self.paint.severity(Severity::Error));
        }
        let Some(worst) = seen.problems.first() else {
            let fine = match seen.transfers.is_empty() {
                true => "All is well. Nothing is on its way.",
                false => "All is well, and layers are on their way.",
            };
            return self.line(fine, self.paint.colour(Color::Green));
        };
        let more = match seen.problems.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let width = self.area.width;
        let room = width.saturating_sub(more.len() as u16);
        let text = format!("{}: {}", severity(worst.severity), worst.what);
        let style = self.paint.severity(worst.severity);
        let shown = u16::try_from(Span::raw(&text).width()).unwrap_or(u16::MAX).min(room);
        self.text(0, room, &text, style);
        self.text(shown, width, &more, style);
        self.row += 1;
    }

    fn tabs(&mut self, seen: &Seen, shown: Pane) {
        let tab = |(index, pane): (usize, Pane), long: bool| {
            let count = match pane {
                Pane::Site => None,
                Pane::Transfers => Some(seen.transfers_total),
                Pane::Devices => Some(seen.devices_total),
                Pane::Problems => Some(seen.problems.len()),
            };
            let name = match (long || pane == shown, count) {
                (false, _) => String::new(),
                (true, Some(count)) if long => format!(" {} {count}", pane.name()),
                (true, _) => format!(" {}", pane.name()),
            };
            let text = format!("{}{name}", index + 1);
            if pane == shown { format!("[{text}]") } else { format!(" {text} ") }
        };
        let all = |long| Pane::ALL.into_iter().enumerate().map(|one| tab(one, long)).collect::<Vec<_>>();
        let mut tabs = all(true);
        if tabs.concat().len() > usize::from(self.area.width) {
            tabs = all(false);
        }
        let mut x = 0;
        for (tab, pane) in tabs.iter().zip(Pane::ALL) {
            let style = self.paint.modifier(if pane == shown { Modifier::REVERSED } else { Modifier::empty() });
            self.text(x, self.area.width, tab, style);
            x = x.saturating_add(tab.len() as u16);
        }
        self.row += 1;
    }

    fn keys(&mut self, panes: &Panes) {
        let order = panes.order().map_or_else(String::new, |order| format!("  s sort: {order}"));
        let pause = if panes.paused { "p go on" } else { "p pause" };
        let text = format!("q quit  Tab 1-4 panes  arrows scroll{order}  {pause}  ? help");
        self.line(&text, self.paint.modifier(Modifier::DIM));
    }

    fn pane(&mut self, seen: &Seen, panes: &Panes, room: u16) -> Extent {
        match panes.pane {
            Pane::Site => self.overview(seen, panes, room),
            Pane::Transfers => {
                let room = self.others(seen.transfers.len(), seen.transfers_total, room);
                self.transfers(&seen.transfers, |extent| panes.first(extent), room)
            }
            Pane::Devices => {
                let room = self.others(seen.devices.len(), seen.devices_total, room);
                self.devices(&seen.devices, |extent| panes.first(extent), room)
            }
            Pane::Problems => self.problems(&seen.problems, panes, room),
        }
    }

    /// That there are more than the node named; returns the room that is left.
    fn others(&mut self, named: usize, total: usize, room: u16) -> u16 {
        if named >= total || room == 0 {
            return room;
        }
        let text = format!("The node names {named} of {total}.");
        self.line(&text, self.paint.modifier(Modifier::DIM));
        room - 1
    }

    /// Transfers above, in up to half of the room, and devices below.
    fn overview(&mut self, seen: &Seen, panes: &Panes, room: u16) -> Extent {
        let end = self.row.saturating_add(room);
        if seen.transfers.is_empty() {
            return self.devices(&seen.devices, |extent| panes.first(extent), room);
        }
        let each = self.rows_of_a_transfer();
        let needed = (seen.transfers.len() as u16).saturating_mul(each).saturating_add(1);
        // Without room for both, what moves.
        let above = if room < 8 { room } else { needed.min(room / 2) };
        self.transfers(&seen.transfers, |_| 0, above);
        let extent = Extent::default();
        if above == room {
            return extent;
        }
        self.row = self.row.saturating_add(1);
        let below = end.saturating_sub(self.row);
        self.devices(&seen.devices, |extent| panes.first(extent), below)
    }

    const fn rows_of_a_transfer(&self) -> u16 {
        if self.area.width >= WIDE { 1 } else { 2 }
    }

    fn header(&mut self, columns: &[Column], placed: &[(usize, u16, u16)]) {
        let style = self.paint.modifier(Modifier::BOLD);
        for &(at, x, width) in placed {
            let column = &columns[at];
            if column.right {
                self.text_right(x, width, column.title, style);
            } else {
                self.text(x, width, column.title, style);
            }
        }
        self.row += 1;
    }

    fn cells(&mut self, columns: &[Column], placed: &[(usize, u16, u16)], cells: &[String], coloured: (usize, Style)) {
        for &(at, x, width) in placed {
            let style = if at == coloured.0 { coloured.1 } else { Style::new() };
            let cell = cells.get(at).map_or("", String::as_str);
            if columns[at].right {
                self.text_right(x, width, cell, style);
            } else {
                self.text(x, width, cell, style);
            }
        }
        self.row += 1;
    }

    fn transfers(&mut self, transfers: &[Transfer], first: impl Fn(Extent) -> usize, room: u16) -> Extent {
        if transfers.is_empty() {
            if room > 0 {
                self.line("No device of the site is getting a layer.", Style::new());
            }
            return Extent::default();
        }
        let (each, columns) = (self.rows_of_a_transfer(), &TRANSFERS);
        let columns = if each == 1 { &columns[..] } else { &columns[..WHERE_FROM] };
        let placed = fit(columns, self.area.width);
        let titled = room > each;
        if titled {
            self.header(columns, &placed);
        }
        let rows = (room - u16::from(titled)) / each;
        let extent = Extent { rows: transfers.len(), room: usize::from(rows) };
        for transfer in transfers.iter().skip(first(extent)).take(extent.room) {
            let colour = match (transfer.from_registry, transfer.here) {
                (true, _) => Color::Yellow,
                (false, true) => Color::Blue,
                (false, false) => Color::Green,
            };
            let bar = placed.iter().find(|(at, ..)| *at == PROGRESS).map_or(0, |(.., width)| *width);
            let cells = cells_of_transfer(transfer, usize::from(bar));
            let coloured = (PROGRESS, self.paint.colour(colour));
            self.cells(columns, &placed, &cells, coloured);
            if each == 2 {
                self.line(&format!("  {}", transfer.doing), self.paint.modifier(Modifier::DIM));
            }
        }
        extent
    }

    fn devices(&mut self, devices: &[Device], first: impl Fn(Extent) -> usize, room: u16) -> Extent {
        let placed = fit(&DEVICES, self.area.width);
        let titled = room > 1;
        if titled {
            self.header(&DEVICES, &placed);
        }
        let rows = room - u16::from(titled);
        let extent = Extent { rows: devices.len(), room: usize::from(rows) };
        for device in devices.iter().skip(first(extent)).take(extent.room) {
            let coloured = (STATE, self.paint.state(device.state));
            self.cells(&DEVICES, &placed, &cells_of_device(device), coloured);
        }
        extent
    }

    fn problems(&mut self, problems: &[Problem], panes: &Panes, room: u16) -> Extent {
        let width = usize::from(self.area.width.max(1));
        let mut rows: Vec<(String, Style)> = Vec::new();
        for problem in problems {
            let style = self.paint.severity(problem.severity);
            let what = format!("{}: {}", severity(problem.severity), problem.what);
            rows.extend(wrapped(&what, width, "").into_iter().map(|row| (row, style)));
            if !problem.next.is_empty() {
                rows.extend(wrapped(&problem.next, width, "  ").into_iter().map(|row| (row, Style::new())));
            }
            rows.push((String::new(), Style::new()));
        }
        if rows.is_empty() {
            rows.push(("Nothing is wrong, as far as this device knows.".to_owned(), Style::new()));
        }
        self.list(&rows, |extent| panes.first(extent), room)
    }

    fn help(&mut self, room: u16) -> Extent {
        let width = usize::from(self.area.width.max(1));
        let rows = HELP.iter().flat_map(|line| wrapped(line, width, "")).map(|row| (row, Style::new()));
        self.list(&rows.collect::<Vec<_>>(), |_| 0, room);
        Extent::default()
    }

    fn list(&mut self, rows: &[(String, Style)], first: impl Fn(Extent) -> usize, room: u16) -> Extent {
        let extent = Extent { rows: rows.len(), room: usize::from(room) };
        for (text, style) in rows.iter().skip(first(extent)).take(extent.room) {
            self.line(text, *style);
        }
        extent
    }
}

const HELP: [&str; 14] = [
    "q, Esc, Ctrl-C   quit",
    "Tab, 1 to 4      change the pane",
    "arrows, PgUp, PgDn, Home, End   scroll",
    "s                sort by something else",
    "p                pause, and go on",
    "?                close this",
    "",
    "The bar at the top is what came over the site's uplink in the last hour; | is where one copy of it is, and # what came \
     more than once.",
    "Of a transfer that this device wants, progress and rate are its own; of others, those of all devices that hold or want \
     it.",
    "Devices: idle has what it wants; getting takes from others, fetching from a registry; apart is not connected with this \
     one; distrusted sent wrong bytes.",
    "From it and to it is what passes between that device and this one; of this device, between it and all others. What \
     passes between two others is shown where they are.",
    "linked counts the devices that this one is connected with.",
    "",
    "In a browser: the status page says the same, and more.",
];

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
        Severity::Note => "Note",
    }
}

fn cells_of_transfer(transfer: &Transfer, bar: usize) -> [String; TRANSFERS.len()] {
    let known = transfer.wanted.filter(|wanted| *wanted > 0);
    let share = known.map_or(0.0, |wanted| transfer.had as f64 / wanted as f64);
    [
        transfer.name.clone(),
        transfer.size.map_or_else(|| UNKNOWN.to_owned(), show_bytes),
        words::bar(share, bar),
        known.map_or_else(|| UNKNOWN.to_owned(), |wanted| percent(transfer.had, wanted)),
        words::rate(transfer.bytes_per_s),
        words::show_left(transfer.left),
        transfer.doing.clone(),
    ]
}

fn cells_of_device(device: &Device) -> [String; DEVICES.len()] {
    let word = match device.state {
        State::Distrusted => "distrusted",
        State::Fetching => "fetching",
        State::Getting => "getting",
        State::Idle => "idle",
        State::Apart => "apart",
    };
    let state = match device.getting {
        Some((had, wanted)) if wanted > 0 => format!("{word} {}", percent(had, wanted)),
        _ => word.to_owned(),
    };
    let holds = match device.holds {
        Some((blobs, bytes)) => format!("{} in {}", show_bytes(bytes), counted(blobs, "blob", "blobs")),
        None => UNKNOWN.to_owned(),
    };
    let or_unknown = |text: &str| if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() };
    [
        device.name.clone(),
        state,
        words::rate(device.incoming),
        words::rate(device.outgoing),
        holds,
        or_unknown(&device.platform),
        or_unknown(&device.version),
        device.id.clone(),
    ]
}

/// Text in rows of at most so many cells, broken between words, all of them behind `indent`. A word that has no room is cut
/// where it is drawn.
fn wrapped(text: &str, width: usize, indent: &str) -> Vec<String> {
    let (mut rows, mut row) = (Vec::new(), indent.to_owned());
    for word in text.split(' ') {
        let begun = row.len() > indent.len();
        if begun && Span::raw(row.as_str()).width() + 1 + Span::raw(word).width() > width {
            rows.push(std::mem::replace(&mut row, format!("{indent}{word}")));
            continue;
        }
        if begun {
            row.push(' ');
        }
        row.push_str(word);
    }
    rows.push(row);
    rows
}
