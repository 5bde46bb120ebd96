//! An original and the overlay file that shadows it: reads, writes, and what is left after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::format::{
    Bits, Content, Header, HeaderFault, Layout, PAGE_BYTES, PAGE_SECTORS, PageCopy, Record, decode_page, encode_page,
};
use super::store::{Source, Store};
use crate::block::{Buf, Extent, IoError, Lba, Payload, SECTOR_BYTES, Sectors};

/// Sectors of one write that share a record, at most: 2 MiB.
const PIECE: Sectors = Sectors(4096);

/// Bytes looked at or copied at a time.
const COPY_BYTES: u64 = 1 << 20;

/// An original and its overlay file.
pub(super) struct Shadow<O, S> {
    original: O,
    store: S,
    layout: Layout,
    /// Pages of the map with a bit set.
    pages: BTreeMap<u64, Page>,
    /// Pages whose first copy in the file lacks a bit.
    unsettled: BTreeSet<u64>,
    /// Pages whose second copy lacks a bit the first has.
    mirrors_due: BTreeSet<u64>,
    /// Bytes of the log in use.
    log_tail: u64,
    /// The log held something when the file was opened.
    log_stale: bool,
    /// Something was written since the last sync, perhaps by a process before this one.
    unsynced: bool,
    /// A sync failed: what the file holds is unknown until it is opened anew.
    failed: bool,
}

struct Page {
    /// Sectors read from the overlay.
    present: Bits,
    /// Those the map in the file speaks for, so that a write need not be logged.
    stable: Bits,
}

/// Why an overlay file cannot be used.
#[derive(Debug)]
pub(super) enum LoadError {
    Io(io::Error),
    Header(HeaderFault),
    /// The file is shorter than its header says.
    Truncated {
        bytes: u64,
    },
    /// Neither copy of this page of the map is whole.
    Map {
        page: u64,
    },
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> LoadError {
        LoadError::Io(error)
    }
}

/// Writes the header twice, each copy durable before the next is touched.
pub(super) fn write_header<S: Store>(store: &mut S, header: &Header) -> io::Result<()> {
    for copy in [0, 1] {
        store.write_at(&header.encode(), Layout::header(copy))?;
        store.sync()?;
    }
    Ok(())
}

/// The header: its first whole copy, since the first is written first.
pub(super) fn read_header<S: Source>(store: &S) -> Result<Header, LoadError> {
    let mut faults = Vec::new();
    for copy in [0, 1] {
        let mut page = [0; PAGE_BYTES];
        match store.read_at(&mut page, Layout::header(copy)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => faults.push(HeaderFault::Foreign),
            Err(error) => return Err(error.into()),
            Ok(()) => match Header::decode(&page) {
                Ok(header) => return Ok(header),
                Err(fault) => faults.push(fault),
            },
        }
    }
    let told = faults.iter().find(|fault| **fault != HeaderFault::Foreign).unwrap_or(&HeaderFault::Foreign);
    Err(LoadError::Header(*told))
}

impl<O: Source, S: Store> Shadow<O, S> {
    /// Reads map and log of `store`, writing nothing.
    pub(super) fn load(original: O, store: S) -> Result<Shadow<O, S>, LoadError> {
        let layout = read_header(&store)?.layout();
        if store.bytes()? < layout.file_bytes() {
            return Err(LoadError::Truncated { bytes: store.bytes()? });
        }
        let mut shadow = Shadow {
            original,
            store,
            layout,
            pages: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            mirrors_due: BTreeSet::new(),
            log_tail: 0,
            log_stale: false,
            unsynced: true,
            failed: false,
        };
        shadow.load_map()?;
        shadow.replay_log()?;
        Ok(shadow)
    }

    /// Writes down what `load` found, so that the next crash finds the same, and empties the log.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.checkpoint()?;
        if self.log_stale {
            // Records behind a torn one were not believed; a later log must not lead up to them again.
            self.store.zero(Layout::LOG, self.layout.log_bytes)?;
            self.sync()?;
            self.log_stale = false;
        }
        Ok(())
    }

    fn load_map(&mut self) -> Result<(), LoadError> {
        let mut found: BTreeMap<u64, [PageCopy; 2]> = BTreeMap::new();
        for copy in [0, 1] {
            let mut at = self.layout.map(copy);
            while let Some(data) = self.store.next_data(at)?.filter(|data| *data < self.layout.map(copy + 1)) {
                let page = (data - self.layout.map(copy)) / PAGE_BYTES as u64;
                let mut bytes = [0; PAGE_BYTES];
                self.store.read_at(&mut bytes, self.layout.page(copy, page))?;
                found.entry(page).or_default()[copy] = decode_page(self.layout, page, &bytes);
                at = self.layout.page(copy, page + 1);
            }
        }
        for (page, copies) in found {
            let stable = match copies {
                // Its first write ever was torn: nothing in it was durable yet.
                [PageCopy::Damaged | PageCopy::Blank, PageCopy::Blank] => continue,
                [PageCopy::Damaged | PageCopy::Blank, PageCopy::Damaged] => return Err(LoadError::Map { page }),
                [PageCopy::Bits(first), PageCopy::Bits(second)] => {
                    let mut both = first.clone();
                    both.add(&second);
                    if both != first {
                        self.unsettled.insert(page);
                    } else if both != second {
                        self.mirrors_due.insert(page);
                    }
                    both
                }
                [PageCopy::Bits(first), PageCopy::Blank | PageCopy::Damaged] => {
                    self.mirrors_due.insert(page);
                    first
                }
                [PageCopy::Blank | PageCopy::Damaged, PageCopy::Bits(second)] => {
                    self.unsettled.insert(page);
                    second
                }
            };
            self.pages.insert(page, Page { present: stable.clone(), stable });
        }
        Ok(())
    }

    fn replay_log(&mut self) -> io::Result<()> {
        let used = self.store.next_data(Layout::LOG)?.is_some_and(|data| data < self.layout.log_end());
        if !used {
            return Ok(());
        }
        self.log_stale = true;
        let mut log = vec![0; self.layout.log_bytes as usize];
        self.store.read_at(&mut log, Layout::LOG)?;
        let mut at = 0;
        while let Some((record, length)) = Record::decode(self.layout.capacity, &log[at..]) {
            self.believe(&record)?;
            at += length;
        }
        Ok(())
    }

    /// Takes those sectors of a record as present that hold what it says.
    fn believe(&mut self, record: &Record) -> io::Result<()> {
        let (mut at, end) = (record.extent.start, record.extent.end());
        while at < end {
            if let Content::Zeroes = record.content {
                let data = self.store.next_data(self.layout.data(at))?.unwrap_or(u64::MAX);
                let hole_end = Lba((data - self.layout.data(Lba(0))) / SECTOR_BYTES).min(end);
                self.mark(Extent::new(at, hole_end - at));
                at = hole_end;
            }
            let until = end.min(at + Sectors::floor_bytes(COPY_BYTES));
            let mut bytes = vec![0; (until - at).bytes() as usize];
            self.store.read_at(&mut bytes, self.layout.data(at))?;
            for (lba, sector) in (at.0..).zip(bytes.chunks(SECTOR_BYTES as usize)) {
                let stored = match &record.content {
                    Content::Data(crcs) => crcs[(lba - record.extent.start.0) as usize] == crc32fast::hash(sector),
                    Content::Zeroes => sector.iter().all(|byte| *byte == 0),
                };
                if stored {
                    self.mark(Extent::new(Lba(lba), Sectors(1)));
                }
            }
            at = until;
        }
        Ok(())
    }

    /// Fills `buf` with the sectors of `extent`, each from where it is.
    pub(super) fn read(&self, extent: Extent, buf: &mut Buf) -> Result<(), IoError> {
        self.usable()?;
        let mut at = extent.start.bytes();
        let (mut run_end, mut present) = (at, false);
        for mut part in buf.parts_mut() {
            while !part.is_empty() {
                if at == run_end {
                    let (end, is_present) = self.run_from(Lba(at / SECTOR_BYTES), extent.end());
                    (run_end, present) = (end.bytes(), is_present);
                }
                let now = part.len().min((run_end - at) as usize);
                let (head, rest) = part.split_at_mut(now);
                if present {
                    self.store.read_at(head, self.layout.data(Lba(0)) + at).map_err(|error| told(&error))?;
                } else {
                    self.original.read_at(head, at).map_err(|error| told(&error))?;
                }
                at += now as u64;
                part = rest;
            }
        }
        Ok(())
    }

    /// Stores `payload`: it is there after `kill -9` when this returns, and after a power cut when
    /// [`Shadow::flush`] has returned.
    pub(super) fn write(&mut self, extent: Extent, payload: &Payload) -> Result<(), IoError> {
        self.usable()?;
        let longest = PIECE.min(Record::sectors_in(self.layout.log_bytes));
        let mut at = extent.start;
        while at < extent.end() {
            let piece = Extent::new(at, longest.min(extent.end() - at));
            let skipped = (at - extent.start).bytes() as usize;
            let payload = payload.cut(skipped..skipped + piece.length.bytes() as usize);
            let stored = self.store_logged(
                piece,
                || Content::Data(sector_crcs(&payload)),
                |store, mut offset| {
                    payload.slices().try_for_each(|slice| {
                        store.write_at(slice, offset)?;
                        offset += slice.len() as u64;
                        Ok(())
                    })
                },
            );
            stored.map_err(|error| self.failure(&error))?;
            at = piece.end();
        }
        Ok(())
    }

    /// Makes the sectors of `extent` read as zero.
    pub(super) fn zero(&mut self, extent: Extent) -> Result<(), IoError> {
        self.usable()?;
        if extent.length == Sectors::ZERO {
            return Ok(());
        }
        let length = extent.length.bytes();
        let zeroed = self.store_logged(extent, || Content::Zeroes, |store, offset| store.zero(offset, length));
        zeroed.map_err(|error| self.failure(&error))
    }

    /// Makes everything stored so far durable.
    pub(super) fn flush(&mut self) -> Result<(), IoError> {
        self.usable()?;
        self.checkpoint().map_err(|error| self.failure(&error))
    }

    /// Log, then data, then the bits in memory. Where the map in the file has all the sectors already,
    /// old and new bytes are equally believed after a crash and nothing need be logged.
    fn store_logged(
        &mut self,
        extent: Extent,
        content: impl FnOnce() -> Content,
        store_data: impl FnOnce(&mut S, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let offset = self.layout.data(extent.start);
        if self.is_stable(extent) {
            self.unsynced = true;
            return store_data(&mut self.store, offset);
        }
        let record = Record { extent, content: content() };
        self.log(&record)?;
        match store_data(&mut self.store, offset) {
            Ok(()) => {
                self.mark(extent);
                Ok(())
            }
            Err(error) => {
                // After a crash the sectors that were stored would be believed: believe them now, too.
                self.failed |= self.believe(&record).is_err();
                Err(error)
            }
        }
    }

    fn log(&mut self, record: &Record) -> io::Result<()> {
        let bytes = record.encode();
        if self.log_tail + bytes.len() as u64 > self.layout.log_bytes {
            self.checkpoint()?;
        }
        self.unsynced = true;
        self.store.write_at(&bytes, Layout::LOG + self.log_tail)?;
        self.log_tail += bytes.len() as u64;
        Ok(())
    }

    /// Data, then the first copy of the map, then the second: at any moment one copy of each page is
    /// whole and speaks only of sectors that are durable.
    fn checkpoint(&mut self) -> io::Result<()> {
        if !self.unsynced {
            return Ok(());
        }
        if !self.mirrors_due.is_empty() {
            // The first copies may be in the page cache of a killed process only.
            self.sync()?;
            self.write_mirrors()?;
        }
        self.sync()?;
        if self.unsettled.is_empty() {
            return Ok(());
        }
        self.unsynced = true;
        for page in &self.unsettled {
            let encoded = encode_page(*page, &self.pages[page].present);
            self.store.write_at(&encoded, self.layout.page(0, *page))?;
        }
        self.sync()?;
        for index in std::mem::take(&mut self.unsettled) {
            let page = self.pages.get_mut(&index).expect("an unsettled page has bits");
            page.stable = page.present.clone();
            self.mirrors_due.insert(index);
        }
        self.log_tail = 0;
        // What was asked for is durable. If the second copies cannot be written now, they are written
        // before the first ones are touched again.
        self.unsynced = true;
        let _later = self.write_mirrors();
        Ok(())
    }

    fn write_mirrors(&mut self) -> io::Result<()> {
        while let Some(page) = self.mirrors_due.first().copied() {
            let encoded = encode_page(page, &self.pages[&page].stable);
            self.store.write_at(&encoded, self.layout.page(1, page))?;
            self.mirrors_due.remove(&page);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let synced = self.store.sync();
        // The kernel may have dropped what it could not write and would call the next sync a success.
        self.failed |= synced.is_err();
        self.unsynced &= synced.is_err();
        synced
    }

    fn usable(&self) -> Result<(), IoError> {
        if self.failed { Err(IoError::Offline) } else { Ok(()) }
    }

    fn failure(&self, error: &io::Error) -> IoError {
        self.usable().err().unwrap_or_else(|| told(error))
    }

    /// The sectors the overlay has, in rising order, neighbours joined.
    pub(super) fn changed(&self) -> Vec<Extent> {
        let mut changed: Vec<Extent> = Vec::new();
        for page in self.pages.keys() {
            let mut at = Lba(page * PAGE_SECTORS);
            let page_end = Lba(self.layout.capacity.0.min((page + 1) * PAGE_SECTORS));
            while at < page_end {
                let (end, present) = self.run_from(at, page_end);
                match changed.last_mut() {
                    Some(last) if present && last.end() == at => last.length += end - at,
                    _ if present => changed.push(Extent::new(at, end - at)),
                    _ => {}
                }
                at = end;
            }
        }
        changed
    }

    /// Hands every changed sector to `write`, in rising order, a piece with its byte offset at a time.
    pub(super) fn copy_changed(&self, mut write: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
        let mut bytes = vec![0; COPY_BYTES as usize];
        for extent in self.changed() {
            let (mut at, end) = (extent.start.bytes(), extent.end().bytes());
            while at < end {
                let piece = &mut bytes[..(end - at).min(COPY_BYTES) as usize];
                self.store.read_at(piece, self.layout.data(Lba(0)) + at)?;
                write(piece, at)?;
                at += piece.len() as u64;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn original(&self) -> &O {
        &self.original
    }

    pub(super) fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    pub(super) fn capacity(&self) -> Sectors {
        self.layout.capacity
    }

    /// The end of the run that begins at `start` and is all in one file, and whether that is the overlay.
    fn run_from(&self, start: Lba, end: Lba) -> (Lba, bool) {
        let (index, bits) = pages_of(Extent::new(start, end - start)).next().expect("a run has a sector");
        let page_start = index * PAGE_SECTORS;
        match self.pages.get(&index) {
            None => (Lba(page_start + bits.end), false),
            Some(page) => {
                let run_end = page.present.run_end(bits.start, bits.end);
                (Lba(page_start + run_end), page.present.has(bits.start))
            }
        }
    }

    fn is_stable(&self, extent: Extent) -> bool {
        pages_of(extent).all(|(index, bits)| {
            self.pages.get(&index).is_some_and(|page| {
                page.stable.has(bits.start) && page.stable.run_end(bits.start, bits.end) == bits.end
            })
        })
    }

    fn mark(&mut self, extent: Extent) {
        for (index, bits) in pages_of(extent) {
            let page = self.pages.entry(index).or_insert_with(|| Page { present: Bits::none(), stable: Bits::none() });
            if page.present.set(bits) {
                self.unsettled.insert(index);
            }
        }
    }
}

/// The pages of the map that speak for `extent`, each with the bits concerned.
fn pages_of(extent: Extent) -> impl Iterator<Item = (u64, Range<u64>)> {
    let first = extent.start.0 / PAGE_SECTORS;
    let last = extent.end().0.div_ceil(PAGE_SECTORS);
    (first..last).filter(move |_| extent.length > Sectors::ZERO).map(move |page| {
        let start = extent.start.0.max(page * PAGE_SECTORS);
        let end = extent.end().0.min((page + 1) * PAGE_SECTORS);
        (page, start - page * PAGE_SECTORS..end - page * PAGE_SECTORS)
    })
}

fn sector_crcs(payload: &Payload) -> Vec<u32> {
    let sector_bytes = SECTOR_BYTES as usize;
    let mut crcs = Vec::with_capacity(payload.len() / sector_bytes);
    let (mut hasher, mut hashed) = (crc32fast::Hasher::new(), 0);
    for mut slice in payload.slices() {
        while !slice.is_empty() {
            let (head, rest) = slice.split_at(slice.len().min(sector_bytes - hashed));
            hasher.update(head);
            hashed += head.len();
            slice = rest;
            if hashed == sector_bytes {
                crcs.push(std::mem::take(&mut hasher).finalize());
                hashed = 0;
            }
        }
    }
    crcs
}

/// What a file's error is to whoever sent the request.
fn told(error: &io::Error) -> IoError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => IoError::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem => IoError::ReadOnly,
        _ => IoError::Medium,
    }
}
