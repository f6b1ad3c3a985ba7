//! The training loop: it learns, it repeats itself bit for bit, it survives being stopped, and it refuses bad input.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use pipe_nn::{
    Augmentation, Case, CaseSource, CpuBackend, Dims, Isa, LoadError, Network, NnError, Progress,
    TrainConfig, Trained, UNetConfig, train, train_on,
};

use crate::support::{bits, noise, with_threads};

/// A bright box (label 1) beside a brighter one (label 2) in noise; sizes differ from case to case.
fn case(index: usize) -> Case {
    let shape = [6 + index % 3, 9 + index % 2, 7 + index % 4];
    let [depth, height, width] = shape;
    let mut image = noise(index as u64 + 1, depth * height * width);
    let mut label = vec![0_u8; image.len()];
    for (place, (value, label)) in image.iter_mut().zip(&mut label).enumerate() {
        let (z, y, x) = (place / (height * width), place / width % height, place % width);
        if (1..depth - 1).contains(&z) && (2..6).contains(&y) && (1..6).contains(&x) {
            *label = if x < 3 { 1 } else { 2 };
            *value += f32::from(*label) * 1.5;
        }
    }
    Case { id: format!("case{index}"), shape, image: image.into(), label: label.into() }
}

fn cases(range: std::ops::Range<usize>) -> Vec<Case> {
    range.map(case).collect()
}

fn network(dims: Dims) -> Network {
    let config = UNetConfig { dims, in_channels: 1, classes: 3, base_features: 4, levels: 2 };
    config.network().expect("a valid configuration")
}

fn config(dims: Dims, epochs: usize) -> TrainConfig {
    let batch_size = if dims == Dims::Two { 8 } else { 2 };
    TrainConfig { epochs, batch_size, seed: 5, ..TrainConfig::for_dims(dims) }
}

/// Trains on five cases, validates on two.
fn run(dims: Dims, epochs: usize, stop_after: Option<usize>, dir: Option<&Path>) -> Result<Trained, NnError> {
    let steps = Cell::new(0);
    let mut observer = |progress: &Progress| {
        if matches!(progress, Progress::Step { .. }) {
            steps.set(steps.get() + 1);
        }
    };
    let should_stop = || stop_after.is_some_and(|limit| steps.get() >= limit);
    train(&network(dims), &cases(0..5), &cases(5..7), &config(dims, epochs), &mut observer, &should_stop, dir)
}

/// As [`run`], without random changes: a few epochs on five cases have no time for them.
fn learn(dims: Dims, epochs: usize) -> Trained {
    let config = TrainConfig { augmentation: Augmentation::none(), ..config(dims, epochs) };
    let never = || false;
    train(&network(dims), &cases(0..5), &cases(5..7), &config, &mut |_| {}, &never, None)
        .expect("the training ends")
}

/// Everything but the seconds, as text and bits.
fn fingerprint(trained: &Trained) -> (Vec<u32>, Vec<u32>, String) {
    let flat = |parameters: &pipe_nn::Parameters| {
        parameters.iter().flat_map(|entry| bits(&entry.values)).collect::<Vec<_>>()
    };
    let rows = trained.log.iter().map(|row| {
        let dice: Vec<_> = row.validation_dice.iter().map(|dice| dice.map(f64::to_bits)).collect();
        let bits = [row.train_loss, row.learning_rate, row.gradient_norm].map(f64::to_bits);
        format!("{} {} {bits:?} {dice:?}", row.epoch, row.step)
    });
    (flat(&trained.best), flat(&trained.last), rows.collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_3d_network_learns_the_boxes() {
    let trained = learn(Dims::Three, 30);
    let (first, last) = (&trained.log[0], &trained.log[29]);
    assert!(last.train_loss < 0.5 * first.train_loss, "loss {} -> {}", first.train_loss, last.train_loss);
    let best = trained.log[trained.best_epoch - 1].mean_dice.unwrap();
    assert!(best > 0.8, "Dice {best}");
    assert!(trained.log.iter().all(|row| row.mean_dice.unwrap() <= best));
    // The largest case is 8×10×10; two levels take multiples of 2.
    assert_eq!(trained.patch, [8, 10, 10]);
}

#[test]
fn a_2d_network_learns_the_boxes_from_slices() {
    let trained = learn(Dims::Two, 60);
    let best = trained.log[trained.best_epoch - 1].mean_dice.unwrap();
    assert!(best > 0.4, "Dice {best}");
    assert_eq!(trained.patch, [1, 10, 10]);
}

#[test]
fn training_gives_the_same_bits_for_every_thread_count_and_instruction_set() {
    for dims in [Dims::Two, Dims::Three] {
        let expected = fingerprint(&run(dims, 2, None, None).unwrap());
        for threads in [1, 2, 4] {
            let found = with_threads(threads, || fingerprint(&run(dims, 2, None, None).unwrap()));
            assert_eq!(found, expected, "{threads} threads");
        }
        for backend in [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(CpuBackend::with_isa) {
            let (train, checks, isa) = (cases(0..5), cases(5..7), backend.isa());
            let never = || false;
            let trained = train_on(
                backend,
                &network(dims),
                &train,
                &checks,
                &config(dims, 2),
                &mut |_| (),
                &never,
                None,
            );
            assert_eq!(fingerprint(&trained.unwrap()), expected, "{isa:?}");
        }
    }
}

#[test]
fn another_seed_gives_another_network() {
    let mut config = config(Dims::Three, 1);
    let mut run = |seed| {
        config.seed = seed;
        let never = || false;
        train(&network(Dims::Three), &cases(0..2), &cases(0..0), &config, &mut |_| (), &never, None).unwrap()
    };
    assert_ne!(fingerprint(&run(1)), fingerprint(&run(2)));
}

#[test]
fn a_training_stopped_anywhere_continues_to_the_same_bits() {
    for dims in [Dims::Two, Dims::Three] {
        let expected = fingerprint(&run(dims, 3, None, None).unwrap());
        // Three steps an epoch in 3D, five in 2D: within the first epoch, at its end, and twice in a row.
        for stops in [vec![1], vec![3], vec![5], vec![2, 1, 3]] {
            let dir = tempfile::tempdir().unwrap();
            for stop in &stops {
                let error = run(dims, 3, Some(*stop), Some(dir.path())).unwrap_err();
                assert!(matches!(error, NnError::Interrupted { .. }), "{error}");
            }
            let resumed = run(dims, 3, None, Some(dir.path())).unwrap();
            assert_eq!(fingerprint(&resumed), expected, "stopped after {stops:?}");
            let files: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
            assert_eq!(files, ["checkpoint.safetensors"], "no temporary file is left");
        }
    }
}

#[test]
fn a_finished_training_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(Dims::Three, 2, None, Some(dir.path())).unwrap();
    let again = run(Dims::Three, 2, Some(0), Some(dir.path())).unwrap();
    assert_eq!(fingerprint(&first), fingerprint(&again));
}

#[test]
fn a_checkpoint_of_another_training_is_refused_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    run(Dims::Three, 2, Some(1), Some(dir.path())).unwrap_err();
    let error = run(Dims::Three, 3, None, Some(dir.path())).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(r#""epochs":2"#) && text.contains(r#""epochs":3"#), "{text}");
}

#[test]
fn a_damaged_checkpoint_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    run(Dims::Three, 2, Some(1), Some(dir.path())).unwrap_err();
    let path = dir.path().join("checkpoint.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = run(Dims::Three, 2, None, Some(dir.path())).unwrap_err();
        assert!(matches!(error, NnError::Format { .. }), "{length} bytes: {error}");
    }
}

#[test]
fn a_loss_that_is_not_finite_names_epoch_step_and_cases() {
    let mut bad = case(1);
    let mut image = bad.image.to_vec();
    image[100..140].fill(3e38);
    bad.image = image.into();
    bad.id = "overflow".into();
    let config = TrainConfig { augmentation: Augmentation::none(), ..config(Dims::Three, 1) };
    let never = || false;
    let none: Vec<Case> = Vec::new();
    let error = train(&network(Dims::Three), &vec![case(0), bad], &none, &config, &mut |_| (), &never, None);
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("loss is NaN in epoch 1, step 1") && text.contains("overflow"), "{text}");
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut Case), expected: &str) {
    let mut bad = case(0);
    change(&mut bad);
    let never = || false;
    let none: Vec<Case> = Vec::new();
    let config = config(Dims::Three, 1);
    let error = train(&network(Dims::Three), &vec![bad], &none, &config, &mut |_| (), &never, None);
    assert_eq!(error.expect_err("the case is bad").to_string(), expected);
}

#[test]
fn a_case_that_breaks_the_contract_is_refused_before_any_step() {
    check_refused(
        |case| case.label = case.label[1..].into(),
        "case `case0`: label has 377 values, expected 6×9×7",
    );
    check_refused(
        |case| case.image = case.image[..10].into(),
        "case `case0`: image has 10 values, expected 1 channels of 6×9×7",
    );
    check_refused(|case| Arc::make_mut(&mut case.image)[3] = f32::NAN, "case `case0`: image value 3 is NaN");
    check_refused(
        |case| Arc::make_mut(&mut case.label)[3] = 3,
        "case `case0`: label 3 is none of the 3 classes, nor 255",
    );
    check_refused(|case| case.shape = [0, 9, 7], "case `case0`: shape 0×9×7 has no voxels");
}

#[test]
fn an_impossible_configuration_is_refused() {
    let refused = |change: &dyn Fn(&mut TrainConfig), expected: &str| {
        let mut config = config(Dims::Three, 1);
        change(&mut config);
        let never = || false;
        let error =
            train(&network(Dims::Three), &cases(0..1), &cases(0..0), &config, &mut |_| (), &never, None);
        assert_eq!(error.unwrap_err().to_string(), expected);
    };
    refused(&|c| c.epochs = 0, "epochs is 0, but it must be at least 1");
    refused(&|c| c.learning_rate = f64::NAN, "learning_rate is NaN, but it must be positive");
    refused(
        &|c| c.patch = Some([8, 9, 8]),
        "patch is [8, 9, 8], but each axis (z, y, x) must be a multiple of [2, 2, 2], and z 1 in 2D",
    );
}

/// Fails on the second case.
struct Failing;

impl CaseSource for Failing {
    fn len(&self) -> usize {
        2
    }

    fn load(&self, index: usize) -> Result<Case, LoadError> {
        if index == 1 { Err("volume is gone".into()) } else { Ok(case(index)) }
    }
}

#[test]
fn a_source_that_fails_is_named_with_the_case() {
    let (never, none) = (|| false, Vec::<Case>::new());
    let error =
        train(&network(Dims::Three), &Failing, &none, &config(Dims::Three, 1), &mut |_| (), &never, None);
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "case 1 of the training cases cannot be loaded");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "volume is gone");
}

#[test]
fn a_patch_smaller_than_the_cases_trains_on_crops() {
    let config = TrainConfig { patch: Some([4, 6, 8]), ..config(Dims::Three, 2) };
    let never = || false;
    let trained =
        train(&network(Dims::Three), &cases(0..5), &cases(5..7), &config, &mut |_| (), &never, None).unwrap();
    assert!(trained.log[1].train_loss.is_finite() && trained.log[1].mean_dice.is_some());
}
