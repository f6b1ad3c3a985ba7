//! An image on a small grid, without its intensity scale.

use ndarray::{Array3, ArrayView3, Axis};

use crate::volume::Image;

/// Voxels along each axis.
pub(super) const SIZE: usize = 24;
/// Intensities beyond these shares are clipped: a few bright voxels must not be all that counts.
const CLIP: (f64, f64) = (0.01, 0.99);

/// An image on a grid of 24×24×24 voxels, or 1×24×24 when it is flat, with mean 0 and norm 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail(Array3<f32>);

impl Thumbnail {
    /// The thumbnail of an image, z, y, x; `None` when it is constant or not finite, so that it looks like nothing.
    ///
    /// Channels are normalised one by one and added. The whole field of view is mapped onto the grid, each axis by
    /// itself: spacing does not matter.
    pub fn of(image: &Image) -> Option<Self> {
        let mut sum: Option<Array3<f32>> = None;
        for channel in image.voxels().axis_iter(Axis(0)) {
            let Some(channel) = normalised(reduced(&channel)) else { continue };
            sum = Some(match sum {
                Some(sum) => sum + &channel,
                None => channel,
            });
        }
        normalised(sum?).map(Self)
    }

    /// Whether it is of a flat image; only thumbnails of one kind can be compared.
    pub fn is_flat(&self) -> bool {
        self.0.shape()[0] == 1
    }

    pub(super) fn voxels(&self) -> ArrayView3<'_, f32> {
        self.0.view()
    }
}

fn reduced(channel: &ArrayView3<'_, f32>) -> Array3<f32> {
    let flat = channel.shape()[0] == 1;
    // The longest axis first: what follows has less to do.
    let mut axes = [0, 1, 2];
    axes.sort_by_key(|axis| std::cmp::Reverse(channel.shape()[*axis]));
    let mut out = channel.to_owned();
    for axis in axes {
        let size = if flat && axis == 0 { 1 } else { SIZE };
        out = resized(&out, Axis(axis), size);
    }
    out
}

/// Resamples one axis with a triangle filter as wide as the coarser of both grids, edges repeated.
fn resized(array: &Array3<f32>, axis: Axis, size: usize) -> Array3<f32> {
    let length = array.len_of(axis);
    if length == size {
        return array.clone();
    }
    let factor = length as f64 / size as f64;
    let width = factor.max(1.0);
    let mut shape = [array.shape()[0], array.shape()[1], array.shape()[2]];
    shape[axis.0] = size;
    let mut out = Array3::zeros(shape);
    for (index, mut slice) in out.axis_iter_mut(axis).enumerate() {
        let centre = (index as f64 + 0.5) * factor - 0.5;
        let (first, last) = ((centre - width).ceil() as i64, (centre + width).floor() as i64);
        let weight = |place: i64| 1.0 - (place as f64 - centre).abs() / width;
        let total: f64 = (first..=last).map(weight).sum();
        for place in first..=last {
            let inside = place.clamp(0, length as i64 - 1) as usize;
            slice.scaled_add((weight(place) / total) as f32, &array.index_axis(axis, inside));
        }
    }
    out
}

/// Clipped, with mean 0 and norm 1; `None` when nothing is left or a value is not finite.
fn normalised(mut array: Array3<f32>) -> Option<Array3<f32>> {
    let mut values: Vec<f32> = array.iter().copied().collect();
    let at = |share: f64| (share * (values.len() - 1) as f64).round() as usize;
    let (low, high) = (at(CLIP.0), at(CLIP.1));
    let low = *values.select_nth_unstable_by(low, f32::total_cmp).1;
    let high = *values.select_nth_unstable_by(high, f32::total_cmp).1;
    // What is not far above the rounding of an f32 is no difference.
    let rounding = 4e-6 * low.abs().max(high.abs());
    if !(low.is_finite() && high.is_finite() && high - low > rounding) {
        return None;
    }
    array.mapv_inplace(|value| value.clamp(low, high));
    let mean = array.iter().map(|value| f64::from(*value)).sum::<f64>() / array.len() as f64;
    let norm = array.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>().sqrt();
    array.mapv_inplace(|value| ((f64::from(value) - mean) / norm) as f32);
    array.iter().all(|value| value.is_finite()).then_some(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Geometry;

    fn image(shape: [usize; 3], value: impl Fn([usize; 3]) -> f32) -> Image {
        let [z, y, x] = shape;
        let voxels = ndarray::Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| value([z, y, x]));
        Image::new(voxels, Geometry::with_spacing(shape, [1.0; 3])).expect("one value a voxel")
    }

    #[test]
    fn a_linear_change_of_intensity_leaves_the_thumbnail() {
        let shade = |[z, y, x]: [usize; 3]| ((z * 7 + y * 3 + x * 5) % 23) as f32;
        let one = Thumbnail::of(&image([20, 17, 30], shade)).expect("not constant");
        let other = Thumbnail::of(&image([20, 17, 30], |at| 3.5 * shade(at) - 80.0)).expect("not constant");
        for (a, b) in one.0.iter().zip(&other.0) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }

    #[test]
    fn a_ramp_stays_a_ramp_on_any_grid() {
        for x in [9, 24, 48, 100] {
            let flat = Thumbnail::of(&image([1, 24, x], |at| at[2] as f32)).expect("not constant");
            assert!(flat.is_flat());
            let row: Vec<f32> = flat.0.iter().take(SIZE).copied().collect();
            assert!(row[2..22].windows(2).all(|pair| pair[0] < pair[1]), "{x} columns: {row:?}");
            assert!((row[11] + row[12]).abs() < 1e-4, "{x} columns: the middle is the mean: {row:?}");
        }
    }

    #[test]
    fn nothing_to_see_gives_none() {
        assert_eq!(Thumbnail::of(&image([4, 4, 4], |_| 7.0)), None);
        assert_eq!(Thumbnail::of(&image([4, 4, 4], |_| f32::NAN)), None);
    }
}
