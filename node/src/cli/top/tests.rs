//! What is drawn, compared with the files in `golden/`, and the command's arguments.

use clap::Parser as _;
use ratatui::{
    Terminal, TerminalOptions, Viewport,
    backend::{CrosstermBackend, TestBackend},
    layout::Rect,
};

use super::{
    model::{DeviceOrder, Seen, TransferOrder},
    panes::{Extent, Pane, Press},
    testing::{busy, idle},
    *,
};
use crate::cli::{Cli, Command};

/// A site as it is after two answers.
fn seen(answers: [SiteStatus; 2], panes: &Panes) -> Seen {
    let [first, second] = answers;
    let mut model = Model::new(first, Duration::from_secs(1));
    model.take(second);
    model.seen(Duration::ZERO, panes.transfers, panes.devices)
}

/// The rows of a terminal of this size.
fn drawn(seen: &Seen, panes: &Panes, width: u16, height: u16) -> (String, Extent) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut extent = Extent::default();
    terminal.draw(|frame| extent = draw::draw(frame, seen, panes, Paint::Colours)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    ((0..height).map(row).collect(), extent)
}

fn busy_site(panes: &Panes, width: u16, height: u16) -> String {
    drawn(&seen([busy(0), busy(4)], panes), panes, width, height).0
}

fn at(pane: Pane) -> Panes {
    Panes { pane, ..Panes::default() }
}

/// Many devices, of which some do something.
fn crowd(seconds: u64) -> SiteStatus {
    let mut site = idle(100.0 + seconds as f64, 199);
    for device in site.devices.iter_mut().step_by(7) {
        device.wants = 1;
        device.wanted_bytes = 100;
        device.had_bytes = 40;
        device.received_bytes = seconds << 20;
    }
    site
}

macro_rules! golden {
    ($name:literal, $text:expr) => {
        let text = $text;
        assert!(text == include_str!(concat!("golden/", $name, ".txt")), "{} now is\n{text}", $name);
    };
}

#[test]
fn a_busy_site_on_terminals_of_several_sizes() {
    golden!("site-80x24", busy_site(&Panes::default(), 80, 24));
    golden!("site-132x30", busy_site(&Panes::default(), 132, 30));
    golden!("site-40x12", busy_site(&Panes::default(), 40, 12));
    golden!("site-20x5", busy_site(&Panes::default(), 20, 5));
    golden!("transfers-80x24", busy_site(&at(Pane::Transfers), 80, 24));
    golden!("problems-60x20", busy_site(&at(Pane::Problems), 60, 20));
    golden!("help-80x24", busy_site(&Panes { help: true, ..Panes::default() }, 80, 24));
}

#[test]
fn two_hundred_devices_are_scrolled_through() {
    let mut panes = at(Pane::Devices);
    let seen = seen([crowd(0), crowd(2)], &panes);
    golden!("devices-80x24", drawn(&seen, &panes, 80, 24).0);
    let (_, extent) = drawn(&seen, &panes, 80, 24);
    assert_eq!(extent, Extent { rows: 200, room: 17 });
    panes.drawn(extent);
    panes.press(Press::End);
    let (end, _) = drawn(&seen, &panes, 80, 24);
    assert!(end.contains("10.0.0.200") && !end.contains("this device"), "{end}");
    let (short, extent) = drawn(&seen, &panes, 20, 5);
    assert_eq!(extent.room, 2, "{short}");
    assert!(short.contains("10.0.0.184"), "what was on top stays there: {short}");
}

#[test]
fn a_quiet_site_says_that_all_is_well_and_shows_its_devices() {
    golden!("quiet-80x24", drawn(&seen([idle(5.0, 3), idle(6.0, 3)], &Panes::default()), &Panes::default(), 80, 24).0);
}

#[test]
fn a_node_that_is_gone_is_said_in_every_size() {
    let mut model = Model::new(busy(0), Duration::from_secs(1));
    model.miss("no node answers on /run/layermesh/admin.sock", Duration::ZERO);
    let seen = model.seen(Duration::from_secs(12), TransferOrder::default(), DeviceOrder::default());
    for (width, height) in [(80, 24), (80, 8), (80, 5), (30, 3), (9, 1)] {
        let (text, _) = drawn(&seen, &Panes::default(), width, height);
        assert!(text.contains("NO ANSWE"), "{width}x{height}:\n{text}");
        assert!(!text.contains("live"), "{text}");
    }
    let (text, _) = drawn(&seen, &Panes::default(), 80, 24);
    assert!(text.lines().next().unwrap().ends_with("  no answer"), "{text}");
    let paused = Panes { paused: true, ..Panes::default() };
    let (text, _) = drawn(&seen_of_busy(), &paused, 80, 24);
    assert!(text.lines().next().unwrap().ends_with("  paused") && text.contains("p go on"), "{text}");
}

fn seen_of_busy() -> Seen {
    seen([busy(0), busy(4)], &Panes::default())
}

#[test]
fn no_size_and_no_site_is_too_much() {
    let alone = seen([idle(1.0, 0), idle(2.0, 0)], &Panes::default());
    for seen in [&seen_of_busy(), &seen([crowd(0), crowd(2)], &Panes::default()), &alone] {
        for pane in Pane::ALL {
            for help in [false, true] {
                let panes = Panes { pane, help, ..Panes::default() };
                for width in (0..24).chain([39, 40, 79, 115, 116, 300]) {
                    for height in (0..20).chain([24, 60]) {
                        let (_, extent) = drawn(seen, &panes, width, height);
                        assert!(extent.room <= usize::from(height));
                    }
                }
            }
        }
    }
}

/// The bytes that a terminal gets.
fn written(seen: &Seen, paint: Paint) -> String {
    let mut bytes = Vec::new();
    let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, 132, 40)) };
    let mut terminal = Terminal::with_options(CrosstermBackend::new(&mut bytes), options).unwrap();
    for pane in Pane::ALL {
        let draw = |frame: &mut ratatui::Frame<'_>| {
            draw::draw(frame, seen, &at(pane), paint);
        };
        terminal.draw(draw).unwrap();
    }
    drop(terminal);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn names_of_others_write_no_control_sequences() {
    let mut site = busy(0);
    let evil = "\x1b]0;owned\x07\x1b[31mred\u{9b}2J\x1b[99;99H";
    site.devices[0].platform = Some(evil.to_owned());
    site.devices[1].version = Some(evil.to_owned());
    site.devices[2].address = Some(evil.to_owned());
    site.under_way[3].image = Some(evil.to_owned());
    site.node.fleet = evil.to_owned();
    site.node.transfers[0].sources.push(evil.to_owned());
    site.problems[0].what = evil.to_owned();
    let text = written(&seen([site.clone(), site], &Panes::default()), Paint::Plain);
    assert!(text.contains("owned"), "it is shown");
    for wrong in ["\x1b]", "\x07", "\x1b[31m", "\u{9b}", "\x1b[99;99H"] {
        assert!(!text.contains(wrong), "{wrong:?}");
    }
}

#[test]
fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
    let seen = seen_of_busy();
    // Of foreground colours, 39 is the terminal's own.
    let coloured = |text: &str| text.split("\x1b[38;5;").count() > 1;
    let reversed = |text: &str| text.contains("\x1b[7m");
    let (colours, plain, nothing) =
        (written(&seen, Paint::Colours), written(&seen, Paint::Plain), written(&seen, Paint::Nothing));
    assert!(coloured(&colours) && reversed(&colours));
    assert!(!coloured(&plain) && reversed(&plain));
    assert!(!coloured(&nothing) && !reversed(&nothing));
    for (no_color, term, expected) in [
        (None, Some("xterm-256color"), Paint::Colours),
        (Some(""), Some("linux"), Paint::Colours),
        (Some("1"), Some("xterm"), Paint::Plain),
        (None, Some("dumb"), Paint::Nothing),
        (Some("1"), Some("dumb"), Paint::Nothing),
        (None, None, Paint::Nothing),
    ] {
        assert_eq!(paint(no_color.map(OsStr::new), term.map(OsStr::new)), expected, "{no_color:?} {term:?}");
    }
}

#[test]
fn intervals_are_bounded() {
    let interval =
        |text: &str| match Cli::try_parse_from(["layermesh", "top", "--interval", text]).map(|cli| cli.command) {
            Ok(Command::Top(args)) => Some(args.interval.as_secs()),
            _ => None,
        };
    assert_eq!([interval("1s"), interval("60s"), interval("1min")], [Some(1), Some(60), Some(60)]);
    assert_eq!([interval("0s"), interval("61s"), interval("1h"), interval("fast")], [None; 4]);
}

#[test]
fn the_manual_shows_what_is_drawn() {
    let manual = include_str!("../../../../docs/top.md");
    for picture in [include_str!("golden/site-80x24.txt"), include_str!("golden/transfers-80x24.txt")] {
        assert!(manual.contains(&format!("```text\n{picture}```\n")), "docs/top.md has to show:\n{picture}");
    }
}
