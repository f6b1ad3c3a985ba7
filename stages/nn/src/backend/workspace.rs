//! Recycles the large f32 buffers of a training step, so that a step allocates nothing once the first has run.
//! Hands out memory with old contents; the taker writes every value or asks for zeros. Buffers begin at a cache line: a
//! vector that spans two costs two loads.
#![expect(unsafe_code, reason = "cache lines are handed out as values")]

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Values of a cache line.
const LINE: usize = 16;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Free memory, by its lines.
type Free = BTreeMap<usize, Vec<Vec<Line>>>;

/// A shared store of free buffers, by size class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workspace {
    free: Arc<Mutex<Free>>,
}

/// A buffer that goes back to its workspace when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// At least `len` values, exactly one size class.
    memory: Vec<Line>,
    len: usize,
    home: Workspace,
}

/// Lines for `len` values, rounded up to 8 classes per octave: at most an eighth of a buffer is unused.
fn size_class(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(4 * LINE);
    len.div_ceil(step) * step / LINE
}

impl Workspace {
    /// A buffer with unspecified (old, but initialised) contents.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let class = size_class(len);
        let recycled = self.lock().get_mut(&class).and_then(Vec::pop);
        let memory = recycled.unwrap_or_else(|| vec![Line([0.0; LINE]); class]);
        Buffer { memory, len, home: self.clone() }
    }

    pub(crate) fn take_zeroed(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    pub(crate) fn take_copy(&self, values: &[f32]) -> Buffer {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        // A panic elsewhere cannot leave the map half-changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        let values = self.memory.as_ptr().cast::<f32>();
        // SAFETY: a line is 16 values without padding, and `take` got lines for `len` of them.
        unsafe { std::slice::from_raw_parts(values, self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let values = self.memory.as_mut_ptr().cast::<f32>();
        // SAFETY: as above, and borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(values, self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.home.lock().entry(memory.len()).or_default().push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_handed_out_again() {
        let workspace = Workspace::default();
        let first = workspace.take(1000);
        let address = first.as_ptr();
        drop(first);
        let second = workspace.take(999);
        assert_eq!((second.as_ptr(), second.len()), (address, 999));
        assert!(address.addr().is_multiple_of(64));
        assert!(workspace.take_zeroed(999).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn at_most_an_eighth_of_a_large_buffer_is_unused() {
        for len in [513, 1000, 4097, 1_000_000, 5_734_401] {
            let class = size_class(len) * LINE;
            assert!(class >= len && class - len <= len / 8 + 64, "{len} -> {class}");
        }
    }
}
