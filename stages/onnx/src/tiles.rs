//! Where the tiles of a sliding window lie along one axis, and how much each voxel of a tile counts.
//! Pure arithmetic; a volume's tiles are the product of its axes' tiles.

use crate::predict::Blend;

/// Width of the Gaussian as a fraction of the tile, as nnU-Net has it (`sigma_scale = 1. / 8` in
/// `nnunetv2/inference/sliding_window_prediction.py`, `compute_gaussian`).
const SIGMA_PER_TILE: f64 = 1.0 / 8.0;

/// The tiles along one axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AxisTiles {
    /// Length of the volume's axis.
    pub(crate) length: usize,
    /// Length of a tile, which may be larger than the axis: then there is one tile.
    pub(crate) tile: usize,
    /// Voxels of padding before the axis begins.
    pub(crate) before: usize,
    /// First voxel of each tile on the padded axis, rising.
    pub(crate) starts: Vec<usize>,
    /// How much each voxel of a tile counts, above 0; all 1 where there is one tile.
    pub(crate) weights: Vec<f32>,
    /// Sum of the weights that each voxel of the unpadded axis receives.
    pub(crate) totals: Vec<f32>,
}

impl AxisTiles {
    /// Lays tiles of at most `patch` voxels over an axis.
    ///
    /// An axis that fits into `patch` gets one tile: the axis padded to `patch`, half before and half after (the odd
    /// voxel after). Never to less: a network that normalises over its input has learned with the padding in it. A
    /// longer axis gets equally spaced tiles, the fewest whose mean step is at most `step` (0 to 1) times the tile, the
    /// first and the last flush with the ends, as nnU-Net has it (`compute_steps_for_sliding_window`).
    pub(crate) fn new(length: usize, patch: usize, step: f64, blend: Blend) -> Self {
        if length <= patch {
            let before = (patch - length) / 2;
            let (weights, totals) = (vec![1.0; patch], vec![1.0; length]);
            return Self { length, tile: patch, before, starts: vec![0], weights, totals };
        }
        let (tile, span) = (patch, length - patch);
        let steps = ((span as f64 / (tile as f64 * step)).ceil() as usize).clamp(1, span);
        let spacing = span as f64 / steps as f64;
        let starts: Vec<usize> =
            (0..=steps).map(|index| (spacing * index as f64).round_ties_even() as usize).collect();
        let weights = match blend {
            Blend::Gaussian => gaussian(tile),
            Blend::Constant => vec![1.0; tile],
        };
        let mut totals = vec![0.0; length];
        for start in &starts {
            for (total, weight) in totals[*start..].iter_mut().zip(&weights) {
                *total += weight;
            }
        }
        Self { length, tile, before: 0, starts, weights, totals }
    }

    /// Lays one tile of one voxel on each voxel: the slices of a volume.
    pub(crate) fn slices(length: usize) -> Self {
        Self {
            length,
            tile: 1,
            before: 0,
            starts: (0..length).collect(),
            weights: vec![1.0],
            totals: vec![1.0; length],
        }
    }

    /// Returns what a tile that begins at `start` shares with the unpadded axis.
    pub(crate) fn span(&self, start: usize, mirrored: bool) -> Span {
        let (first, at) = (start.saturating_sub(self.before), self.before.saturating_sub(start));
        let length = (self.tile - at).min(self.length - first);
        Span { first, at, length, tile: self.tile, mirrored }
    }
}

/// Voxels of the volume under one tile, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first of them in the volume.
    pub(crate) first: usize,
    /// The first of them in the tile.
    pub(crate) at: usize,
    pub(crate) length: usize,
    /// Length of the tile.
    tile: usize,
    /// The model sees the tile mirrored along this axis.
    pub(crate) mirrored: bool,
}

impl Span {
    /// Where the model sees the `index`-th of the voxels.
    pub(crate) fn seen(&self, index: usize) -> usize {
        if self.mirrored { self.tile - 1 - self.at - index } else { self.at + index }
    }

    /// Where the voxels lie in a row that the model sees; in reverse order where it is mirrored.
    pub(crate) fn seen_range(&self) -> std::ops::Range<usize> {
        let first = if self.mirrored { self.tile - self.at - self.length } else { self.at };
        first..first + self.length
    }
}

/// Returns a Gaussian over a tile, 1 at voxel `tile / 2`. At the ends (4 sigma) it is 3.4e-4, so products over three
/// axes stay far above the smallest float.
fn gaussian(tile: usize) -> Vec<f32> {
    let centre = (tile / 2) as f64;
    let sigma = tile as f64 * SIGMA_PER_TILE;
    (0..tile).map(|at| (-0.5 * ((at as f64 - centre) / sigma).powi(2)).exp() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(length: usize, patch: usize, starts: &[usize], tile: usize, before: usize) {
        let tiles = AxisTiles::new(length, patch, 0.5, Blend::Gaussian);
        assert_eq!((tiles.starts.as_slice(), tiles.tile, tiles.before), (starts, tile, before));
    }

    #[test]
    fn an_axis_that_fits_gets_one_tile_padded_on_both_sides_to_the_patch() {
        check(16, 16, &[0], 16, 0);
        check(13, 16, &[0], 16, 1);
        check(5, 16, &[0], 16, 5);
        check(1, 1, &[0], 1, 0);
    }

    /// Positions as nnU-Net's `compute_steps_for_sliding_window` gives them for a tile step of 0.5.
    #[test]
    fn tiles_of_a_long_axis_are_equally_spaced_and_flush_with_both_ends() {
        check(17, 16, &[0, 1], 16, 0);
        check(24, 16, &[0, 8], 16, 0);
        check(110, 64, &[0, 23, 46], 64, 0);
        check(40, 16, &[0, 8, 16, 24], 16, 0);
    }

    #[test]
    fn every_voxel_of_any_axis_is_covered_and_no_tile_leaves_the_axis() {
        for patch in [1_usize, 2, 8, 12] {
            for length in 1..60 {
                let tiles = AxisTiles::new(length, patch, 0.5, Blend::Gaussian);
                let end = tiles.starts.last().expect("there is a tile") + tiles.tile;
                assert!(tiles.totals.iter().all(|total| *total > 0.0), "{length} {patch}");
                assert!(tiles.tile == patch && end >= length, "{length} {patch}");
                assert!(tiles.starts.windows(2).all(|pair| pair[0] < pair[1]), "{length} {patch}");
                let most = patch.div_ceil(2);
                assert!(tiles.starts.windows(2).all(|pair| pair[1] - pair[0] <= most), "{length} {patch}");
            }
        }
    }

    #[test]
    fn a_tile_knows_the_voxels_below_it_also_where_it_is_padded_or_mirrored() {
        #[track_caller]
        fn check(length: usize, start: usize, mirrored: bool, first: usize, seen: &[usize]) {
            let span = AxisTiles::new(length, 8, 0.5, Blend::Constant).span(start, mirrored);
            let found: Vec<usize> = (0..span.length).map(|index| span.seen(index)).collect();
            assert_eq!((span.first, found.as_slice()), (first, seen));
            let mut sorted = found;
            sorted.sort_unstable();
            assert_eq!(span.seen_range().collect::<Vec<_>>(), sorted);
        }
        // Five voxels in a tile of eight: one before, two after.
        check(5, 0, false, 0, &[1, 2, 3, 4, 5]);
        check(5, 0, true, 0, &[6, 5, 4, 3, 2]);
        check(12, 4, false, 4, &[0, 1, 2, 3, 4, 5, 6, 7]);
        check(12, 4, true, 4, &[7, 6, 5, 4, 3, 2, 1, 0]);
    }
}
