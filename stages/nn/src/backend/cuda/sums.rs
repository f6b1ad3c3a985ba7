//! How sums over rows are cut, as the kernels take it: by the sizes alone.
#![expect(unsafe_code, reason = "a plain struct goes to the kernels by value")]

use std::rc::Rc;

use cudarc::driver::DeviceRepr;

use super::gpu::{Address, Buffer, Gpu, THREADS, int};

/// Rows that one thread adds at least.
const OWN_ROWS: usize = 16;
/// Chunks of a sum at most; they are added one after another.
const MAX_CHUNKS: usize = 256;

/// `Sums` of the kernels: one sum a column over `rows` of each of `samples`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Sums {
    samples: i32,
    rows: i32,
    columns: i32,
    chunk: i32,
    chunks: i32,
    width: i32,
}

// SAFETY: plain integers in the order of the kernels' struct.
unsafe impl DeviceRepr for Sums {}

impl Sums {
    pub(super) fn over(samples: usize, rows: usize, columns: usize) -> Self {
        int(samples * rows * columns);
        let width = columns.next_power_of_two().min(32);
        let chunk = (OWN_ROWS * THREADS / width).max(rows.div_ceil(MAX_CHUNKS));
        Self {
            samples: int(samples),
            rows: int(rows),
            columns: int(columns),
            chunk: int(chunk),
            chunks: int(rows.div_ceil(chunk)),
            width: int(width),
        }
    }

    /// Sums of a single column.
    pub(super) fn of_all(count: usize) -> Self {
        Self::over(1, count, 1)
    }

    fn counts(&self) -> [usize; 4] {
        [self.samples, self.columns, self.chunks, self.width].map(|count| count as usize)
    }

    /// `[samples, n, columns]` totals in f64 of what `kernel` sums: it gets these sizes, the grid and where the parts go.
    pub(super) fn totals(
        self,
        gpu: &Rc<Gpu>,
        n: usize,
        kernel: impl FnOnce(Self, [usize; 3], Address<'_>),
    ) -> Buffer {
        let [samples, columns, chunks, width] = self.counts();
        let parts = gpu.take::<f32>(samples * chunks * n * columns);
        kernel(self, [chunks, columns.div_ceil(width), samples], parts.at());
        let totals = gpu.take::<f64>(samples * n * columns);
        let count = samples * n * columns;
        let sizes = (self.samples, self.chunks, int(n * columns));
        gpu.each("add_chunks", count, (sizes.0, sizes.1, sizes.2, parts.at(), totals.at()));
        totals
    }

    /// Adds part `part` of `parts` in [`Sums::totals`] to a gradient, over all samples.
    pub(super) fn add(self, gpu: &Gpu, totals: &Buffer, [part, parts]: [usize; 2], gradient: Address<'_>) {
        let parameters = (self.samples, int(parts), int(part), self.columns, totals.at(), gradient);
        gpu.each("add_totals", self.columns as usize, parameters);
    }
}
