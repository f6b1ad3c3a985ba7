//! The figures of one case and a small picture of it.

use super::lightbox;
use crate::artifacts::{Case, table_file::seven_digits};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::open;
use fs_err as fs;
use pipe_imaging::normalize::{self, Region};
use pipe_imaging::{LabelMap, Shape, components::components, crop};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// What the voxels of a case say. Memoised, so it depends on the content of its files only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) channels: Vec<Intensity>,
    /// Of the label values that occur.
    pub(super) labels: BTreeMap<u8, Extent>,
    /// Size of the smallest box around the foreground; z, y, x.
    pub(super) foreground_box: Option<[usize; 3]>,
    pub(super) border_voxels: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Intensity {
    pub(super) min: f64,
    pub(super) p1: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    pub(super) sd: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) voxels: u64,
    pub(super) components: usize,
    pub(super) largest: u64,
}

/// Measures a case and leaves its picture as `dir/tile.rgb`, or recalls both.
pub(super) fn measure(case: &Case, dir: &Path, context: &StageContext) -> Result<Measured, StageError> {
    fs::create_dir_all(dir).map_err(StageError::io("create", dir))?;
    let images: Vec<_> = case.images.iter().map(|file| file.digest).collect();
    let key = json!({ "images": images, "label": case.label.as_ref().map(|file| file.digest) });
    context.memo(&key, dir, |dir| {
        let image = open::image(case, context)?;
        let label = open::label(case, context)?;
        let doing = || format!("measuring case `{}`", case.id);
        let statistics = normalize::statistics(&image, Region::All).map_err(StageError::inner(doing()))?;
        let channels = statistics.iter().enumerate().map(|(channel, figures)| {
            let mut values = image.channel(channel).to_vec();
            let [p1, p50, p99] = [0.01, 0.5, 0.99].map(|q| quantile(&mut values, q));
            Intensity {
                min: seven_digits(figures.min.into()),
                p1: seven_digits(p1),
                p50: seven_digits(p50),
                p99: seven_digits(p99),
                max: seven_digits(figures.max.into()),
                mean: seven_digits(figures.mean),
                sd: seven_digits(figures.sd),
            }
        });
        let channels: Vec<Intensity> = channels.collect();
        let tile = lightbox::tile(&image, label.as_ref(), [channels[0].p1, channels[0].p99]);
        let path = dir.join(lightbox::TILE_FILE);
        fs::write(&path, tile).map_err(StageError::io("write", &path))?;
        let window = label.as_ref().and_then(crop::foreground_window);
        Ok(Measured {
            channels,
            labels: label.as_ref().map(extents).unwrap_or_default(),
            foreground_box: window.map(|window| window.shape),
            border_voxels: window.map(|window| distance_to_border(&window, image.shape())),
        })
    })
}

fn extents(label: &LabelMap) -> BTreeMap<u8, Extent> {
    let extent = |sizes: Vec<u64>| Extent {
        voxels: sizes.iter().sum(),
        components: sizes.len(),
        largest: sizes.first().copied().unwrap_or(0),
    };
    components(label).into_iter().map(|(value, sizes)| (value, extent(sizes))).collect()
}

/// Along axes with more than one voxel: a single slice has no border above and below.
fn distance_to_border(window: &crop::Window, shape: Shape) -> u64 {
    let gaps = (0..3).filter(|axis| shape.0[*axis] > 1).flat_map(|axis| {
        let before = window.start[axis];
        [before, shape.0[axis] as i64 - before - window.shape[axis] as i64]
    });
    gaps.min().and_then(|gap| u64::try_from(gap).ok()).unwrap_or(0)
}

/// The quantile `q` (0 to 1), interpolated linearly between neighbours, of at least one value; reorders them.
fn quantile(values: &mut [f32], q: f64) -> f64 {
    let position = q * (values.len() - 1) as f64;
    let fraction = position.fract();
    let (_, low, above) = values.select_nth_unstable_by(position as usize, f32::total_cmp);
    let low = f64::from(*low);
    if fraction == 0.0 {
        return low;
    }
    let high = above.iter().copied().min_by(f32::total_cmp).map_or(low, f64::from);
    low + (high - low) * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([5, 1, 4, 2], [0.01, 0.5, 0.99])
        let mut values = [5.0, 1.0, 4.0, 2.0];
        assert!((quantile(&mut values, 0.01) - 1.03).abs() < 1e-12);
        assert!((quantile(&mut values, 0.5) - 3.0).abs() < 1e-12);
        assert!((quantile(&mut values, 0.99) - 4.97).abs() < 1e-12);
        assert_eq!(quantile(&mut values, 0.0), 1.0);
        assert_eq!(quantile(&mut values, 1.0), 5.0);
        assert_eq!(quantile(&mut [7.0], 0.99), 7.0);
    }

    #[test]
    fn the_border_is_measured_in_background_voxels() {
        let window = crop::Window { start: [2, 3, 4], shape: [5, 5, 5] };
        assert_eq!(distance_to_border(&window, Shape([10, 10, 10])), 1);
        assert_eq!(distance_to_border(&window, Shape([7, 10, 10])), 0);
        let slice = crop::Window { start: [0, 3, 4], shape: [1, 5, 5] };
        assert_eq!(distance_to_border(&slice, Shape([1, 10, 11])), 2);
    }
}
