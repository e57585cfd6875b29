//! Reads a patch, step by step, and makes the new tar.
//!
//! The one who drives it hands in bytes of the patch and of the old tar as they are asked for, in order, each once, and
//! takes away what was made.
//!
//! Invariant: whatever the bytes are, it holds no more than [`Sizes::memory`](super::Sizes::memory) and some small
//! buffers, makes no more than the header says, and ends.

use thiserror::Error;

use super::{
    cursor::{AROUND, Cursor, MATCH_MIN, RUN_AFTER, SLACK},
    header::{Header, Sizes},
    model::{Model, Number, Op},
    range::{BIT_BYTES_MAX, Decoder as RangeDecoder, FLUSH_LEN},
    ring::Ring,
};

/// No symbol with what belongs to it takes more bytes of the patch: 200 bits, in bytes.
const SYMBOL_MAX: usize = 200 * BIT_BYTES_MAX + FLUSH_LEN;
/// The most bytes of the patch that are held.
const PATCH_BUFFER: usize = 16 << 10;

/// What a decoder needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// More of the patch: [`Decoder::push_patch`] or [`Decoder::end_patch`].
    Patch,
    /// More of the old tar: [`Decoder::push_old`].
    Old,
    /// That what it made is taken away.
    Room,
    /// Nothing: all of the new tar is made.
    Nothing,
}

/// Why a patch cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The patch ends too early.
    #[error("the patch ends in its middle")]
    Short,
    /// Something follows its end.
    #[error("something follows the patch's end")]
    Trailing,
    /// It asks for what cannot be.
    #[error("at byte {new_at} of the new tar the patch asks for {what}")]
    Impossible {
        /// Where.
        new_at: u64,
        /// What.
        what: &'static str,
    },
    /// What was made so far is not what the maker had.
    #[error("what was made up to byte {new_at} of the new tar is not what the patch was made for")]
    Check {
        /// Where.
        new_at: u64,
    },
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Nothing was read yet.
    Begin,
    /// The old bytes around the aligned place are to be looked at.
    Land,
    /// A flag.
    Aligned,
    /// What a flag that is set, or a run's end, leads to.
    Changed,
    /// Unchanged bytes.
    Run(u64),
    /// An op.
    Apart,
    /// A match's bytes.
    Match(u64),
    /// The end of the patch.
    End,
}

/// Makes a new tar from a patch and an old tar.
#[derive(Debug)]
pub struct Decoder {
    coder: RangeDecoder,
    patch_ended: bool,
    model: Model,
    cursor: Cursor,
    mode: Mode,
    /// Where in the new tar the last jump was.
    jumped_at: Option<u64>,
    old: Ring,
    new: Ring,
    window: u64,
    base_len: u64,
    tar_len: u64,
    checksum: crc32fast::Hasher,
}

impl Decoder {
    /// A decoder of what follows this header. Allocates what the header asks for: look at its sizes and lengths before.
    pub fn new(header: &Header) -> Self {
        let Sizes { window_log, history_log, model_log } = header.sizes;
        let mut cursor = Cursor::default();
        cursor.go(0);
        Self {
            coder: RangeDecoder::default(),
            patch_ended: false,
            model: Model::new(model_log.into()),
            cursor,
            mode: Mode::Begin,
            jumped_at: None,
            old: Ring::new(window_log),
            new: Ring::new(history_log),
            window: 1 << window_log,
            base_len: header.base_len,
            tar_len: header.tar_len,
            checksum: crc32fast::Hasher::new(),
        }
    }

    /// Takes bytes of the patch and tells how many.
    pub fn push_patch(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(PATCH_BUFFER.saturating_sub(self.coder.buffered()));
        self.coder.push(&bytes[..taken]);
        taken
    }

    /// Says that no more of the patch follows.
    pub const fn end_patch(&mut self) {
        self.patch_ended = true;
    }

    /// Takes bytes of the old tar and tells how many. What lies behind its length is not taken.
    pub fn push_old(&mut self, bytes: &[u8]) -> usize {
        let wanted = self.old_wanted().min(bytes.len() as u64) as usize;
        self.old.push(&bytes[..wanted]);
        wanted
    }

    /// How many bytes of the old tar it would take now.
    pub fn old_wanted(&self) -> u64 {
        (self.cursor.reach + SLACK - AROUND).min(self.base_len).saturating_sub(self.old.end())
    }

    /// Makes some of the new tar and appends it to `out`, until that has `room` bytes or something is needed.
    pub fn step(&mut self, out: &mut Vec<u8>, room: usize) -> Result<Need, DecodeError> {
        loop {
            if self.at() == self.tar_len && !matches!(self.mode, Mode::Begin | Mode::End) {
                self.mode = Mode::End;
            }
            if out.len() >= room && !matches!(self.mode, Mode::End) {
                return Ok(Need::Room);
            }
            if self.coder.buffered() < SYMBOL_MAX && !self.patch_ended {
                return Ok(Need::Patch);
            }
            if !matches!(self.mode, Mode::Begin | Mode::End) && self.old.end() < self.cursor.reach.min(self.base_len) {
                return Ok(Need::Old);
            }
            if matches!(self.mode, Mode::End) {
                return self.end();
            }
            let gone = self.go_on(room, out);
            // What was read beyond the end led anywhere.
            if self.coder.overrun() {
                return Err(DecodeError::Short);
            }
            gone?;
        }
    }

    /// Reads one symbol, or makes some of what one asked for.
    fn go_on(&mut self, room: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self.mode {
            Mode::Begin => {
                self.coder.begin();
                self.mode = Mode::Land;
            }
            Mode::Land => {
                self.look();
                self.mode = Mode::Aligned;
            }
            Mode::Run(0) => {
                self.cursor.end_run();
                self.look();
                self.mode = Mode::Changed;
            }
            Mode::Aligned => return self.aligned(out),
            Mode::Changed => return self.changed(out),
            Mode::Run(left) => return self.run(left, room, out),
            Mode::Apart => return self.apart(out),
            Mode::Match(left) => return self.matched(left, room, out),
            Mode::End => {}
        }
        Ok(())
    }

    const fn at(&self) -> u64 {
        self.cursor.place.new_at
    }

    const fn impossible(&self, what: &'static str) -> DecodeError {
        DecodeError::Impossible { new_at: self.at(), what }
    }

    fn look(&mut self) {
        let (old, len) = (&self.old, self.base_len);
        self.cursor.look(|at| if at < len { old.at(at) } else { 0 });
    }

    /// An aligned byte that did not change, or the way to what changed.
    fn aligned(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.cursor.same == RUN_AFTER {
            let len = self.model.number(&mut self.coder, Number::Run, 0);
            if len > self.tar_len - self.at() {
                return Err(self.impossible("more than its length"));
            }
            self.mode = Mode::Run(len);
        } else if self.model.flag(&mut self.coder, &self.cursor.place, false) {
            self.mode = Mode::Changed;
        } else {
            self.pass_aligned(self.cursor.place.ahead as u8, out)?;
        }
        Ok(())
    }

    fn changed(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.model.breaks(&mut self.coder, &self.cursor.place, false) {
            // Symbols that make nothing cost next to no bytes: there would be no end to them.
            if self.jumped_at == Some(self.at()) {
                return Err(self.impossible("a jump to where it does not stay"));
            }
            self.model.remember_aligned();
            self.cursor.leave();
            self.mode = Mode::Apart;
            return Ok(());
        }
        let change = self.model.change(&mut self.coder, &self.cursor.place, 0);
        self.mode = Mode::Aligned;
        self.pass_aligned((self.cursor.place.ahead as u8).wrapping_add(change), out)
    }

    fn pass_aligned(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let sight = self.cursor.old_at + AROUND;
        // What comes in sight may not be there yet; then it is looked at when it is.
        let there = sight < self.old.end() || sight >= self.base_len;
        let next = if sight < self.old.end() { self.old.at(sight) } else { 0 };
        self.cursor.pass_aligned(byte, next);
        if !there {
            self.mode = Mode::Land;
        }
        self.new.push(&[byte]);
        out.push(byte);
        self.passed(&[byte])
    }

    fn run(&mut self, left: u64, room: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let from = self.cursor.old_at;
        let there = self.old.end().saturating_sub(from);
        let (len, zeros) = if there > 0 { (left.min(there), false) } else { (left, true) };
        let len = len.min(self.cursor.until_check()).min((room - out.len()) as u64) as usize;
        let begin = out.len();
        if zeros {
            // Only behind the end of the old tar: before it the bytes were waited for.
            out.resize(begin + len, 0);
        } else {
            self.old.copy(from, len, out);
        }
        self.cursor.pass_run(&out[begin..]);
        self.new.push(&out[begin..]);
        self.mode = Mode::Run(left - len as u64);
        self.passed(&out[begin..])
    }

    fn apart(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self.model.op(&mut self.coder, Op::Literal) {
            Op::Literal => {
                self.expect();
                let byte = self.model.literal(&mut self.coder, &self.cursor.place, 0);
                self.cursor.pass(byte);
                self.new.push(&[byte]);
                out.push(byte);
                self.passed(&[byte])
            }
            Op::Match => {
                let distance = self.model.number(&mut self.coder, Number::Distance, 0) + 1;
                self.match_of(distance)
            }
            Op::MatchAgain => {
                let recent = self.model.recent(&mut self.coder, false, 0);
                self.match_of(self.cursor.distance_again(recent))
            }
            Op::Jump => {
                let by = self.model.number(&mut self.coder, Number::Jump, 0);
                let by = (by >> 1) as i64 ^ -((by & 1) as i64);
                self.jump(self.cursor.old_at.checked_add_signed(by))
            }
            Op::JumpAgain => {
                let recent = self.model.recent(&mut self.coder, true, 0);
                self.jump(self.cursor.realigned(recent))
            }
        }
    }

    fn match_of(&mut self, distance: u64) -> Result<(), DecodeError> {
        let len = self.model.number(&mut self.coder, Number::Length, 0) + MATCH_MIN;
        if distance == 0 || distance > self.new.end().min(self.new.capacity()) {
            return Err(self.impossible("bytes from farther back than it may"));
        }
        if len > self.tar_len - self.at() {
            return Err(self.impossible("more than its length"));
        }
        self.cursor.matched(distance);
        self.mode = Mode::Match(len);
        Ok(())
    }

    fn jump(&mut self, to: Option<u64>) -> Result<(), DecodeError> {
        match to {
            Some(to) if to > self.base_len => Err(self.impossible("bytes behind the old tar's end")),
            Some(to) if !self.cursor.holds(to, self.window) => Err(self.impossible("old bytes that left the window")),
            Some(to) => {
                self.cursor.go(to);
                self.jumped_at = Some(self.at());
                self.mode = Mode::Land;
                Ok(())
            }
            None => Err(self.impossible("bytes before the old tar's beginning")),
        }
    }

    fn matched(&mut self, left: u64, room: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let distance = self.cursor.distance();
        // Bytes that the match itself makes are there only after the ones before.
        let len = left.min(distance).min(self.cursor.until_check()).min((room - out.len()) as u64) as usize;
        let begin = out.len();
        self.new.copy(self.new.end() - distance, len, out);
        self.cursor.pass_all(&out[begin..]);
        self.new.push(&out[begin..]);
        let left = left - len as u64;
        self.mode = if left == 0 { Mode::Apart } else { Mode::Match(left) };
        self.passed(&out[begin..])?;
        if left == 0 {
            self.expect();
        }
        Ok(())
    }

    fn expect(&mut self) {
        let distance = self.cursor.distance();
        let back = self.new.end().checked_sub(distance).filter(|_| distance > 0);
        self.cursor.place.expected = back.map_or(0, |at| self.new.at(at));
    }

    fn passed(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.checksum.update(bytes);
        if self.cursor.is_check() {
            let checksum = self.checksum.clone().finalize() as u16;
            if Model::check(&mut self.coder, checksum) != checksum {
                return Err(DecodeError::Check { new_at: self.at() });
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<Need, DecodeError> {
        if self.coder.buffered() > 0 {
            return Err(DecodeError::Trailing);
        }
        if !self.patch_ended {
            return Ok(Need::Patch);
        }
        if !self.coder.ended() {
            return Err(DecodeError::Check { new_at: self.at() });
        }
        Ok(Need::Nothing)
    }
}
