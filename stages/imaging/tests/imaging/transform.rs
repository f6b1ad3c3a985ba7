//! There and back: from a file's grid to a network's and a prediction home again.

use pipe_imaging::crop::{Window, foreground_window};
use pipe_imaging::resample::{Interpolation, ResampleError, resample_image};
use pipe_imaging::transform::{Transform, TransformError};
use pipe_imaging::{Affine, Geometry, Image, LabelMap, Shape};
use proptest::prelude::*;

use crate::reference::{Noise, REFERENCE};

fn smooth_label(geometry: Geometry) -> LabelMap {
    let [nz, ny, nx] = geometry.shape.0;
    let mut voxels = Vec::new();
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                let d = |i: usize, n: usize| ((i as f64 + 0.5) / n as f64 - 0.5) / 0.35;
                let r = d(z, nz).powi(2) + d(y, ny).powi(2) + d(x, nx).powi(2);
                voxels.push(if r < 1.0 { 1 + u8::from(x > nx / 2) } else { 0 });
            }
        }
    }
    LabelMap::from_vec(voxels, geometry).expect("made from the geometry")
}

/// The same directions with voxels of 1 mm, where no axis is thick.
fn isotropic(affine: &Affine) -> Affine {
    let columns = [0, 1, 2].map(|axis| {
        let step = affine.step_mm(axis);
        let length = step.iter().map(|v| v * v).sum::<f64>().sqrt();
        step.map(|v| v / length)
    });
    Affine::from_columns(columns, affine.origin_mm())
}

fn one_hot(label: &LabelMap, channels: u8) -> Image {
    let voxels =
        (0..channels).flat_map(|c| label.as_slice().iter().map(move |&v| f32::from(u8::from(v == c))));
    Image::from_vec(voxels.collect(), usize::from(channels), *label.geometry())
        .expect("one plane per channel")
}

/// Scores on the target grid, moved back plane by plane.
fn inverted(transform: &Transform, scores: &Image) -> Result<LabelMap, TransformError> {
    let mut planes = transform.invert_planes(scores.channels(), false)?;
    let [depth, height, width] = scores.shape().0;
    for z in 0..depth {
        let plane = |channel: usize| &scores.channel(channel)[z * height * width..][..height * width];
        planes.push((0..scores.channels()).map(plane).collect::<Vec<_>>().concat())?;
    }
    planes.finish().map(|(labels, _)| labels)
}

fn dice(a: &LabelMap, b: &LabelMap, label: u8) -> f64 {
    let of = |m: &LabelMap| m.histogram()[usize::from(label)];
    let both = a.as_slice().iter().zip(b.as_slice()).filter(|&(&x, &y)| x == label && y == label).count();
    2.0 * both as f64 / (of(a) + of(b)) as f64
}

#[test]
fn without_resampling_there_and_back_is_exact_in_every_orientation() {
    for case in &REFERENCE.orientation {
        let label = smooth_label(Geometry::new([9, 11, 13], case.affine));
        let upright = Transform::new(label.geometry()).canonical();
        let window = foreground_window(&upright.apply_label(&label).expect("own grid")).expect("foreground");
        let transform = upright.crop(window.grown([1, 30, 0])).expect("window");
        assert!(transform.is_lossless());
        let there = transform.apply_label(&label).expect("own grid");
        assert_eq!(there.geometry().orientation().to_string(), "RAS");
        assert!(there.geometry().affine.max_difference(&transform.target().affine) < 1e-12);
        assert_eq!(transform.invert_label(&there).expect("target grid"), label, "{}", case.codes);
        assert_eq!(inverted(&transform, &one_hot(&there, 3)).expect("target grid"), label, "{}", case.codes);
    }
}

#[test]
fn a_resampled_prediction_lands_where_the_label_was() {
    for case in REFERENCE.orientation.iter().step_by(7) {
        let label = smooth_label(Geometry::new([21, 32, 40], isotropic(&case.affine)));
        for factor in [0.5, 0.7, 1.6] {
            let [z, y, x] = Transform::new(label.geometry()).canonical().target().spacing_mm();
            let transform = Transform::new(label.geometry()).canonical();
            let transform =
                transform.resample_to_spacing([z * factor, y * factor, x * factor]).expect("valid");
            let there = transform.apply_label(&label).expect("own grid");
            for back in [transform.invert_label(&there), inverted(&transform, &one_hot(&there, 3))] {
                let back = back.expect("target grid");
                assert_eq!(back.geometry(), label.geometry());
                for l in [1, 2] {
                    // A shift of half a voxel in the way back would cost 0.05 and more.
                    let score = dice(&back, &label, l);
                    assert!(
                        score > if factor < 1.0 { 0.985 } else { 0.955 },
                        "Dice {score} at {factor} for {}",
                        case.codes
                    );
                }
            }
        }
    }
}

#[test]
fn an_image_is_sampled_where_the_target_grid_says() {
    // The image's value is its own position: after any transform, value and affine must still agree.
    for case in REFERENCE.orientation.iter().step_by(5) {
        let geometry = Geometry::new([12, 13, 14], isotropic(&case.affine));
        let mut voxels = Vec::new();
        for axis in 0..3 {
            for z in 0..12 {
                for y in 0..13 {
                    for x in 0..14 {
                        voxels.push(geometry.affine.apply([x as f64, y as f64, z as f64])[axis] as f32);
                    }
                }
            }
        }
        let image = Image::from_vec(voxels, 3, geometry).expect("three channels");
        let upright = Transform::new(&geometry).canonical();
        let shape = upright.target().shape.0;
        let window = Window { start: [1, 2, 2], shape: shape.map(|n| n - 3) };
        let transform = upright.crop(window).expect("window").resample_to_shape([7, 15, 11]).expect("valid");
        let there = transform.apply_image(&image).expect("own grid");
        for ((axis, z, y, x), v) in there.voxels().indexed_iter() {
            let interior = (1..6).contains(&z) && (1..14).contains(&y) && (1..10).contains(&x);
            let expected = there.geometry().affine.apply([x as f64, y as f64, z as f64])[axis];
            assert!(
                !interior || (f64::from(*v) - expected).abs() < 1e-4,
                "{v} and {expected}, {}",
                case.codes
            );
        }
    }
}

#[test]
fn thick_slices_stay_whole_there_and_back() {
    let source = Geometry::with_spacing([5, 16, 18], [6.0, 1.0, 1.0]);
    let label = smooth_label(source);
    let transform = Transform::new(&source).resample_to_spacing([1.0; 3]).expect("valid");
    let there = transform.apply_label(&label).expect("own grid");
    assert_eq!(there.shape().0, [30, 16, 18]);
    let plane = 16 * 18;
    for (z, slice) in there.as_slice().chunks_exact(plane).enumerate() {
        assert_eq!(slice, &label.as_slice()[z / 6 * plane..][..plane], "slice {z}");
    }
    assert_eq!(transform.invert_label(&there).expect("target grid"), label);
    assert_eq!(inverted(&transform, &one_hot(&there, 3)).expect("target grid"), label);
}

#[test]
fn the_interpolation_is_part_of_the_record() {
    let source = Geometry::with_spacing([1, 1, 4], [1.0; 3]);
    let image = Image::from_vec(vec![0.0, 10.0, 20.0, 50.0], 1, source).expect("4");
    let half = |how| Transform::new(&source).interpolated(how).resample_to_shape([1, 1, 2]).expect("valid");
    for (how, expected) in [(Interpolation::Linear, [5.0, 35.0]), (Interpolation::Nearest, [10.0, 50.0])] {
        let text = serde_json::to_string(&half(how)).expect("serialises");
        let read: Transform = serde_json::from_str(&text).expect(&text);
        assert_eq!(read, half(how));
        assert_eq!(read.apply_image(&image).expect("own grid").as_slice(), expected);
    }
    assert_ne!(
        half(Interpolation::Cubic).apply_image(&image),
        half(Interpolation::Linear).apply_image(&image)
    );
}

#[test]
fn the_record_reads_back_equal_and_does_the_same() {
    let label = smooth_label(Geometry::new([9, 11, 13], REFERENCE.orientation[60].affine));
    let window = Window { start: [-2, 1, 1], shape: [12, 8, 9] };
    let transform = Transform::new(label.geometry()).canonical().crop(window).expect("window");
    let transform = transform.resample_to_spacing([1.3, 0.9, 1.1]).expect("valid");
    let text = serde_json::to_string_pretty(&transform).expect("serialises");
    let back: Transform = serde_json::from_str(&text).expect("own text");
    assert_eq!(back, transform);
    assert_eq!(back.apply_label(&label), transform.apply_label(&label));
}

#[test]
fn a_tampered_record_is_refused() {
    let transform = Transform::new(&Geometry::with_spacing([4, 5, 6], [1.0; 3]));
    let text = serde_json::to_string(&transform).expect("serialises");
    for (from, to, message) in [
        (
            "\"start\":[0,0,0],\"shape\":[4,5,6]",
            "\"start\":[0,0,0],\"shape\":[0,5,6]",
            "window of 0×5×6 voxels is empty",
        ),
        ("\"resampled_shape\":[4,5,6]", "\"resampled_shape\":[4,0,6]", "cannot resample to 4×0×6 voxels"),
        ("[0.0,0.0,1.0,0.0]", "[0.0,0.0,0.0,0.0]", "source grid of 4×5×6 voxels has voxels of 0×1×1 mm"),
        ("\"resampled_shape\"", "\"shape\"", "unknown field `shape`"),
    ] {
        let error = serde_json::from_str::<Transform>(&text.replacen(from, to, 1)).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn a_volume_of_another_case_is_refused() {
    let geometry = Geometry::with_spacing([4, 5, 6], [1.0; 3]);
    let transform = Transform::new(&geometry);
    let other = LabelMap::from_vec(vec![0; 24], Geometry::with_spacing([4, 3, 2], [1.0; 3])).expect("24");
    assert_eq!(
        transform.apply_label(&other).expect_err("shape").to_string(),
        "volume of 4×3×2 voxels is not on the transform's grid of 4×5×6 (z×y×x)"
    );
    let mut elsewhere = geometry;
    elsewhere.affine.0[0][3] = 4.0;
    let moved = LabelMap::from_vec(vec![0; 120], elsewhere).expect("120");
    assert_eq!(transform.invert_label(&moved), Err(TransformError::Place { difference_mm: 4.0 }));
}

#[test]
fn padding_for_a_network_is_dropped_on_the_way_back() {
    let label = smooth_label(Geometry::with_spacing([9, 11, 13], [1.0; 3]));
    let window = Window::centred(Shape([9, 11, 13]), [16, 16, 16]);
    let transform = Transform::new(label.geometry()).crop(window).expect("window");
    let there = transform.apply_label(&label).expect("own grid");
    assert_eq!(there.shape(), Shape([16, 16, 16]));
    let ones = LabelMap::from_vec(vec![1; 4096], *there.geometry()).expect("4096");
    assert_eq!(transform.invert_label(&ones).expect("target grid").histogram()[1], 9 * 11 * 13);
    assert_eq!(transform.invert_label(&there).expect("target grid"), label);
}

proptest! {
    #[test]
    fn lossless_transforms_restore_everything_inside_the_window(
        seed: u64, shape in prop::array::uniform3(1_usize..7), orientation in 0_usize..48,
        start in prop::array::uniform3(-3_i64..5), size in prop::array::uniform3(1_usize..8),
    ) {
        let mut noise = Noise(seed);
        let geometry = Geometry::new(shape, REFERENCE.orientation[orientation].affine);
        let label = LabelMap::from_vec((0..shape.iter().product()).map(|_| 1 + noise.below(9) as u8).collect(), geometry).expect("fits");
        let transform = Transform::new(&geometry).canonical().crop(Window { start, shape: size }).expect("window");
        let there = transform.apply_label(&label).expect("own grid");
        let back = transform.invert_label(&there).expect("target grid");
        let kept = back.as_slice().iter().zip(label.as_slice()).filter(|(b, _)| **b != 0);
        prop_assert!(kept.clone().all(|(b, l)| b == l));
        prop_assert_eq!(kept.count(), there.as_slice().iter().filter(|v| **v != 0).count());
    }
}

/// What scores become when all of them are there at once: each channel resampled alone, the highest taken, and the labels
/// moved back by a transform that does not resample.
fn all_together(plain: &Transform, scores: &Image) -> LabelMap {
    let grid = *plain.target();
    let how = Interpolation::Linear.per_axis(grid.spacing_mm(), scores.geometry().spacing_mm());
    let there = resample_image(scores, grid.shape, how).expect("valid");
    let best = |voxel: usize| {
        let mut best = (f32::NEG_INFINITY, 0);
        for channel in 0..there.channels() {
            let score = there.channel(channel)[voxel];
            if score > best.0 {
                best = (score, channel as u8);
            }
        }
        best.1
    };
    let labels = (0..grid.shape.0.iter().product()).map(best).collect();
    plain.invert_label(&LabelMap::from_vec(labels, grid).expect("one label a voxel")).expect("target grid")
}

#[test]
fn scores_that_come_plane_by_plane_land_where_all_together_do() {
    /// `plain` neither resamples nor pads; `pad_to` is what comes after resampling.
    #[track_caller]
    fn check(plain: &Transform, resampled: &Transform, pad_to: Option<[usize; 3]>) {
        let [z, y, x] = resampled.target().shape.0;
        let noise = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 9) as f32 / (1 << 23) as f32;
        let scores: Vec<f32> = (0..3 * z * y * x).map(noise).collect();
        let scores = Image::from_vec(scores, 3, *resampled.target()).expect("three channels");
        let expected = all_together(plain, &scores);
        let transform = match pad_to {
            Some(shape) => resampled.clone().pad_to(shape).expect("larger"),
            None => resampled.clone(),
        };
        let scores = transform.pad_image(&scores).expect("the grid before padding");
        let [z, y, x] = transform.target().shape.0;
        let mut planes = transform.invert_planes(3, true).expect("valid");
        for plane in 0..z {
            let of = |channel: usize| &scores.channel(channel)[plane * y * x..][..y * x];
            planes.push([of(0), of(1), of(2)].concat()).expect("a plane of the grid");
        }
        let (labels, kept) = planes.finish().expect("all planes");
        assert_eq!(labels, expected);
        let kept = kept.expect("asked for");
        assert_eq!(kept.geometry(), transform.source());
        for (at, &label) in labels.as_slice().iter().enumerate() {
            let best = (0..3).max_by(|a, b| kept.channel(*a)[at].total_cmp(&kept.channel(*b)[at]));
            assert_eq!(Some(usize::from(label)), best, "voxel {at}");
        }
    }
    for case in REFERENCE.orientation.iter().step_by(11) {
        let upright = Transform::new(&Geometry::new([9, 11, 13], case.affine)).canonical();
        let shape = upright.target().shape.0;
        let cropped = upright.clone().crop(Window { start: [1, 0, 2], shape: shape.map(|n| n - 3) });
        let cropped = cropped.expect("inside");
        check(&upright, &upright, None);
        check(&cropped, &cropped, None);
        check(&cropped, &cropped.clone().resample_to_shape([4, 21, 7]).expect("valid"), None);
        check(&cropped, &cropped.clone().resample_to_shape([17, 5, 10]).expect("valid"), Some([20, 5, 13]));
    }
    // Thick slices: the nearest of them.
    let thick = Transform::new(&Geometry::with_spacing([5, 8, 9], [6.0, 1.0, 1.0]));
    check(&thick, &thick, Some([7, 12, 10]));
    check(&thick, &thick.clone().resample_to_spacing([1.0; 3]).expect("valid"), None);
    check(&thick, &thick.clone().resample_to_shape([2, 8, 9]).expect("valid"), None);
}

#[test]
fn the_best_score_wins_and_a_tie_goes_to_the_lower_label() {
    let geometry = Geometry::with_spacing([1, 1, 3], [1.0; 3]);
    let found = |values: Vec<f32>, channels: usize| {
        let scores = Image::from_vec(values, channels, geometry).expect("three voxels a channel");
        inverted(&Transform::new(&geometry), &scores)
    };
    let scores = vec![0.5, 0.2, f32::NAN, 0.5, 0.3, f32::NAN, 0.1, 0.4, -5.0];
    assert_eq!(found(scores, 3).expect("valid").as_slice(), [0, 2, 2]);
    assert_eq!(found(vec![f32::NAN; 6], 2).expect("valid").as_slice(), [0, 0, 0]);
    let error = found(vec![0.0; 257 * 3], 257).expect_err("more channels than labels");
    assert_eq!(error, TransformError::Resample(ResampleError::Channels(257)));
}

#[test]
fn planes_of_another_grid_are_refused() {
    let transform = Transform::new(&Geometry::with_spacing([2, 3, 4], [1.0; 3]));
    let mut planes = transform.invert_planes(2, false).expect("valid");
    let error = planes.push(vec![0.0; 12]).expect_err("one channel");
    assert_eq!(
        error.to_string(),
        "planes of class scores have 2 channels and 12 values, but the target grid has 2×3×4 voxels (z×y×x)"
    );
    planes.push(vec![0.0; 24]).expect("a plane");
    assert!(planes.finish().expect_err("a plane is missing").to_string().contains("end too early"));
    // All that holds voxels, but not the padding below it.
    let mut planes = transform.pad_to([6, 3, 4]).expect("valid").invert_planes(2, false).expect("valid");
    (0..5).for_each(|_| planes.push(vec![0.0; 24]).expect("a plane"));
    assert!(planes.finish().expect_err("a plane is missing").to_string().contains("end too early"));
}
