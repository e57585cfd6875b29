//! `layermesh top`: the site at a glance, live.
//!
//! What is known (`model`), what of it is shown (`panes`) and how it looks (`draw`) are pure; `screen` has the terminal, and
//! here is the loop between them and the node.

mod draw;
mod model;
mod panes;
mod rates;
mod screen;
#[cfg(test)]
mod testing;

use std::{ffi::OsStr, io::IsTerminal as _, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use ratatui::crossterm::event::Event;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use self::{draw::Paint, model::Model, panes::Panes, screen::Screen};
use super::{Exit, Failure, Global, node, words};
use crate::{
    admin::{
        client::{AdminClient, ClientError},
        types::SiteStatus,
    },
    config::units::parse_duration,
};

/// How often the node may be asked. It makes what it says twice a second at most; and who looks once a minute sees transfers
/// come and go.
const INTERVALS_S: std::ops::RangeInclusive<u64> = 1..=60;
/// How often what is shown is drawn again though nothing came, for how long nobody answers.
const REDRAW: Duration = Duration::from_secs(1);

/// Arguments of `layermesh top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// How often the node is asked, from 1s to 60s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if INTERVALS_S.contains(&interval.as_secs()) {
        return Ok(interval);
    }
    Err(format!("it may be from {} to {} seconds", INTERVALS_S.start(), INTERVALS_S.end()))
}

/// What the node said, or why it did not.
type Answer = Result<SiteStatus, ClientError>;

pub(super) async fn run(args: TopArgs, global: &Global) -> Result<Exit, Failure> {
    let elsewhere = "`layermesh status` says once how the node is, `layermesh status --json` does so for scripts";
    if global.json {
        return Err(Failure::usage(anyhow!("top has no JSON: {elsewhere}")));
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage(anyhow!("standard output is not a terminal, and top needs one: {elsewhere}")));
    }
    let client = node::client(global)?;
    // Before the screen is taken over: that there is no node is said where it can be read.
    let first = match client.site().await {
        Err(ClientError::Refused(why)) => {
            let older = "the node does not tell of its site; is it older than this program?";
            return Err(anyhow!(why).context(older).into());
        }
        other => other?,
    };
    let paint = paint(std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref());
    let stop = Signals::watch().context("cannot watch signals")?;
    let mut screen = Screen::open().context("cannot use the terminal")?;
    let events = screen::events().context("cannot read keys")?;
    let answers = ask_again_and_again(client, args.interval);
    let top = Top { model: Model::new(first, args.interval), panes: Panes::default(), paint, begun: Instant::now() };
    top.run(&mut screen, events, answers, stop).await.context("the terminal failed")?;
    Ok(Exit::Done)
}

/// What a terminal of this kind is drawn with. `NO_COLOR` counts if it is not empty (no-color.org).
fn paint(no_color: Option<&OsStr>, term: Option<&OsStr>) -> Paint {
    match term {
        Some(term) if term == "dumb" || term.is_empty() => Paint::Nothing,
        None => Paint::Nothing,
        Some(_) if no_color.is_some_and(|value| !value.is_empty()) => Paint::Plain,
        Some(_) => Paint::Colours,
    }
}

/// Asks the node, and again an interval after each answer. While nobody takes the answers it is not asked.
fn ask_again_and_again(client: AdminClient, interval: Duration) -> mpsc::Receiver<Answer> {
    let (answers, queue) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok(place) = answers.reserve().await {
            // The first was asked for already.
            sleep(interval).await;
            place.send(client.site().await);
        }
    });
    queue
}

/// Signals that end `top`. Ctrl-C is a key while the screen is taken over.
struct Signals([Signal; 3]);

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn any(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

struct Top {
    model: Model,
    panes: Panes,
    paint: Paint,
    begun: Instant,
}

impl Top {
    /// Until somebody quits, a signal comes, or the terminal is gone.
    async fn run(
        mut self,
        screen: &mut Screen,
        mut events: mpsc::Receiver<Event>,
        mut answers: mpsc::Receiver<Answer>,
        mut stop: Signals,
    ) -> std::io::Result<()> {
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.draw(screen)?;
            tokio::select! {
                () = stop.any() => return Ok(()),
                event = events.recv() => match event {
                    Some(event) => if !self.take(&event) { return Ok(()) },
                    None => return Ok(()),
                },
                answer = answers.recv(), if !self.panes.paused => match answer {
                    Some(Ok(site)) => self.model.take(site),
                    Some(Err(error)) => self.model.miss(&error.to_string(), self.begun.elapsed()),
                    None => return Err(std::io::Error::other("nobody asks the node any more")),
                },
                _ = redraw.tick() => {}
            }
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> std::io::Result<()> {
        let seen = self.model.seen(self.begun.elapsed(), self.panes.transfers, self.panes.devices);
        let mut extent = panes::Extent::default();
        screen.draw(|frame| extent = draw::draw(frame, &seen, &self.panes, self.paint))?;
        self.panes.drawn(extent);
        Ok(())
    }

    /// Takes what came from the terminal; returns whether to go on.
    fn take(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return true };
        panes::press_of(key).is_none_or(|press| self.panes.press(press))
    }
}

#[cfg(test)]
mod tests;
