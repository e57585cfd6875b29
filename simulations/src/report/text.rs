//! A report for the terminal: the verdict first, then the fleet, then its kinds of sites, then who was slow and why.
//!
//! Invariant: no line is wider than the caller asked for ([`WIDTH_MIN`] at least), and no escape sequence is in it, also
//! if a scenario's texts have some.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::{
    Broken, Report, Totals,
    summary::{Kind, Spread, kinds},
    units,
};

/// The narrowest text there is. 60: the table of kinds needs it.
pub(crate) const WIDTH_MIN: u16 = 60;
/// Slow devices that the text names. 8: with them the text fits a screen, and the page has more.
const SLOWEST_SHOWN: usize = 8;
/// Kinds of sites that the text names. 24: a screen.
const KINDS_SHOWN: usize = 24;
/// Broken rules that the text names.
const BROKEN_SHOWN: usize = 3;
/// Of what happened last before a rule was broken. 8: what led there, and it still fits a screen.
const RECENT_SHOWN: usize = 8;

/// Where what is said of a named line begins: names are shorter.
const NAMED: usize = 12;

impl Report {
    /// The summary, in lines of at most `width` characters.
    pub fn to_text(&self, width: u16) -> String {
        let width = width.max(WIDTH_MIN);
        let mut text = Text { width, out: String::new() };
        headline(self, &mut text);
        fleet(&self.fleet, &mut text);
        table_of_kinds(self, &mut text);
        table_of_slowest(self, &mut text);
        text.out
    }

    /// The verdict in a sentence.
    pub(crate) fn verdict(&self) -> String {
        match self.broken.len() {
            0 => "all checks held".to_owned(),
            1 => "a rule was broken".to_owned(),
            more => format!("{more} rules were broken"),
        }
    }

    /// How to see the same run again.
    pub(crate) fn replay(&self) -> String {
        format!("To see the same again, run the same scenario with --seed {}.", self.seed)
    }
}

/// Text that grows by lines of a bounded width.
pub(crate) struct Text {
    pub(crate) width: u16,
    pub(crate) out: String,
}

impl Text {
    /// A paragraph, its first line after `indent` spaces and the others after `hang`.
    pub(crate) fn paragraph(&mut self, indent: usize, hang: usize, text: &str) {
        let width = usize::from(self.width);
        let mut line = " ".repeat(indent);
        let mut used = indent;
        let mut is_fresh = true;
        for word in clean(text).split_whitespace() {
            let mut word: Vec<char> = word.chars().collect();
            if !is_fresh && used + 1 + word.len() > width {
                self.line(&line);
                (line, used, is_fresh) = (" ".repeat(hang), hang, true);
            }
            if !is_fresh {
                line.push(' ');
                used += 1;
            }
            // A word that is wider than a line is broken.
            while used + word.len() > width {
                let rest = word.split_off(width.saturating_sub(used).max(1));
                line.extend(word);
                self.line(&line);
                (line, used, word) = (" ".repeat(hang), hang, rest);
            }
            used += word.len();
            line.extend(word);
            is_fresh = false;
        }
        self.line(&line);
    }

    /// A named line: what it is on the left, what is said of it on the right.
    pub(crate) fn named(&mut self, name: &str, text: &str) {
        let from = self.out.len();
        self.paragraph(NAMED, NAMED, text);
        // The first line begins with as many spaces as a name has room for.
        self.out.replace_range(from..from + NAMED, &format!("  {name:<0$}", NAMED - 2));
    }

    pub(crate) fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    /// A table with a title; `right` names columns of numbers.
    pub(crate) fn table(&mut self, title: &str, header: &[&str], right: &[usize], rows: Vec<Vec<String>>) {
        if rows.is_empty() {
            return;
        }
        self.line("");
        self.paragraph(0, 2, title);
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(self.width - 2);
        table.set_header(header).add_rows(rows.iter().map(|row| row.iter().map(|cell| clean(cell))));
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.line(&format!("  {line}"));
        }
    }
}

/// Without what a terminal would take for an order.
fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn headline(report: &Report, text: &mut Text) {
    text.paragraph(0, 2, &format!("{}: {}", report.scenario, report.verdict()));
    if !report.about.is_empty() {
        text.paragraph(2, 2, &report.about);
    }
    let run = format!(
        "seed {}, {} of virtual time, {}",
        report.seed,
        units::duration(report.ended_s),
        units::counted(report.events, "event", "events")
    );
    text.paragraph(2, 2, &run);
    if report.broken.is_empty() {
        return;
    }
    for broken in report.broken.iter().take(BROKEN_SHOWN) {
        rule(broken, text);
    }
    text.line("");
    if let more @ 1.. = report.broken.len().saturating_sub(BROKEN_SHOWN) {
        text.paragraph(2, 2, &format!("and {more} more, in the JSON and on the page."));
    }
    text.paragraph(2, 2, &report.replay());
}

fn rule(broken: &Broken, text: &mut Text) {
    text.line("");
    let at = if broken.site.is_empty() { String::new() } else { format!(" at {}", broken.site) };
    text.paragraph(2, 4, &format!("{}{at}: {}", broken.rule, broken.what));
    let skipped = broken.recent.len().saturating_sub(RECENT_SHOWN);
    if !broken.recent.is_empty() {
        text.paragraph(4, 6, "What happened there last:");
    }
    for event in broken.recent.iter().skip(skipped) {
        text.paragraph(6, 8, event);
    }
}

fn fleet(totals: &Totals, text: &mut Text) {
    text.line("");
    text.named("devices", &finished(totals));
    let uplinks = match totals.copies_wanted() {
        Some(copies) => {
            format!("{}, {} copies of what was wanted", units::bytes(totals.origin_bytes), units::ratio(copies))
        }
        None => format!("{}, and nothing was wanted", units::bytes(totals.origin_bytes)),
    };
    text.named("registry", &uplinks);
    let wasted = units::bytes(totals.wasted_bytes);
    text.named("peers", &format!("{}; {wasted} of all that arrived was thrown away", units::bytes(totals.peer_bytes)));
    let (sent, received) = (units::bytes(totals.control_sent_bytes), units::bytes(totals.control_received_bytes));
    text.named("control", &format!("{sent} sent, {received} received"));
}

/// Who was done, and when.
fn finished(totals: &Totals) -> String {
    let (done, wanting) = (units::count(totals.done.into()), units::count(totals.wanting.into()));
    let (Some(first), Some(median), Some(last)) = (totals.first_s, totals.median_s, totals.last_s) else {
        return format!("{done} of {wanting} done");
    };
    let (first, median) = (units::duration(first), units::duration(median));
    let times = match totals.last_by_uplink() {
        Some(by) => format!(" ({} × what the slowest uplink alone needs)", units::ratio(by)),
        None => String::new(),
    };
    format!("{done} of {wanting} done: first after {first}, median {median}, last {}{times}", units::duration(last))
}

fn table_of_kinds(report: &Report, text: &mut Text) {
    let kinds = kinds(report);
    let rows = kinds.iter().take(KINDS_SHOWN).map(row_of_kind).collect();
    let header = ["KIND", "SITES", "DONE", "COPIES", "LAST", "× UPLINK", "WORST SITE"];
    let more = match kinds.len().saturating_sub(KINDS_SHOWN) {
        0 => String::new(),
        more => format!("; {more} more in the JSON"),
    };
    let title =
        format!("By kind of site (median / worst; × uplink: the last device by what the uplink alone needs{more})");
    text.table(&title, &header, &[1, 2, 3, 4, 5], rows);
}

fn row_of_kind(kind: &Kind<'_>) -> Vec<String> {
    let both = |spread: Option<Spread>| match spread {
        Some(Spread { median, worst }) => format!("{} / {}", units::ratio(median), units::ratio(worst)),
        None => "-".to_owned(),
    };
    let last = kind.spread(|totals| totals.last_s);
    let done = units::count(kind.sum(|totals| totals.done.into()));
    let wanting = units::count(kind.sum(|totals| totals.wanting.into()));
    let worst = if kind.sites.len() > 1 { kind.worst().map_or("", |site| &site.name) } else { "" };
    vec![
        kind.name.to_owned(),
        units::count(kind.sites.len() as u64),
        if done == wanting { done } else { format!("{done}/{wanting}") },
        both(kind.spread(Totals::copies_wanted)),
        last.map_or_else(|| "-".to_owned(), |last| units::duration(last.worst)),
        both(kind.spread(Totals::last_by_uplink)),
        worst.to_owned(),
    ]
}

fn table_of_slowest(report: &Report, text: &mut Text) {
    let rows = report.slowest.iter().take(SLOWEST_SHOWN).map(|device| {
        vec![
            device.name.clone(),
            units::duration_or_never(device.took_s),
            units::bytes(device.origin_bytes),
            units::bytes(device.peer_bytes),
            if device.why.is_empty() { "nothing is known".to_owned() } else { device.why.clone() },
        ]
    });
    let rows = rows.collect();
    text.table("Slowest devices", &["DEVICE", "TOOK", "REGISTRY", "PEERS", "WHY"], &[1, 2, 3], rows);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::sample;

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    #[test]
    fn it_begins_with_the_verdict_and_names_what_matters() {
        let text = sample::fleet(30).to_text(100);
        assert!(text.starts_with("shops-on-dsl: all checks held\n"), "{text}");
        for part in ["seed 42", "1 h 08 min of virtual time", "81,234,567 events", "copies of what was wanted", "depot"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.contains("Slowest devices"), "{text}");
        assert!(!text.contains("--seed"), "{text}");
    }

    #[test]
    fn a_broken_rule_says_what_to_do_next() {
        let report = sample::broken();
        let text = report.to_text(100);
        assert!(text.starts_with("shops-on-dsl: 2 rules were broken\n"), "{text}");
        assert!(text.contains(&format!("liveness at {}: not done", report.sites[4].name)), "{text}");
        assert!(text.contains("--seed 42"), "{text}");
        assert!(text.contains("it left"), "{text}");
        assert!(text.contains("never"), "{text}");
    }

    #[test]
    fn nothing_is_reported_too() {
        let text = sample::empty().to_text(80);
        assert!(text.contains("0 of 0 done"), "{text}");
        assert!(text.contains("nothing was wanted"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_asked_and_none_has_orders_for_the_terminal() {
        for report in [sample::fleet(400), sample::broken(), sample::hostile(), sample::empty()] {
            for width in [0, 60, 72, 80, 100, 200] {
                let text = report.to_text(width);
                assert!(widest(&text) <= usize::from(width.max(WIDTH_MIN)), "{width}:\n{text}");
                assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text}");
                assert!(!text.lines().any(|line| line.ends_with(' ')), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn paragraphs_lose_no_word(words in prop::collection::vec("[a-zé]{1,90}", 0..30), hang in 0_usize..20) {
            let mut text = Text { width: WIDTH_MIN, out: String::new() };
            text.paragraph(2, hang, &words.join(" "));
            prop_assert!(widest(&text.out) <= usize::from(WIDTH_MIN));
            let letters: String = text.out.chars().filter(|char| !char.is_whitespace()).collect();
            prop_assert_eq!(letters, words.concat());
        }
    }
}
