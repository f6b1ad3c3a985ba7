//! Resampling against SciPy and scikit-image, and the properties that make a prediction land where it belongs.

use pipe_imaging::resample::{
    Interpolation, ResampleError, resample_image, resample_label, resampled_geometry, shape_for_spacing,
};
use pipe_imaging::{Geometry, Image, Shape};
use proptest::prelude::*;

use crate::reference::{Noise, REFERENCE, image, label};

const LINEAR: [Interpolation; 3] = [Interpolation::Linear; 3];

#[test]
fn linear_is_that_of_scikit_image_and_scipy() {
    for expected in &REFERENCE.resample {
        let resampled =
            resample_image(&image(expected.from, expected.image.clone()), Shape(expected.to), LINEAR)
                .expect("valid");
        for (ours, theirs) in resampled.as_slice().iter().zip(&expected.linear) {
            // Values up to 350 in f32 (ulp 3e-5), three passes.
            assert!(
                (f64::from(*ours) - theirs).abs() < 1e-4,
                "{ours} and {theirs}, {:?} to {:?}",
                expected.from,
                expected.to
            );
        }
    }
}

#[test]
fn cubic_is_that_of_scikit_image_and_nnunet() {
    for expected in &REFERENCE.resample {
        let source = image(expected.from, expected.image.clone());
        let resampled =
            resample_image(&source, Shape(expected.to), [Interpolation::Cubic; 3]).expect("valid");
        for (ours, theirs) in resampled.as_slice().iter().zip(&expected.cubic) {
            // Values up to 350: f32 between the axes (ulp 3e-5), and SciPy continues the edge for 12 voxels only (2e-5).
            assert!(
                (f64::from(*ours) - theirs).abs() < 2e-4,
                "{ours} and {theirs}, {:?} to {:?}",
                expected.from,
                expected.to
            );
        }
    }
}

#[test]
fn thick_slices_are_taken_whole_as_in_nnunet() {
    for expected in &REFERENCE.anisotropic {
        let source = Geometry::with_spacing(expected.from, expected.from_mm);
        let image = Image::from_vec(expected.image.clone(), 1, source).expect("valid");
        let how = Interpolation::Cubic.per_axis(expected.from_mm, expected.to_mm);
        let shape = shape_for_spacing(&source, expected.to_mm).expect("valid");
        assert_eq!(shape.0, expected.to);
        let resampled = resample_image(&image, shape, how).expect("valid");
        for (ours, theirs) in resampled.as_slice().iter().zip(&expected.cubic) {
            assert!((f64::from(*ours) - theirs).abs() < 2e-4, "{ours} and {theirs}, {:?}", expected.from_mm);
        }
    }
}

#[test]
fn the_anisotropic_rule_finds_the_one_thick_axis() {
    const NEAREST: Interpolation = Interpolation::Nearest;
    const CUBIC: Interpolation = Interpolation::Cubic;
    #[track_caller]
    fn check(source_mm: [f64; 3], target_mm: [f64; 3], expected: [Interpolation; 3]) {
        assert_eq!(CUBIC.per_axis(source_mm, target_mm), expected);
    }
    check([1.0; 3], [2.0; 3], [CUBIC; 3]);
    check([3.0, 1.0, 1.0], [1.0; 3], [CUBIC; 3]); // three times is not more
    check([3.1, 1.0, 1.0], [1.0; 3], [NEAREST, CUBIC, CUBIC]);
    check([1.0, 1.0, 4.0], [5.0, 1.0, 1.0], [CUBIC, CUBIC, NEAREST]); // the source goes first
    check([1.0; 3], [1.0, 5.0, 1.0], [CUBIC, NEAREST, CUBIC]);
    check([0.24, 1.25, 1.25], [1.0; 3], [CUBIC; 3]); // two long axes are no slices
    check([0.24, 1.25, 1.250_000_1], [1.0; 3], [CUBIC; 3]); // nor when f32 tells them apart
    assert_eq!(NEAREST.per_axis([1.0; 3], [1.0; 3]), [NEAREST; 3]);
}

#[test]
fn a_spline_goes_through_a_parabola_and_never_beyond_the_range() {
    // Away from the ends a cubic spline holds every polynomial up to the third degree.
    let parabola = |at: f64| (at - 20.0).powi(2);
    let source = image([1, 1, 41], (0..41).map(|at| parabola(f64::from(at)) as f32).collect());
    let target = resample_image(&source, Shape([1, 1, 82]), [Interpolation::Cubic; 3]).expect("valid");
    for o in 24..58 {
        let (found, expected) = (target.as_slice()[o], parabola(0.5 * o as f64 - 0.25));
        // What the ends do is left with (2 − √3)^12 of 400.
        assert!((f64::from(found) - expected).abs() < 1e-4, "{found} and {expected} at {o}");
    }
    let step = image([1, 1, 6], vec![0.0, 0.0, 0.0, 9.0, 9.0, 9.0]);
    let target = resample_image(&step, Shape([1, 1, 17]), [Interpolation::Cubic; 3]).expect("valid");
    assert!(target.as_slice().iter().all(|v| (0.0..=9.0).contains(v)), "{target:?}");
}

#[test]
fn nothing_that_is_no_number_spreads_to_other_lines() {
    for (how, touched) in
        [(Interpolation::Nearest, 2), (Interpolation::Linear, 4), (Interpolation::Cubic, 10)]
    {
        let mut voxels = vec![1.0; 15];
        voxels[7] = f32::INFINITY;
        let source = image([1, 3, 5], voxels);
        let target = resample_image(&source, Shape([1, 3, 10]), [how; 3]).expect("valid");
        let finite =
            |row: usize| target.as_slice()[row * 10..][..10].iter().filter(|v| v.is_finite()).count();
        assert_eq!((finite(0), finite(1), finite(2)), (10, 10 - touched, 10), "{how:?}");
    }
}

#[test]
fn nearest_is_that_of_scipy_ties_upwards() {
    for expected in &REFERENCE.resample {
        let source = label(expected.from, expected.label.clone());
        let resampled =
            resample_label(&source, Shape(expected.to), [Interpolation::Nearest; 3]).expect("valid");
        assert_eq!(resampled.as_slice(), expected.nearest, "{:?} to {:?}", expected.from, expected.to);
        assert_eq!(resampled.as_slice(), expected.scipy_nearest, "{:?} to {:?}", expected.from, expected.to);
    }
}

#[test]
fn halving_worked_by_hand() {
    // Voxels 0 1 | 2 3: output 0 reads at ½, output 1 at 2½.
    let source = image([1, 1, 4], vec![0.0, 10.0, 20.0, 50.0]);
    assert_eq!(resample_image(&source, Shape([1, 1, 2]), LINEAR).expect("valid").as_slice(), [5.0, 35.0]);
    // Doubling reads at -¼ (clamped), ¼, ¾, …
    let source = image([1, 1, 2], vec![0.0, 4.0]);
    assert_eq!(
        resample_image(&source, Shape([1, 1, 4]), LINEAR).expect("valid").as_slice(),
        [0.0, 1.0, 3.0, 4.0]
    );
}

#[test]
fn the_outer_faces_of_the_grid_stay_where_they_are() {
    let source = Geometry::with_spacing([10, 20, 30], [3.0, 1.0, 0.5]);
    let target = resampled_geometry(&source, Shape([30, 20, 15])).expect("valid");
    assert_eq!(target.spacing_mm(), [1.0, 1.0, 1.0]);
    let face = |g: &Geometry, at: [f64; 3]| g.affine.apply(at);
    assert_eq!(face(&source, [-0.5, -0.5, -0.5]), face(&target, [-0.5, -0.5, -0.5]));
    assert_eq!(face(&source, [29.5, 19.5, 9.5]), face(&target, [14.5, 19.5, 29.5]));
}

#[test]
fn spacing_becomes_whole_voxels_over_the_same_box() {
    let source = Geometry::with_spacing([35, 51, 36], [1.0; 3]);
    assert_eq!(shape_for_spacing(&source, [2.0, 2.0, 2.0]).expect("valid"), Shape([18, 26, 18])); // 17.5 and 25.5 to even
    assert_eq!(shape_for_spacing(&source, [0.8, 0.8, 1.2]).expect("valid"), Shape([44, 64, 30]));
    assert_eq!(shape_for_spacing(&source, [1e6; 3]).expect("valid"), Shape([1, 1, 1]));
    assert!(matches!(shape_for_spacing(&source, [1.0, 0.0, 1.0]), Err(ResampleError::Spacing(_))));
    assert!(matches!(shape_for_spacing(&source, [1.0, f64::NAN, 1.0]), Err(ResampleError::Spacing(_))));
    assert!(matches!(shape_for_spacing(&source, [1e-9; 3]), Err(ResampleError::Shape(_))));
    assert!(matches!(shape_for_spacing(&source, [1e-300; 3]), Err(ResampleError::Shape(_))));
}

#[test]
fn a_linear_ramp_stays_a_linear_ramp_in_space() {
    let source = Geometry::with_spacing([6, 7, 8], [2.0, 1.5, 1.0]);
    let place = |g: &Geometry, z: usize, y: usize, x: usize| g.affine.apply([x as f64, y as f64, z as f64]);
    let value = |p: [f64; 3]| (3.0 * p[0] - 2.0 * p[1] + p[2]) as f32;
    let mut voxels = Vec::new();
    for z in 0..6 {
        for y in 0..7 {
            for x in 0..8 {
                voxels.push(value(place(&source, z, y, x)));
            }
        }
    }
    let source = Image::from_vec(voxels, 1, source).expect("6·7·8");
    let target = resample_image(&source, Shape([11, 10, 13]), LINEAR).expect("valid");
    // Interior only: outside the outermost voxel centres the edge is held.
    for ((_, z, y, x), v) in target.voxels().indexed_iter() {
        if (1..10).contains(&z) && (1..9).contains(&y) && (1..12).contains(&x) {
            let expected = value(place(target.geometry(), z, y, x));
            assert!((v - expected).abs() < 2e-5, "{v} and {expected} at {z} {y} {x}");
        }
    }
}

#[test]
fn linear_labels_beat_nearest_on_a_ball_and_invent_nothing() {
    let ball = |n: usize| {
        let centre = (n as f64 - 1.0) / 2.0;
        let inside = move |z: usize, y: usize, x: usize| {
            let d: f64 = [z, y, x].iter().map(|&v| (v as f64 - centre).powi(2)).sum::<f64>();
            if d.sqrt() < n as f64 * 0.38 { 7_u8 } else { 0 }
        };
        let mut voxels = Vec::with_capacity(n * n * n);
        for z in 0..n {
            for y in 0..n {
                for x in 0..n {
                    voxels.push(inside(z, y, x));
                }
            }
        }
        label([n; 3], voxels)
    };
    let (coarse, fine) = (ball(20), ball(50));
    let errors = |how| {
        let up = resample_label(&coarse, Shape([50; 3]), how).expect("valid");
        assert!(up.as_slice().iter().all(|v| [0, 7].contains(v)));
        up.as_slice().iter().zip(fine.as_slice()).filter(|(a, b)| a != b).count()
    };
    let (nearest, linear) = (errors([Interpolation::Nearest; 3]), errors([Interpolation::Linear; 3]));
    assert!(linear < nearest, "{linear} wrong voxels against {nearest}");
}

proptest! {
    #[test]
    fn the_same_shape_is_an_exact_copy(seed: u64, z in 1_usize..6, y in 1_usize..6, x in 1_usize..6) {
        let mut noise = Noise(seed);
        let n = z * y * x;
        let source = image([z, y, x], (0..n).map(|_| noise.signed()).collect());
        for how in [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic] {
            prop_assert_eq!(&resample_image(&source, Shape([z, y, x]), [how; 3]).expect("valid"), &source);
        }
        let labels = label([z, y, x], (0..n).map(|_| noise.next() as u8).collect());
        for how in [[Interpolation::Nearest; 3], [Interpolation::Linear; 3]] {
            prop_assert_eq!(&resample_label(&labels, Shape([z, y, x]), how).expect("valid"), &labels);
        }
    }

    #[test]
    fn values_stay_between_the_extremes(seed: u64, from in prop::array::uniform3(1_usize..6), to in prop::array::uniform3(1_usize..9)) {
        let mut noise = Noise(seed);
        let source = image(from, (0..from.iter().product()).map(|_| noise.signed()).collect());
        for how in [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic] {
            let target = resample_image(&source, Shape(to), [how; 3]).expect("valid");
            let range = |v: &[f32]| (v.iter().copied().fold(f32::MAX, f32::min), v.iter().copied().fold(f32::MIN, f32::max));
            let ((low, high), (l, h)) = (range(source.as_slice()), range(target.as_slice()));
            // a·(1−w) + b·w may round past b by an ulp, three times.
            prop_assert!(l >= low - 1e-6 && h <= high + 1e-6);
        }
    }

    #[test]
    fn upsampling_by_a_whole_factor_and_back_restores_labels(seed: u64, factor in 1_usize..5) {
        let mut noise = Noise(seed);
        let shape = [3, 4, 5];
        let source = label(shape, (0..60).map(|_| noise.below(4) as u8).collect());
        let up = resample_label(&source, Shape(shape.map(|n| n * factor)), [Interpolation::Nearest; 3]).expect("valid");
        let back = resample_label(&up, Shape(shape), [Interpolation::Nearest; 3]).expect("valid");
        prop_assert_eq!(back.as_slice(), source.as_slice());
        prop_assert!(back.geometry().affine.max_difference(&source.geometry().affine) < 1e-12);
    }
}
