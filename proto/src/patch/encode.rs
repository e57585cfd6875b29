//! Writes a patch from what its maker found.
//!
//! Invariant: what is written is read back as the new tar, given the old one; ops that would not be are refused.

use thiserror::Error;

use super::{
    cursor::{Cursor, MATCH_MIN, RUN_AFTER},
    header::{Header, Sizes},
    model::{Model, Number, Op as Symbol},
    range::Encoder as RangeEncoder,
};

/// A part of the new tar, and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// So many bytes by the old ones from there on, which may differ here and there.
    Aligned {
        /// The first old byte.
        old_at: u64,
        /// Bytes.
        len: u64,
    },
    /// The same bytes as so far back in the new tar.
    Match {
        /// How far back.
        distance: u64,
        /// Bytes.
        len: u64,
    },
    /// So many bytes as they are.
    Literal {
        /// Bytes.
        len: u64,
    },
}

/// Why ops make no patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the op at byte {new_at} of the new tar cannot be: {what}")]
pub struct WrongOp {
    /// Where it begins.
    pub new_at: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Writes a patch of these ops.
pub fn encode(header: &Header, old: &[u8], new: &[u8], ops: &[Op]) -> Result<Vec<u8>, WrongOp> {
    let mut out = Vec::new();
    header.put(&mut out);
    let mut writer = Writer::new(header.sizes, old, new);
    for op in ops {
        writer.op(*op)?;
    }
    if writer.at() != new.len() {
        return Err(writer.wrong("the ops end before the tar does"));
    }
    out.append(&mut writer.coder.finish());
    Ok(out)
}

struct Writer<'a> {
    sizes: Sizes,
    old: &'a [u8],
    new: &'a [u8],
    coder: RangeEncoder,
    model: Model,
    cursor: Cursor,
    /// Whether the last byte was an aligned one, and whether a run ended there.
    aligned: bool,
    run_ended: bool,
    checksum: crc32fast::Hasher,
}

impl<'a> Writer<'a> {
    fn new(sizes: Sizes, old: &'a [u8], new: &'a [u8]) -> Self {
        let mut cursor = Cursor::default();
        cursor.go(0);
        cursor.look(|at| byte_at(old, at));
        Self {
            sizes,
            old,
            new,
            coder: RangeEncoder::new(),
            model: Model::new(sizes.model_log.into()),
            cursor,
            aligned: true,
            run_ended: false,
            checksum: crc32fast::Hasher::new(),
        }
    }

    fn at(&self) -> usize {
        self.cursor.place.new_at as usize
    }

    fn wrong(&self, what: &'static str) -> WrongOp {
        WrongOp { new_at: self.cursor.place.new_at, what }
    }

    fn op(&mut self, op: Op) -> Result<(), WrongOp> {
        let left = (self.new.len() - self.at()) as u64;
        let (Op::Aligned { len, .. } | Op::Match { len, .. } | Op::Literal { len }) = op;
        if len > left {
            return Err(self.wrong("it is longer than what is left"));
        }
        if len == 0 {
            return Ok(());
        }
        match op {
            Op::Aligned { old_at, len } => self.aligned(old_at, len as usize),
            Op::Match { distance, len } => self.matched(distance, len as usize),
            Op::Literal { len } => {
                self.leave();
                (0..len).for_each(|_| self.literal());
                Ok(())
            }
        }
    }

    /// Ends an aligned stretch.
    fn leave(&mut self) {
        if !std::mem::take(&mut self.aligned) {
            return;
        }
        if !std::mem::take(&mut self.run_ended) {
            if self.cursor.same == RUN_AFTER {
                self.model.number(&mut self.coder, Number::Run, 0);
                self.cursor.end_run();
            } else {
                self.model.flag(&mut self.coder, &self.cursor.place, true);
            }
        }
        self.model.breaks(&mut self.coder, &self.cursor.place, true);
        self.model.remember_aligned();
        self.cursor.leave();
    }

    fn aligned(&mut self, old_at: u64, len: usize) -> Result<(), WrongOp> {
        if !(self.aligned && self.cursor.old_at == old_at) {
            self.leave();
            self.jump(old_at)?;
        }
        let end = self.at() + len;
        while self.at() < end {
            let byte = self.new[self.at()];
            if self.run_ended || self.cursor.same == RUN_AFTER {
                if !self.run_ended {
                    self.run(end);
                    continue;
                }
                // After a run the byte has to be another one, or the stretch begins anew.
                if byte == self.cursor.place.ahead as u8 {
                    self.leave();
                    self.jump(self.cursor.old_at)?;
                    continue;
                }
                self.run_ended = false;
                self.changed(byte);
                continue;
            }
            let changed = byte != self.cursor.place.ahead as u8;
            self.model.flag(&mut self.coder, &self.cursor.place, changed);
            if changed {
                self.changed(byte);
            } else {
                self.pass_aligned(byte);
            }
        }
        Ok(())
    }

    fn changed(&mut self, byte: u8) {
        self.model.breaks(&mut self.coder, &self.cursor.place, false);
        let change = byte.wrapping_sub(self.cursor.place.ahead as u8);
        self.model.change(&mut self.coder, &self.cursor.place, change);
        self.pass_aligned(byte);
    }

    fn pass_aligned(&mut self, byte: u8) {
        let next = byte_at(self.old, self.cursor.old_at + super::cursor::AROUND);
        self.cursor.pass_aligned(byte, next);
        self.passed(1);
    }

    /// The unchanged bytes from here to `end` at most.
    fn run(&mut self, end: usize) {
        let begin = self.at();
        let same =
            (begin..end).zip(self.cursor.old_at..).take_while(|(at, old)| self.new[*at] == byte_at(self.old, *old));
        let mut left = same.count();
        self.model.number(&mut self.coder, Number::Run, left as u64);
        while left > 0 {
            let len = (left as u64).min(self.cursor.until_check()) as usize;
            self.cursor.pass_run(&self.new[self.at()..self.at() + len]);
            self.passed(len);
            left -= len;
        }
        self.cursor.end_run();
        self.cursor.look(|at| byte_at(self.old, at));
        self.run_ended = true;
    }

    fn jump(&mut self, old_at: u64) -> Result<(), WrongOp> {
        if old_at > self.old.len() as u64 {
            return Err(self.wrong("it leads beyond the old tar"));
        }
        if !self.cursor.holds(old_at, 1 << self.sizes.window_log) {
            return Err(self.wrong("it leads out of the window"));
        }
        if let Some(recent) = self.cursor.recent_alignment(old_at) {
            self.model.op(&mut self.coder, Symbol::JumpAgain);
            self.model.recent(&mut self.coder, true, recent);
        } else {
            self.model.op(&mut self.coder, Symbol::Jump);
            let by = old_at.wrapping_sub(self.cursor.old_at) as i64;
            self.model.number(&mut self.coder, Number::Jump, ((by << 1) ^ (by >> 63)) as u64);
        }
        self.cursor.go(old_at);
        self.cursor.look(|at| byte_at(self.old, at));
        self.aligned = true;
        Ok(())
    }

    fn matched(&mut self, distance: u64, len: usize) -> Result<(), WrongOp> {
        let (at, back) = (self.at(), distance as usize);
        if distance == 0 || back > at || distance > 1 << self.sizes.history_log || (len as u64) < MATCH_MIN {
            return Err(self.wrong("no match is so short, or leads so far back"));
        }
        if (at..at + len).any(|at| self.new[at] != self.new[at - back]) {
            return Err(self.wrong("the bytes are others"));
        }
        self.leave();
        if let Some(recent) = self.cursor.recent_distance(distance) {
            self.model.op(&mut self.coder, Symbol::MatchAgain);
            self.model.recent(&mut self.coder, false, recent);
        } else {
            self.model.op(&mut self.coder, Symbol::Match);
            self.model.number(&mut self.coder, Number::Distance, distance - 1);
        }
        self.model.number(&mut self.coder, Number::Length, len as u64 - MATCH_MIN);
        self.cursor.matched(distance);
        let mut left = len;
        while left > 0 {
            let len = (left as u64).min(self.cursor.until_check()) as usize;
            self.cursor.pass_all(&self.new[self.at()..self.at() + len]);
            self.passed(len);
            left -= len;
        }
        self.expect();
        Ok(())
    }

    fn literal(&mut self) {
        self.model.op(&mut self.coder, Symbol::Literal);
        let byte = self.new[self.at()];
        self.expect();
        self.model.literal(&mut self.coder, &self.cursor.place, byte);
        self.cursor.pass(byte);
        self.passed(1);
    }

    fn expect(&mut self) {
        let (at, back) = (self.at(), self.cursor.distance() as usize);
        self.cursor.place.expected = if back == 0 || back > at { 0 } else { self.new[at - back] };
    }

    /// After `len` bytes, which end at a check at the latest.
    fn passed(&mut self, len: usize) {
        self.checksum.update(&self.new[self.at() - len..self.at()]);
        if self.cursor.is_check() {
            Model::check(&mut self.coder, self.checksum.clone().finalize() as u16);
        }
    }
}

fn byte_at(old: &[u8], at: u64) -> u8 {
    usize::try_from(at).ok().and_then(|at| old.get(at)).copied().unwrap_or(0)
}
