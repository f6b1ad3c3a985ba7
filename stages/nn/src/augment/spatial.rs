//! Where the voxels of a training sample come from: rotation, scaling, translation, smooth bending and mirroring as
//! one map, and the interpolation that follows it.

use super::{Draw, Place, Random};
use crate::data::Case;
use crate::network::Dims;

/// Voxels between two points of an elastic grid.
const GRID: usize = 8;
/// A patch whose shortest axis is below this share of its longest one has thick slices: it is turned in the plane.
const THICK: f32 = 1.0 / 3.0;

/// For each voxel of a patch, the point of the case that it shows.
pub(crate) struct Warp {
    /// From an offset to the centre of the patch to one in the case; axis order z, y, x.
    matrix: [[f32; 3]; 3],
    /// The point of the case under the centre of the patch.
    centre: [f32; 3],
    elastic: Option<Elastic>,
}

/// Displacements of a grid of points around and in a patch, joined by cubic B-splines.
struct Elastic {
    points: [usize; 3],
    /// `[z, y, x]` of the grid, one vector each, in voxels.
    displacements: Vec<[f32; 3]>,
}

impl Warp {
    /// The map of one sample whose patch lies at `start` in the case; `None` where the patch is copied as it is.
    /// Mirroring is part of the map only where there is one.
    pub(crate) fn draw(
        random: &Random,
        place: Place,
        dims: Dims,
        patch: [usize; 3],
        start: [f32; 3],
        flips: [bool; 3],
    ) -> Option<Self> {
        let longest = patch.iter().copied().max().unwrap_or(1) as f32;
        let flat = dims == Dims::Two || (patch[0] as f32) < THICK * longest;
        let mut rng = place.rng(Draw::Rotation);
        let rotation = random.rotation.draw(&mut rng).map(|about_z| {
            let mut angle = || rng.range(random.rotation.range[0], random.rotation.range[1]);
            let (about_y, about_x) = (angle(), angle());
            if flat { [about_z, 0.0, 0.0] } else { [about_z, about_y, about_x] }
        });
        let scale = random.scale.draw(&mut place.rng(Draw::Scale));
        let mut rng = place.rng(Draw::Translation);
        let translation = random.translation.draw(&mut rng).map(|along_x| {
            let mut share = || rng.range(random.translation.range[0], random.translation.range[1]);
            let (along_y, along_z) = (share(), share());
            let shares = [if flat { 0.0 } else { along_z }, along_y, along_x];
            std::array::from_fn(|axis| shares[axis] * patch[axis] as f32)
        });
        let mut rng = place.rng(Draw::Elastic);
        let elastic = random.elastic.draw(&mut rng).map(|deviation| {
            let points = patch.map(|size| size.div_ceil(GRID) + 3);
            let mut vector = || {
                let drawn: [f32; 3] = std::array::from_fn(|_| deviation * rng.normal());
                if flat { [0.0, drawn[1], drawn[2]] } else { drawn }
            };
            Elastic { points, displacements: (0..points.iter().product()).map(|_| vector()).collect() }
        });
        if rotation.is_none() && scale.is_none() && translation.is_none() && elastic.is_none() {
            return None;
        }
        let mut matrix = turn(rotation.unwrap_or_default().map(f32::to_radians));
        // Enlarged content is content seen from nearer.
        let nearer = 1.0 / scale.unwrap_or(1.0);
        for (axis, row) in matrix.iter_mut().enumerate() {
            for (column, value) in row.iter_mut().enumerate() {
                let mirrored = if flips[column] { -1.0 } else { 1.0 };
                let stretch = if flat && (axis == 0 || column == 0) { 1.0 } else { nearer };
                *value *= stretch * mirrored;
            }
        }
        let moved: [f32; 3] = translation.unwrap_or_default();
        let centre = std::array::from_fn(|axis| start[axis] + (patch[axis] as f32 - 1.0) / 2.0 - moved[axis]);
        Some(Self { matrix, centre, elastic })
    }

    /// The point of the case, in voxels, that voxel `place` of the patch shows.
    fn source(&self, place: [usize; 3], patch: [usize; 3]) -> [f32; 3] {
        let mut offset: [f32; 3] =
            std::array::from_fn(|axis| place[axis] as f32 - (patch[axis] as f32 - 1.0) / 2.0);
        if let Some(elastic) = &self.elastic {
            let bent = elastic.displacement(place);
            offset.iter_mut().zip(bent).for_each(|(offset, bent)| *offset += bent);
        }
        std::array::from_fn(|axis| {
            let row = &self.matrix[axis];
            self.centre[axis] + row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]
        })
    }

    /// Fills a patch: `image`: `[z, y, x, channels]` by trilinear interpolation, `labels`: `[z, y, x]` of the nearest
    /// voxel. What lies outside the case stays as it is. `plane`: the slice of the case, in 2D.
    pub(crate) fn fill(
        &self,
        case: &Case,
        channels: usize,
        patch: [usize; 3],
        plane: Option<usize>,
        image: &mut [f32],
        labels: &mut [u8],
    ) {
        let [_, height, width] = case.shape;
        let volume: usize = case.shape.iter().product();
        let whole_image = case.label.len() == 1 && volume != 1;
        for (voxel, label) in labels.iter_mut().enumerate() {
            let place = [voxel / (patch[1] * patch[2]), voxel / patch[2] % patch[1], voxel % patch[2]];
            let mut source = self.source(place, patch);
            if let Some(plane) = plane {
                source[0] = plane as f32;
            }
            let inside =
                (0..3).all(|axis| source[axis] >= -0.5 && source[axis] < case.shape[axis] as f32 - 0.5);
            if !inside {
                continue;
            }
            let near: [usize; 3] = std::array::from_fn(|axis| {
                (source[axis].round().max(0.0) as usize).min(case.shape[axis] - 1)
            });
            let row = (near[0] * height + near[1]) * width + near[2];
            *label = if whole_image { 0 } else { case.label[row] };
            let corners = Corners::around(source, case.shape);
            for channel in 0..channels {
                image[voxel * channels + channel] = corners.value(&case.image[channel * volume..][..volume]);
            }
        }
    }
}

/// The matrix that turns by angles about z, y, x, in radians; axis order z, y, x.
fn turn([about_z, about_y, about_x]: [f32; 3]) -> [[f32; 3]; 3] {
    let ((sz, cz), (sy, cy), (sx, cx)) = (about_z.sin_cos(), about_y.sin_cos(), about_x.sin_cos());
    let z = [[1.0, 0.0, 0.0], [0.0, cz, -sz], [0.0, sz, cz]];
    let y = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
    let x = [[cx, -sx, 0.0], [sx, cx, 0.0], [0.0, 0.0, 1.0]];
    product(product(z, y), x)
}

fn product(a: [[f32; 3]; 3], b: [[f32; 3]; 3]) -> [[f32; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

impl Elastic {
    fn displacement(&self, place: [usize; 3]) -> [f32; 3] {
        let cell = place.map(|at| at / GRID);
        let weights = place.map(|at| b_spline((at % GRID) as f32 / GRID as f32));
        let mut sum = [0.0; 3];
        for (i, wz) in weights[0].iter().enumerate() {
            for (j, wy) in weights[1].iter().enumerate() {
                for (k, wx) in weights[2].iter().enumerate() {
                    let [z, y, x] = [cell[0] + i, cell[1] + j, cell[2] + k];
                    let row = (z * self.points[1] + y) * self.points[2] + x;
                    let weight = wz * wy * wx;
                    let vector = self.displacements[row];
                    sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
        sum
    }
}

/// Weights of four points in a row for a place between the second and the third.
fn b_spline(t: f32) -> [f32; 4] {
    let (square, cube) = (t * t, t * t * t);
    [
        (1.0 - t).powi(3) / 6.0,
        (3.0 * cube - 6.0 * square + 4.0) / 6.0,
        (-3.0 * cube + 3.0 * square + 3.0 * t + 1.0) / 6.0,
        cube / 6.0,
    ]
}

/// The eight voxels around a point and their weights; beyond the border the nearest voxel counts.
struct Corners([(usize, f32); 8]);

impl Corners {
    fn around(point: [f32; 3], shape: [usize; 3]) -> Self {
        let ends = |axis: usize| {
            let at = point[axis].clamp(0.0, (shape[axis] - 1) as f32);
            let low = at.floor();
            let share = at - low;
            [(low as usize, 1.0 - share), ((low as usize + 1).min(shape[axis] - 1), share)]
        };
        let (z, y, x) = (ends(0), ends(1), ends(2));
        Self(std::array::from_fn(|corner| {
            let ((z, wz), (y, wy), (x, wx)) = (z[corner >> 2], y[corner >> 1 & 1], x[corner & 1]);
            ((z * shape[1] + y) * shape[2] + x, wz * wy * wx)
        }))
    }

    fn value(&self, volume: &[f32]) -> f32 {
        self.0.iter().map(|(row, weight)| if *weight == 0.0 { 0.0 } else { weight * volume[*row] }).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::IGNORE;

    /// A case whose value is a linear function of the place, so that interpolation is exact inside.
    fn ramp(shape: [usize; 3]) -> Case {
        let [depth, height, width] = shape;
        let places = (0..depth * height * width)
            .map(|row| [row / (height * width), row / width % height, row % width].map(|at| at as f32));
        let image = places.map(|[z, y, x]| 100.0 * z + 10.0 * y + x).collect::<Vec<_>>();
        let label = vec![1; image.len()];
        Case { id: "ramp".into(), shape, image: image.into(), label: label.into() }
    }

    fn warp(rotation: [f32; 3], shift: [f32; 3], patch: [usize; 3]) -> Warp {
        let centre = std::array::from_fn(|axis| (patch[axis] as f32 - 1.0) / 2.0 + shift[axis]);
        Warp { matrix: turn(rotation.map(f32::to_radians)), centre, elastic: None }
    }

    #[track_caller]
    fn check(warp: &Warp, place: [usize; 3], expected: Option<f32>) {
        let shape = [5, 7, 9];
        let (mut image, mut labels) = (vec![-1.0; 315], vec![IGNORE; 315]);
        warp.fill(&ramp(shape), 1, shape, None, &mut image, &mut labels);
        let row = (place[0] * 7 + place[1]) * 9 + place[2];
        match expected {
            Some(value) => {
                assert!((image[row] - value).abs() < 1e-3, "{} at {place:?}, expected {value}", image[row]);
                assert_eq!(labels[row], 1);
            }
            None => assert_eq!((image[row], labels[row]), (-1.0, IGNORE), "outside, at {place:?}"),
        }
    }

    #[test]
    fn a_quarter_turn_and_a_shift_show_the_voxels_they_should() {
        let shape = [5, 7, 9];
        check(&warp([0.0; 3], [0.0; 3], shape), [3, 2, 4], Some(324.0));
        check(&warp([0.0; 3], [0.0, 0.5, 0.25], shape), [3, 2, 4], Some(329.25));
        check(&warp([0.0; 3], [1.0, 0.0, 0.0], shape), [4, 2, 4], None);
        // About z by 90°: the offset (dy, dx) = (1, 2) to the centre (3, 4) shows (-2, 1).
        check(&warp([90.0, 0.0, 0.0], [0.0; 3], shape), [2, 4, 6], Some(200.0 + 10.0 + 5.0));
        // About x: (dz, dy) = (1, 2) shows (-2, 1).
        check(&warp([0.0, 0.0, 90.0], [0.0; 3], shape), [3, 5, 4], Some(40.0 + 4.0));
    }

    #[test]
    fn an_elastic_map_of_equal_displacements_is_a_shift() {
        let patch = [5, 7, 9];
        let points = patch.map(|size: usize| size.div_ceil(GRID) + 3);
        let displacements = vec![[0.0, 1.0, -2.0]; points.iter().product()];
        let warp =
            Warp { elastic: Some(Elastic { points, displacements }), ..warp([0.0; 3], [0.0; 3], patch) };
        check(&warp, [2, 3, 4], Some(200.0 + 40.0 + 2.0));
    }

    #[test]
    fn thick_slices_are_turned_in_the_plane_and_volumes_about_all_axes() {
        let random = Random {
            rotation: super::super::Rotation { probability: 1.0, range: [10.0, 20.0] },
            ..Random::default()
        };
        let place = Place { seed: 1, epoch: 0, index: 0 };
        let draw = |dims, patch| Warp::draw(&random, place, dims, patch, [0.0; 3], [false; 3]).unwrap();
        for flat in [draw(Dims::Two, [1, 32, 32]), draw(Dims::Three, [8, 32, 32])] {
            assert_eq!((flat.matrix[0], flat.matrix[1][0]), ([1.0, 0.0, 0.0], 0.0));
            assert!(flat.matrix[1][2].abs() > 0.1);
        }
        assert!(draw(Dims::Three, [24, 32, 32]).matrix[0][1].abs() > 0.1);
    }
}
