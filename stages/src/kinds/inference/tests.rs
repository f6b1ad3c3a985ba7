use super::testing::{above, two_labels, unet, voxelwise};
use super::*;
use crate::artifacts::predictor::{Member, Task};
use crate::artifacts::{Model, Preparation};
use crate::kinds::export::{Export, PREDICTOR};
use crate::testing::TestSpace;
use pipe_imaging::Geometry;
use pipe_imaging::crop::Window;
use serde_json::json;

fn predictor(members: Vec<Member>, combine: Combine) -> Predictor {
    let task = Task { labels: two_labels(), channels: 1, preparation: Preparation::NONE };
    Predictor { task, combine, members }
}

#[track_caller]
fn labels(inference: &Inference<'_>, image: &Image, transform: &Transform, members: &[usize]) -> LabelMap {
    inference.predict(image, transform, &[members], false).expect("predicted").remove(0).labels
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("above 0")
}

fn load() {
    pipe_onnx::runtime::load(&Policy::from_environment(), &mut |_| {}).expect("a runtime");
}

/// Noise on a grid, the same everywhere.
fn noise(grid: Geometry) -> Image {
    let count = grid.shape.voxels().expect("a small grid") as u32;
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 9) as f32 / (1 << 22) as f32 - 1.0;
    Image::from_vec((0..count).map(value).collect(), 1, grid).expect("one value a voxel")
}

fn exported(space: &TestSpace, model: &Model) -> Member {
    let run = space.run::<Export>(json!({}), &[("model", &space.stored(model))]).expect("a sound model");
    run.load(&PREDICTOR).members.remove(0)
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    load();
    let space = TestSpace::new();
    let members = vec![
        exported(&space, &unet(Dims::Three, &two_labels(), 0, 1)),
        exported(&space, &unet(Dims::Two, &two_labels(), 0, 2)),
    ];
    let predictor = predictor(members, Combine::MeanProbabilities);
    let image = noise(Geometry::with_spacing([11, 20, 13], [1.0; 3]));
    let transform = Transform::new(image.geometry());
    let found = |count: usize| {
        let inference = Inference::new(&predictor, Method::default(), threads(count));
        let mut found = inference.predict(&image, &transform, &[&[0, 1]], true).expect("predicted");
        found.remove(0).probabilities.expect("asked for")
    };
    let one = found(1);
    for count in [2, 3, 7] {
        assert_eq!(found(count), one, "{count} threads");
    }
}

#[test]
fn members_alone_and_together_are_predicted_in_one_go_as_each_by_itself() {
    load();
    let space = TestSpace::new();
    let members = vec![above(&space, 0.0, 0), above(&space, 1.0, 1), above(&space, -0.5, 2)];
    let image = noise(Geometry::with_spacing([9, 10, 11], [1.0, 1.5, 2.0]));
    let transform = Transform::new(image.geometry()).canonical();
    let window = Window { start: [1, 2, 0], shape: [7, 8, 11] };
    let transform = transform.crop(window).expect("inside").resample_to_spacing([1.3; 3]).expect("valid");
    let prepared = transform.apply_image(&image).expect("its grid");
    for combine in [Combine::MeanProbabilities, Combine::MeanLogits, Combine::Majority, Combine::Staple] {
        let predictor = predictor(members.clone(), combine);
        let inference = Inference::new(&predictor, Method::default(), threads(2));
        let groups: [&[usize]; 4] = [&[0, 1, 2], &[1], &[0, 2], &[2]];
        let together = inference.predict(&prepared, &transform, &groups, false).expect("predicted");
        for (group, found) in groups.into_iter().zip(together) {
            let alone = labels(&inference, &prepared, &transform, group);
            assert_eq!(found.labels, alone, "{combine:?} of {group:?}");
        }
    }
}

#[test]
fn thresholds_vote_as_their_method_says() {
    load();
    let space = TestSpace::new();
    let members = vec![above(&space, 0.0, 0), above(&space, 1.0, 1), above(&space, 2.0, 2)];
    let row = [-1.0, 0.5, 0.9, 1.5, 3.0];
    let image = Image::from_vec(row.to_vec(), 1, Geometry::with_spacing([1, 1, 5], [1.0; 3])).expect("a row");
    let transform = Transform::new(image.geometry());
    for (combine, expected) in [
        // Two of three networks; logits are symmetric, so means say the same but for 0.9, which is nearly 1.
        (Combine::Majority, [0, 0, 0, 1, 1]),
        (Combine::Staple, [0, 0, 0, 1, 1]),
        // Thresholds 0, 1 and 2 have the mean 1.
        (Combine::MeanLogits, [0, 0, 0, 1, 1]),
    ] {
        let predictor = predictor(members.clone(), combine);
        let inference = Inference::new(&predictor, Method::default(), threads(1));
        let found = labels(&inference, &image, &transform, &[0, 1, 2]);
        assert_eq!(found.as_slice(), expected, "{combine:?}");
    }
}

#[test]
fn what_cannot_be_told_is_refused() {
    load();
    let space = TestSpace::new();
    let image = noise(Geometry::with_spacing([2, 3, 4], [1.0; 3]));
    let transform = Transform::new(image.geometry());
    let refusal = |predictor: &Predictor, keep: bool| {
        let inference = Inference::new(predictor, Method::default(), threads(1));
        let members: Vec<usize> = (0..predictor.members.len()).collect();
        inference.predict(&image, &transform, &[&members], keep).expect_err("refused").chain()
    };
    let raters = predictor(vec![above(&space, 0.0, 0), above(&space, 1.0, 1)], Combine::Staple);
    assert!(refusal(&raters, true).contains("STAPLE have no class probabilities"));
    let three = voxelwise(&space, Dims::Three, &[0.0; 3], &[0.0; 3], 0);
    let wrong = predictor(vec![three], Combine::default());
    assert_eq!(refusal(&wrong, false), "`voxelwise 0` gives 3 classes but has 2 labels");
    let infinite = voxelwise(&space, Dims::Three, &[1e38, 1.0], &[0.0, 0.0], 0);
    let large = Image::from_vec(vec![1e10; 24], 1, *image.geometry()).expect("24 voxels");
    let infinite = predictor(vec![infinite], Combine::default());
    let inference = Inference::new(&infinite, Method::default(), threads(1));
    let error = inference.predict(&large, &transform, &[&[0]], false).expect_err("no softmax").chain();
    assert!(error.contains("the logits of `voxelwise 0` at [0, 0, 0, 0]"), "{error}");
}
