//! The weight gradient of a cross-correlation: products of padded inputs and output slopes, summed over positions.
#![expect(unsafe_code, reason = "hands row pointers to the SIMD kernels")]

use rayon::prelude::*;

use super::conv::Correlation;
use super::rows::{GradientRow, gradient_row};
use super::scratch::{Planes, source_index};
use super::{Isa, parts_of, tiled_conv, tiles};
use crate::backend::workspace::{Buffer, Workspace};

/// Rows per part of a 1×1×1 window, at least.
const POINT_ROWS: usize = 1024;

/// A weight gradient in the layout its kernel sums: `[kz·ky][depth][padded]`.
struct PackedGradient {
    values: Buffer,
    depth: usize,
    padded: usize,
    /// 2 where the left and the right half of the lanes hold the even and the odd positions along x.
    group: usize,
    /// Inputs between two positions along x.
    shift: usize,
}

/// Adds the slope of a convolution's weights, `[kz, ky, kx, cin, cout]`: `input ⊗ slope` summed over all positions, in up to
/// 16 parts that the sizes alone define, added in order.
pub(crate) fn correlate_weight(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    source: &[f32],
    slope: &[f32],
    gradient: &mut [f32],
) {
    assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
    assert_eq!(source.len(), shape.source_len(), "internal error: source length");
    assert_eq!(slope.len(), shape.target_len(), "internal error: slope length");
    assert_eq!(gradient.len(), shape.weights_len(), "internal error: gradient length");
    if tiles::suits(shape) {
        return tiled_conv::correlate_weight(isa, workspace, shape, source, slope, gradient);
    }
    let packed = correlate_rows(isa, workspace, shape, source, slope);
    fold(&packed, shape.cout, gradient);
}

/// The sums row by row, for every shape.
fn correlate_rows(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    source: &[f32],
    slope: &[f32],
) -> PackedGradient {
    let [kz, ky, kx] = shape.kernel;
    // 8 outputs fill half a 16-lane vector: pair even and odd positions, as `pack_pairs` does.
    let group = if shape.cout == 8 && kx > 1 { 2 } else { 1 };
    let shift = shape.stride[2] * shape.cin;
    let depth = kx * shape.cin + (group - 1) * shift;
    let padded = (group * shape.cout).next_multiple_of(8);
    let gradient_len = kz * ky * depth * padded;
    let (units, unit_len) = if shape.is_pointwise() {
        (source.len() / shape.cin, 1)
    } else {
        (shape.samples * shape.target[0], shape.target[1])
    };
    let parts = if shape.is_pointwise() { units.div_ceil(POINT_ROWS) } else { units };
    let parts = parts_of(parts, gradient_len);
    let row_voxels = if shape.is_pointwise() { 1 } else { shape.target[2] };
    let mut partial: Vec<Buffer> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let mut gradient = workspace.take_zeroed(gradient_len);
            let range = units * part / parts..units * (part + 1) / parts;
            let mut slopes = Slopes::new(workspace, shape.cout, padded, group);
            if shape.is_pointwise() {
                let input = &source[range.start * shape.cin..range.end * shape.cin];
                let slope = slopes.row(&slope[range.start * shape.cout..range.end * shape.cout]);
                let row = GradientRow {
                    input: input.as_ptr(),
                    step: shape.cin,
                    depth,
                    slope: slope.as_ptr(),
                    groups: range.len(),
                    padded,
                    gradient: gradient.as_mut_ptr(),
                };
                // SAFETY: `input` and `slope` hold `groups` rows, `gradient` holds `depth` rows.
                unsafe { gradient_row(isa, &row) };
                return gradient;
            }
            let mut scratch = Planes::new(workspace, shape, source);
            for unit in range {
                let (sample, z) = (unit / shape.target[0], unit % shape.target[0]);
                let slots: Vec<(usize, usize)> = (0..kz)
                    .filter_map(|k| source_index(shape, 0, z, k).map(|source_z| (k, source_z)))
                    .map(|(k, source_z)| (k, scratch.plane(sample, source_z)))
                    .collect();
                for y in 0..unit_len {
                    let start = (unit * unit_len + y) * row_voxels * shape.cout;
                    let slope = slopes.row(&slope[start..][..row_voxels * shape.cout]);
                    for &(k, slot) in &slots {
                        for (j, source_y) in (0..ky).filter_map(|j| Some((j, source_index(shape, 1, y, j)?)))
                        {
                            let row = GradientRow {
                                input: scratch.row(slot, source_y),
                                step: group * shift,
                                depth,
                                slope: slope.as_ptr(),
                                groups: row_voxels.div_ceil(group),
                                padded,
                                gradient: gradient[(k * ky + j) * depth * padded..].as_mut_ptr(),
                            };
                            // SAFETY: a scratch row reaches one stride past the last window, which covers the
                            // `depth` inputs of the last group; `slope` holds all groups, `gradient` all depths.
                            unsafe { gradient_row(isa, &row) };
                        }
                    }
                }
            }
            gradient
        })
        .collect();
    let mut values = partial.remove(0);
    for part in partial {
        super::add_assign(&mut values, &part);
    }
    PackedGradient { values, depth, padded, group, shift }
}

/// Adds a packed gradient to `gradient`: `[kz·ky][kx·cin][cout]`.
fn fold(packed: &PackedGradient, cout: usize, gradient: &mut [f32]) {
    let PackedGradient { values, depth, padded, group, shift } = packed;
    let rows = depth - (group - 1) * shift;
    for (from, to) in values.chunks_exact(depth * padded).zip(gradient.chunks_exact_mut(rows * cout)) {
        for (j, to) in to.chunks_exact_mut(cout).enumerate() {
            let even = &from[j * padded..][..cout];
            if *group == 1 {
                to.iter_mut().zip(even).for_each(|(sum, value)| *sum += *value);
                continue;
            }
            let odd = &from[(j + shift) * padded + cout..][..cout];
            for (sum, (even, odd)) in to.iter_mut().zip(even.iter().zip(odd)) {
                *sum += *even + *odd;
            }
        }
    }
}

/// Rows of output slopes, padded to whole vectors and whole groups where they are not.
struct Slopes {
    workspace: Workspace,
    padded_row: Option<Buffer>,
    cout: usize,
    padded: usize,
    group: usize,
}

impl Slopes {
    fn new(workspace: &Workspace, cout: usize, padded: usize, group: usize) -> Self {
        Self { workspace: workspace.clone(), padded_row: None, cout, padded, group }
    }

    fn row<'a>(&'a mut self, row: &'a [f32]) -> &'a [f32] {
        let voxels = row.len() / self.cout;
        if self.group * self.cout == self.padded && voxels.is_multiple_of(self.group) {
            return row;
        }
        let stride = self.padded / self.group;
        let len = voxels.div_ceil(self.group) * self.padded;
        let zeroed = || self.workspace.take_zeroed(len);
        if self.padded_row.as_ref().is_none_or(|held| held.len() != len) {
            self.padded_row = Some(zeroed());
        }
        let held = self.padded_row.as_mut().expect("filled above");
        for (from, to) in row.chunks_exact(self.cout).zip(held.chunks_exact_mut(stride)) {
            to[..self.cout].copy_from_slice(from);
        }
        held
    }
}
