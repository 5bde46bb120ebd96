//! A vector whose clone shares its pages until one side writes: what makes a fork cheap.

use std::sync::Arc;

/// `T`s in pages of `N`; a page nobody wrote holds defaults and takes no memory.
#[derive(Clone, Debug)]
pub(super) struct CowVec<T, const N: usize> {
    pages: Arc<Vec<Option<Arc<[T; N]>>>>,
}

impl<T: Clone + Default, const N: usize> CowVec<T, N> {
    /// Room for at least `length` elements, all default.
    pub(super) fn new(length: usize) -> CowVec<T, N> {
        CowVec { pages: Arc::new(vec![None; length.div_ceil(N)]) }
    }

    /// Element `index`; `None` if it is the default of a page nobody wrote.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.pages[index / N].as_ref().map(|page| &page[index % N])
    }

    /// Element `index`, to be changed.
    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        &mut self.page_mut(index / N)[index % N]
    }

    fn page_mut(&mut self, page: usize) -> &mut [T; N] {
        let page = &mut Arc::make_mut(&mut self.pages)[page];
        Arc::make_mut(page.get_or_insert_with(|| Arc::new(std::array::from_fn(|_| T::default()))))
    }
}

impl<const N: usize> CowVec<u8, N> {
    /// Copies the bytes from `at` on into `out`.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) {
        for (page, within, range) in runs::<N>(at, out.len()) {
            let out = &mut out[range];
            match &self.pages[page] {
                Some(page) => out.copy_from_slice(&page[within..within + out.len()]),
                None => out.fill(0),
            }
        }
    }

    /// Pages that were written, with their numbers.
    pub(super) fn pages(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let pages = self.pages.iter().enumerate();
        pages.filter_map(|(number, page)| page.as_ref().map(|page| (number, &page[..])))
    }

    /// Copies `bytes` to the bytes from `at` on.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        for (page, within, range) in runs::<N>(at, bytes.len()) {
            let bytes = &bytes[range];
            self.page_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Zeroes `length` bytes from `at` on; whole pages are given up.
    pub(super) fn zero(&mut self, at: usize, length: usize) {
        for (page, within, range) in runs::<N>(at, length) {
            if self.pages[page].is_none() {
                continue;
            }
            if range.len() == N {
                Arc::make_mut(&mut self.pages)[page] = None;
            } else {
                self.page_mut(page)[within..within + range.len()].fill(0);
            }
        }
    }
}

/// `length` bytes from `at` on, cut at page borders: page, place in the page, place among the bytes.
fn runs<const N: usize>(at: usize, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let within = (at + from) % N;
        let page = (at + from) / N;
        let range = from..length.min(from + N - within);
        from = range.end;
        (!range.is_empty()).then_some((page, within, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_bytes_when_the_original_is_written() {
        let mut original = CowVec::<u8, 16>::new(64);
        original.write(10, &[1; 30]);
        let clone = original.clone();
        original.write(0, &[2; 40]);
        original.zero(16, 20);

        let mut bytes = [9; 64];
        clone.read(0, &mut bytes);
        assert_eq!(bytes[..], [[0; 10].as_slice(), &[1; 30], &[0; 24]].concat());
        original.read(0, &mut bytes);
        assert_eq!(bytes[..], [[2; 16].as_slice(), &[0; 20], &[2; 4], &[0; 24]].concat());
    }
}
