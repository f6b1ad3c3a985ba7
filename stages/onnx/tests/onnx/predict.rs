//! Whole volumes: padding, tiles, slices, mirroring.

use std::num::NonZeroUsize;
use std::path::Path;

use pipe_onnx::{
    Blend, Dims, GraphBuilder, Planes, PredictError, PredictOptions, Probabilities, Session, Tiling, planes,
    predict, predict_classes,
};

use crate::networks::{classifier2d, elementwise3d, shallow2d, unet2d, unet3d, values};
use crate::reference::reference;
use crate::{assert_close, load_runtime, session};

fn input(shape: [usize; 4]) -> Vec<f32> {
    values(104, shape.iter().product(), 2.0, 0.0)
}

/// Softmax of rows by the definition, in f64. `logits`: `[classes, voxels]`.
fn softmax(logits: &[f32], classes: usize) -> Vec<f32> {
    let voxels = logits.len() / classes;
    let sum = |v: usize| (0..classes).map(|c| f64::from(logits[c * voxels + v]).exp()).sum::<f64>();
    (0..logits.len()).map(|i| (f64::from(logits[i]).exp() / sum(i % voxels)) as f32).collect()
}

#[track_caller]
fn run(model: &[u8], volume: &[f32], shape: [usize; 4], options: &PredictOptions) -> Probabilities {
    predict(&mut session(model), volume, shape, options).expect("it can be predicted")
}

#[test]
fn tiling_a_model_without_neighbourhood_equals_one_direct_run() {
    let model = elementwise3d().expect("valid");
    let shape = [2, 9, 14, 11];
    let volume = input(shape);
    let (logits, _) = session(&model).run(&volume, &[1, 2, 9, 14, 11]).expect("runs");
    let whole = run(&model, &volume, shape, &PredictOptions::new([16, 16, 16]));
    // The softmax in f32 differs from the one in f64 by a few units of the last place.
    assert_close(whole.values(), &softmax(&logits, 3), 5e-7);
    for patch in [[4, 6, 3], [1, 1, 1], [16, 4, 16], [9, 14, 10]] {
        for overlap in [0.0, 0.5, 0.75] {
            for blend in [Blend::Gaussian, Blend::Constant] {
                for tiling in [Tiling::Nnunet, Tiling::Monai] {
                    let mirror = [true, false, true];
                    let options =
                        PredictOptions { overlap, blend, tiling, mirror, ..PredictOptions::new(patch) };
                    let tiled = run(&model, &volume, shape, &options);
                    assert_eq!((tiled.classes(), tiled.shape()), (3, [9, 14, 11]));
                    // Weighted means of equal logits: one rounding a tile.
                    assert_close(tiled.values(), whole.values(), 2e-6);
                }
            }
        }
    }
}

#[test]
fn the_sliding_window_gives_the_probabilities_of_nnunet() {
    let model = shallow2d().expect("valid");
    let shape = [1, 1, 23, 30];
    for (name, mirror) in [("sliding_window", false), ("sliding_window_mirrored", true)] {
        let options = PredictOptions { mirror: [false, mirror, mirror], ..PredictOptions::new([1, 8, 12]) };
        let found = run(&model, &input(shape), shape, &options);
        // The reference sums in f64.
        assert_close(found.values(), &reference(&format!("{name}.f32")), 2e-6);
    }
}

/// Against `tests/reference/make_windows.py`: a patch that steps over y and x and is longer than z.
#[test]
fn the_sliding_window_gives_the_probabilities_of_monai() {
    let shape = [1, 3, 21, 30];
    let options = PredictOptions { tiling: Tiling::Monai, overlap: 0.4, ..PredictOptions::new([4, 8, 12]) };
    for (name, model, blend) in [
        ("window_gaussian", unet3d(), Blend::Gaussian),
        ("window_constant", unet3d(), Blend::Constant),
        ("window_slices", shallow2d(), Blend::Gaussian),
    ] {
        let options = PredictOptions { blend, ..options.clone() };
        let found = run(&model.expect("valid"), &input(shape), shape, &options);
        // Logits of order 1 whose sums run in any order.
        assert_close(found.values(), &reference(&format!("{name}.f32")), 1e-5);
    }
}

#[test]
fn the_number_of_tiles_a_run_changes_nothing() {
    let model = unet3d().expect("valid");
    let shape = [1, 7, 13, 18];
    let one = PredictOptions::new([4, 8, 8]);
    let expected = run(&model, &input(shape), shape, &one);
    for tile_batch in [2, 5, 1000] {
        let tile_batch = NonZeroUsize::new(tile_batch).expect("above 0");
        let found = run(&model, &input(shape), shape, &PredictOptions { tile_batch, ..one.clone() });
        // A run of several tiles may sum in another order.
        assert_close(found.values(), expected.values(), 1e-5);
    }
}

#[test]
fn any_number_of_sessions_gives_the_same_bits() {
    let model = unet3d().expect("valid");
    let shape = [1, 11, 13, 18];
    let volume = input(shape);
    let mirror = [false, true, false];
    let options = PredictOptions { mirror, ..PredictOptions::new([4, 8, 8]) };
    let run = |count: usize| {
        let mut sessions: Vec<Session> = (0..count).map(|_| session(&model)).collect();
        let runs = planes::runs(sessions[0].interface(), shape, &options).expect("valid");
        assert_eq!(runs, 5 * 3 * 4 * 2, "tiles along z, y, x, each mirrored once");
        let mut planes = Planes::new(&mut sessions, &volume, shape, &options).expect("valid");
        let found: Vec<Vec<f32>> = (0..11).map(|_| planes.next_plane().expect("a plane")).collect();
        assert!(planes.next_plane().expect_err("there is none left").to_string().contains("all were given"));
        found
    };
    let one = run(1);
    for count in [2, 3, 50, 200] {
        assert_eq!(run(count), one, "{count} sessions");
    }
}

#[test]
fn all_voxels_of_a_tile_count_the_same_without_the_gaussian() {
    // A network that sees where it is: padding darkens the border of each tile.
    let model = shallow2d().expect("valid");
    let shape = [1, 1, 4, 6];
    let volume = input(shape);
    let options = PredictOptions { blend: Blend::Constant, overlap: 0.5, ..PredictOptions::new([1, 4, 4]) };
    let mut session = session(&model);
    let mut tile = |x: usize| {
        let rows = volume.chunks(6).flat_map(|row| row[x..x + 4].to_vec()).collect::<Vec<f32>>();
        session.run(&rows, &[1, 1, 4, 4]).expect("runs").0
    };
    let (left, right) = (tile(0), tile(2));
    let logits: Vec<f32> = (0..2 * 4 * 6)
        .map(|at| {
            let (row, x) = (at / 6, at % 6);
            let of = |tile: &[f32], x: usize| tile[row * 4 + x];
            match x {
                0 | 1 => of(&left, x),
                2 | 3 => f32::midpoint(of(&left, x), of(&right, x - 2)),
                _ => of(&right, x - 2),
            }
        })
        .collect();
    let found = predict(&mut session, &volume, shape, &options).expect("predicted");
    assert_close(found.values(), &softmax(&logits, 2), 1e-6);
}

#[test]
fn a_small_volume_is_padded_with_zeros_on_both_sides_to_the_patch() {
    let model = unet3d().expect("valid");
    // 3 → 4 (0 before), 5 → 8 (1 before), 4 stays.
    let (shape, volume) = ([1, 3, 5, 4], input([1, 3, 5, 4]));
    let mut padded = vec![0.0; 4 * 8 * 4];
    for z in 0..3 {
        for y in 0..5 {
            for x in 0..4 {
                padded[(z * 8 + y + 1) * 4 + x] = volume[(z * 5 + y) * 4 + x];
            }
        }
    }
    let (logits, _) = session(&model).run(&padded, &[1, 1, 4, 8, 4]).expect("runs");
    let probabilities = softmax(&logits, 2);
    let mut expected = Vec::new();
    for class in 0..2 {
        for z in 0..3 {
            for y in 0..5 {
                let row = ((class * 4 + z) * 8 + y + 1) * 4;
                expected.extend_from_slice(&probabilities[row..row + 4]);
            }
        }
    }
    let found = run(&model, &volume, shape, &PredictOptions::new([4, 8, 4]));
    assert_close(found.values(), &expected, 5e-7);
}

#[test]
fn a_2d_model_sees_each_slice_by_itself() {
    let model = unet2d().expect("valid");
    let [channels, depth, height, width] = [2, 5, 12, 10];
    let volume = input([channels, depth, height, width]);
    let tile_batch = NonZeroUsize::new(3).expect("above 0");
    let options = PredictOptions { tile_batch, ..PredictOptions::new([1, 8, 8]) };
    let whole = run(&model, &volume, [channels, depth, height, width], &options);
    let plane = height * width;
    for z in 0..depth {
        let slice: Vec<f32> =
            (0..channels).flat_map(|c| volume[(c * depth + z) * plane..][..plane].to_vec()).collect();
        let alone = run(&model, &slice, [channels, 1, height, width], &options);
        for class in 0..3 {
            let found = &whole.values()[(class * depth + z) * plane..][..plane];
            assert_close(found, &alone.values()[class * plane..][..plane], 1e-5);
        }
    }
}

#[test]
fn mirroring_averages_the_logits_of_both_directions() {
    let model = shallow2d().expect("valid");
    let shape = [1, 1, 4, 6];
    let volume = input(shape);
    let flip =
        |values: &[f32]| values.chunks(6).flat_map(|row| row.iter().rev().copied()).collect::<Vec<_>>();
    let mut session = session(&model);
    let (direct, _) = session.run(&volume, &[1, 1, 4, 6]).expect("runs");
    let (mirrored, _) = session.run(&flip(&volume), &[1, 1, 4, 6]).expect("runs");
    let mean: Vec<f32> = direct.iter().zip(flip(&mirrored)).map(|(a, b)| (a + b) / 2.0).collect();
    assert!(direct.iter().zip(&mean).any(|(a, b)| (a - b).abs() > 0.1), "the kernel is not symmetric");
    let options = PredictOptions { mirror: [false, false, true], ..PredictOptions::new([1, 8, 8]) };
    let found = predict(&mut session, &volume, shape, &options).expect("it can be predicted");
    assert_close(found.values(), &softmax(&mean, 2), 1e-6);
}

#[test]
fn a_model_of_fixed_shape_gets_that_shape() {
    load_runtime();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/fixed_shape.onnx");
    let mut session = Session::from_file(&file, NonZeroUsize::MIN).expect("loads");
    // The model's logits are (v, -v), batch 2, 8×8; three slices make an incomplete last batch.
    for shape in [[1, 3, 5, 8], [1, 3, 20, 9]] {
        let volume = input(shape);
        let found =
            predict(&mut session, &volume, shape, &PredictOptions::new([1, 64, 64])).expect("predicted");
        let logits: Vec<f32> = volume.iter().copied().chain(volume.iter().map(|v| -v)).collect();
        assert_close(found.values(), &softmax(&logits, 2), 1e-6);
    }
}

#[test]
fn classifiers_give_one_distribution_an_image() {
    let mut session = session(&classifier2d().expect("valid"));
    let images = values(103, 3 * 16 * 24, 2.0, 0.0);
    let found = predict_classes(&mut session, &images, [3, 1, 1, 16, 24]).expect("predicted");
    let logits = reference("classifier2d.f32");
    for (found, logits) in found.chunks(3).zip(logits.chunks(3)) {
        assert_close(found, &softmax(logits, 3), 1e-5);
    }
    assert!(matches!(
        predict_classes(&mut session, &images, [3, 1, 2, 8, 24]),
        Err(PredictError::Volume { .. })
    ));
}

#[track_caller]
fn refused(model: &[u8], volume: &[f32], shape: [usize; 4], options: &PredictOptions, text: &str) {
    let result = predict(&mut session(model), volume, shape, options);
    let message = result.expect_err("it must be refused").to_string();
    assert!(message.contains(text), "{message:?} does not contain {text:?}");
}

#[test]
fn volumes_and_options_that_cannot_be_predicted_are_refused() {
    let model = unet3d().expect("valid");
    let options = PredictOptions::new([4, 8, 8]);
    let volume = vec![0.5; 4 * 8 * 8];
    refused(&model, &volume, [1, 4, 8, 9], &options, "[1, 4, 8, 9] has 256 values");
    refused(&model, &[], [1, 0, 8, 8], &options, "is empty");
    refused(&model, &volume, [2, 2, 8, 8], &options, "channels axis is 2 but must be 1");
    let mut spoiled = volume.clone();
    spoiled[65] = f32::NAN;
    refused(&model, &spoiled, [1, 4, 8, 8], &options, "is NaN at [0, 1, 0, 1]");
    refused(
        &model,
        &volume,
        [1, 4, 8, 8],
        &PredictOptions::new([4, 8, 6]),
        "6 along x but must be a multiple",
    );
    refused(&model, &volume, [1, 4, 8, 8], &PredictOptions::new([0, 8, 8]), "0 along z");
    for overlap in [1.0, -0.1, f64::NAN] {
        refused(
            &model,
            &volume,
            [1, 4, 8, 8],
            &PredictOptions { overlap, ..options.clone() },
            "the overlap is",
        );
    }
    let mirror = PredictOptions { mirror: [true, false, false], ..PredictOptions::new([1, 8, 8]) };
    refused(&shallow2d().expect("valid"), &volume, [1, 4, 8, 8], &mirror, "cannot be mirrored along z");
}

#[test]
fn models_without_usable_logits_are_refused() {
    let options = PredictOptions::new([1, 8, 8]);
    let one_class = GraphBuilder::new("one", 1, Dims::Two).expect("a graph");
    let input = one_class.input();
    refused(
        &one_class.build(&input).expect("valid"),
        &[1.0; 16],
        [1, 1, 4, 4],
        &options,
        "2 or more classes",
    );

    let mut logarithm = GraphBuilder::new("log", 2, Dims::Two).expect("a graph");
    let log = logarithm.log(&logarithm.input()).expect("valid");
    let model = logarithm.build(&log).expect("valid");
    refused(&model, &[1.0, 1.0, 1.0, -1.0], [2, 1, 1, 2], &options, "NaN or infinite");
    // A probability of 0 in one class is a valid logit of minus infinity.
    let found = run(&model, &[0.0, 1.0, 1.0, 1.0], [2, 1, 1, 2], &options);
    assert_eq!(found.values(), [0.0, 0.5, 1.0, 0.5]);

    let mut pooled = GraphBuilder::new("pool", 2, Dims::Two).expect("a graph");
    let half = pooled.max_pool(&pooled.input(), &[2, 2], &pipe_onnx::Window::tight(&[2, 2])).expect("valid");
    refused(
        &pooled.build(&half).expect("valid"),
        &[1.0; 32],
        [2, 1, 4, 4],
        &options,
        "output of shape [1, 2, 4, 4]",
    );
}
