//! The training loop: it learns, it repeats itself bit for bit, it survives being stopped, and it refuses bad input.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use pipe_nn::{
    Adam, Augment, Case, CaseSource, Classifier, Clip, CpuBackend, Dims, EarlyStopping, Io, Isa, LoadError,
    Loss, Network, NnError, Norm, Optimizer, Penalty, Plateau, Progress, Quantity, Random, Rmsprop, Schedule,
    Score, Sgd, TrainConfig, TrainJob, Trained, UNet, Warmup, train, train_on,
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
    let unet = UNet { base_features: Some(4), levels: 2, ..UNet::default() };
    unet.network(dims, Io { channels: 1, classes: 3, size: [1; 3] }).expect("a valid configuration")
}

fn config(dims: Dims, epochs: usize) -> TrainConfig {
    let batch_size = if dims == Dims::Two { 8 } else { 2 };
    TrainConfig { epochs, batch_size, seed: 5, ..TrainConfig::for_dims(dims) }
}

/// What is trained on `cases` and validated on `checks`, without a checkpoint.
fn job<'a>(
    network: &'a Network,
    cases: &'a Vec<Case>,
    checks: &'a Vec<Case>,
    config: &'a TrainConfig,
) -> TrainJob<'a> {
    TrainJob { network, training: cases, validation: checks, config, start: None, checkpoint_dir: None }
}

/// Trains to the end without anybody looking.
fn run_job(job: &TrainJob<'_>) -> Result<Trained, NnError> {
    train(job, &mut |_| {}, &|| false)
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
    let (network, training, checks, config) = (network(dims), cases(0..5), cases(5..7), config(dims, epochs));
    let job = TrainJob { checkpoint_dir: dir, ..job(&network, &training, &checks, &config) };
    train(&job, &mut observer, &should_stop)
}

/// As [`run`], without random changes: a few epochs on five cases have no time for them.
fn learn(dims: Dims, epochs: usize) -> Trained {
    let config = TrainConfig { augmentation: Augment::none(), ..config(dims, epochs) };
    run_job(&job(&network(dims), &cases(0..5), &cases(5..7), &config)).expect("the training ends")
}

/// Everything but the seconds, as text and bits.
fn fingerprint(trained: &Trained) -> (Vec<u32>, Vec<u32>, String) {
    let flat = |parameters: &pipe_nn::Parameters| {
        parameters.iter().flat_map(|entry| bits(&entry.values)).collect::<Vec<_>>()
    };
    let rows = trained.log.iter().map(|row| {
        let bits = [row.train_loss, row.learning_rate, row.gradient_norm].map(f64::to_bits);
        // Debug writes the shortest text that reads back to the same bits.
        format!("{} {} {bits:?} {:?}", row.epoch, row.step, row.validation)
    });
    let text = format!("{}\n{:?}", rows.collect::<Vec<_>>().join("\n"), trained.layers);
    (flat(&trained.best), flat(&trained.last), text)
}

#[test]
fn a_3d_network_learns_the_boxes() {
    let trained = learn(Dims::Three, 30);
    let (first, last) = (&trained.log[0], &trained.log[29]);
    assert!(last.train_loss < 0.5 * first.train_loss, "loss {} -> {}", first.train_loss, last.train_loss);
    let best = trained.log[trained.best_epoch - 1].key().unwrap();
    assert!(best > 0.8, "Dice {best}");
    assert!(trained.log.iter().all(|row| row.key().unwrap() <= best));
    // The largest case is 8×10×10; two levels take multiples of 2.
    assert_eq!(trained.patch, [8, 10, 10]);
}

#[test]
fn a_2d_network_learns_the_boxes_from_slices() {
    // Batch normalisation: slices above and below the boxes are noise alone, which a norm of each slice would raise to
    // the contrast of the others.
    let unet = UNet { base_features: Some(8), levels: 2, norm: Norm::Batch, ..UNet::default() };
    let network = unet.network(Dims::Two, Io { channels: 1, classes: 3, size: [1; 3] }).expect("valid");
    let config = TrainConfig { augmentation: Augment::none(), learning_rate: 1e-2, ..config(Dims::Two, 60) };
    let trained = run_job(&job(&network, &cases(0..5), &cases(5..7), &config)).expect("the training ends");
    let best = trained.log[trained.best_epoch - 1].key().unwrap();
    assert!(best > 0.8, "Dice {best}");
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
            let (network, training, checks) = (network(dims), cases(0..5), cases(5..7));
            let (config, isa) = (config(dims, 2), backend.isa());
            let job = job(&network, &training, &checks, &config);
            let trained = train_on(backend, &job, &mut |_| (), &|| false);
            assert_eq!(fingerprint(&trained.unwrap()), expected, "{isa:?}");
        }
    }
}

#[test]
fn another_seed_gives_another_network() {
    let mut config = config(Dims::Three, 1);
    let mut run = |seed| {
        config.seed = seed;
        run_job(&job(&network(Dims::Three), &cases(0..2), &cases(0..0), &config)).unwrap()
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
    let config = TrainConfig { augmentation: Augment::none(), ..config(Dims::Three, 1) };
    let error = run_job(&job(&network(Dims::Three), &vec![case(0), bad], &Vec::new(), &config)).unwrap_err();
    let text = error.to_string();
    let start = "the training diverged in epoch 1, step 1: loss NaN";
    assert!(text.starts_with(start) && text.contains("overflow"), "{text}");
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut Case), expected: &str) {
    let mut bad = case(0);
    change(&mut bad);
    let config = config(Dims::Three, 1);
    let error = run_job(&job(&network(Dims::Three), &vec![bad], &Vec::new(), &config));
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
        let error = run_job(&job(&network(Dims::Three), &cases(0..1), &cases(0..0), &config));
        assert_eq!(error.unwrap_err().to_string(), expected);
    };
    refused(&|c| c.epochs = 0, "epochs is 0, but it must be at least 1");
    refused(&|c| c.learning_rate = f64::NAN, "learning_rate is NaN, but it must be positive");
    refused(
        &|c| c.patch = Some([8, 9, 8]),
        "patch is [8, 9, 8], but each axis (z, y, x) must be a multiple of [2, 2, 2]; [8, 10, 8] would do",
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
    let (network, none, config) = (network(Dims::Three), Vec::new(), config(Dims::Three, 1));
    let error =
        run_job(&TrainJob { training: &Failing, ..job(&network, &none, &none, &config) }).unwrap_err();
    assert_eq!(error.to_string(), "case 1 of the training cases cannot be loaded");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "volume is gone");
}

#[test]
fn a_patch_smaller_than_the_cases_trains_on_crops() {
    let config = TrainConfig { patch: Some([4, 6, 8]), ..config(Dims::Three, 2) };
    let trained = run_job(&job(&network(Dims::Three), &cases(0..5), &cases(5..7), &config)).unwrap();
    assert!(trained.log[1].train_loss.is_finite() && trained.log[1].key().is_some());
}

/// Everything at once that has a state of its own or draws at random.
fn everything(dims: Dims) -> (Network, TrainConfig) {
    let unet = UNet {
        base_features: Some(4),
        levels: 2,
        norm: Norm::Batch,
        dropout: 0.2,
        noise: 0.05,
        activation_noise: 0.1,
        deep_supervision: true,
        ..UNet::default()
    };
    let network = unet.network(dims, Io { channels: 1, classes: 3, size: [1; 3] }).expect("valid");
    let mut random = Random::default();
    for probability in [
        &mut random.rotation.probability,
        &mut random.elastic.probability,
        &mut random.translation.probability,
        &mut random.bias_field.probability,
        &mut random.low_resolution.probability,
        &mut random.cutout.probability,
        &mut random.mixup.probability,
        &mut random.cutmix.probability,
    ] {
        *probability = 0.5;
    }
    let config = TrainConfig {
        accumulate: 2,
        batch_size: 2,
        ema: Some(0.9),
        clip: Clip { norm: Some(1.0), value: Some(0.5) },
        optimizer: Optimizer::Rmsprop(Rmsprop { momentum: 0.5, ..Rmsprop::default() }),
        learning_rate: 1e-3,
        rate_for_batch: Some(2),
        schedule: Schedule::Plateau(Plateau { patience: 0, ..Plateau::default() }),
        warmup: Warmup { epochs: 1.0, start: 0.1 },
        penalty: Penalty { weights_l1: 1e-4, weights_l2: 1e-4, activations_l1: 1e-3, activations_l2: 1e-3 },
        augmentation: Augment::Random(Box::new(random)),
        foreground: 0.5,
        patch: (dims == Dims::Three).then_some([4, 6, 6]),
        checkpoint_seconds: 0.0,
        ..config(dims, 3)
    };
    (network, config)
}

#[test]
fn with_all_that_is_random_a_training_killed_anywhere_continues_to_the_same_bits_on_any_number_of_threads() {
    for dims in [Dims::Two, Dims::Three] {
        let (network, config) = everything(dims);
        let (training, checks) = (cases(0..5), cases(5..7));
        let plain = job(&network, &training, &checks, &config);
        let trained = run_job(&plain).unwrap();
        let (expected, last) = (fingerprint(&trained), trained.log[2].step);
        // Numbers without a pattern below that of all steps.
        let stops: Vec<usize> =
            noise(17, 20).iter().map(|draw| ((draw + 1.0) / 2.0 * last as f32) as usize).collect();
        for (index, stop) in stops.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let job = TrainJob { checkpoint_dir: Some(dir.path()), ..plain };
            let steps = Cell::new(0);
            // A kill loses what was done since the last checkpoint: after an interruption, an older one comes back.
            let older = dir.path().join("older");
            let mut observer = |progress: &Progress| {
                if matches!(progress, Progress::Step { .. }) {
                    steps.set(steps.get() + 1);
                }
                let current = dir.path().join("checkpoint.safetensors");
                if steps.get() + 1 == stop && current.exists() {
                    std::fs::copy(&current, &older).unwrap();
                }
            };
            let stopped = train(&job, &mut observer, &|| steps.get() >= stop);
            assert!(matches!(stopped, Err(NnError::Interrupted { .. })), "stopped after {stop} of {last}");
            if index % 2 == 1 && older.exists() {
                std::fs::copy(&older, dir.path().join("checkpoint.safetensors")).unwrap();
            }
            let threads = [1, 2, 4][index % 3];
            let found = with_threads(threads, || {
                let (training, checks) = (cases(0..5), cases(5..7));
                let job = TrainJob {
                    training: &training,
                    validation: &checks,
                    checkpoint_dir: Some(dir.path()),
                    start: None,
                    network: &network,
                    config: &config,
                };
                fingerprint(&run_job(&job).unwrap())
            });
            assert_eq!(found, expected, "stopped after {stop}, continued on {threads} threads");
        }
    }
}

/// Other sums in another order: the loss of the first epoch stays close, later ones need not.
#[cfg(feature = "cuda")]
#[track_caller]
fn check_on_cuda(network: &Network, config: &TrainConfig) {
    let (training, checks) = (cases(0..5), cases(5..7));
    let run = |stop_after: Option<usize>, dir: Option<&Path>| {
        let steps = Cell::new(0);
        let mut observer = |progress: &Progress| {
            if matches!(progress, Progress::Step { .. }) {
                steps.set(steps.get() + 1);
            }
        };
        let job = TrainJob { checkpoint_dir: dir, ..job(network, &training, &checks, config) };
        train_on(crate::support::cuda(), &job, &mut observer, &|| {
            stop_after.is_some_and(|limit| steps.get() >= limit)
        })
    };
    let whole = run(None, None).expect("the training ends");
    assert_eq!(fingerprint(&run(None, None).expect("the training ends")), fingerprint(&whole), "once more");
    let dir = tempfile::tempdir().expect("a folder");
    assert!(matches!(run(Some(2), Some(dir.path())), Err(NnError::Interrupted { .. })));
    assert_eq!(
        fingerprint(&run(None, Some(dir.path())).expect("the training goes on")),
        fingerprint(&whole),
        "resumed"
    );
    let on_cpu = run_job(&job(network, &training, &checks, config)).expect("the training ends");
    let (found, expected) = (whole.log[0].train_loss, on_cpu.log[0].train_loss);
    assert!((found - expected).abs() < 1e-3 * expected, "loss {found} on CUDA, {expected} on the CPU");
    for (found, expected) in whole.layers.iter().zip(&on_cpu.layers).take_while(|(row, _)| row.epoch == 1) {
        assert_eq!((&found.layer, found.quantity), (&expected.layer, expected.quantity));
        let far = (found.variance - expected.variance).abs() / expected.variance.max(1e-12);
        assert!(
            far < 1e-3,
            "variance of {}: {} on CUDA, {} on the CPU",
            found.layer,
            found.variance,
            expected.variance
        );
    }
}

#[cfg(feature = "cuda")]
#[test]
fn a_training_on_cuda_repeats_itself_resumes_and_stays_near_the_cpu() {
    for dims in [Dims::Two, Dims::Three] {
        check_on_cuda(&network(dims), &config(dims, 2));
        let (network, config) = everything(dims);
        check_on_cuda(&network, &config);
    }
}

#[test]
fn every_optimiser_learns_the_boxes() {
    for (optimizer, learning_rate) in [
        (Optimizer::Sgd(Sgd::default()), 3e-2),
        (Optimizer::Adam(Adam::default()), 3e-3),
        (Optimizer::Rmsprop(Rmsprop::default()), 1e-3),
    ] {
        let config = TrainConfig {
            optimizer,
            learning_rate,
            augmentation: Augment::none(),
            ..config(Dims::Three, 20)
        };
        let trained = run_job(&job(&network(Dims::Three), &cases(0..5), &Vec::new(), &config)).unwrap();
        let (first, last) = (trained.log[0].train_loss, trained.log[19].train_loss);
        assert!(last < 0.6 * first, "{optimizer:?}: {first} -> {last}");
    }
}

/// Bright images are class 1; a few have no class.
fn whole_image(index: usize) -> Case {
    let class = (index % 2) as u8;
    let image =
        noise(index as u64 + 50, 81).iter().map(|v| v + f32::from(class) * 0.8 - 0.4).collect::<Vec<_>>();
    let label = if index % 11 == 10 { 255 } else { class };
    Case { id: format!("image{index}"), shape: [1, 9, 9], image: image.into(), label: vec![label].into() }
}

#[test]
fn classifiers_tell_bright_images_from_dark_ones() {
    let io = Io { channels: 1, classes: 2, size: [1, 9, 9] };
    let small = Classifier {
        levels: 2,
        base_features: 4,
        dropout: 0.1,
        channel_dropout: 0.1,
        activation_noise: 0.05,
        ..Classifier::default()
    };
    let networks =
        [small.network(Dims::Two, io).unwrap(), pipe_nn::Linear {}.network(Dims::Two, io).unwrap()];
    let (training, checks) =
        ((0..40).map(whole_image).collect::<Vec<_>>(), (40..60).map(whole_image).collect::<Vec<_>>());
    for network in networks {
        let mut random = Random::default();
        (random.mixup.probability, random.cutmix.probability) = (0.3, 0.3);
        let config = TrainConfig {
            loss: Loss::CrossEntropy(pipe_nn::CrossEntropy::default()),
            augmentation: Augment::Random(Box::new(random)),
            learning_rate: 1e-2,
            ..config(Dims::Two, 15)
        };
        let trained = run_job(&job(&network, &training, &checks, &config)).unwrap();
        let last = trained.log[14].validation.as_ref().unwrap();
        let Score::Classes { accuracy, auc } = last.score else { panic!("a classifier tells classes") };
        assert!(auc.unwrap() > 0.95 && accuracy > 0.8, "AUC {auc:?}, accuracy {accuracy}");
        assert!(last.loss < trained.log[0].validation.as_ref().unwrap().loss);
    }
}

#[test]
fn a_training_stops_early_when_nothing_gets_better() {
    let config = TrainConfig {
        // Nothing moves: every score is the first one.
        learning_rate: 1e-30,
        weight_decay: 0.0,
        early_stopping: Some(EarlyStopping { patience: 2, margin: 0.0 }),
        ..config(Dims::Three, 50)
    };
    let (network, training, checks) = (network(Dims::Three), cases(0..2), cases(5..7));
    let mut stopped = Vec::new();
    let mut observer = |progress: &Progress| {
        if let Progress::StoppedEarly { epoch, best_epoch } = progress {
            stopped.push((*epoch, *best_epoch));
        }
    };
    let trained = train(&job(&network, &training, &checks, &config), &mut observer, &|| false).unwrap();
    assert_eq!((trained.log.len(), trained.best_epoch), (4, 1));
    assert_eq!(stopped, [(4, 1)]);
}

#[test]
fn overfitting_on_purpose_learns_the_first_cases_by_heart() {
    let config = TrainConfig { overfit: Some(1), learning_rate: 1e-2, ..config(Dims::Three, 60) };
    let trained = run_job(&job(&network(Dims::Three), &cases(0..5), &cases(5..7), &config)).unwrap();
    assert_eq!(trained.log[0].step, 1, "one case, one step an epoch");
    let best = trained.log[trained.best_epoch - 1].key().unwrap();
    assert!(best > 0.95, "Dice {best} on the case it was trained on");
}

#[test]
fn frozen_layers_and_given_start_values_stay_and_the_others_move() {
    let (network, training, none) = (network(Dims::Three), cases(0..2), Vec::new());
    let first = config(Dims::Three, 1);
    let start = run_job(&job(&network, &training, &none, &first)).unwrap().last;
    let second = TrainConfig { freeze: vec!["encoder".into()], seed: 9, ..first };
    let job_from = TrainJob { start: Some(&start), ..job(&network, &training, &none, &second) };
    let end = run_job(&job_from).unwrap().last;
    for entry in start.iter() {
        let same = end.get(&entry.name).unwrap().1 == entry.values;
        assert_eq!(same, entry.name.starts_with("encoder."), "{}", entry.name);
    }
    let wrong = TrainConfig { freeze: vec!["enc".into()], ..second.clone() };
    let error = run_job(&TrainJob { config: &wrong, ..job_from }).unwrap_err().to_string();
    assert_eq!(
        error,
        "freeze is `enc`, but no parameter lies below that name; the network has encoder, decoder, head"
    );
    let foreign = start.renamed(|name| Some(format!("other.{name}")));
    let error = run_job(&TrainJob { start: Some(&foreign), ..job_from }).unwrap_err().to_string();
    assert_eq!(
        error,
        "parameter `other.encoder.0.conv0.weight` is among the start values, but the network has none of that name"
    );
}

#[test]
fn a_step_of_two_halves_is_one_of_the_whole() {
    // Instance norm and cross-entropy see no batch, so that the mean gradient of two passes is that of one.
    let once = TrainConfig {
        batch_size: 4,
        loss: Loss::CrossEntropy(pipe_nn::CrossEntropy::default()),
        optimizer: Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, decoupled: false }),
        patch: Some([4, 6, 6]),
        augmentation: Augment::none(),
        ..config(Dims::Three, 2)
    };
    let twice = TrainConfig { batch_size: 2, accumulate: 2, ..once.clone() };
    let (network, training, none) = (network(Dims::Three), cases(0..4), Vec::new());
    let [one, two] = [once, twice].map(|config| run_job(&job(&network, &training, &none, &config)).unwrap());
    for (a, b) in one.last.iter().zip(two.last.iter()) {
        crate::support::assert_close(&a.name, &a.values, &b.values, 1e-5);
    }
}

#[test]
fn each_epoch_tells_of_every_activation_and_gradient() {
    let trained = run(Dims::Three, 2, None, None).unwrap();
    let count = |epoch, quantity| {
        trained.layers.iter().filter(|row| row.epoch == epoch && row.quantity == quantity).count()
    };
    // Two levels of two norms down, one up; as many convolutions, the transposed one and the head.
    for epoch in [1, 2] {
        assert_eq!((count(epoch, Quantity::Activation), count(epoch, Quantity::Gradient)), (6, 8));
    }
    let first = &trained.layers[0];
    assert_eq!(first.layer, "encoder.0.norm0");
    // A norm with scale 1 and a leaky ReLU: half of a unit normal, mean 0.395, variance 0.34.
    assert!((first.mean - 0.395).abs() < 0.1 && (first.variance - 0.34).abs() < 0.1, "{first:?}");
}
