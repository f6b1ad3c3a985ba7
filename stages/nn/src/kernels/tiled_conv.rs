//! Cross-correlation and its weight gradient in tiles of four outputs along x (see [`tiles`](super::tiles)).
#![expect(unsafe_code, reason = "hands row pointers to the SIMD kernels")]

use rayon::prelude::*;

use super::conv::Correlation;
use super::rows::{GradientRow, OutputRow, Tap, gradient_row, output_row};
use super::tiles::{
    POINTS, PlaneTiles, TiledPlanes, finish_outputs, panels, point_of_weights, tiles, transform_slopes,
    weights_of_points,
};
use super::{Isa, parts_of};
use crate::backend::workspace::{Buffer, Workspace};

/// Tiles that go through all weights together, about.
const BLOCK_TILES: usize = 64;

/// Weights of all points: for each panel of outputs `[point][kz·ky][cin][panel]`.
struct TileWeights {
    values: Buffer,
    /// Values of a point and one output column.
    depth: usize,
}

impl TileWeights {
    /// From `weights`: `[kz·ky][3][cin][cout]`.
    fn new(workspace: &Workspace, shape: &Correlation, weights: &[f32]) -> Self {
        let Correlation { cin, cout, .. } = *shape;
        let taps = shape.kernel[0] * shape.kernel[1];
        let depth = taps * cin;
        let mut values = workspace.take(POINTS * depth * cout);
        for (start, width) in panels(cout) {
            let panel = &mut values[POINTS * depth * start..][..POINTS * depth * width];
            panel.par_chunks_exact_mut(cin * width).enumerate().for_each(|(index, to)| {
                let (point, tap) = (index / taps, index % taps);
                for (c, to) in to.chunks_exact_mut(width).enumerate() {
                    let row = |k: usize| &weights[((tap * 3 + k) * cin + c) * cout + start..][..width];
                    point_of_weights(point, [row(0), row(1), row(2)], to);
                }
            });
        }
        Self { values, depth }
    }

    /// The rows of one point of a panel.
    fn point(&self, (start, width): (usize, usize), point: usize) -> &[f32] {
        &self.values[self.depth * (POINTS * start + point * width)..][..self.depth * width]
    }
}

/// Writes every value of `target`; lengths were checked, and the shape suits tiles.
pub(super) fn correlate(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    source: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    target: &mut [f32],
) {
    let weights = TileWeights::new(workspace, shape, weights);
    let [depth, height, width] = shape.target;
    let plane_tiles = height * tiles(shape);
    let plane_len = height * width * shape.cout;
    let planes = shape.samples * depth;
    // Few tiles a plane: more planes share each look at the weights.
    let block = BLOCK_TILES.div_ceil(plane_tiles).min(depth);
    let pieces = plane_tiles.div_ceil(2 * BLOCK_TILES);
    // Outputs do not depend on one another, so this split may follow the thread count.
    let share = planes.div_ceil(2 * rayon::current_num_threads());
    target.par_chunks_mut(plane_len * share).enumerate().for_each(|(chunk, mut target)| {
        let mut scratch = TiledPlanes::new(isa, workspace, shape, source, block);
        let mut sums = workspace.take(POINTS * block * plane_tiles.div_ceil(pieces) * 32);
        let mut first = chunk * share;
        while !target.is_empty() {
            let (sample, z) = (first / depth, first % depth);
            let count = block.min(depth - z).min(target.len() / plane_len);
            let (now, rest) = target.split_at_mut(count * plane_len);
            let slots: Vec<_> = (z..z + count).map(|z| scratch.slots(sample, z)).collect();
            for piece in 0..pieces {
                let range = plane_tiles * piece / pieces..plane_tiles * (piece + 1) / pieces;
                for panel in panels(shape.cout) {
                    let planes = now.chunks_exact_mut(plane_len).zip(&slots);
                    write_tiles(
                        isa,
                        shape,
                        &scratch,
                        &weights,
                        bias,
                        planes,
                        range.clone(),
                        panel,
                        &mut sums,
                    );
                }
            }
            (target, first) = (rest, first + count);
        }
    });
}

/// Writes one panel of the tiles `range` of some planes.
fn write_tiles<'a>(
    isa: Isa,
    shape: &Correlation,
    scratch: &TiledPlanes<'_>,
    weights: &TileWeights,
    bias: Option<&[f32]>,
    planes: impl Iterator<Item = (&'a mut [f32], &'a Vec<(usize, usize)>)>,
    range: std::ops::Range<usize>,
    panel: (usize, usize),
    sums: &mut [f32],
) {
    let (cin, ky, row) = (shape.cin, shape.kernel[1], tiles(shape));
    let (start, width) = panel;
    let point_len = range.len() * width;
    let planes: Vec<_> = planes.collect();
    let mut taps = Vec::with_capacity(shape.kernel[0] * ky);
    for point in 0..POINTS {
        let weights = weights.point(panel, point);
        for (index, (_, slots)) in planes.iter().enumerate() {
            taps.clear();
            for &(k, slot) in *slots {
                taps.extend((0..ky).map(|j| Tap {
                    input: scratch.tile(slot, point, range.start + j * row)[..range.len() * cin].as_ptr(),
                    weight: weights[(k * ky + j) * cin * width..][..cin * width].as_ptr(),
                }));
            }
            let out = &mut sums[(index * POINTS + point) * point_len..][..point_len];
            let row = OutputRow {
                taps: &taps,
                depth: cin,
                step: cin,
                padded: width,
                bias: std::ptr::null(),
                out: out.as_mut_ptr(),
                out_step: width,
                groups: range.len(),
                columns: width,
            };
            // SAFETY: each tap holds `groups` tiles of `cin` inputs and `cin` rows of weights, `out` the groups; the
            // instruction set was checked.
            unsafe { output_row(isa, &row) };
        }
    }
    for (index, (plane, _)) in planes.into_iter().enumerate() {
        let tiles = PlaneTiles {
            first: range.start,
            count: range.len(),
            tiles: row,
            width: shape.target[2],
            channels: shape.cout,
            panel: width,
            point: point_len,
        };
        let bias = bias.map_or(std::ptr::null(), |bias| bias[start..][..width].as_ptr());
        let sums = &sums[index * POINTS * point_len..][..POINTS * point_len];
        // SAFETY: `sums` holds all points of the tiles, and the plane all rows that `range` lies in.
        unsafe { finish_outputs(isa, &tiles, sums.as_ptr(), bias, plane[start..].as_mut_ptr()) };
    }
}

/// Adds the slope of the weights, `[kz·ky][3][cin][cout]`; lengths were checked, and the shape suits tiles.
pub(super) fn correlate_weight(
    isa: Isa,
    workspace: &Workspace,
    shape: &Correlation,
    source: &[f32],
    slope: &[f32],
    gradient: &mut [f32],
) {
    let Correlation { cin, cout, kernel: [kz, ky, _], target: [depth, height, width], .. } = *shape;
    let taps = kz * ky;
    let plane_tiles = height * tiles(shape);
    let plane_len = height * width * cout;
    let planes = shape.samples * depth;
    let sums_len = POINTS * taps * cin * cout;
    let parts = parts_of(planes, sums_len);
    // Inputs and slopes of the tiles of a piece stay in the first-level cache for all positions of the window.
    let pieces = plane_tiles.div_ceil((4096 / cin).clamp(32, 128));
    let mut partial: Vec<Buffer> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let mut sums = workspace.take_zeroed(sums_len);
            let mut points = workspace.take(POINTS * plane_tiles.div_ceil(pieces) * 32);
            let mut scratch = TiledPlanes::new(isa, workspace, shape, source, 1);
            for plane in planes * part / parts..planes * (part + 1) / parts {
                let slots = scratch.slots(plane / depth, plane % depth);
                let slope = &slope[plane * plane_len..][..plane_len];
                for piece in 0..pieces {
                    let range = plane_tiles * piece / pieces..plane_tiles * (piece + 1) / pieces;
                    for panel in panels(cout) {
                        let seen = Seen { scratch: &scratch, slots: &slots, slope, range: range.clone() };
                        add_products(isa, shape, &seen, panel, &mut points, &mut sums);
                    }
                }
            }
            sums
        })
        .collect();
    let mut sums = partial.remove(0);
    for part in partial {
        super::add_assign(&mut sums, &part);
    }
    gradient.par_chunks_exact_mut(cin * cout).enumerate().for_each(|(index, gradient)| {
        let (tap, k) = (index / 3, index % 3);
        for (start, panel) in panels(cout) {
            for (c, to) in gradient.chunks_exact_mut(cout).enumerate() {
                let row = |point: usize| {
                    let place = (POINTS * start + point * panel) * taps * cin + (tap * cin + c) * panel;
                    &sums[place..][..panel]
                };
                weights_of_points(k, std::array::from_fn(row), &mut to[start..][..panel]);
            }
        }
    });
}

/// Some tiles of one plane: their inputs and their slopes.
struct Seen<'a> {
    scratch: &'a TiledPlanes<'a>,
    /// Where the planes of the inputs are, with their positions in the window.
    slots: &'a [(usize, usize)],
    /// Of the whole plane.
    slope: &'a [f32],
    range: std::ops::Range<usize>,
}

/// Adds the products of inputs and slopes to one panel of the weights' points; `points` is room for the slopes' points.
fn add_products(
    isa: Isa,
    shape: &Correlation,
    seen: &Seen<'_>,
    panel: (usize, usize),
    points: &mut [f32],
    sums: &mut [f32],
) {
    let Correlation { cin, cout, kernel: [kz, ky, _], .. } = *shape;
    let (taps, row) = (kz * ky, tiles(shape));
    let (start, width) = panel;
    let Seen { scratch, slots, slope, range } = seen;
    let point_len = range.len() * width;
    let of_plane = PlaneTiles {
        first: range.start,
        count: range.len(),
        tiles: row,
        width: shape.target[2],
        channels: cout,
        panel: width,
        point: point_len,
    };
    let points = &mut points[..POINTS * point_len];
    // SAFETY: the plane holds all rows that `range` lies in, `points` all points of the tiles; the instruction set was
    // checked.
    unsafe { transform_slopes(isa, &of_plane, slope[start..].as_ptr(), points.as_mut_ptr()) };
    let sums = &mut sums[POINTS * taps * cin * start..][..POINTS * taps * cin * width];
    for (point, sums) in sums.chunks_exact_mut(taps * cin * width).enumerate() {
        for (k, slot, j) in slots.iter().flat_map(|(k, slot)| (0..ky).map(move |j| (*k, *slot, j))) {
            let input = scratch.tile(slot, point, range.start + j * row);
            let row = GradientRow {
                input: input[..range.len() * cin].as_ptr(),
                step: cin,
                depth: cin,
                slope: points[point * point_len..].as_ptr(),
                groups: range.len(),
                padded: width,
                gradient: sums[(k * ky + j) * cin * width..][..cin * width].as_mut_ptr(),
            };
            // SAFETY: `input` and `slope` hold `groups` tiles, `gradient` all `cin` rows.
            unsafe { gradient_row(isa, &row) };
        }
    }
}
