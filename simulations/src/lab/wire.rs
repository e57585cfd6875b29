//! A link between two network interfaces that has the simulator's latency, jitter and loss.
//!
//! The interfaces are TAP devices, each in a namespace of its own, that whoever starts this process opened: one is its
//! standard input, the other its standard output. Frames are passed as they come, with the kernel's note on how they are
//! to be cut and summed (`IFF_VNET_HDR`), so that large segments stay whole.
//!
//! Invariants: frames of one direction arrive in the order in which they set out; what is on its way has a limit, beyond
//! which frames are lost as at a full queue.

use std::{
    collections::VecDeque,
    io::{self, stdin, stdout},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use layermesh_proto::engine::event::Instant;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::links::Way;

/// Longest frame: a segment of 64 KiB, its headers and the kernel's note.
const FRAME_BYTES_MAX: usize = (64 << 10) + 256;
/// Most bytes on their way in one direction. 64 MiB: 0.5 s of a gigabit link.
const ON_WAY_BYTES_MAX: usize = 64 << 20;
/// Frames that are read from one side before the other is looked at.
const BURST_MAX: usize = 64;

/// How the link is.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// One way.
    pub latency: Duration,
    /// Up to so much more, at random.
    pub jitter: Duration,
    /// Of 1000 frames, those that are lost.
    pub loss_per_mille: u32,
    /// Of all that is drawn.
    pub seed: u64,
}

/// Frames on their way in one direction.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    last: Instant,
}

impl Lane {
    /// A frame sets out, and takes so long unless one before it takes longer.
    fn set_out(&mut self, frame: &[u8], takes: Duration, now: Instant) {
        if self.bytes + frame.len() > ON_WAY_BYTES_MAX {
            return;
        }
        self.last = self.last.max(now + takes);
        self.bytes += frame.len();
        self.frames.push_back((self.last, frame.to_vec()));
    }

    fn due(&self) -> Option<Instant> {
        self.frames.front().map(|(due, _)| *due)
    }

    /// The next frame that has arrived.
    fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.due().filter(|due| *due <= now)?;
        let (_, frame) = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

/// The link, without the interfaces.
#[derive(Debug)]
struct Wire {
    way: Way,
    random: ChaCha8Rng,
    /// From the first side to the second, and back.
    lanes: [Lane; 2],
}

impl Wire {
    fn new(settings: &Settings) -> Self {
        let way = Way { latency: settings.latency, jitter: settings.jitter, loss_per_mille: settings.loss_per_mille };
        Self { way, random: ChaCha8Rng::seed_from_u64(settings.seed), lanes: Default::default() }
    }

    fn set_out(&mut self, from: usize, frame: &[u8], now: Instant) {
        if self.way.loses(&mut || self.random.next_u32()) {
            return;
        }
        let takes = self.way.takes(self.random.next_u32());
        self.lanes[from].set_out(frame, takes, now);
    }

    /// How long nothing arrives.
    fn idle(&self, now: Instant) -> Option<Duration> {
        self.lanes.iter().filter_map(Lane::due).min().map(|due| due.since(now))
    }
}

/// Passes frames until an interface is gone.
///
/// # Errors
/// If standard input or output is no interface.
pub fn run(settings: &Settings) -> io::Result<()> {
    let (first, second) = (stdin(), stdout());
    let sides = [first.as_fd(), second.as_fd()];
    let mut wire = Wire::new(settings);
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    #[allow(clippy::disallowed_methods)] // the clock of this shell
    let begun = std::time::Instant::now();
    let now = || Instant::default() + begun.elapsed();
    loop {
        let wait = wire.idle(now()).map(|idle| Timespec {
            tv_sec: i64::try_from(idle.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(idle.subsec_nanos()),
        });
        let mut polled = sides.each_ref().map(|side| PollFd::new(side, PollFlags::IN));
        match poll(&mut polled, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if polled.iter().any(|side| side.revents().intersects(gone)) {
            return Ok(());
        }
        for (from, side) in sides.iter().enumerate() {
            take(&mut wire, from, side, &mut buffer, now)?;
        }
        for (from, lane) in wire.lanes.iter_mut().enumerate() {
            while let Some(frame) = lane.arrived(now()) {
                give(&sides[1 - from], &frame)?;
            }
        }
    }
}

/// Reads what an interface has to send.
fn take(
    wire: &mut Wire,
    from: usize,
    side: &BorrowedFd<'_>,
    buffer: &mut [u8],
    now: impl Fn() -> Instant,
) -> io::Result<()> {
    for _ in 0..BURST_MAX {
        match rustix::io::read(side, &mut *buffer) {
            Ok(length) => wire.set_out(from, &buffer[..length], now()),
            Err(Errno::AGAIN | Errno::INTR) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Hands a frame to an interface. One that is down, or full, loses it.
fn give(side: &BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    match rustix::io::write(side, frame) {
        Ok(_) | Err(Errno::IO | Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn wire(jitter: Duration, loss_per_mille: u32) -> Wire {
        Wire::new(&Settings { latency: 20 * MS, jitter, loss_per_mille, seed: 7 })
    }

    fn at(ms: u32) -> Instant {
        Instant::default() + ms * MS
    }

    #[test]
    fn a_frame_arrives_on_the_other_side_after_the_latency() {
        let mut wire = wire(Duration::ZERO, 0);
        wire.set_out(0, b"frame", at(5));
        assert_eq!(wire.idle(at(5)), Some(20 * MS));
        assert_eq!(wire.lanes[0].arrived(at(24)), None);
        assert_eq!(wire.lanes[0].arrived(at(25)), Some(b"frame".to_vec()));
        assert_eq!(wire.lanes[1].arrived(at(25)), None);
        assert_eq!((wire.idle(at(25)), wire.lanes[0].bytes), (None, 0));
    }

    #[test]
    fn jitter_delays_and_never_reorders() {
        let mut wire = wire(30 * MS, 0);
        for number in 0..100_u8 {
            wire.set_out(0, &[number], at(u32::from(number)));
        }
        let waits: Vec<_> = wire.lanes[0].frames.iter().map(|(due, _)| *due).collect();
        assert!(waits.is_sorted());
        assert!(waits[0].since(at(0)) < 50 * MS && waits.windows(2).any(|pair| pair[1].since(pair[0]) > 2 * MS));
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_that_was_asked_for() {
        let mut wire = wire(Duration::ZERO, 100);
        for _ in 0..10_000 {
            wire.set_out(1, b"x", at(0));
        }
        let come = wire.lanes[1].frames.len();
        assert!((8_800..9_200).contains(&come), "{come}");
    }

    #[test]
    fn what_is_on_its_way_has_a_limit() {
        let mut lane = Lane::default();
        let frame = vec![0; 1 << 20];
        for _ in 0..100 {
            lane.set_out(&frame, MS, at(0));
        }
        assert_eq!(lane.frames.len(), 64);
    }
}
