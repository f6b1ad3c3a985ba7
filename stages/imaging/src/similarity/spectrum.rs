//! What of a thumbnail does not change when it is mirrored or moved a little: the perceptual hash that candidates are
//! found with.

use ndarray::Array3;

use super::Thumbnail;

/// Frequencies along an axis, in periods by field of view, from 0 to below this.
const FREQUENCIES: usize = 5;
/// Keeps the logarithm of what is not there finite; amplitudes are relative to the whole spectrum.
const FLOOR: f64 = 1e-3;

/// Logarithms of the Fourier amplitudes of the lowest frequencies under a Hann window.
///
/// A shift changes phases and not amplitudes; a mirrored axis exchanges the amplitudes of `k` and `−k` along it, so
/// their mean power is taken, and in flat images also their ratio. The window keeps what enters and leaves at the
/// border small. The same length for all thumbnails of one kind.
pub fn spectrum(thumbnail: &Thumbnail) -> Vec<f32> {
    let amplitudes = amplitudes(&windowed(thumbnail));
    let flat = thumbnail.is_flat();
    let mut features = Vec::new();
    let depth = if flat { 1 } else { FREQUENCIES };
    for z in 0..depth {
        for y in 0..FREQUENCIES {
            for x in 0..FREQUENCIES {
                let square = z * z + y * y + x * x;
                if square == 0 || square > FREQUENCIES * FREQUENCIES {
                    continue;
                }
                let sides = amplitudes.of(z, y, x);
                let power = sides.iter().map(|side| side * side).sum::<f64>() / sides.len() as f64;
                features.push((0.5 * (power + FLOOR * FLOOR).ln()) as f32);
                if flat && y > 0 && x > 0 {
                    let (low, high) = (sides[0].min(sides[1]), sides[0].max(sides[1]));
                    features.push(((high + FLOOR) / (low + FLOOR)).ln() as f32);
                }
            }
        }
    }
    features
}

/// The thumbnail under a Hann window, with the mean under it removed.
fn windowed(thumbnail: &Thumbnail) -> Array3<f64> {
    let voxels = thumbnail.voxels();
    let hann: Vec<Vec<f64>> = voxels
        .shape()
        .iter()
        .map(|&n| match n {
            1 => vec![1.0],
            n => (1..=n)
                .map(|at| 0.5 - 0.5 * (2.0 * std::f64::consts::PI * at as f64 / (n + 1) as f64).cos())
                .collect(),
        })
        .collect();
    let window = Array3::from_shape_fn(voxels.dim(), |(z, y, x)| hann[0][z] * hann[1][y] * hann[2][x]);
    let values = voxels.mapv(f64::from);
    let mean = (&values * &window).sum() / window.sum();
    (values - mean) * window
}

/// Amplitudes by frequency, negative ones last as in any discrete Fourier transform; their squares add up to 1.
struct Amplitudes(Array3<f64>);

impl Amplitudes {
    /// The amplitudes at `(z, ±y, ±x)`, or at `(y, ±x)` of a flat image.
    fn of(&self, z: usize, y: usize, x: usize) -> Vec<f64> {
        let (depth, height, width) = self.0.dim();
        let (up, left) = ((height - y) % height, (width - x) % width);
        if depth == 1 {
            return vec![self.0[[0, y, x]], self.0[[0, y, left]]];
        }
        vec![self.0[[z, y, x]], self.0[[z, y, left]], self.0[[z, up, x]], self.0[[z, up, left]]]
    }
}

/// The plain sums of the discrete Fourier transform, one axis after the other, at the lowest frequencies.
fn amplitudes(values: &Array3<f64>) -> Amplitudes {
    let (mut real, mut imaginary) = (values.clone(), Array3::zeros(values.dim()));
    for axis in (0..3).filter(|&axis| values.shape()[axis] > 1) {
        let n = values.shape()[axis];
        let wave: Vec<(f64, f64)> =
            (0..n).map(|at| (2.0 * std::f64::consts::PI * at as f64 / n as f64).sin_cos()).collect();
        let (mut next_real, mut next_imaginary) = (Array3::zeros(values.dim()), Array3::zeros(values.dim()));
        let axis = ndarray::Axis(axis);
        // Higher frequencies are noise before anything else.
        for k in (0..n).filter(|&k| k < FREQUENCIES || k + FREQUENCIES > n) {
            for at in 0..n {
                let (sin, cos) = wave[k * at % n];
                let (re, im) = (real.index_axis(axis, at), imaginary.index_axis(axis, at));
                let mut out = next_real.index_axis_mut(axis, k);
                out.scaled_add(cos, &re);
                out.scaled_add(sin, &im);
                let mut out = next_imaginary.index_axis_mut(axis, k);
                out.scaled_add(cos, &im);
                out.scaled_add(-sin, &re);
            }
        }
        (real, imaginary) = (next_real, next_imaginary);
    }
    let mut amplitudes = (&real * &real + &imaginary * &imaginary).mapv(f64::sqrt);
    let norm = amplitudes.iter().map(|value| value * value).sum::<f64>().sqrt();
    amplitudes.mapv_inplace(|value| value / norm.max(f64::MIN_POSITIVE));
    Amplitudes(amplitudes)
}

/// Gives every feature the same weight: divides it by its standard deviation over all images.
pub fn standardise(spectra: &mut [Vec<f32>]) {
    let count = spectra.len().max(1) as f64;
    for feature in 0..spectra.first().map_or(0, Vec::len) {
        let mean = spectra.iter().map(|row| f64::from(row[feature])).sum::<f64>() / count;
        let square = spectra.iter().map(|row| (f64::from(row[feature]) - mean).powi(2)).sum::<f64>();
        let scale = (square / count).sqrt().max(1e-6);
        for row in &mut *spectra {
            row[feature] = ((f64::from(row[feature]) - mean) / scale) as f32;
        }
    }
}

/// The `count` other rows nearest to row `of`, nearest first; equal distances by index.
pub fn nearest(rows: &[Vec<f32>], of: usize, count: usize) -> Vec<usize> {
    let own = &rows[of];
    let mut found: Vec<(f32, usize)> = Vec::with_capacity(count + 1);
    for (index, row) in rows.iter().enumerate() {
        if index == of {
            continue;
        }
        let distance = squared_distance(own, row);
        if found.len() == count && found.last().is_none_or(|last| distance >= last.0) {
            continue;
        }
        let place = found.partition_point(|known| known.0 <= distance);
        found.insert(place, (distance, index));
        found.truncate(count);
    }
    found.into_iter().map(|(_, index)| index).collect()
}

/// In lanes, so that the sum can be vectorised.
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0_f32; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Geometry, Image};

    fn wave(shape: [usize; 3], shift: f64, mirrored: bool) -> Thumbnail {
        let [z, y, x] = shape;
        let voxels = ndarray::Array4::from_shape_fn((1, z, y, x), |(_, z, y, column)| {
            let x = if mirrored { x - 1 - column } else { column } as f64 + shift;
            (0.4 * x + 0.2 * y as f64).sin() as f32 + (0.3 * z as f64 - 0.15 * x).cos() as f32
        });
        let image = Image::new(voxels, Geometry::with_spacing(shape, [1.0; 3])).expect("one value a voxel");
        Thumbnail::of(&image).expect("not constant")
    }

    #[test]
    fn a_mirrored_image_has_the_same_spectrum() {
        for shape in [[1, 24, 24], [16, 16, 16]] {
            let (one, other) = (spectrum(&wave(shape, 0.0, false)), spectrum(&wave(shape, 0.0, true)));
            assert_eq!(one.len(), other.len());
            for (a, b) in one.iter().zip(&other) {
                assert!((a - b).abs() < 1e-4, "{a} and {b}");
            }
        }
    }

    #[test]
    fn amplitudes_are_those_of_numpy() {
        // a = [[(3*y + 5*x) % 7 for x in range(4)] for y in range(3)]; f = numpy.abs(numpy.fft.fftn(a));
        // f / numpy.linalg.norm(f), NumPy 2.4.6
        let expected = [
            [0.816_83, 0.125_679, 0.116_69, 0.125_679],
            [0.101_728, 0.084_564_5, 0.163_366, 0.315_598_9],
            [0.101_728, 0.315_598_9, 0.163_366, 0.084_564_5],
        ];
        let values = Array3::from_shape_fn((1, 3, 4), |(_, y, x)| ((3 * y + 5 * x) % 7) as f64);
        let found = amplitudes(&values);
        for (y, row) in expected.iter().enumerate() {
            for (x, expected) in row.iter().enumerate() {
                assert!((found.0[[0, y, x]] - expected).abs() < 1e-6, "at {y}, {x}");
            }
        }
        assert_eq!(found.of(0, 1, 1), [found.0[[0, 1, 1]], found.0[[0, 1, 3]]]);
    }

    #[test]
    fn the_nearest_rows_are_those_of_a_plain_sort() {
        let rows: Vec<Vec<f32>> =
            (0..40_u32).map(|row| (0..11).map(|at| ((row * 37 + at * 11) % 29) as f32).collect()).collect();
        for of in 0..rows.len() {
            let mut plain: Vec<(f32, usize)> = (0..rows.len())
                .filter(|&other| other != of)
                .map(|other| (rows[of].iter().zip(&rows[other]).map(|(a, b)| (a - b) * (a - b)).sum(), other))
                .collect();
            plain.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
            let expected: Vec<usize> = plain.iter().take(6).map(|found| found.1).collect();
            assert_eq!(nearest(&rows, of, 6), expected);
        }
        assert_eq!(nearest(&rows[..1], 0, 6), [0; 0]);
    }
}
