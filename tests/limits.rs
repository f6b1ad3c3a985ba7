//! `retries` and `timeout`: what is tried again, when, and what is told of it. No test depends on how long work takes.

use crate::space::TestSpace;
use std::path::Path;

/// Fails as often as `$DIR/tries` is shorter than `good` lines, then makes its output.
fn flaky(good: usize, limits: &str) -> TestSpace {
    let space = TestSpace::new(&format!(
        "stages:\n  flaky:\n    uses: command\n    {limits}\n    with:\n      outputs: [o]\n      \
         environment: [LOG, DIR]\n      run: |\n        echo flaky >> $LOG; echo x >> $DIR/tries\n        \
         [ $(wc -l < $DIR/tries) -ge {good} ] || {{ echo no luck >&2; exit 3; }}\n        touch out/o/f\n  \
         next: {{ uses: command, in: {{ o: flaky }}, with: {{ run: 'echo next >> $LOG; touch out/o/f', \
         outputs: [o], environment: [LOG] }} }}\n"
    ));
    space.write("tries", "");
    space
}

#[test]
fn a_stage_that_fails_is_tried_again_and_what_needs_it_runs() {
    let space = flaky(3, "retries: { times: 2, wait: 0s }");
    let report = space.run(&[]);
    report.ran(&["flaky", "flaky", "flaky", "next"]).says("2 ran").does_not_say("FAILED");
    report.says("retry flaky  try 1 of 3 failed").says("retry flaky  try 2 of 3 failed").says("no luck");
}

#[test]
fn tries_are_counted_and_the_last_failure_is_the_error() {
    let space = flaky(9, "retries: { times: 2, wait: 0s }");
    let report = space.run(&[]);
    report.code(1).says("FAILED flaky").says("1 FAILED, 1 skipped");
    assert_eq!(report.ran, ["flaky"; 3]);
    // A later run may try as often again.
    assert_eq!(space.run(&[]).code(1).ran, ["flaky"; 3]);
}

#[test]
fn the_reason_of_every_failed_try_is_in_the_log_and_in_the_record() {
    let space = flaky(3, "retries: { times: 2, wait: 0s }");
    space.run(&[]).code(0);
    let log = space.pipe(&["log", "flaky"]);
    log.code(0).prints("try 1 of 3: the program ended with exit status: 3").prints("try 2 of 3: ");
    assert_eq!(log.stdout.matches("no luck").count(), 2, "{log}");
    space.pipe(&["log", "latest"]).code(0).prints("after 2 tries that failed");
    let record = space.pipe(&["log", "latest", "--json"]);
    assert_eq!(record.code(0).stdout.matches("\"error\": \"the program ended").count(), 2, "{record}");
}

#[test]
fn retries_and_timeout_are_no_part_of_the_key() {
    let space = flaky(1, "retries: 0");
    space.run(&[]).ran(&["flaky", "next"]);
    let text = space.read("pipeline.yaml");
    space.write("pipeline.yaml", text.replace("retries: 0", "retries: 7\n    timeout: 1d"));
    space.run(&[]).ran(&[]);
}

#[test]
fn an_interrupt_is_not_tried_again_and_ends_a_pause() {
    let space = flaky(9, "retries: { times: 5, wait: 1h }");
    let running = space.start(&[]);
    running.wait_until_it_says("the next is in");
    running.signal("INT");
    let report = running.finish();
    report.code(130).says("not tried again: the run was interrupted").says("skipped next");
    assert_eq!(report.ran, ["flaky"]);
}

#[test]
fn another_failure_ends_a_pause() {
    let space = flaky(9, "retries: { times: 5, wait: 1h }");
    let text = space.read("pipeline.yaml");
    let bad = "  bad: { uses: command, with: { outputs: [o], files: [wait.sh], environment: [DIR], run: '. ./wait.sh; \
               wait_for go; exit 1' } }\n";
    space.write("pipeline.yaml", text + bad);
    let running = space.start(&["-j", "2"]);
    running.wait_until_it_says("the next is in");
    space.write("go", "");
    running.finish().code(1).says("not tried again: `bad` failed").says("2 FAILED");
}

/// Runs until it is told to stop, then makes sure that it was told politely.
const ENDLESS: &str = r"
stages:
  endless:
    uses: command
    timeout: 1s
    with:
      outputs: [o]
      environment: [LOG, DIR]
      run: |
        echo endless >> $LOG; echo $$ > $DIR/pid
        trap 'echo tidied > $DIR/tidied; exit 0' TERM
        sleep 300 & wait
  other: { uses: command, with: { run: 'echo other >> $LOG; touch out/o/f', outputs: [o], environment: [LOG] } }
";

#[test]
fn a_stage_past_its_timeout_is_stopped_alone_and_may_tidy_up() {
    let space = TestSpace::new(ENDLESS);
    let report = space.run(&["-k", "-j", "1"]);
    report.code(1).says("FAILED endless").says("stopped at its timeout of 1s").says("done other");
    report.does_not_say("interrupted");
    assert_eq!(report.ran, ["endless", "other"]);
    assert_eq!(space.read("tidied"), "tidied\n");
    assert!(!Path::new(&format!("/proc/{}", space.read("pid").trim())).exists());
    space.pipe(&["list"]).code(0).prints("1 failed");
}

#[test]
fn every_try_has_the_whole_timeout() {
    let space =
        TestSpace::new(&ENDLESS.replace("timeout: 1s", "timeout: 1s\n    retries: { times: 1, wait: 0s }"));
    let report = space.run(&["-k"]);
    report.code(1).says("try 1 of 2 failed").says("stopped at its timeout of 1s");
    assert_eq!(report.ran, ["endless", "endless", "other"]);
}

#[test]
fn a_program_that_ignores_the_first_interrupt_is_ended_by_the_second() {
    let space = TestSpace::new(
        "stages: { deaf: { uses: command, with: { outputs: [o], environment: [DIR], run: \"trap '' TERM; \
         echo $$ > $DIR/pid; touch $DIR/started; while :; do sleep 0.05; done\" } } }\n",
    );
    let running = space.start(&[]);
    space.wait_for("started");
    running.signal("INT");
    // Two signals of one kind are one signal while the first was not taken.
    std::thread::sleep(std::time::Duration::from_millis(200));
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
    let state =
        std::fs::read_to_string(format!("/proc/{}/stat", space.read("pid").trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the program outlived the run: {state}");
}

#[test]
fn a_program_that_ignores_its_timeout_is_killed_after_the_grace_time() {
    let space = TestSpace::new(
        "stages: { deaf: { uses: command, timeout: 1s, with: { outputs: [o], environment: [DIR], run: \"trap '' TERM; \
         echo $$ > $DIR/pid; while :; do sleep 0.05; done\" } } }\n",
    );
    space.run(&[]).code(1).says("stopped at its timeout of 1s");
    let state =
        std::fs::read_to_string(format!("/proc/{}/stat", space.read("pid").trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the program outlived its stage: {state}");
}

/// Four stages, each of which fails if another has its GPU.
const ON_GPUS: &str = r#"
stages:
  on:
    uses: command
    matrix: { n: [1, 2, 3, 4] }
    resources: { gpu: 1 }
    with:
      outputs: [o]
      environment: [DIR]
      params: { n: "${matrix.n}" }
      run: |
        mkdir "$DIR/gpu$CUDA_VISIBLE_DEVICES" || { echo "GPU $CUDA_VISIBLE_DEVICES is taken" >&2; exit 1; }
        echo "$CUDA_VISIBLE_DEVICES" > out/o/gpu
        sleep 0.2
        rmdir "$DIR/gpu$CUDA_VISIBLE_DEVICES"
"#;

#[test]
fn no_two_stages_have_the_same_gpu_at_once() {
    let space = TestSpace::new(ON_GPUS);
    space.run(&["-j", "4", "--gpus", "2"]).code(0);
    let used = (1..=4).map(|n| space.read(&format!("results/pipeline/on/n={n}/o/gpu")));
    let used: std::collections::BTreeSet<String> = used.collect();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["0\n", "1\n"]);
}

#[test]
fn a_stage_that_asks_for_more_gpus_than_there_are_is_told_so() {
    let space = TestSpace::new(&ON_GPUS.replace("gpu: 1", "gpu: 3").replace("1, 2, 3, 4", "1"));
    space.run(&["--gpus", "2"]).code(0).says("3 GPUs, there are 2");
}
