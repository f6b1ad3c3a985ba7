//! A training that is killed again and again, of the whole program: it goes on from its checkpoint to the same bytes.

use crate::space::TestSpace;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// How often the training is killed. `PIPE_TEST_TRAINING_KILLS` changes it; 20 take a minute on two cores.
const KILLS: u32 = 4;

/// All that draws at random is on: dropout, noise, every change of the images.
const PIPELINE: &str = "
name: training
seed: 3
stages:
  cases: { uses: import, with: { from: phantom, phantom: { cases: 6, seed: 1, shape: [16, 16, 16] } } }
  split: { uses: split, in: { cases: cases }, with: { folds: 3, test: 0 } }
  volumes: { uses: crop, in: { cases: cases } }
  train:
    uses: train
    in: { volumes: volumes, split: split }
    with:
      fold: 0
      model: { unet3d: { levels: 2, base_features: 8, dropout: 0.2, noise: 0.1 } }
      patch: [16, 16, 16]
      epochs: 40
      batch_size: 2
      augment: random
";

/// Weights, card and log: every file of the training, none of which tells how long anything took.
fn results(space: &TestSpace) -> BTreeMap<String, Vec<u8>> {
    let folder = "results/training/train";
    let read = |file: String| {
        let bytes = std::fs::read(space.path(&format!("{folder}/{file}"))).unwrap();
        (file, bytes)
    };
    space.files(folder).into_iter().map(read).collect()
}

/// Whether a training has left a state that it can go on from.
fn has_checkpoint(space: &TestSpace) -> bool {
    space.files(".pipe").iter().any(|file| file.ends_with("/checkpoint.safetensors"))
}

#[test]
fn a_training_killed_at_random_moments_ends_with_the_bytes_of_one_that_was_not() {
    let kills = std::env::var("PIPE_TEST_TRAINING_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let whole = TestSpace::new(PIPELINE);
    // What comes before the training is done, so that all kills meet the training.
    whole.run(&["volumes", "split"]).code(0);
    let since = Instant::now();
    whole.run(&[]).code(0);
    let duration = since.elapsed();

    let space = TestSpace::new(PIPELINE);
    space.run(&["volumes", "split"]).code(0);
    let mut state = 5_u64;
    let mut continued = 0;
    for _ in 0..kills {
        continued += u32::from(has_checkpoint(&space));
        let running = space.start(&[]);
        // Half of the training in all, in steps of random length.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = (state >> 40) as f64 / (1_u64 << 24) as f64;
        std::thread::sleep(duration.mul_f64(share / f64::from(kills)) + Duration::from_millis(30));
        running.signal("KILL");
        assert_eq!(running.finish().code, None, "it was killed before its end");
    }
    assert!(continued > 0, "no kill left a checkpoint to go on from");
    assert!(!space.exists("results/training/train"), "a killed training has no results");
    space.run(&[]).code(0);
    let (expected, found) = (results(&whole), results(&space));
    assert!(expected.contains_key("model/model.safetensors") && expected.contains_key("log/log.csv"));
    assert!(expected == found, "after {kills} kills the bytes are others");
    assert!(!has_checkpoint(&space), "the checkpoint is gone with the end of the training");
}

/// A training of one epoch, and what else it is given.
fn pipeline(with: &str) -> String {
    format!(
        "
name: training
stages:
  cases: {{ uses: import, with: {{ from: phantom, phantom: {{ cases: 6, seed: 1, shape: [16, 16, 16] }} }} }}
  split: {{ uses: split, in: {{ cases: cases }}, with: {{ folds: 3, test: 0 }} }}
  volumes: {{ uses: crop, in: {{ cases: cases }} }}
  train:
    uses: train
    matrix: {{ fold: [0, 1] }}
    in: {{ volumes: volumes, split: split }}
    with: {{ fold: '${{matrix.fold}}', epochs: 1, augment: none, {with} }}
"
    )
}

#[test]
fn check_tells_what_is_seldom_meant_at_its_place_and_once() {
    let space =
        TestSpace::new(&pipeline("model: { unet3d: { levels: 2, activation: tanh } }, foreground: 0.5"));
    let report = space.pipe(&["check", "pipeline.yaml"]);
    report.code(0).prints("pipeline.yaml: 5 stages, no problems\n");
    report.says("☞ stage `train` (train): without `patch` a sample holds its case whole");
    report.says("use `initialization: xavier-normal` with sigmoid and tanh");
    report.says("pipeline.yaml:11:").says("pipeline.yaml: 2 pieces of advice");
    space.run(&["train[fold=0]"]).code(0).does_not_say("advice");
    let space = TestSpace::new(&pipeline("model: { unet3d: { levels: 2 } }"));
    assert_eq!(space.pipe(&["check", "pipeline.yaml"]).stderr, "");
}

#[test]
fn weights_of_a_file_are_hashed_and_only_their_content_counts() {
    let space = TestSpace::new(&pipeline("model: { unet3d: { levels: 2, base_features: 4 } }"));
    space.run(&["train[fold=0]"]).code(0);
    let weights = fs::read(space.path("results/training/train/fold=0/model/model.safetensors")).unwrap();
    space.write("first.safetensors", &weights);
    let from = |file: &str| {
        let given =
            format!("model: {{ unet3d: {{ levels: 2, base_features: 4 }} }}, pretrained: {{ file: {file} }}");
        space.write("pipeline.yaml", pipeline(&given));
        space.run(&["train[fold=1]"])
    };
    from("first.safetensors").code(0).says("running train[fold=1]");
    let taken = space.read("results/training/train/fold=1/log/pretrained.csv");
    assert!(
        taken.starts_with("parameter,shape,tensor,tensor_shape,fate\nencoder.0.conv0.weight,4x1x3x3x3,"),
        "{taken}"
    );
    assert!(taken.lines().skip(1).all(|line| line.ends_with(",taken")), "{taken}");
    // Where the file lies does not count, and the same path may hold another content.
    space.write("elsewhere/first.safetensors", &weights);
    from("elsewhere/first.safetensors").code(0).does_not_say("running");
    space.write("first.safetensors", &weights[..weights.len() - 4]);
    let report = from("first.safetensors");
    report.code(1).says("first.safetensors").says("of the data, of which the file holds");
    from("none.safetensors").code(2).says("none.safetensors");
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_reason_and_auto_goes_on() {
    let model = "model: { unet3d: { levels: 2, base_features: 4 } }";
    let space = TestSpace::new(&pipeline(&format!("{model}, device: cuda:7")));
    let report = space.run(&["train[fold=0]"]);
    report.code(1).says("`device: cuda:7` cannot be used: ").says("`device: auto` takes the processor then");
    space.write("pipeline.yaml", pipeline(&format!("{model}, device: gpu")));
    space.run(&[]).code(2).says("`gpu` is no device; write auto, cpu, cuda or cuda:1");
    space.write("pipeline.yaml", pipeline(&format!("{model}, device: auto")));
    space.run(&["train[fold=0]"]).code(0).says("the network trains on the processor: no CUDA: ");
}
