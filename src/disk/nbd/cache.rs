//! What a server may still lose: writes that it has acknowledged and not made durable.

use rangemap::RangeSet;

use crate::block::{Extent, IoError};

/// What is known of the cache of a server.
#[derive(Default, Debug)]
pub(super) struct ServerCache {
    /// Sectors that were acknowledged and not flushed.
    unflushed: RangeSet<u64>,
    /// Those that a server which has gone may have taken with it.
    doubtful: RangeSet<u64>,
    /// No flush has told yet.
    is_in_doubt: bool,
}

/// What a flush under way is about.
#[derive(Debug)]
pub(super) struct Flush {
    /// Sectors it makes durable.
    covers: RangeSet<u64>,
    /// Some of what it should cover may be lost.
    is_in_doubt: bool,
}

impl ServerCache {
    /// Whether a read of these sectors may give an old version.
    pub(super) fn hides(&self, extent: Extent) -> bool {
        self.doubtful.overlaps(&extent.range())
    }

    /// Whether a server that goes takes something with it.
    pub(super) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// A write was acknowledged.
    pub(super) fn wrote(&mut self, extent: Extent, is_forced: bool) {
        self.doubtful.remove(extent.range());
        match is_forced {
            true => self.unflushed.remove(extent.range()),
            false => self.unflushed.insert(extent.range()),
        }
    }

    /// A flush is sent.
    pub(super) fn flush_begins(&mut self) -> Flush {
        Flush { covers: std::mem::take(&mut self.unflushed), is_in_doubt: self.is_in_doubt }
    }

    /// A flush was answered so; gives what to tell of it.
    pub(super) fn flush_ends(&mut self, flush: Flush, mut result: Result<(), IoError>) -> Result<(), IoError> {
        if flush.is_in_doubt {
            self.is_in_doubt = false;
            result = result.and(Err(IoError::Medium));
        }
        if result.is_err() {
            self.flush_is_lost(flush);
        }
        result
    }

    /// A flush nobody hears of was answered: doubts are told by another.
    pub(super) fn silent_flush_ends(&mut self, flush: Flush, result: Result<(), IoError>) {
        if result.is_err() {
            self.flush_is_lost(flush);
        }
    }

    /// A flush will not be answered.
    pub(super) fn flush_is_lost(&mut self, flush: Flush) {
        self.unflushed.extend(flush.covers);
    }

    /// The server has gone, with what it had not flushed.
    pub(super) fn is_gone(&mut self) {
        self.doubtful.extend(std::mem::take(&mut self.unflushed));
        self.is_in_doubt |= !self.doubtful.is_empty();
    }
}
