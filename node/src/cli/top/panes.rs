//! What is shown of all that is known, and how keys change it.
//!
//! Pure: a key and what was drawn last lead to the next state.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{DeviceOrder, TransferOrder};

/// A part of what is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pane {
    /// A little of everything.
    #[default]
    Site,
    Transfers,
    Devices,
    Problems,
}

impl Pane {
    pub(super) const ALL: [Self; 4] = [Self::Site, Self::Transfers, Self::Devices, Self::Problems];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Site => "Site",
            Self::Transfers => "Transfers",
            Self::Devices => "Devices",
            Self::Problems => "Problems",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }

    /// The pane so many further on, around the end.
    fn further(self, steps: usize) -> Self {
        Self::ALL[(self.index() + steps) % Self::ALL.len()]
    }
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Press {
    Quit,
    /// Closes the help, or else quits.
    Escape,
    Next,
    Previous,
    Show(Pane),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Sort,
    Pause,
    Help,
}

/// What a key of a terminal asks for, if anything.
pub(super) fn press_of(key: &KeyEvent) -> Option<Press> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Press::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') => Press::Quit,
        KeyCode::Esc => Press::Escape,
        KeyCode::Tab | KeyCode::Right => Press::Next,
        KeyCode::BackTab | KeyCode::Left => Press::Previous,
        KeyCode::Char(digit @ '1'..='4') => Press::Show(Pane::Site.further(digit as usize - '1' as usize)),
        KeyCode::Up | KeyCode::Char('k') => Press::Up,
        KeyCode::Down | KeyCode::Char('j') => Press::Down,
        KeyCode::PageUp => Press::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Press::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Press::Home,
        KeyCode::End | KeyCode::Char('G') => Press::End,
        KeyCode::Char('s') => Press::Sort,
        KeyCode::Char('p') => Press::Pause,
        KeyCode::Char('?' | 'h') => Press::Help,
        _ => return None,
    })
}

/// How much of a list was drawn, in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// All rows.
    pub(super) rows: usize,
    /// Those that have room at once.
    pub(super) room: usize,
}

impl Extent {
    /// The first row at the end of the list.
    pub(super) const fn last(self) -> usize {
        self.rows.saturating_sub(self.room)
    }
}

/// What is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Panes {
    pub(super) pane: Pane,
    pub(super) transfers: TransferOrder,
    pub(super) devices: DeviceOrder,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// First row shown of each pane.
    pub(super) scrolled: [usize; Pane::ALL.len()],
    /// What was drawn last.
    pub(super) extent: Extent,
}

impl Panes {
    /// First row shown of the pane, if it has so many.
    pub(super) fn first(&self, extent: Extent) -> usize {
        self.scrolled[self.pane.index()].min(extent.last())
    }

    /// Says what was drawn, for keys that come.
    pub(super) fn drawn(&mut self, extent: Extent) {
        self.extent = extent;
        self.scrolled[self.pane.index()] = self.first(extent);
    }

    /// Takes a key; returns whether to go on.
    pub(super) fn press(&mut self, press: Press) -> bool {
        let page = self.extent.room.max(1);
        match press {
            Press::Quit => return false,
            Press::Escape if !self.help => return false,
            Press::Escape => self.help = false,
            Press::Help => self.help = !self.help,
            Press::Next => self.show(self.pane.further(1)),
            Press::Previous => self.show(self.pane.further(Pane::ALL.len() - 1)),
            Press::Show(pane) => self.show(pane),
            Press::Up => self.scroll(|at| at.saturating_sub(1)),
            Press::Down => self.scroll(|at| at.saturating_add(1)),
            Press::PageUp => self.scroll(|at| at.saturating_sub(page)),
            Press::PageDown => self.scroll(|at| at.saturating_add(page)),
            Press::Home => self.scroll(|_| 0),
            Press::End => self.scroll(|_| usize::MAX),
            Press::Pause => self.paused = !self.paused,
            Press::Sort => self.sort(),
        }
        true
    }

    fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.help = false;
    }

    fn scroll(&mut self, to: impl Fn(usize) -> usize) {
        let last = self.extent.last();
        let at = &mut self.scrolled[self.pane.index()];
        *at = to(*at).min(last);
    }

    fn sort(&mut self) {
        match self.pane {
            Pane::Transfers => {
                self.transfers = match self.transfers {
                    TransferOrder::Here => TransferOrder::Rate,
                    TransferOrder::Rate => TransferOrder::Left,
                    TransferOrder::Left => TransferOrder::Name,
                    TransferOrder::Name => TransferOrder::Here,
                }
            }
            Pane::Site | Pane::Devices => {
                self.devices = match self.devices {
                    DeviceOrder::Name => DeviceOrder::State,
                    DeviceOrder::State => DeviceOrder::Rate,
                    DeviceOrder::Rate => DeviceOrder::Holds,
                    DeviceOrder::Holds => DeviceOrder::Name,
                }
            }
            // The worst are first, always.
            Pane::Problems => {}
        }
    }

    /// How the pane is sorted, in a word.
    pub(super) const fn order(&self) -> Option<&'static str> {
        match self.pane {
            Pane::Transfers => Some(match self.transfers {
                TransferOrder::Here => "here first",
                TransferOrder::Rate => "rate",
                TransferOrder::Left => "time left",
                TransferOrder::Name => "name",
            }),
            Pane::Site | Pane::Devices => Some(match self.devices {
                DeviceOrder::Name => "name",
                DeviceOrder::State => "state",
                DeviceOrder::Rate => "rate",
                DeviceOrder::Holds => "what they hold",
            }),
            Pane::Problems => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> Option<Press> {
        press_of(&KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_quit_and_change_panes() {
        let mut panes = Panes::default();
        assert!(!panes.press(press(KeyCode::Char('q')).unwrap()));
        assert!(!panes.press(press(KeyCode::Esc).unwrap()));
        let interrupt = press_of(&KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert_eq!(interrupt, Some(Press::Quit));
        assert_eq!(press(KeyCode::Char('x')), None);
        for pane in [Pane::Transfers, Pane::Devices, Pane::Problems, Pane::Site] {
            assert!(panes.press(press(KeyCode::Tab).unwrap()));
            assert_eq!(panes.pane, pane);
        }
        assert!(panes.press(press(KeyCode::BackTab).unwrap()));
        assert_eq!(panes.pane, Pane::Problems);
        for (digit, pane) in ('1'..='4').zip(Pane::ALL) {
            assert!(panes.press(press(KeyCode::Char(digit)).unwrap()));
            assert_eq!(panes.pane, pane);
        }
    }

    #[test]
    fn the_help_closes_before_anything_quits() {
        let mut panes = Panes::default();
        assert!(panes.press(Press::Help) && panes.help);
        assert!(panes.press(Press::Escape) && !panes.help);
        assert!(!panes.press(Press::Escape));
    }

    #[test]
    fn scrolling_stays_within_what_was_drawn_and_each_pane_has_its_own() {
        let mut panes = Panes { pane: Pane::Devices, ..Panes::default() };
        let extent = Extent { rows: 200, room: 15 };
        panes.drawn(extent);
        for (press, first) in [
            (Press::Up, 0),
            (Press::Down, 1),
            (Press::PageDown, 16),
            (Press::End, 185),
            (Press::Down, 185),
            (Press::PageUp, 170),
            (Press::Home, 0),
            (Press::End, 185),
        ] {
            panes.press(press);
            assert_eq!(panes.first(extent), first, "{press:?}");
        }
        // Most devices left.
        let fewer = Extent { rows: 20, room: 15 };
        assert_eq!(panes.first(fewer), 5);
        panes.drawn(fewer);
        panes.press(Press::Up);
        assert_eq!(panes.first(fewer), 4);
        panes.press(Press::Show(Pane::Transfers));
        assert_eq!(panes.first(extent), 0);
        panes.press(Press::Show(Pane::Devices));
        assert_eq!(panes.first(extent), 4);
    }

    #[test]
    fn each_list_is_sorted_by_itself_and_problems_never() {
        let mut panes = Panes::default();
        panes.press(Press::Sort);
        assert_eq!((panes.devices, panes.transfers), (DeviceOrder::State, TransferOrder::Here));
        panes.press(Press::Show(Pane::Transfers));
        let mut seen = Vec::new();
        for _ in 0..4 {
            panes.press(Press::Sort);
            seen.push(panes.order().unwrap());
        }
        assert_eq!(seen, ["rate", "time left", "name", "here first"]);
        panes.press(Press::Show(Pane::Problems));
        panes.press(Press::Sort);
        assert_eq!((panes.order(), panes.devices), (None, DeviceOrder::State));
    }
}
