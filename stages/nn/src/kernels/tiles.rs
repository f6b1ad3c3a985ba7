//! Winograd's short filters along x: four outputs of a window three wide from six products instead of twelve. Owns the
//! transforms of inputs, slopes, weights and sums, and the planes of transformed inputs.
//!
//! `y = Aᵀ[(G·w) ⊙ (B·d)]` for six inputs `d` and three weights `w`, summed over channels and over the window's z and y
//! before `Aᵀ`. The points are 0, 1, -1, 2, -½ and infinity: rounding is 1.4 times that of the sum of products, where ½
//! in place of -½ would make it 1.8 times. Source: Winograd 1980; Lavin and Gray 2016.
#![expect(unsafe_code, reason = "SIMD loops over raw pointers")]
#![expect(clippy::inline_always, reason = "bodies must be compiled inside their target-feature wrapper")]

use super::conv::Correlation;
use super::simd::Simd;
use super::{Isa, dispatch};
use crate::backend::workspace::{Buffer, Workspace};

/// Outputs of a tile.
pub(super) const TILE: usize = 4;
/// Products of a tile.
pub(super) const POINTS: usize = 6;

/// What each point makes of the three weights along x.
const WEIGHTS: [[f32; 3]; POINTS] = [
    [1.0, 0.0, 0.0],
    [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0],
    [1.0 / 6.0, -1.0 / 6.0, 1.0 / 6.0],
    [1.0 / 30.0, 2.0 / 30.0, 4.0 / 30.0],
    [16.0 / 15.0, -8.0 / 15.0, 4.0 / 15.0],
    [0.0, 0.0, 1.0],
];

/// Whether tiles are faster: a window of 3 that moves voxel by voxel, whole vectors of channels, and rows long enough.
pub(super) fn suits(shape: &Correlation) -> bool {
    let inside = |axis: usize| shape.source[axis] + shape.low[axis] < shape.target[axis] + shape.kernel[axis];
    shape.kernel[2] == 3
        && shape.stride == [1; 3]
        && shape.dilation == [1; 3]
        && shape.cin.is_multiple_of(8)
        && shape.cout.is_multiple_of(8)
        && (0..3).all(inside)
        // At least a fifth fewer products.
        && 5 * POINTS * tiles(shape) <= 4 * 3 * shape.target[2]
}

/// Tiles of a row.
pub(super) fn tiles(shape: &Correlation) -> usize {
    shape.target[2].div_ceil(TILE)
}

/// Columns that are worked on together: where they start and how many, for a multiple of 8.
pub(super) fn panels(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = columns - start;
        let width = [32, 16, 8].into_iter().find(|width| *width <= left)?;
        start += width;
        Some((start - width, width))
    })
}

/// Writes `G·w` of one point: `to` and the three `from` are rows of the same length.
pub(super) fn point_of_weights(point: usize, from: [&[f32]; 3], to: &mut [f32]) {
    let [a, b, c] = WEIGHTS[point];
    for (to, ((x, y), z)) in to.iter_mut().zip(from[0].iter().zip(from[1]).zip(from[2])) {
        *to = a * x + b * y + c * z;
    }
}

/// Adds `Gᵀ·u` for position `k` of the three: the points' sums of one row of weights.
pub(super) fn weights_of_points(k: usize, from: [&[f32]; POINTS], to: &mut [f32]) {
    let used = (0..POINTS).map(|point| (WEIGHTS[point][k], from[point]));
    for (factor, from) in used.filter(|(factor, _)| *factor != 0.0) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
    }
}

/// A padded row of inputs: `tiles·4 + 2` voxels of `channels`, and where its points go.
struct Inputs {
    row: *const f32,
    channels: usize,
    tiles: usize,
    out: *mut f32,
    /// Values between two points in `out`.
    point: usize,
}

dispatch! {
    /// Writes `B·d` of each tile and channel.
    fn transform_inputs = inputs_body(inputs: &Inputs)
}

#[inline(always)]
unsafe fn inputs_body<Wide: Simd, Narrow: Simd>(inputs: &Inputs) {
    for tile in 0..inputs.tiles {
        let mut channel = 0;
        while channel < inputs.channels {
            // SAFETY: the caller's contract, restricted to channels `channel..`.
            unsafe {
                if inputs.channels - channel >= Wide::LANES {
                    input_tile::<Wide>(inputs, tile, channel);
                    channel += Wide::LANES;
                } else {
                    input_tile::<Narrow>(inputs, tile, channel);
                    channel += Narrow::LANES;
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn input_tile<S: Simd>(inputs: &Inputs, tile: usize, channel: usize) {
    // SAFETY: the row holds six voxels from `4·tile`, and `out` the tiles of all points.
    unsafe {
        let at = inputs.row.add(tile * TILE * inputs.channels + channel);
        let mut d = [S::splat(0.0); POINTS];
        for (i, value) in d.iter_mut().enumerate() {
            *value = S::load(at.add(i * inputs.channels));
        }
        let [d0, d1, d2, d3, d4, d5] = d;
        let (two, less_two) = (S::splat(2.0), S::splat(-2.0));
        let less_one = S::splat(-1.0);
        // Each is a chain of multiply-adds, so that every instruction set rounds alike.
        let points = [
            outer_point([d0, d1, d2, d3, d4]),
            d4.fma(less_two, d1.fma(two, d2.fma(S::splat(5.0), d3))),
            d4.fma(two, d1.fma(two, d3.fma(S::splat(-5.0), d2))),
            d4.fma(two, d2.fma(less_two, d1.fma(less_one, d3))),
            d3.fma(two, d1.fma(less_two, d4.fma(less_one, d2))),
            outer_point([d1, d2, d3, d4, d5]),
        ];
        let out = inputs.out.add(tile * inputs.channels + channel);
        for (point, value) in points.into_iter().enumerate() {
            value.store(out.add(point * inputs.point));
        }
    }
}

/// `a + 1.5·b - 2·c - 1.5·d + e`: the points 0 and infinity.
#[inline(always)]
unsafe fn outer_point<S: Simd>([a, b, c, d, e]: [S; 5]) -> S {
    // SAFETY: the caller promises the instruction set.
    unsafe { d.fma(S::splat(-1.5), c.fma(S::splat(-2.0), b.fma(S::splat(1.5), a.fma(S::splat(1.0), e)))) }
}

/// Tiles of one plane, `[z, y]` fixed by the caller, numbered along x, then y: `first..first + count`.
pub(super) struct PlaneTiles {
    pub(super) first: usize,
    pub(super) count: usize,
    /// Tiles of a row.
    pub(super) tiles: usize,
    /// Voxels of a row.
    pub(super) width: usize,
    /// Channels of a voxel, and of the panel.
    pub(super) channels: usize,
    pub(super) panel: usize,
    /// Values between two points: of `count` tiles, `panel` each.
    pub(super) point: usize,
}

impl PlaneTiles {
    /// Where tile `first + index` begins in the plane, and how many of its voxels exist.
    #[inline(always)]
    fn voxels(&self, index: usize) -> (usize, usize) {
        let (y, x) = ((self.first + index) / self.tiles, (self.first + index) % self.tiles * TILE);
        ((y * self.width + x) * self.channels, (self.width - x).min(TILE))
    }
}

dispatch! {
    /// Writes `Aᵀ·sums` plus `bias` (`panel` values, or null) to the voxels of a plane; `out` is its first voxel's panel.
    pub(super) fn finish_outputs =
        outputs_body(shape: &PlaneTiles, sums: *const f32, bias: *const f32, out: *mut f32)
}

#[inline(always)]
unsafe fn outputs_body<Wide: Simd, Narrow: Simd>(
    shape: &PlaneTiles,
    sums: *const f32,
    bias: *const f32,
    out: *mut f32,
) {
    for index in 0..shape.count {
        let mut lane = 0;
        while lane < shape.panel {
            // SAFETY: the caller's contract, restricted to columns `lane..`.
            unsafe {
                if shape.panel - lane >= Wide::LANES {
                    output_tile::<Wide>(shape, index, lane, sums, bias, out);
                    lane += Wide::LANES;
                } else {
                    output_tile::<Narrow>(shape, index, lane, sums, bias, out);
                    lane += Narrow::LANES;
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn output_tile<S: Simd>(
    shape: &PlaneTiles,
    index: usize,
    lane: usize,
    sums: *const f32,
    bias: *const f32,
    out: *mut f32,
) {
    // SAFETY: `sums` holds all points of tile `index`; only voxels that exist are written.
    unsafe {
        let at = sums.add(index * shape.panel + lane);
        let mut c = [S::splat(0.0); POINTS];
        for (point, value) in c.iter_mut().enumerate() {
            *value = S::load(at.add(point * shape.point));
        }
        let bias = if bias.is_null() { S::splat(0.0) } else { S::load(bias.add(lane)) };
        let (one, less_one) = (S::splat(1.0), S::splat(-1.0));
        let [c0, c1, c2, c3, c4, c5] = c;
        let (even, odd) = (c2.fma(one, c1), c2.fma(less_one, c1));
        let values = [
            c4.fma(one, c3.fma(one, even.fma(one, c0.fma(one, bias)))),
            c4.fma(S::splat(-0.5), c3.fma(S::splat(2.0), odd.fma(one, bias))),
            c4.fma(S::splat(0.25), c3.fma(S::splat(4.0), even.fma(one, bias))),
            c4.fma(S::splat(-0.125), c3.fma(S::splat(8.0), odd.fma(one, c5.fma(one, bias)))),
        ];
        let (start, present) = shape.voxels(index);
        for (i, value) in values.into_iter().enumerate().take(present) {
            value.store(out.add(start + i * shape.channels + lane));
        }
    }
}

dispatch! {
    /// Writes `A·slope` of each tile to `points`; `slope` is the panel of the plane's first voxel.
    pub(super) fn transform_slopes = slopes_body(shape: &PlaneTiles, slope: *const f32, points: *mut f32)
}

#[inline(always)]
unsafe fn slopes_body<Wide: Simd, Narrow: Simd>(shape: &PlaneTiles, slope: *const f32, points: *mut f32) {
    for index in 0..shape.count {
        let mut lane = 0;
        while lane < shape.panel {
            // SAFETY: the caller's contract, restricted to columns `lane..`.
            unsafe {
                if shape.panel - lane >= Wide::LANES {
                    slope_tile::<Wide>(shape, index, lane, slope, points);
                    lane += Wide::LANES;
                } else {
                    slope_tile::<Narrow>(shape, index, lane, slope, points);
                    lane += Narrow::LANES;
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn slope_tile<S: Simd>(
    shape: &PlaneTiles,
    index: usize,
    lane: usize,
    slope: *const f32,
    points: *mut f32,
) {
    // SAFETY: only voxels that exist are read, the others count as 0; `points` holds all points of tile `index`.
    unsafe {
        let (start, present) = shape.voxels(index);
        let mut s = [S::splat(0.0); TILE];
        for (i, value) in s.iter_mut().enumerate().take(present) {
            *value = S::load(slope.add(start + i * shape.channels + lane));
        }
        let [s0, s1, s2, s3] = s;
        let (one, less_one) = (S::splat(1.0), S::splat(-1.0));
        let (even, odd) = (s2.fma(one, s0), s3.fma(one, s1));
        let values = [
            s0,
            odd.fma(one, even),
            odd.fma(less_one, even),
            s3.fma(S::splat(8.0), s2.fma(S::splat(4.0), s1.fma(S::splat(2.0), s0))),
            s3.fma(S::splat(-0.125), s2.fma(S::splat(0.25), s1.fma(S::splat(-0.5), s0))),
            s3,
        ];
        let to = points.add(index * shape.panel + lane);
        for (point, value) in values.into_iter().enumerate() {
            value.store(to.add(point * shape.point));
        }
    }
}

/// A ring of transformed source planes, `[point][y, padded][tile][channel]` each: all positions of a window along y are the
/// same rows of tiles, so many further on.
pub(super) struct TiledPlanes<'a> {
    isa: Isa,
    shape: &'a Correlation,
    source: &'a [f32],
    values: Buffer,
    /// The inputs of one tile.
    window: Buffer,
    /// Which plane (of all samples) each slot holds.
    held: Vec<Option<usize>>,
    /// Values of one point of one plane.
    point: usize,
}

impl<'a> TiledPlanes<'a> {
    /// Room for the source of `block` target planes in a row. The shape [`suits`], the source has its length, and `isa` is
    /// available.
    pub(super) fn new(
        isa: Isa,
        workspace: &Workspace,
        shape: &'a Correlation,
        source: &'a [f32],
        block: usize,
    ) -> Self {
        let row_len = tiles(shape) * shape.cin;
        let rows = shape.target[1] + shape.kernel[1] - 1;
        let point = rows * row_len;
        let slots = shape.kernel[0] + block - 1;
        let mut values = workspace.take(slots * POINTS * point);
        // Rows of zeros above and below the source, which nothing is written to.
        for point in values.chunks_exact_mut(point) {
            point[..shape.low[1] * row_len].fill(0.0);
            point[(shape.low[1] + shape.source[1]) * row_len..].fill(0.0);
        }
        let window = workspace.take(POINTS * shape.cin);
        Self { isa, shape, source, values, window, held: vec![None; slots], point }
    }

    /// The slots of the planes that target plane `z` of `sample` sees, with their positions in the window.
    pub(super) fn slots(&mut self, sample: usize, z: usize) -> Vec<(usize, usize)> {
        let (low, depth) = (self.shape.low[0], self.shape.source[0]);
        let seen = (0..self.shape.kernel[0]).filter_map(|k| Some((k, (z + k).checked_sub(low)?)));
        seen.filter(|(_, z)| *z < depth).map(|(k, z)| (k, self.plane(sample * depth + z))).collect()
    }

    fn plane(&mut self, plane: usize) -> usize {
        let slot = plane % self.held.len();
        if self.held[slot] != Some(plane) {
            self.fill(slot, plane);
            self.held[slot] = Some(plane);
        }
        slot
    }

    fn fill(&mut self, slot: usize, plane: usize) {
        let Correlation { source: [_, height, width], cin, low, .. } = *self.shape;
        let tiles = tiles(self.shape);
        let rows = &self.source[plane * height * width * cin..][..height * width * cin];
        // Tiles all of whose inputs exist; the others are copied out with the zeros around them.
        let first = low[2].div_ceil(TILE).min(tiles);
        let end = ((width + low[2]).saturating_sub(POINTS - TILE) / TILE).clamp(first, tiles);
        for (y, row) in rows.chunks_exact(width * cin).enumerate() {
            let start = slot * POINTS * self.point + (low[1] + y) * tiles * cin;
            let inputs = |row: &[f32], tiles, out: &mut [f32]| {
                assert!(row.len() >= (tiles * TILE + POINTS - TILE) * cin, "internal error: a row of tiles");
                Inputs { row: row.as_ptr(), channels: cin, tiles, out: out.as_mut_ptr(), point: self.point }
            };
            if first < end {
                let out = &mut self.values[start + first * cin..];
                let inputs = inputs(&row[(first * TILE - low[2]) * cin..], end - first, out);
                // SAFETY: the row holds the tiles; every point of a slot has room for the padded rows, of which
                // `low + y` is one; channels are a multiple of 8; the instruction set was checked.
                unsafe { transform_inputs(self.isa, &inputs) };
            }
            for tile in (0..first).chain(end..tiles) {
                for (i, voxel) in self.window.chunks_exact_mut(cin).enumerate() {
                    match (tile * TILE + i).checked_sub(low[2]).filter(|x| *x < width) {
                        Some(x) => voxel.copy_from_slice(&row[x * cin..][..cin]),
                        None => voxel.fill(0.0),
                    }
                }
                let inputs = inputs(&self.window, 1, &mut self.values[start + tile * cin..]);
                // SAFETY: as above, for one tile.
                unsafe { transform_inputs(self.isa, &inputs) };
            }
        }
    }

    /// One point of the tiles in `slot` from `tile` on, `cin` values each.
    pub(super) fn tile(&self, slot: usize, point: usize, tile: usize) -> &[f32] {
        &self.values[(slot * POINTS + point) * self.point..][..self.point][tile * self.shape.cin..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_all_columns_once() {
        assert_eq!(panels(8).collect::<Vec<_>>(), [(0, 8)]);
        assert_eq!(panels(88).collect::<Vec<_>>(), [(0, 32), (32, 32), (64, 16), (80, 8)]);
    }
}
