//! Bytes that arrived and were not understood yet.

/// As many as one read takes from a socket. The longest message of the handshake fits.
pub(crate) const INTAKE_BYTES: usize = 64 << 10;

/// What arrived, in order.
#[derive(Debug)]
pub(crate) struct Intake {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Intake {
    pub(crate) fn new() -> Intake {
        Intake { bytes: vec![0; INTAKE_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What is there.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `count` bytes were understood.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "{count} of {} bytes", self.end - self.start);
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where more can be put.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        // What is left over is the beginning of a message: short, as a rule.
        if self.start > INTAKE_BYTES / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were put there.
    pub(crate) fn fill(&mut self, count: usize) {
        self.end += count;
        assert!(self.end <= INTAKE_BYTES, "{} bytes in {INTAKE_BYTES}", self.end);
    }
}
