use super::super::{Cohort, Planted};
use super::*;

fn labelled(cohort: &Cohort, index: usize) -> (Image, LabelMap) {
    let (image, label) = case(cohort, index);
    (image, label.expect("what is like nothing else is labelled"))
}

fn voxel_digest(cohort: &Cohort, index: usize) -> String {
    let (image, label) = labelled(cohort, index);
    let mut hasher = blake3::Hasher::new();
    for value in image.as_slice() {
        hasher.update(&value.to_le_bytes());
    }
    hasher.update(label.as_slice()).finalize().to_hex().to_string()
}

/// Dice of the best single threshold against the whole structure.
fn best_threshold_dice(image: &Image, label: &LabelMap) -> f64 {
    let mut voxels: Vec<(f32, bool)> =
        image.as_slice().iter().copied().zip(label.as_slice().iter().map(|label| *label != 0)).collect();
    voxels.sort_by(|a, b| b.0.total_cmp(&a.0));
    let foreground = voxels.iter().filter(|voxel| voxel.1).count() as f64;
    let (mut hits, mut best) = (0.0, 0.0_f64);
    for (index, (_, inside)) in voxels.iter().enumerate() {
        hits += f64::from(u8::from(*inside));
        best = best.max(2.0 * hits / (foreground + index as f64 + 1.0));
    }
    best
}

#[test]
fn every_case_has_two_parts_off_the_border_that_no_threshold_finds() {
    let cohort = Cohort { cases: 24, ..Cohort::volumes() };
    let mut scales = Vec::new();
    for index in 0..cohort.cases {
        let (image, label) = labelled(&cohort, index);
        let counts = label.histogram();
        let total = label.as_slice().len() as f64;
        let share = (counts[1] + counts[2]) as f64 / total;
        assert!((0.02..0.08).contains(&share), "case {index}: foreground share {share}");
        assert!(counts[1] > 300 && counts[2] > 300, "case {index}: {} and {} voxels", counts[1], counts[2]);
        let [depth, height, width] = label.shape().0;
        for (place, value) in label.voxels().indexed_iter() {
            let edge = [(place.0, depth), (place.1, height), (place.2, width)];
            let border = edge.iter().any(|(at, size)| *at == 0 || at + 1 == *size);
            assert!(!border || *value == 0, "case {index}: label {value} on the border at {place:?}");
        }
        let dice = best_threshold_dice(&image, &label);
        assert!(dice < 0.65, "case {index}: a threshold reaches Dice {dice}");
        scales.push(image.as_slice().iter().copied().fold(0.0, f32::max));
    }
    scales.sort_by(f32::total_cmp);
    assert!(scales[cohort.cases - 1] / scales[0] > 100.0, "intensity scales are alike: {scales:?}");
}

#[test]
fn voxels_are_the_same_on_every_machine_and_in_every_release() {
    let digest = voxel_digest(&Cohort { cases: 2, shape: [18, 20, 16], seed: 7, ..Cohort::volumes() }, 1);
    assert_eq!(digest, "a6589c7b2078e921651d8dea381774ce6e1aba6b15bd0e771b32953fc26ed1e8");
}

#[test]
fn steps_change_no_voxel_by_more_than_a_step() {
    let plain = Cohort { cases: 2, shape: [18, 20, 16], ..Cohort::volumes() };
    let stepped = Cohort { planted: Planted { scans: true, ..Planted::default() }, ..plain.clone() };
    let steps = [0, 1].map(|index| {
        let ((before, _), (after, _)) = (case(&plain, index), case(&stepped, index));
        let largest = before.as_slice().iter().copied().fold(0.0, f32::max);
        for (a, b) in before.as_slice().iter().zip(after.as_slice()) {
            assert!((a - b).abs() <= 0.004 * largest, "{a} and {b}");
        }
        assert_eq!(pipe_imaging::similarity::step::intensity_step(before.as_slice()), None);
        pipe_imaging::similarity::step::intensity_step(after.as_slice()).expect("there is a step")
    });
    assert!((steps[0] / steps[1] - 1.0).abs() < 1e-6, "the sides of a patient have one step: {steps:?}");
}

#[test]
fn a_case_does_not_depend_on_how_many_there_are() {
    let (few, many) = (Cohort { cases: 4, ..Cohort::volumes() }, Cohort { cases: 400, ..Cohort::volumes() });
    assert_eq!(voxel_digest(&few, 3), voxel_digest(&many, 3));
}

#[test]
fn the_two_sides_of_a_patient_are_mirrored_but_not_equal() {
    let cohort = Cohort::volumes();
    let ((_, left), (_, right)) = (labelled(&cohort, 0), labelled(&cohort, 1));
    assert_eq!(left.shape(), right.shape());
    let mut flipped = right.voxels().to_owned();
    flipped.invert_axis(ndarray::Axis(2));
    let both = left.voxels().iter().zip(&flipped).filter(|(a, b)| **a != 0 && **b != 0).count() as f64;
    let sum = [&left, &right].map(|label| label.as_slice().iter().filter(|v| **v != 0).count() as f64);
    let dice = 2.0 * both / (sum[0] + sum[1]);
    assert!((0.5..0.98).contains(&dice), "Dice of one side with the mirrored other: {dice}");
}
