//! Big-endian fields, one after the other.

/// What is left to read of some bytes. Every field is `None` where they end too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string with its length before it.
    pub(super) fn string(&mut self) -> Option<String> {
        let length = self.u32()?;
        text(self.bytes(length as usize)?)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A string of the protocol: UTF-8, not too long, no NUL.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let is_allowed = bytes.len() <= super::STRING_MAX && !bytes.contains(&0);
    is_allowed.then(|| std::str::from_utf8(bytes).ok().map(str::to_owned)).flatten()
}

/// A string with its length before it.
pub(super) fn put_string(out: &mut Vec<u8>, string: &str) {
    out.extend_from_slice(&(string.len() as u32).to_be_bytes());
    out.extend_from_slice(string.as_bytes());
}
