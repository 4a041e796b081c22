//! Rows of numbers that are cheap to share: a clone costs a reference per chunk of rows, and a
//! write copies the one chunk that it falls into, if anybody else still holds it. So what training
//! writes can be published after every batch, whatever the size of the whole.

use std::sync::Arc;

/// Rows in a chunk at most.
const CHUNK: usize = 64;
/// Cells in a chunk at most, unless one row has more.
const CELLS: usize = 4096;

/// A growing table of rows of equal width.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    width: usize,
    /// Rows in a chunk.
    chunk: usize,
    len: usize,
    chunks: Vec<Arc<Vec<T>>>,
}

impl<T: Clone> Rows<T> {
    /// No rows yet; each will have `width` cells, at least 1.
    pub fn new(width: usize) -> Self {
        let width = width.max(1);
        Self { width, chunk: (CELLS / width).clamp(1, CHUNK), len: 0, chunks: Vec::new() }
    }

    /// `len` rows of `cell`. Takes the memory of one chunk until rows are written.
    pub fn filled(width: usize, len: usize, cell: T) -> Self {
        let empty = Self::new(width);
        let chunk = Arc::new(vec![cell; empty.width * empty.chunk]);
        Self { len, chunks: vec![chunk; len.div_ceil(empty.chunk)], ..empty }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The cells of row `at`, if there is one.
    pub fn get(&self, at: usize) -> Option<&[T]> {
        let start = at % self.chunk * self.width;
        self.chunks.get(at / self.chunk)?.get(start..start + self.width)
    }

    /// The cells of row `at` for writing.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut [T]> {
        let start = at % self.chunk * self.width;
        Arc::make_mut(self.chunks.get_mut(at / self.chunk)?).get_mut(start..start + self.width)
    }

    /// Adds a row of `width` cells at the end.
    pub fn push(&mut self, row: &[T]) {
        debug_assert_eq!(row.len(), self.width);
        if self.len.is_multiple_of(self.chunk) {
            self.chunks.push(Arc::new(Vec::with_capacity(self.width * self.chunk)));
        }
        if let Some(last) = self.chunks.last_mut() {
            Arc::make_mut(last).extend_from_slice(row);
            self.len += 1;
        }
    }

    /// The rows that `before` does not have, or has otherwise by `same`. What both share is not looked
    /// at. Both have rows of one width.
    pub fn changed<'a>(
        &'a self,
        before: &'a Self,
        same: fn(&T, &T) -> bool,
    ) -> impl Iterator<Item = usize> + 'a {
        let shared = |at: usize| {
            let (now, old) = (self.chunks.get(at), before.chunks.get(at));
            now.zip(old).is_some_and(|(now, old)| Arc::ptr_eq(now, old))
        };
        let within = |at: usize| at * self.chunk..((at + 1) * self.chunk).min(self.len);
        let rows = (0..self.chunks.len()).filter(move |at| !shared(*at)).flat_map(within);
        rows.filter(move |row| {
            let (now, old) = (self.get(*row).unwrap_or(&[]), before.get(*row).unwrap_or(&[]));
            *row >= before.len
                || now.len() != old.len()
                || !now.iter().zip(old).all(|(now, old)| same(now, old))
        })
    }

    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.len).filter_map(|at| self.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_was_when_the_original_is_written_on() {
        let mut rows = Rows::new(2);
        for n in 0..150 {
            rows.push(&[n, -n]);
        }
        let before = rows.clone();
        rows.get_mut(70).expect("a row")[0] = 999;
        rows.push(&[150, -150]);
        assert_eq!(before.get(70), Some(&[70, -70][..]));
        assert_eq!(rows.get(70), Some(&[999, -70][..]));
        assert_eq!((before.len(), rows.len()), (150, 151));
        assert_eq!((before.get(150), rows.get(151)), (None, None));
        let changed = |same| rows.changed(&before, same).collect::<Vec<_>>();
        assert_eq!(changed(|now, old| now == old), [70, 150]);
        assert_eq!(
            rows.changed(&rows, |_, _| panic!("what is shared is not looked at")).count(),
            0
        );
        let shared = |at: usize| Arc::ptr_eq(&before.chunks[at], &rows.chunks[at]);
        assert_eq!([shared(0), shared(1), shared(2)], [true, false, false]);
    }

    #[test]
    fn filled_rows_share_one_chunk_until_they_are_written() {
        let mut rows = Rows::filled(1, 1000, 0.0);
        assert!(Arc::ptr_eq(&rows.chunks[0], &rows.chunks[15]));
        rows.get_mut(999).expect("a row")[0] = 1.0;
        assert_eq!(rows.iter().map(|row| row[0]).sum::<f64>(), 1.0);
        assert_eq!(rows.iter().count(), 1000);
    }
}
