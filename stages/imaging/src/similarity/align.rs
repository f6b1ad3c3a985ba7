//! How far one thumbnail is another, mirrored or moved: normalised cross-correlation at the best of all these places.

use ndarray::{Array3, ArrayView3, Axis, s};

use super::thumbnail::{SIZE, Thumbnail};

/// Structures wider than this, in voxels of the thumbnail, are taken out first: where organs lie is alike in everybody.
const WIDE: f64 = 3.75;
/// And those narrower than this: noise, and what a shift by half a voxel of the thumbnail changes.
const NARROW: f64 = 1.2;
/// Where thumbnails of half the size do not correlate by as much, nothing finer is tried.
const HOPELESS: f64 = 0.75;
/// How many mirrored and moved placings of the halves are tried at full size.
const STARTS: usize = 2;

/// A thumbnail made ready to be compared many times.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    fine: Array3<f32>,
    coarse: Array3<f32>,
}

/// How one pattern lies on another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alignment {
    /// Normalised correlation of the fine structure where both overlap, -1 to 1.
    pub correlation: f64,
    /// Along z, y, x.
    pub mirrored: [bool; 3],
    /// Voxels of the thumbnail along z, y, x.
    pub shift: [i32; 3],
}

impl Pattern {
    pub fn new(thumbnail: &Thumbnail) -> Self {
        let voxels = thumbnail.voxels();
        Self { fine: smoothed(&voxels, NARROW) - smoothed(&voxels, WIDE), coarse: halved(&voxels) }
    }

    /// Little-endian `f32`, the fine structure first.
    pub fn bytes(&self) -> Vec<u8> {
        self.fine.iter().chain(&self.coarse).flat_map(|value| value.to_le_bytes()).collect()
    }

    /// A pattern that [`bytes`](Self::bytes) wrote; `None` when the length is none of a pattern.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (values, rest) = bytes.as_chunks::<4>();
        let depth = match values.len() {
            n if n == SIZE * SIZE + SIZE * SIZE / 4 => 1,
            n if n == SIZE * SIZE * SIZE + SIZE * SIZE * SIZE / 8 => SIZE,
            _ => return None,
        };
        let mut values = values.iter().map(|value| f32::from_le_bytes(*value));
        let mut take = |shape: [usize; 3]| {
            Array3::from_shape_vec(shape, values.by_ref().take(shape.iter().product()).collect()).ok()
        };
        let (fine, coarse) = (take([depth, SIZE, SIZE])?, take([depth.div_ceil(2), SIZE / 2, SIZE / 2])?);
        rest.is_empty().then_some(Self { fine, coarse })
    }
}

/// The best placing of `other` on `own`: mirrored along any axes, moved by up to an eighth along each. `None` when one
/// is flat and the other is not, or when they are nothing alike.
pub fn align(own: &Pattern, other: &Pattern) -> Option<Alignment> {
    if own.fine.dim() != other.fine.dim() {
        return None;
    }
    let axes: Vec<usize> = (0..3).filter(|&axis| own.fine.shape()[axis] > 1).collect();
    let moved = |axis: usize, reach: i32| if axes.contains(&axis) { -reach..=reach } else { 0..=0 };
    let mut starts: Vec<Alignment> = Vec::new();
    for bits in 0..8_u8 {
        let mirrored = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
        if (0..3).any(|axis| mirrored[axis] && !axes.contains(&axis)) {
            continue;
        }
        let coarse = flipped(&other.coarse, mirrored);
        for z in moved(0, 1) {
            for y in moved(1, 1) {
                for x in moved(2, 1) {
                    let correlation = overlap_correlation(&own.coarse, &coarse, [z, y, x]);
                    starts.push(Alignment { correlation, mirrored, shift: [2 * z, 2 * y, 2 * x] });
                }
            }
        }
    }
    starts.retain(|start| start.correlation >= HOPELESS);
    starts.sort_by(|a, b| b.correlation.total_cmp(&a.correlation));
    let mut best: Option<Alignment> = None;
    for start in starts.iter().take(STARTS) {
        let fine = flipped(&other.fine, start.mirrored);
        for z in moved(0, 1) {
            for y in moved(1, 1) {
                for x in moved(2, 1) {
                    let shift = [start.shift[0] + z, start.shift[1] + y, start.shift[2] + x];
                    let correlation = overlap_correlation(&own.fine, &fine, shift);
                    if best.is_none_or(|best| correlation > best.correlation) {
                        best = Some(Alignment { correlation, mirrored: start.mirrored, shift });
                    }
                }
            }
        }
    }
    best
}

/// In memory order, so that its rows are slices.
fn flipped(array: &Array3<f32>, mirrored: [bool; 3]) -> Array3<f32> {
    let mut view = array.view();
    for axis in (0..3).filter(|&axis| mirrored[axis]) {
        view.invert_axis(Axis(axis));
    }
    view.as_standard_layout().into_owned()
}

/// Pearson correlation of `a[at + shift]` and `b[at]` where both are; 0 when one of them is constant there.
fn overlap_correlation(a: &Array3<f32>, b: &Array3<f32>, shift: [i32; 3]) -> f64 {
    let (mut a, mut b) = (a.view(), b.view());
    let cut = |array: &mut ArrayView3<'_, f32>, sign: i32| {
        for (axis, by) in shift.into_iter().enumerate() {
            let by = sign * by;
            let length = array.shape()[axis] as i32;
            array.slice_axis_inplace(Axis(axis), (by.max(0)..length + by.min(0)).into());
        }
    };
    cut(&mut a, 1);
    cut(&mut b, -1);
    let mut sums = [0.0_f64; 5];
    for (a, b) in a.rows().into_iter().zip(b.rows()) {
        let (Some(a), Some(b)) = (a.to_slice(), b.to_slice()) else {
            unreachable!("rows lie in memory order")
        };
        for (sum, row) in sums.iter_mut().zip(row_sums(a, b)) {
            *sum += f64::from(row);
        }
    }
    let count = a.len() as f64;
    let [a, b, aa, bb, ab] = sums;
    let spread = ((aa - a * a / count) * (bb - b * b / count)).sqrt();
    if spread > 1e-12 { (ab - a * b / count) / spread } else { 0.0 }
}

/// Sums of a, b, a², b² and a·b, in lanes, so that they can be vectorised.
fn row_sums(a: &[f32], b: &[f32]) -> [f32; 5] {
    const LANES: usize = 8;
    let mut lanes = [[0.0_f32; LANES]; 5];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            let (a, b) = (a[lane], b[lane]);
            lanes[0][lane] += a;
            lanes[1][lane] += b;
            lanes[2][lane] += a * a;
            lanes[3][lane] += b * b;
            lanes[4][lane] += a * b;
        }
    }
    let mut sums = lanes.map(|lanes| lanes.iter().sum::<f32>());
    for (&a, &b) in a_rest.iter().zip(b_rest) {
        for (sum, value) in sums.iter_mut().zip([a, b, a * a, b * b, a * b]) {
            *sum += value;
        }
    }
    sums
}

/// Under a Gaussian of this standard deviation in voxels, edges repeated.
fn smoothed(voxels: &ArrayView3<'_, f32>, sigma: f64) -> Array3<f32> {
    let reach = (3.0 * sigma).ceil() as i64;
    let weights: Vec<f64> =
        (-reach..=reach).map(|at| (-(at * at) as f64 / (2.0 * sigma * sigma)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = voxels.to_owned();
    for axis in (0..3).filter(|&axis| voxels.shape()[axis] > 1) {
        let length = voxels.shape()[axis] as i64;
        let mut next = Array3::zeros(out.dim());
        for at in 0..length {
            let mut slice = next.index_axis_mut(Axis(axis), at as usize);
            for (offset, weight) in (-reach..=reach).zip(&weights) {
                let from = (at + offset).clamp(0, length - 1) as usize;
                slice.scaled_add((weight / total) as f32, &out.index_axis(Axis(axis), from));
            }
        }
        out = next;
    }
    out
}

/// Means of two by two (by two) voxels.
fn halved(voxels: &ArrayView3<'_, f32>) -> Array3<f32> {
    let mut out = voxels.to_owned();
    for axis in (0..3).filter(|&axis| voxels.shape()[axis] > 1).map(Axis) {
        let (even, odd) = match axis.0 {
            0 => (out.slice(s![..;2, .., ..]), out.slice(s![1..;2, .., ..])),
            1 => (out.slice(s![.., ..;2, ..]), out.slice(s![.., 1..;2, ..])),
            _ => (out.slice(s![.., .., ..;2]), out.slice(s![.., .., 1..;2])),
        };
        out = (&even + &odd) * 0.5;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Geometry, Image};

    /// Noise without any order, smoothed by its thumbnail.
    fn image(shape: [usize; 3], seed: u64) -> Array3<f32> {
        let mut state = seed;
        let blob = Array3::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32
        });
        let mut out = blob.clone();
        for axis in (0..3).filter(|&axis| shape[axis] > 1).map(Axis) {
            for at in 0..out.len_of(axis) {
                let last = out.len_of(axis) - 1;
                let sum = (0..5).fold(None::<ndarray::Array2<f32>>, |sum, by| {
                    let slice = blob.index_axis(axis, (at + by).min(last));
                    Some(sum.map_or_else(|| slice.to_owned(), |sum| sum + slice))
                });
                out.index_axis_mut(axis, at).assign(&sum.expect("five slices"));
            }
        }
        out
    }

    fn pattern(array: &ArrayView3<'_, f32>) -> Pattern {
        let (z, y, x) = array.dim();
        let image =
            Image::new(array.to_owned().insert_axis(Axis(0)), Geometry::with_spacing([z, y, x], [1.0; 3]))
                .expect("one value a voxel");
        Pattern::new(&Thumbnail::of(&image).expect("not constant"))
    }

    #[test]
    fn the_same_image_correlates_by_one_in_place() {
        for shape in [[1, 40, 30], [20, 24, 28]] {
            let own = pattern(&image(shape, 3).view());
            let found = align(&own, &own).expect("alike");
            assert!((found.correlation - 1.0).abs() < 1e-5, "{found:?}");
            assert_eq!((found.mirrored, found.shift), ([false; 3], [0; 3]));
        }
    }

    #[test]
    fn patterns_read_back() {
        for shape in [[1, 40, 30], [20, 24, 28]] {
            let own = pattern(&image(shape, 3).view());
            assert_eq!(Pattern::from_bytes(&own.bytes()), Some(own));
        }
        assert_eq!(Pattern::from_bytes(&[0; 576 * 4]), None);
    }

    #[test]
    fn mirrored_images_are_found_with_their_axes() {
        let volume = image([20, 24, 28], 5);
        for bits in 0..8_u8 {
            let mirrored = [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0];
            let found = align(&pattern(&volume.view()), &pattern(&flipped(&volume, mirrored).view()));
            let found = found.expect("alike");
            assert!(found.correlation > 0.999, "{found:?}");
            assert_eq!(found.mirrored, mirrored);
        }
    }

    #[test]
    fn moved_images_are_found_with_their_shift() {
        let whole = image([1, 60, 60], 7);
        // Two voxels of 24 are five of 60.
        let (one, other) = (whole.slice(s![.., 5.., ..55]), whole.slice(s![.., ..55, 5..]));
        let found = align(&pattern(&one), &pattern(&other)).expect("alike");
        assert!(found.correlation > 0.85, "{found:?}");
        assert_eq!(found.shift.map(i32::signum), [0, -1, 1]);
    }

    #[test]
    fn other_images_do_not_correlate() {
        for shape in [[1, 40, 30], [20, 24, 28]] {
            let patterns: Vec<Pattern> =
                (0..8).map(|seed| pattern(&image(shape, seed * 977 + 1).view())).collect();
            for one in 0..patterns.len() {
                for other in 0..one {
                    let found = align(&patterns[one], &patterns[other]);
                    let correlation = found.map_or(0.0, |found| found.correlation);
                    assert!(correlation < 0.8, "{shape:?}: {one} and {other}: {correlation}");
                }
            }
        }
    }

    #[test]
    fn a_flat_image_is_never_a_volume() {
        let (flat, volume) = (pattern(&image([1, 20, 20], 1).view()), pattern(&image([9, 20, 20], 1).view()));
        assert_eq!(align(&flat, &volume), None);
    }
}
