//! The budget of the uplink: whether a transfer may ask an origin now, and how fast.
//!
//! Invariants: pure functions of what they are given. What a container runtime waits for may always ask; only work in
//! the background is held back. Peers may always be asked, so nothing here is about them.
//!
//! # Policy
//! Work in the background asks an origin only inside a window, and not while a runtime's transfer asks one. Without
//! windows the uplink is open always, unless it is metered: that means that nothing in the background uses it outside a
//! window, so without windows nothing ever does. Windows are times on the wall; a device that does not know what time it
//! is cannot tell whether one is open, and counts all as closed.

use std::fmt;

use thiserror::Error;

/// Minutes of a day.
pub const MINUTES_PER_DAY: u16 = 24 * 60;
/// Minutes of a week, which begins on Monday.
pub const MINUTES_PER_WEEK: u16 = 7 * MINUTES_PER_DAY;

/// How much somebody waits for a blob. The more urgent is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Nobody waits: the blob is to be there some day.
    Background,
    /// A container runtime, or somebody like it, waits.
    Runtime,
}

/// A time of the week during which background work may use the uplink, by the clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins, Monday first.
    days: [bool; 7],
    /// Minute of the day when it begins.
    from: u16,
    /// How many minutes it is open, at most a day.
    minutes: u16,
}

/// Why a window cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WindowError {
    /// It begins on no day.
    #[error("a window begins on at least one day")]
    NoDay,
    /// A time that no day has.
    #[error("a day has no minute {0}")]
    NoSuchMinute(u16),
    /// It ends when it begins.
    #[error("a window does not end when it begins")]
    Empty,
}

impl Window {
    /// The window that begins on these days (Monday first) at minute `from` of the day and ends before minute `to`: of the
    /// same day if that is later, else of the next. A whole day is `0..MINUTES_PER_DAY`.
    ///
    /// # Errors
    /// If there is no such time, or nothing in it.
    pub fn new(days: [bool; 7], from: u16, to: u16) -> Result<Self, WindowError> {
        if !days.contains(&true) {
            return Err(WindowError::NoDay);
        }
        if from >= MINUTES_PER_DAY {
            return Err(WindowError::NoSuchMinute(from));
        }
        if to > MINUTES_PER_DAY {
            return Err(WindowError::NoSuchMinute(to));
        }
        let minutes = match to.checked_sub(from) {
            Some(0) => return Err(WindowError::Empty),
            Some(minutes) => minutes,
            None => MINUTES_PER_DAY - from + to,
        };
        Ok(Self { days, from, minutes })
    }

    /// Minutes of the week when it begins.
    fn starts(&self) -> impl Iterator<Item = u16> + '_ {
        let days = (0..MINUTES_PER_WEEK).step_by(usize::from(MINUTES_PER_DAY)).zip(self.days);
        days.filter(|(_, begins)| *begins).map(|(midnight, _)| midnight + self.from)
    }

    fn is_open(&self, minute_of_week: u16) -> bool {
        self.starts().any(|start| ahead(start, minute_of_week) < self.minutes)
    }
}

/// Minutes from one minute of the week to the next time that another one comes.
fn ahead(from: u16, to: u16) -> u16 {
    (to % MINUTES_PER_WEEK + MINUTES_PER_WEEK - from % MINUTES_PER_WEEK) % MINUTES_PER_WEEK
}

fn is_open(windows: &[Window], minute_of_week: u16) -> bool {
    windows.iter().any(|window| window.is_open(minute_of_week))
}

/// Minutes until the windows open, or close if some is open; `None` if that never happens.
fn until_turn(windows: &[Window], minute_of_week: u16) -> Option<u16> {
    let now = is_open(windows, minute_of_week);
    let edges = windows
        .iter()
        .flat_map(|window| window.starts().flat_map(|start| [start, (start + window.minutes) % MINUTES_PER_WEEK]));
    let turns = edges.filter(|edge| is_open(windows, *edge) != now);
    turns.map(|edge| ahead(minute_of_week, edge)).min()
}

/// What the uplink may be used for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uplink {
    /// Whether bytes over it cost money or a quota: background work then needs a window. Default: no.
    pub metered: bool,
    /// When background work may use it. Default: none, which is always, or never if it is metered.
    pub windows: Vec<Window>,
    /// Bytes a second that all nodes of the site together take from origins. Default: no limit, since a node cannot know
    /// the uplink.
    pub site_bytes_per_s: Option<u64>,
}

/// Whether a transfer may ask an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may, for that many minutes from the beginning of the current one; `None` until something happens.
    Allowed(Option<u16>),
    /// It may not.
    Wait(Wait),
}

/// Why a transfer waits for the uplink, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// What it waits for.
    pub reason: Reason,
    /// Minutes, from the beginning of the current one, after which the answer is another; `None` until something
    /// happens.
    pub minutes: Option<u16>,
}

/// What background work waits for before it uses the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The uplink is metered and there is no window.
    Metered,
    /// There are windows and it is not known what time it is.
    Clock,
    /// No window is open.
    Window,
    /// A runtime's transfer asks an origin.
    Runtime,
}

impl Reason {
    /// What is waited for, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metered => "a peer: the uplink is metered and has no window for background work",
            Self::Clock => "the clock: until it is set, no window for background work is open",
            Self::Window => "a window for background work",
            Self::Runtime => "what a container runtime fetches now",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Uplink {
    /// Whether a transfer may ask an origin in this minute of the local week (`None`: the clock is not set), while
    /// `runtime` transfers of runtimes ask one.
    pub fn verdict(&self, urgency: Urgency, minute_of_week: Option<u16>, runtime: usize) -> Verdict {
        let wait = |reason, minutes| Verdict::Wait(Wait { reason, minutes });
        if urgency == Urgency::Runtime {
            return Verdict::Allowed(None);
        }
        let minutes = match (self.windows.is_empty(), minute_of_week) {
            (true, _) if self.metered => return wait(Reason::Metered, None),
            (true, _) => None,
            (false, None) => return wait(Reason::Clock, None),
            (false, Some(minute)) => {
                let minutes = until_turn(&self.windows, minute);
                if !is_open(&self.windows, minute) {
                    return wait(Reason::Window, minutes);
                }
                minutes
            }
        };
        if runtime > 0 { wait(Reason::Runtime, None) } else { Verdict::Allowed(minutes) }
    }

    /// Bytes a second that this node may take from origins while so many nodes of its site, this one included, fetch
    /// from one. `None` without a limit.
    pub fn share(&self, fetching: usize) -> Option<u64> {
        let nodes = u64::try_from(fetching).unwrap_or(u64::MAX).max(1);
        // A rate of nothing would stop the fetch, and its owner would lose the blob to the next.
        self.site_bytes_per_s.map(|rate| (rate / nodes).max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEEKDAYS: [bool; 7] = [true, true, true, true, true, false, false];
    const WEEKEND: [bool; 7] = [false, false, false, false, false, true, true];

    fn at(day: u16, hour: u16, minute: u16) -> u16 {
        day * MINUTES_PER_DAY + hour * 60 + minute
    }

    /// Nights of weekdays, into the morning after, and whole weekends.
    fn nights_and_weekends() -> Uplink {
        let nights = Window::new(WEEKDAYS, 22 * 60, 6 * 60).unwrap();
        let weekends = Window::new(WEEKEND, 0, MINUTES_PER_DAY).unwrap();
        Uplink { windows: vec![nights, weekends], ..Uplink::default() }
    }

    fn background(uplink: &Uplink, minute: impl Into<Option<u16>>) -> Verdict {
        uplink.verdict(Urgency::Background, minute.into(), 0)
    }

    fn wait(reason: Reason, minutes: Option<u16>) -> Verdict {
        Verdict::Wait(Wait { reason, minutes })
    }

    #[test]
    fn windows_go_over_midnight_and_over_the_end_of_the_week() {
        let uplink = nights_and_weekends();
        assert_eq!(background(&uplink, at(0, 0, 0)), wait(Reason::Window, Some(22 * 60)), "Sunday's night is not one");
        assert_eq!(background(&uplink, at(0, 21, 59)), wait(Reason::Window, Some(1)));
        assert_eq!(background(&uplink, at(0, 22, 0)), Verdict::Allowed(Some(8 * 60)));
        assert_eq!(background(&uplink, at(1, 5, 59)), Verdict::Allowed(Some(1)));
        assert_eq!(background(&uplink, at(1, 6, 0)), wait(Reason::Window, Some(16 * 60)));
        // Windows that follow one on the other are one: from Friday evening to the end of Sunday.
        assert_eq!(background(&uplink, at(4, 22, 0)), Verdict::Allowed(Some(50 * 60)));
        let sunday_night = Window::new([false, false, false, false, false, false, true], 23 * 60, 60).unwrap();
        let uplink = Uplink { windows: vec![sunday_night], ..Uplink::default() };
        assert_eq!(background(&uplink, at(6, 23, 30)), Verdict::Allowed(Some(90)));
        assert_eq!(background(&uplink, at(0, 0, 59)), Verdict::Allowed(Some(1)));
        assert_eq!(background(&uplink, at(0, 1, 0)), wait(Reason::Window, Some(MINUTES_PER_WEEK - 120)));
    }

    #[test]
    fn a_window_that_never_closes_has_no_end() {
        let always = Window::new([true; 7], 0, MINUTES_PER_DAY).unwrap();
        let uplink = Uplink { windows: vec![always], metered: true, ..Uplink::default() };
        assert_eq!(background(&uplink, at(3, 3, 3)), Verdict::Allowed(None));
    }

    #[test]
    fn metered_means_that_a_window_is_needed() {
        assert_eq!(background(&Uplink::default(), None), Verdict::Allowed(None));
        let metered = Uplink { metered: true, ..Uplink::default() };
        assert_eq!(background(&metered, at(0, 0, 0)), wait(Reason::Metered, None));
        let metered = Uplink { metered: true, ..nights_and_weekends() };
        assert_eq!(background(&metered, at(5, 12, 0)), Verdict::Allowed(Some(36 * 60)));
        assert_eq!(background(&metered, at(4, 12, 0)), wait(Reason::Window, Some(600)));
        assert_eq!(background(&metered, None), wait(Reason::Clock, None));
    }

    #[test]
    fn runtimes_go_first() {
        let uplink = nights_and_weekends();
        assert_eq!(uplink.verdict(Urgency::Background, Some(at(5, 0, 0)), 1), wait(Reason::Runtime, None));
        assert_eq!(uplink.verdict(Urgency::Background, Some(at(0, 7, 0)), 1), wait(Reason::Window, Some(900)));
    }

    #[test]
    fn the_site_shares_its_rate() {
        let uplink = Uplink { site_bytes_per_s: Some(1000), ..Uplink::default() };
        assert_eq!([0, 1, 3, 5000].map(|nodes| uplink.share(nodes)), [1000, 1000, 333, 1].map(Some));
        assert_eq!(Uplink::default().share(3), None);
    }

    #[test]
    fn impossible_windows_are_refused() {
        let window = |days, from, to| Window::new(days, from, to).unwrap_err();
        assert_eq!(window([false; 7], 0, 1), WindowError::NoDay);
        assert_eq!(window(WEEKEND, MINUTES_PER_DAY, 1), WindowError::NoSuchMinute(MINUTES_PER_DAY));
        assert_eq!(window(WEEKEND, 0, MINUTES_PER_DAY + 1), WindowError::NoSuchMinute(MINUTES_PER_DAY + 1));
        assert_eq!(window(WEEKEND, 60, 60), WindowError::Empty);
    }

    fn window() -> impl Strategy<Value = Window> {
        let time = prop_oneof![1 => Just(0), 4 => 0..MINUTES_PER_DAY];
        (any::<[bool; 7]>(), time, 0..=MINUTES_PER_DAY)
            .prop_filter_map("no window", |(days, from, to)| Window::new(days, from, to).ok())
    }

    proptest! {
        #[test]
        fn the_verdict_is_the_same_until_the_time_that_it_names_and_another_then(
            windows in prop::collection::vec(window(), 0..4),
            metered: bool,
            minute in 0..MINUTES_PER_WEEK,
        ) {
            let uplink = Uplink { metered, windows, site_bytes_per_s: None };
            let reason = |after: u16| match background(&uplink, (minute + after) % MINUTES_PER_WEEK) {
                Verdict::Allowed(_) => None,
                Verdict::Wait(wait) => Some(wait.reason),
            };
            let now = reason(0);
            match background(&uplink, minute) {
                Verdict::Allowed(Some(minutes)) | Verdict::Wait(Wait { minutes: Some(minutes), .. }) => {
                    prop_assert!(minutes > 0);
                    prop_assert!((0..minutes).all(|after| reason(after) == now));
                    prop_assert_ne!(reason(minutes), now);
                }
                Verdict::Allowed(None) | Verdict::Wait(Wait { minutes: None, .. }) => {
                    prop_assert!((0..MINUTES_PER_WEEK).all(|after| reason(after) == now));
                }
            }
        }

        #[test]
        fn a_window_is_open_for_as_long_as_it_says_on_each_of_its_days(window in window()) {
            let open = (0..MINUTES_PER_WEEK).filter(|minute| window.is_open(*minute)).count();
            let days = window.days.iter().filter(|begins| **begins).count();
            prop_assert_eq!(open, days * usize::from(window.minutes));
            prop_assert!(window.starts().all(|start| window.is_open(start)));
        }

        #[test]
        fn runtimes_may_always_ask(
            windows in prop::collection::vec(window(), 0..3),
            metered: bool,
            minute in prop::option::of(0..MINUTES_PER_WEEK),
            runtime in 0usize..3,
        ) {
            let uplink = Uplink { metered, windows, site_bytes_per_s: None };
            prop_assert_eq!(uplink.verdict(Urgency::Runtime, minute, runtime), Verdict::Allowed(None));
        }
    }
}
