//! Stages and processes side by side. Proved by files that wait for each other, never by time.

use crate::space::TestSpace;

fn waiting(script: &str) -> String {
    let body = script.replace('\n', "\n        ");
    format!(
        "    uses: command\n    with:\n      outputs: [o]\n      files: [wait.sh]\n      environment: [LOG, DIR]\n      \
         run: |\n        . ./wait.sh\n        {body}\n"
    )
}

#[test]
fn stages_that_need_nothing_of_each_other_run_at_the_same_time() {
    let left = waiting("touch $DIR/left; wait_for right; touch out/o/f");
    let right = waiting("touch $DIR/right; wait_for left; touch out/o/f");
    let space = TestSpace::new(&format!("stages:\n  left:\n{left}  right:\n{right}"));
    space.run(&["-j", "2"]).code(0).says("done left").says("done right");
}

/// Three stages that fail when they meet.
fn jealous(resources: &str) -> TestSpace {
    let script = waiting("mkdir $DIR/alone || exit 1; sleep 0.1; rmdir $DIR/alone; touch out/o/f");
    let stage =
        |name: &str| format!("  {name}:\n    description: {name}\n    resources: {resources}\n{script}");
    let different = |name: &str| stage(name).replace("touch out", &format!("echo {name}; touch out"));
    TestSpace::new(&format!("stages:\n{}{}{}", different("a"), different("b"), different("c")))
}

#[test]
fn with_one_thread_stages_run_one_by_one() {
    jealous("{}").run(&["-j", "1"]).code(0).says("3 ran");
}

#[test]
fn stages_never_take_more_cpus_than_there_are() {
    jealous("{ cpu: 2 }").run(&["-j", "3"]).code(0).says("3 ran");
    // More than there are at all: it runs, alone.
    jealous("{ cpu: 64 }").run(&["-j", "2"]).code(0).says("3 ran");
}

#[test]
fn a_memory_request_above_the_machine_is_no_deadlock() {
    let report =
        jealous("{ cpu: 1, memory: 900T, gpu: 9 }").run(&["-j", "1", "--gpus", "2", "--memory", "8G"]);
    report
        .code(0)
        .says("3 ran")
        .says("it asks for 921600.0 GiB of memory, there are 8.0, and for 9 GPUs, there are 2");
}

#[test]
fn stages_never_take_more_memory_or_gpus_than_there_are() {
    let few = ["-j", "3", "--memory", "3G", "--gpus", "1"];
    jealous("{ memory: 2G }").run(&few).code(0).says("3 ran").does_not_say("it asks for");
    jealous("{ gpu: 1 }").run(&few).code(0).says("3 ran");
}

#[test]
fn stages_that_ask_for_gpus_get_different_ones_and_others_none() {
    let look = |name: &str, other: &str| {
        let script = format!("touch $DIR/{name}; wait_for {other}; echo gpu $CUDA_VISIBLE_DEVICES > out/o/f");
        format!("  {name}:\n    resources: {{ gpu: 1 }}\n{}", waiting(&script))
    };
    let none = look("none", "left").replace("    resources: { gpu: 1 }\n", "");
    let space = TestSpace::new(&format!("stages:\n{}{}{none}", look("left", "right"), look("right", "left")));
    space.run(&["-j", "3", "--gpus", "2"]).code(0);
    let seen = |name: &str| space.read(&format!("results/pipeline/{name}/o/f"));
    let mut both = [seen("left"), seen("right")];
    both.sort();
    assert_eq!((both, seen("none")), (["gpu 0\n".to_owned(), "gpu 1\n".to_owned()], "gpu\n".to_owned()));
    // Another GPU is no other result.
    space.run(&["--gpus", "1"]).code(0).says("nothing to do");
}

#[test]
fn two_processes_do_each_stage_once() {
    let slow = waiting("echo slow >> $LOG; touch $DIR/started; wait_for go; echo slow > out/o/f");
    let next = "    uses: command\n    in: { slow: slow }\n    with: { run: 'echo next >> $LOG; cp in/slow/f out/o/f', \
                outputs: [o], environment: [LOG] }\n";
    let space = TestSpace::new(&format!("stages:\n  slow:\n{slow}  next:\n{next}"));
    let first = space.start(&[]);
    space.wait_for("started");
    let second = space.start(&[]);
    // From here on the second can do nothing but wait for the first.
    second.wait_until_it_says("running slow");
    space.write("go", "");
    let (first, second) = (first.finish(), second.finish());
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{first}\n{second}");
    let mut ran = [first.ran, second.ran].concat();
    ran.sort();
    assert_eq!(ran, ["next", "slow"]);
    assert_eq!(space.read("results/pipeline/next/o/f"), "slow\n");
    space.run(&[]).ran(&[]);
}

#[test]
fn two_processes_with_different_pipelines_share_a_cache_without_waiting() {
    let held = waiting("touch $DIR/started; wait_for go; touch out/o/f");
    let space = TestSpace::new(&format!("stages:\n  held:\n{held}"));
    space.write(
        "free.yaml",
        "stages: { free: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } } }\n",
    );
    let first = space.start(&[]);
    space.wait_for("started");
    space.pipe(&["run", "free.yaml"]).code(0);
    space.write("go", "");
    first.finish().code(0);
}

#[test]
fn one_stage_twice_in_a_pipeline_runs_once() {
    let stage = "{ uses: command, with: { run: 'echo twin >> $LOG; touch out/o/f', outputs: [o], environment: [LOG] } }";
    let space = TestSpace::new(&format!("stages:\n  one: {stage}\n  two: {stage}\n"));
    space.run(&["-j", "2"]).ran(&["twin"]);
    assert_eq!(space.files("results/pipeline"), ["one/o/f", "two/o/f"]);
}

#[test]
fn a_loud_program_does_not_block() {
    let space = TestSpace::new(
        "stages: { loud: { uses: command, with: { run: 'seq 1 50000 >&2; seq 1 50000; touch out/o/f', outputs: [o] } } }\n",
    );
    space.run(&[]).code(0).says("note loud  50000");
}

#[test]
fn a_program_that_leaves_another_behind_does_not_hold_up_the_run() {
    let script = waiting("(wait_for never) & echo $! > $DIR/left; touch out/o/f");
    let space = TestSpace::new(&format!("stages:\n  leaves:\n{script}"));
    let report = space.start(&[]).finish();
    let left = space.read("left");
    let _ = std::process::Command::new("kill").arg(left.trim()).status();
    report.code(0);
}

#[test]
fn a_run_that_waits_for_another_process_says_for_which() {
    let space = TestSpace::new(&format!(
        "stages:\n  slow:\n{}",
        waiting("echo slow >> $LOG; touch $DIR/started; wait_for go; touch out/o/f")
    ));
    let first = space.start(&[]);
    space.wait_for("started");
    let second = space.start(&[]);
    second.wait_until_it_says(&format!("waits for process {}, which makes the same result", first.id()));
    space.write("go", "");
    second.finish().code(0);
    // Its report took the log of both.
    first.finish().code(0);
}
