//! Where the tiles of a sliding window lie along one axis, and how much each voxel of a tile counts.
//! Pure arithmetic; a volume's tiles are the product of its axes' tiles.

use crate::predict::{Blend, Tiling};

/// Width of the Gaussian as a fraction of the tile, in nnU-Net (`compute_gaussian`, `sigma_scale = 1. / 8`) and in MONAI
/// (`compute_importance_map`, `sigma_scale = 0.125`).
const SIGMA_PER_TILE: f64 = 1.0 / 8.0;

/// What no weight of MONAI's Gaussian is below.
const MONAI_LEAST: f32 = 1e-3;

/// How tiles are laid over an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Layout {
    pub(crate) tiling: Tiling,
    pub(crate) blend: Blend,
    /// Share of a tile that its neighbour covers too, 0 to below 1.
    pub(crate) overlap: f64,
}

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
    /// How much each voxel of a tile counts, above 0. The weight of a voxel is the product over the axes, but at least
    /// [`least`].
    pub(crate) weights: Vec<f32>,
}

impl AxisTiles {
    /// Lays tiles of `patch` voxels over an axis.
    ///
    /// An axis that fits into `patch` gets one tile: the axis padded to `patch`, half before and half after (the odd
    /// voxel after). Never to less: a network that normalises over its input has learned with the padding in it.
    pub(crate) fn new(length: usize, patch: usize, layout: Layout) -> Self {
        let starts = if length <= patch { vec![0] } else { layout.starts(length, patch) };
        // Of one tile nothing is averaged; only MONAI's limit makes its weights count, through those of other axes.
        let alone = starts.len() == 1 && layout.tiling == Tiling::Nnunet;
        let weights = match layout.blend {
            Blend::Gaussian if !alone => gaussian(patch, layout.tiling),
            _ => vec![1.0; patch],
        };
        Self { length, tile: patch, before: patch.saturating_sub(length) / 2, starts, weights }
    }

    /// Lays one tile of one voxel on each voxel: the slices of a volume.
    pub(crate) fn slices(length: usize) -> Self {
        Self { length, tile: 1, before: 0, starts: (0..length).collect(), weights: vec![1.0] }
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

impl Layout {
    /// Where tiles begin on an axis that is longer than one. The first and the last are flush with its ends.
    fn starts(self, length: usize, tile: usize) -> Vec<usize> {
        let (span, step) = (length - tile, tile as f64 * (1.0 - self.overlap));
        match self.tiling {
            // `compute_steps_for_sliding_window`
            Tiling::Nnunet => {
                let steps = ((span as f64 / step).ceil() as usize).clamp(1, span);
                let spacing = span as f64 / steps as f64;
                (0..=steps).map(|index| (spacing * index as f64).round_ties_even() as usize).collect()
            }
            // `_get_scan_interval` and `dense_patch_slices`
            Tiling::Monai => {
                let step = (step as usize).max(1);
                (0..=span.div_ceil(step)).map(|index| (index * step).min(span)).collect()
            }
        }
    }
}

/// Returns a Gaussian over a tile. At the ends (4 sigma) it is 3.4e-4, so products over three axes stay far above the
/// smallest float.
fn gaussian(tile: usize, tiling: Tiling) -> Vec<f32> {
    let middle = match tiling {
        Tiling::Nnunet => (tile / 2) as f64,
        Tiling::Monai => (tile as f64 - 1.0) / 2.0,
    };
    let sigma = tile as f64 * SIGMA_PER_TILE;
    (0..tile).map(|at| (-0.5 * ((at as f64 - middle) / sigma).powi(2)).exp() as f32).collect()
}

/// What no weight of a tile is below.
pub(crate) fn least(axes: &[AxisTiles; 3], layout: Layout) -> f32 {
    if (layout.tiling, layout.blend) != (Tiling::Monai, Blend::Gaussian) {
        return 0.0;
    }
    let least = |axis: &AxisTiles| axis.weights.iter().copied().fold(f32::INFINITY, f32::min);
    axes.iter().map(least).product::<f32>().max(MONAI_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(tiling: Tiling, overlap: f64) -> Layout {
        Layout { tiling, blend: Blend::Gaussian, overlap }
    }

    #[track_caller]
    fn check(length: usize, patch: usize, starts: &[usize], tile: usize, before: usize) {
        for tiling in [Tiling::Nnunet, Tiling::Monai] {
            let tiles = AxisTiles::new(length, patch, layout(tiling, 0.5));
            assert_eq!((tiles.starts.as_slice(), tiles.tile, tiles.before), (starts, tile, before));
        }
    }

    #[test]
    fn an_axis_that_fits_gets_one_tile_padded_on_both_sides_to_the_patch() {
        check(16, 16, &[0], 16, 0);
        check(13, 16, &[0], 16, 1);
        check(5, 16, &[0], 16, 5);
        check(1, 1, &[0], 1, 0);
    }

    #[track_caller]
    fn check_starts(tiling: Tiling, length: usize, patch: usize, overlap: f64, expected: &[usize]) {
        assert_eq!(AxisTiles::new(length, patch, layout(tiling, overlap)).starts, expected);
    }

    /// Positions as nnU-Net's `compute_steps_for_sliding_window` gives them.
    #[test]
    fn tiles_of_nnunet_are_equally_spaced_and_flush_with_both_ends() {
        check_starts(Tiling::Nnunet, 17, 16, 0.5, &[0, 1]);
        check_starts(Tiling::Nnunet, 24, 16, 0.5, &[0, 8]);
        check_starts(Tiling::Nnunet, 110, 64, 0.5, &[0, 23, 46]);
        check_starts(Tiling::Nnunet, 40, 16, 0.5, &[0, 8, 16, 24]);
    }

    /// Positions as MONAI's `dense_patch_slices` gives them.
    #[test]
    fn tiles_of_monai_have_a_fixed_step_and_the_last_is_moved_back() {
        check_starts(Tiling::Monai, 17, 16, 0.5, &[0, 1]);
        check_starts(Tiling::Monai, 24, 16, 0.5, &[0, 8]);
        check_starts(Tiling::Monai, 110, 64, 0.5, &[0, 32, 46]);
        check_starts(Tiling::Monai, 110, 64, 0.25, &[0, 46]);
        check_starts(Tiling::Monai, 41, 16, 0.4, &[0, 9, 18, 25]);
        check_starts(Tiling::Monai, 4, 2, 0.9, &[0, 1, 2]);
    }

    #[test]
    fn every_voxel_of_any_axis_is_covered_and_no_tile_leaves_the_axis() {
        for tiling in [Tiling::Nnunet, Tiling::Monai] {
            for patch in [1_usize, 2, 8, 12] {
                for length in 1..60 {
                    let tiles = AxisTiles::new(length, patch, layout(tiling, 0.5));
                    let end = tiles.starts.last().expect("there is a tile") + tiles.tile;
                    assert!(tiles.tile == patch && end == length.max(patch), "{length} {patch}");
                    assert!(tiles.starts.windows(2).all(|pair| pair[0] < pair[1]), "{length} {patch}");
                    let most = patch.div_ceil(2);
                    assert!(
                        tiles.starts.windows(2).all(|pair| pair[1] - pair[0] <= most),
                        "{length} {patch}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_tile_knows_the_voxels_below_it_also_where_it_is_padded_or_mirrored() {
        #[track_caller]
        fn check(length: usize, start: usize, mirrored: bool, first: usize, seen: &[usize]) {
            let span = AxisTiles::new(length, 8, layout(Tiling::Nnunet, 0.5)).span(start, mirrored);
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
