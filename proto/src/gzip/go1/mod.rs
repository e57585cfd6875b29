//! The first generation of Go's `compress/flate`, as in Go up to 1.26.
//!
//! Invariant: what comes out depends on the input alone, not on how it is cut into writes.

mod blocks;
mod chains;
mod quick;

use super::{Level, symbols::STORED_MAX};
use blocks::Blocks;

/// A compressor of one level.
#[derive(Debug)]
pub(super) struct Go1(Way);

#[derive(Debug)]
enum Way {
    Chains(chains::Chains),
    Quick(quick::Quick),
    Plain(Plain),
}

impl Go1 {
    pub(super) fn new(level: Level) -> Self {
        Self(match level {
            Level::Huffman => Way::Plain(Plain::new(true)),
            Level::Number(0) => Way::Plain(Plain::new(false)),
            Level::Number(1) => Way::Quick(quick::Quick::new()),
            Level::Number(number) => Way::Chains(chains::Chains::new(number)),
        })
    }

    pub(super) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            Way::Chains(chains) => chains.write(input, out),
            Way::Quick(quick) => quick.write(input, out),
            Way::Plain(plain) => plain.write(input, out),
        }
    }

    pub(super) fn finish(self, out: &mut Vec<u8>) {
        match self.0 {
            Way::Chains(chains) => chains.finish(out),
            Way::Quick(quick) => quick.finish(out),
            Way::Plain(plain) => plain.finish(out),
        }
    }
}

/// No matches: blocks of literals, or stored ones.
#[derive(Debug)]
struct Plain {
    blocks: Blocks,
    buffer: Vec<u8>,
    coded: bool,
}

impl Plain {
    fn new(coded: bool) -> Self {
        Self { blocks: Blocks::new(), buffer: Vec::with_capacity(STORED_MAX), coded }
    }

    fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let taken = input.len().min(STORED_MAX - self.buffer.len());
            self.buffer.extend_from_slice(&input[..taken]);
            input = &input[taken..];
            if self.buffer.len() == STORED_MAX {
                self.block();
            }
        }
        self.blocks.sink.drain_into(out);
    }

    fn finish(mut self, out: &mut Vec<u8>) {
        if !self.buffer.is_empty() {
            self.block();
        }
        self.blocks.end();
        self.blocks.sink.drain_into(out);
    }

    fn block(&mut self) {
        if self.coded {
            self.blocks.literals(&self.buffer);
        } else {
            self.blocks.stored(&self.buffer);
        }
        self.buffer.clear();
    }
}
