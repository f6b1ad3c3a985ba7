//! Transposed convolution whose kernel equals its stride: each source voxel becomes one block of the target.
#![expect(unsafe_code, reason = "hands row pointers to the SIMD kernels")]

use rayon::prelude::*;

use super::rows::{GradientRow, OutputRow, Tap, gradient_row, output_row};
use super::{Isa, parts_of};
use crate::backend::workspace::Workspace;
use crate::geometry::Geometry;

/// Sizes of a transposed convolution; weights are `[kz·ky][cin][kx·cout]`.
#[derive(Clone, Copy)]
pub(crate) struct Transposed {
    pub(crate) input: Geometry,
    pub(crate) factor: [usize; 3],
    pub(crate) cin: usize,
    pub(crate) cout: usize,
}

impl Transposed {
    /// Values of a target row that belong to one source voxel.
    fn block(&self) -> usize {
        self.factor[2] * self.cout
    }

    /// Target rows (z, y) that each source row fills.
    fn fan(&self) -> usize {
        self.factor[0] * self.factor[1]
    }

    fn source_row_len(&self) -> usize {
        self.input.size[2] * self.cin
    }

    fn target_row_len(&self) -> usize {
        self.input.size[2] * self.block()
    }

    /// The target row under source row `row` (over samples, z, y) and kernel position `k` (over z, y).
    fn target_row(&self, row: usize, k: usize) -> usize {
        let [_, height, _] = self.input.size;
        let (plane, y) = (row / height, row % height);
        let (dz, dy) = (k / self.factor[1], k % self.factor[1]);
        (plane * self.factor[0] + dz) * height * self.factor[1] + y * self.factor[1] + dy
    }

    fn check(&self, isa: Isa, source: &[f32], target: &[f32], weights: usize) {
        assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
        assert_eq!(source.len(), self.input.rows() * self.cin, "internal error: source length");
        let target_rows = self.input.rows() * self.factor.iter().product::<usize>();
        assert_eq!(target.len(), target_rows * self.cout, "internal error: target length");
        assert_eq!(weights, self.fan() * self.cin * self.block(), "internal error: weights length");
    }
}

/// Writes every value of `target` from `source`.
pub(crate) fn transposed_forward(
    isa: Isa,
    workspace: &Workspace,
    shape: &Transposed,
    source: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    shape.check(isa, source, target, weights.len());
    let packed = super::conv::pack(workspace, weights, shape.cin, shape.block());
    let bias = bias.map(|bias| {
        assert_eq!(bias.len(), shape.cout, "internal error: bias length");
        let mut padded = workspace.take_zeroed(packed.padded());
        for copy in padded[..shape.block()].chunks_exact_mut(shape.cout) {
            copy.iter_mut().zip(bias).for_each(|(to, from)| *to = *from + 0.0);
        }
        padded
    });
    // One task fills the target planes of one source plane.
    let plane = shape.fan() * shape.input.size[1] * shape.target_row_len();
    target.par_chunks_mut(plane).enumerate().for_each(|(index, target)| {
        for y in 0..shape.input.size[1] {
            let source_row = index * shape.input.size[1] + y;
            let input = source[source_row * shape.source_row_len()..].as_ptr();
            for k in 0..shape.fan() {
                let first_row = index * shape.fan() * shape.input.size[1];
                let at = (shape.target_row(source_row, k) - first_row) * shape.target_row_len();
                let out = &mut target[at..at + shape.target_row_len()];
                let row = OutputRow {
                    taps: &[Tap { input, weight: packed.rows(k).as_ptr() }],
                    depth: shape.cin,
                    step: shape.cin,
                    padded: packed.padded(),
                    bias: bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_ptr()),
                    out: out.as_mut_ptr(),
                    out_step: shape.block(),
                    groups: shape.input.size[2],
                    columns: shape.block(),
                };
                // SAFETY: lengths were checked; `out` holds `groups` blocks and the source row `groups · cin` values.
                unsafe { output_row(isa, &row) };
            }
        }
    });
}

/// Writes the slope of the source from the slope of the target.
pub(crate) fn transposed_data_gradient(
    isa: Isa,
    workspace: &Workspace,
    shape: &Transposed,
    d_target: &[f32],
    weights: &[f32],
    d_source: &mut [f32],
) {
    shape.check(isa, d_source, d_target, weights.len());
    let mut turned = workspace.take(weights.len());
    let block = shape.block();
    for (from, to) in weights.chunks_exact(shape.cin * block).zip(turned.chunks_exact_mut(shape.cin * block))
    {
        for (c, row) in from.chunks_exact(block).enumerate() {
            row.iter().enumerate().for_each(|(o, value)| to[o * shape.cin + c] = *value);
        }
    }
    let packed = super::conv::pack(workspace, &turned, block, shape.cin);
    d_source.par_chunks_mut(shape.source_row_len()).enumerate().for_each(|(index, out)| {
        let taps: Vec<Tap> = (0..shape.fan())
            .map(|k| Tap {
                input: d_target[shape.target_row(index, k) * shape.target_row_len()..].as_ptr(),
                weight: packed.rows(k).as_ptr(),
            })
            .collect();
        let row = OutputRow {
            taps: &taps,
            depth: block,
            step: block,
            padded: packed.padded(),
            bias: std::ptr::null(),
            out: out.as_mut_ptr(),
            out_step: shape.cin,
            groups: shape.input.size[2],
            columns: shape.cin,
        };
        // SAFETY: lengths were checked; each target row holds `groups` blocks, `out` holds `groups · cin` values.
        unsafe { output_row(isa, &row) };
    });
}

/// Adds to the slope of the weights.
pub(crate) fn transposed_weight_gradient(
    isa: Isa,
    workspace: &Workspace,
    shape: &Transposed,
    source: &[f32],
    d_target: &[f32],
    gradient: &mut [f32],
) {
    shape.check(isa, source, d_target, gradient.len());
    let block = shape.block();
    let padded = block.next_multiple_of(8);
    let rows = shape.input.samples * shape.input.size[0] * shape.input.size[1];
    let parts = parts_of(rows, shape.fan() * shape.cin * padded);
    let partial: Vec<_> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let mut sums = workspace.take_zeroed(shape.fan() * shape.cin * padded);
            let mut copy = workspace.take_zeroed(shape.input.size[2] * padded);
            for index in rows * part / parts..rows * (part + 1) / parts {
                let input = source[index * shape.source_row_len()..].as_ptr();
                for k in 0..shape.fan() {
                    let slope = &d_target[shape.target_row(index, k) * shape.target_row_len()..];
                    let slope = if padded == block {
                        slope.as_ptr()
                    } else {
                        for (from, to) in slope.chunks_exact(block).zip(copy.chunks_exact_mut(padded)) {
                            to[..block].copy_from_slice(from);
                        }
                        copy.as_ptr()
                    };
                    let row = GradientRow {
                        input,
                        step: shape.cin,
                        depth: shape.cin,
                        slope,
                        groups: shape.input.size[2],
                        padded,
                        gradient: sums[k * shape.cin * padded..].as_mut_ptr(),
                    };
                    // SAFETY: lengths were checked; both rows hold `groups` voxels and `sums` holds all depths.
                    unsafe { gradient_row(isa, &row) };
                }
            }
            sums
        })
        .collect();
    for sums in partial {
        for (from, to) in sums.chunks_exact(padded).zip(gradient.chunks_exact_mut(block)) {
            to.iter_mut().zip(from).for_each(|(sum, value)| *sum += *value);
        }
    }
}
