//! Cross-correlation over channels-last rows: convolution forward, and its data gradient.
#![expect(unsafe_code, reason = "hands row pointers to the SIMD kernels")]

use rayon::prelude::*;

use super::rows::{OutputRow, Tap, output_row};
use super::scratch::{Planes, source_index};
use super::{Isa, tiled_conv, tiles};
use crate::backend::workspace::{Buffer, Workspace};
use crate::geometry::{Geometry, Window};

/// Rows per task of a 1×1×1 window.
const POINT_ROWS: usize = 2048;
/// Rows of weights that are transposed together.
const TURN_ROWS: usize = 16;

/// Source and target of a cross-correlation; axis order z, y, x. Target voxel `t` sees, under kernel position `k`,
/// the dilated source at `t·stride + k - low`; what lies outside is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Correlation {
    pub(crate) samples: usize,
    pub(crate) source: [usize; 3],
    pub(crate) target: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) dilation: [usize; 3],
    pub(crate) low: [usize; 3],
    pub(crate) cin: usize,
    pub(crate) cout: usize,
}

impl Correlation {
    /// The forward pass of a convolution.
    pub(crate) fn forward(
        window: &Window,
        input: Geometry,
        output: Geometry,
        cin: usize,
        cout: usize,
    ) -> Self {
        Self {
            samples: input.samples,
            source: input.size,
            target: output.size,
            kernel: window.kernel,
            stride: window.stride,
            dilation: [1; 3],
            low: window.padding,
            cin,
            cout,
        }
    }

    /// The gradient of the same convolution with respect to its input, for flipped and transposed weights.
    pub(crate) fn data_gradient(&self) -> Self {
        Self {
            samples: self.samples,
            source: self.target,
            target: self.source,
            kernel: self.kernel,
            stride: [1; 3],
            dilation: self.stride,
            low: std::array::from_fn(|a| self.kernel[a] - 1 - self.low[a]),
            cin: self.cout,
            cout: self.cin,
        }
    }

    /// Whether every output depends on the one input at its place.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1; 3] && self.stride == [1; 3] && self.dilation == [1; 3] && self.low == [0; 3]
    }

    pub(super) fn source_len(&self) -> usize {
        self.samples * self.source.iter().product::<usize>() * self.cin
    }

    pub(super) fn weights_len(&self) -> usize {
        self.kernel.iter().product::<usize>() * self.cin * self.cout
    }

    pub(super) fn target_len(&self) -> usize {
        self.samples * self.target.iter().product::<usize>() * self.cout
    }
}

/// Weights in the order the kernels read: `[kz·ky][kx·cin][padded]`, channels padded with zeros to a multiple of 8.
pub(super) struct Packed {
    values: Buffer,
    /// Inputs per (kz, ky).
    depth: usize,
    padded: usize,
    /// Outputs along x that one group holds: 1, or 2 (see [`pack_pairs`]).
    group: usize,
}

impl Packed {
    /// Values per weight row.
    pub(super) fn padded(&self) -> usize {
        self.padded
    }

    /// The weight rows of (kz, ky) position `k`, and all that follow.
    pub(super) fn rows(&self, k: usize) -> &[f32] {
        &self.values[k * self.depth * self.padded..]
    }
}

/// Packs `weights`, `[kz·ky][depth][cout]`.
pub(super) fn pack(workspace: &Workspace, weights: &[f32], depth: usize, cout: usize) -> Packed {
    let padded = cout.next_multiple_of(8);
    let mut values = workspace.take(weights.len() / cout * padded);
    for (from, to) in weights.chunks_exact(cout).zip(values.chunks_exact_mut(padded)) {
        to[..cout].copy_from_slice(from);
        to[cout..].fill(0.0);
    }
    Packed { values, depth, padded, group: 1 }
}

/// Packs weights with 8 outputs so that 16 lanes hold two neighbours along x: the right one has the same weights,
/// one stride (`shift` inputs) later. A quarter of a 3-wide window's products are with zeros, which beats half-empty
/// vectors.
fn pack_pairs(workspace: &Workspace, weights: &[f32], depth: usize, shift: usize) -> Packed {
    let wide = depth + shift;
    let mut values = workspace.take_zeroed(weights.len() / 8 / depth * wide * 16);
    for (from, to) in weights.chunks_exact(depth * 8).zip(values.chunks_exact_mut(wide * 16)) {
        for (j, row) in from.chunks_exact(8).enumerate() {
            to[j * 16..][..8].copy_from_slice(row);
            to[(j + shift) * 16 + 8..][..8].copy_from_slice(row);
        }
    }
    Packed { values, depth: wide, padded: 16, group: 2 }
}

/// A convolution: writes every value of `target`, `[samples, z, y, x, cout]`, from `source`, `[samples, z, y, x, cin]`, and
/// `weights`, `[kz, ky, kx, cin, cout]`.
pub(crate) fn correlate(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    source: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    assert!(isa.available(), "internal error: {isa:?} kernels on a processor without them");
    assert_eq!(source.len(), shape.source_len(), "internal error: source length");
    assert_eq!(target.len(), shape.target_len(), "internal error: target length");
    assert_eq!(weights.len(), shape.weights_len(), "internal error: weights length");
    assert!(bias.is_none_or(|bias| bias.len() == shape.cout), "internal error: bias length");
    if tiles::suits(shape) {
        return tiled_conv::correlate(isa, workspace, shape, source, weights, bias, target);
    }
    let depth = shape.kernel[2] * shape.cin;
    let weights = if isa == Isa::Avx512 && shape.cout == 8 && shape.kernel[2] > 1 {
        pack_pairs(workspace, weights, depth, shape.stride[2] * shape.cin)
    } else {
        pack(workspace, weights, depth, shape.cout)
    };
    correlate_rows(isa, workspace, shape, source, &weights, bias, target);
}

/// The slope of a convolution's input: writes every value of `dx` from `dy`.
pub(crate) fn correlate_data(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    dy: &[f32],
    weights: &[f32],
    dx: &mut [f32],
) {
    assert_eq!(weights.len(), shape.weights_len(), "internal error: weights length");
    let (cin, cout) = (shape.cin, shape.cout);
    let taps: usize = shape.kernel.iter().product();
    let mut turned = workspace.take(weights.len());
    turned.par_chunks_exact_mut(cin * cout).enumerate().for_each(|(tap, to)| {
        let from = &weights[(taps - 1 - tap) * cin * cout..][..cin * cout];
        // Few rows at a time: they stay in the cache while the columns are gathered.
        for (first, rows) in from.chunks(TURN_ROWS * cout).enumerate() {
            for o in 0..cout {
                let to = &mut to[o * cin + first * TURN_ROWS..];
                rows[o..].iter().step_by(cout).zip(to).for_each(|(value, to)| *to = *value);
            }
        }
    });
    correlate(isa, workspace, &shape.data_gradient(), dy, &turned, None, dx);
}

/// [`correlate`] row by row, for every shape.
fn correlate_rows(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    source: &[f32],
    weights: &Packed,
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    let [kz, ky, kx] = shape.kernel;
    let wanted = (kx + (weights.group - 1) * shape.stride[2]) * shape.cin;
    assert_eq!(weights.depth, wanted, "internal error: packed depth");
    assert_eq!(
        weights.values.len(),
        kz * ky * weights.depth * weights.padded,
        "internal error: packed weights"
    );
    assert!(weights.padded >= weights.group * shape.cout, "internal error: packed columns");
    // Adding 0.0 turns a bias of -0.0 into 0.0, so that products with padding cannot change a bit.
    let bias = bias.map(|bias| {
        let mut padded = workspace.take_zeroed(weights.padded);
        for copy in padded[..weights.group * shape.cout].chunks_exact_mut(shape.cout) {
            copy.iter_mut().zip(bias).for_each(|(to, from)| *to = *from + 0.0);
        }
        padded
    });
    let bias = bias.as_deref();
    if shape.is_pointwise() {
        let inputs = source.par_chunks(POINT_ROWS * shape.cin);
        let outputs = target.par_chunks_mut(POINT_ROWS * shape.cout);
        inputs.zip(outputs).for_each(|(input, output)| {
            let taps = [Tap { input: input.as_ptr(), weight: weights.values.as_ptr() }];
            write_row(isa, shape, weights, bias, &taps, output);
        });
        return;
    }
    let plane = shape.target[1] * shape.target[2] * shape.cout;
    let planes = shape.samples * shape.target[0];
    // Outputs do not depend on one another, so this split may follow the thread count.
    let share = planes.div_ceil(2 * rayon::current_num_threads()).max(shape.kernel[0]);
    target.par_chunks_mut(plane * share).enumerate().for_each(|(chunk, target)| {
        let mut scratch = Planes::new(workspace, shape, source);
        let mut taps = Vec::with_capacity(kz * ky);
        for (index, plane) in target.chunks_exact_mut(plane).enumerate() {
            let (sample, z) =
                ((chunk * share + index) / shape.target[0], (chunk * share + index) % shape.target[0]);
            let slots: Vec<(usize, usize)> = (0..kz)
                .filter_map(|k| source_index(shape, 0, z, k).map(|source_z| (k, source_z)))
                .map(|(k, source_z)| (k, scratch.plane(sample, source_z)))
                .collect();
            for (y, row) in plane.chunks_exact_mut(shape.target[2] * shape.cout).enumerate() {
                taps.clear();
                for &(k, slot) in &slots {
                    for (j, source_y) in (0..ky).filter_map(|j| Some((j, source_index(shape, 1, y, j)?))) {
                        let weight = weights.rows(k * ky + j).as_ptr();
                        taps.push(Tap { input: scratch.row(slot, source_y), weight });
                    }
                }
                write_row(isa, shape, weights, bias, &taps, row);
            }
        }
    });
}

/// Writes one row of outputs; the taps' inputs reach as far as the row needs.
fn write_row(
    isa: Isa,
    shape: &Correlation,
    weights: &Packed,
    bias: Option<&[f32]>,
    taps: &[Tap],
    out: &mut [f32],
) {
    let outputs = out.len() / shape.cout;
    let (groups, odd) = (outputs / weights.group, outputs % weights.group);
    let mut row = OutputRow {
        taps,
        depth: weights.depth,
        step: weights.group * shape.stride[2] * shape.cin,
        padded: weights.padded,
        bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
        out: out.as_mut_ptr(),
        out_step: weights.group * shape.cout,
        groups,
        columns: weights.group * shape.cout,
    };
    // SAFETY: `correlate` checked the instruction set and all lengths; a scratch row holds
    // `(target x - 1)·stride + kernel + stride` voxels, which is what the last group, odd or not, reads; pointwise
    // rows read `groups·cin` values of a chunk of that length. Writes stay inside `out`.
    unsafe {
        output_row(isa, &row);
        if odd == 1 {
            let done = groups * weights.group;
            let tail: Vec<Tap> = taps
                .iter()
                .map(|tap| Tap { input: tap.input.add(groups * row.step), weight: tap.weight })
                .collect();
            row = OutputRow {
                taps: &tail,
                out: out[done * shape.cout..].as_mut_ptr(),
                groups: 1,
                columns: shape.cout,
                ..row
            };
            output_row(isa, &row);
        }
    }
}
