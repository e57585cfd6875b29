//! Which old bytes the one who applies the patch still has.

/// Old bytes that are looked at beyond an aligned place, and what is left of a window for reading ahead. See the format.
const AROUND: usize = 8;
const SLACK: usize = 64 << 10;

/// The old tar as it passes by.
#[derive(Debug)]
pub(super) struct Window<'a> {
    pub(super) old: &'a [u8],
    len: usize,
    reach: usize,
    last: usize,
    /// What lies behind this is left alone for now: what comes next would fall out of the window.
    limit: usize,
}

impl<'a> Window<'a> {
    pub(super) const fn new(old: &'a [u8], log: u32) -> Self {
        Self { old, len: 1 << log, reach: AROUND, last: 0, limit: usize::MAX }
    }

    /// Whether old bytes from there on can be used.
    pub(super) const fn holds(&self, place: usize) -> bool {
        place + self.len >= self.reach + SLACK
    }

    /// Whether the whole stretch can be used, and what is needed later stays.
    pub(super) const fn allows(&self, place: usize, len: usize) -> bool {
        self.holds(place) && place + len <= self.limit
    }

    /// Bytes of the window that places may lead back.
    pub(super) const fn back(&self) -> usize {
        self.len - SLACK - AROUND
    }

    /// Says what is needed next: the bytes from there on.
    pub(super) const fn keep(&mut self, next: usize) {
        self.limit = next + self.back();
    }

    /// What passed so far.
    pub(super) fn sight(&self) -> usize {
        self.reach.min(self.old.len())
    }

    /// Where the last stretch ended.
    pub(super) const fn last(&self) -> usize {
        self.last
    }

    pub(super) fn used(&mut self, place: usize, len: usize) {
        self.last = place + len;
        self.reach = self.reach.max(self.last + AROUND);
    }
}
