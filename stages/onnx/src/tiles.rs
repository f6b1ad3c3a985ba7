//! Where the tiles of a sliding window lie along one axis, and how much each voxel of a tile counts.
//! Pure arithmetic; a volume's tiles are the product of its axes' tiles.

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
    pub(crate) fn new(length: usize, patch: usize, step: f64) -> Self {
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
        let weights = gaussian(tile);
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

    /// Returns the voxel of the unpadded axis under voxel `at` of the tile that begins at `start`, if there is one.
    pub(crate) fn voxel(&self, start: usize, at: usize) -> Option<usize> {
        (start + at).checked_sub(self.before).filter(|voxel| *voxel < self.length)
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
        let tiles = AxisTiles::new(length, patch, 0.5);
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
                let tiles = AxisTiles::new(length, patch, 0.5);
                let end = tiles.starts.last().expect("there is a tile") + tiles.tile;
                assert!(tiles.totals.iter().all(|total| *total > 0.0), "{length} {patch}");
                assert!(tiles.tile == patch && end >= length, "{length} {patch}");
                assert!(tiles.starts.windows(2).all(|pair| pair[0] < pair[1]), "{length} {patch}");
                let most = patch.div_ceil(2);
                assert!(tiles.starts.windows(2).all(|pair| pair[1] - pair[0] <= most), "{length} {patch}");
            }
        }
    }
}
