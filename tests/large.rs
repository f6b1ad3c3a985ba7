//! A pipeline of many stages of which little changes: only that part of the plan is read, and nobody notices.

use crate::space::TestSpace;
use std::fs;

/// Stages a layer; each reads two of the layer before.
const WIDTH: usize = 40;
const LAYERS: usize = 4;

fn pipeline() -> String {
    let mut text = "stages:\n".to_owned();
    for stage in 0..WIDTH * LAYERS {
        let (layer, at) = (stage / WIDTH, stage % WIDTH);
        let next = (at + 1) % WIDTH;
        text += &if layer == 0 {
            format!(
                "  s0_{at}: {{ uses: command, with: {{ run: 'cat src/{at} > out/o/f', files: [src/{at}], outputs: [o] }} }}\n"
            )
        } else {
            let above = layer - 1;
            format!(
                "  s{layer}_{at}: {{ uses: command, in: {{ a: s{above}_{at}, b: s{above}_{next} }}, with: {{ run: 'cat in/a/f in/b/f > out/o/f', outputs: [o] }} }}\n"
            )
        };
    }
    text
}

fn large() -> TestSpace {
    let space = TestSpace::new(&pipeline());
    for at in 0..WIDTH {
        space.write(&format!("src/{at}"), format!("{at}\n"));
    }
    space.run(&["--quiet"]).code(0);
    space.run(&["--quiet"]).says("nothing to do");
    space
}

/// What a stage must hold, from the sources as they are.
fn expected(space: &TestSpace, layer: usize, at: usize) -> String {
    if layer == 0 {
        return space.read(&format!("src/{at}"));
    }
    expected(space, layer - 1, at) + &expected(space, layer - 1, (at + 1) % WIDTH)
}

#[track_caller]
fn check_results(space: &TestSpace) {
    for layer in 0..LAYERS {
        for at in 0..WIDTH {
            let result = space.read(&format!("results/pipeline/s{layer}_{at}/o/f"));
            assert_eq!(result, expected(space, layer, at), "s{layer}_{at}");
        }
    }
    // The lock file is what a run that knows nothing would write.
    let lock = space.read("pipeline.lock");
    fs::remove_dir_all(space.path(".pipe/state-v1")).unwrap();
    space.run(&["--quiet"]).says("nothing to do");
    assert_eq!(space.read("pipeline.lock"), lock);
}

#[test]
fn a_change_runs_what_hangs_on_it_and_counts_the_rest() {
    let space = large();
    space.write("src/7", "seven\n");
    // One of the first layer, then two, three and four that read it.
    space.run(&[]).code(0).says("pipeline: 10 ran, 150 cached");
    space.run(&[]).says("nothing to do, 160 stages up to date");
    space.pipe(&["history", "-n", "1"]).prints("10 ran, 150 cached");
    // Each stage is told of, also those that the record of the run leaves to the one before.
    let diff = space.pipe(&["diff", "latest~1", "latest"]);
    assert!(diff.stdout.contains("s0_7") && !diff.stdout.contains("s0_8"), "{diff}");
    check_results(&space);
}

#[test]
fn many_small_changes_in_a_row_leave_a_small_state() {
    let space = large();
    let state = || {
        let files = space.files(".pipe/state-v1");
        files
            .iter()
            .map(|file| space.path(".pipe/state-v1").join(file).metadata().unwrap().len())
            .sum::<u64>()
    };
    let before = state();
    for round in 0..60 {
        space.write(&format!("src/{}", round % WIDTH), format!("{round} again\n"));
        space.run(&["--quiet"]).says("10 ran, 150 cached");
    }
    space.run(&[]).says("nothing to do");
    assert!(state() < 3 * before, "{} bytes, then {}", before, state());
    // More than fifty records: not each is read to know the last.
    let whole = |text: String| !text.contains("\"unchanged\"");
    let runs = space.files(".pipe/runs");
    assert!(runs.iter().filter(|run| whole(space.read(&format!(".pipe/runs/{run}")))).count() >= 2);
    space.pipe(&["history", "-n", "1"]).prints("10 ran, 150 cached");
    check_results(&space);
}

#[test]
fn what_a_changed_stage_reads_is_made_again_when_the_cache_lost_it() {
    let space = large();
    let trees = |space: &TestSpace| space.files(".pipe/objects-v1");
    assert!(!trees(&space).is_empty());
    // Every object, so that also stages far from the change must run again.
    fs::remove_dir_all(space.path(".pipe/objects-v1")).unwrap();
    fs::create_dir(space.path(".pipe/objects-v1")).unwrap();
    space.write("src/7", "seven\n");
    space.run(&["--quiet"]).code(0);
    check_results(&space);
}

#[test]
fn a_failure_among_many_leaves_the_rest_to_the_next_run() {
    let space = large();
    // What hangs on the one is made and kept, though the other fails; the lock file tells of both once all is well.
    space.write("src/20", "twenty\n");
    fs::remove_file(space.path("src/9")).unwrap();
    space.run(&["--keep-going"]).code(1);
    space.write("src/9", "nine\n");
    space.run(&["--quiet"]).code(0);
    check_results(&space);
}

#[test]
fn a_placed_result_that_was_removed_is_restored_alone() {
    let space = large();
    fs::remove_file(space.path("results/pipeline/s3_5/o/f")).unwrap();
    space.run(&[]).says("nothing to do, 160 stages up to date");
    check_results(&space);
}
