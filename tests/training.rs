//! A training that is killed again and again, of the whole program: it goes on from its checkpoint to the same bytes.

use crate::space::TestSpace;
use std::collections::BTreeMap;
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
