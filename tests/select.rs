//! Which stages a run brings up to date, and when it runs again.

use crate::running::{CHAIN, chain};
use crate::space::TestSpace;

fn fresh() -> TestSpace {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "# two words\none\ntwo\n");
    space.write("other.txt", "other");
    space
}

#[track_caller]
fn check(arguments: &[&str], expected: &[&str]) {
    fresh().run(arguments).ran(expected);
}

#[test]
fn until_leaves_out_what_needs_a_stage() {
    check(&["--until", "scale"], &["clean", "other", "scale"]);
    check(&["--until", "clean"], &["clean", "other"]);
    check(&["--until", "clean", "--until", "other"], &["clean", "other"]);
    check(&["--until", "total"], &["clean", "other", "scale", "total"]);
    check(&["total", "--until", "scale"], &["clean", "scale"]);
}

#[test]
fn downstream_of_takes_what_needs_a_stage_and_all_that_this_needs() {
    check(&["--downstream-of", "scale"], &["clean", "scale", "total"]);
    check(&["--downstream-of", "other"], &["other"]);
    check(&["other", "--downstream-of", "total"], &["clean", "other", "scale", "total"]);
    check(&["--downstream-of", "clean", "--until", "scale"], &["clean", "scale"]);
}

#[test]
fn a_stage_that_is_not_there_is_a_user_error() {
    for option in ["--until", "--downstream-of"] {
        fresh().run(&[option, "scala"]).code(2).says("`scala` names no stage").says("did you mean `scale`?");
    }
}

#[test]
fn each_selection_is_up_to_date_by_itself() {
    let space = fresh();
    space.run(&["--until", "clean"]).ran(&["clean", "other"]);
    space.run(&["--until", "scale"]).ran(&["scale"]);
    space.run(&["--until", "clean"]).ran(&[]).says("nothing to do, 2 stages");
    space.run(&[]).ran(&["total"]);
}

#[test]
fn after_a_failure_nothing_further_starts_and_what_is_done_is_kept() {
    let slow = "  slow: { uses: command, with: { outputs: [o], files: [wait.sh], environment: [LOG, DIR], run: 'echo slow \
                >> $LOG; touch $DIR/started; . ./wait.sh; wait_for go; touch out/o/f' } }\n";
    let bad = "  bad: { uses: command, with: { outputs: [o], files: [wait.sh], environment: [LOG, DIR], run: 'echo bad >> \
               $LOG; . ./wait.sh; wait_for started; exit 1' } }\n";
    let next = |name: &str, source: &str| {
        format!(
            "  {name}: {{ uses: command, in: {{ o: {source} }}, with: {{ outputs: [o], environment: [LOG], run: 'echo {name} \
             >> $LOG; touch out/o/f' }} }}\n"
        )
    };
    let pipeline = format!("stages:\n{slow}{bad}{}{}", next("after_slow", "slow"), next("after_bad", "bad"));
    let space = TestSpace::new(&pipeline);
    let running = space.start(&["-j", "2"]);
    running.wait_until_it_says("FAILED bad");
    space.write("go", "");
    let report = running.finish();
    report.code(1).says("done slow").says("skipped after_slow  `bad` failed").says("skipped after_bad");
    assert_eq!(report.ran, ["bad", "slow"], "{report}");
    space.write("pipeline.yaml", pipeline.replace("exit 1", "touch out/o/f"));
    space.run(&[]).ran(&["after_bad", "after_slow", "bad"]);
}

#[test]
fn a_watched_pipeline_runs_again_when_what_it_reads_changes() {
    let space = chain();
    let running = space.start(&["--watch", "--every", "20"]);
    running.wait_until_it_says("waiting for a change");
    space.write("unrelated.txt", "");
    space.write("data.txt", "three\n");
    running.wait_until_it_says("data.txt changed; running again");
    running.wait_until_it_says("3 ran, 1 cached");
    space.write("pipeline.yaml", CHAIN.replace("uses: command", "uses: comand"));
    running.wait_until_it_says("unknown kind `comand`");
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    running.wait_until_it_says("2 ran, 2 cached");
    std::fs::remove_file(space.path("other.txt")).unwrap();
    running.wait_until_it_says("other.txt removed; running again");
    running.wait_until_it_says("`other.txt`: `files` of `other`");
    space.write("other.txt", "back");
    running.wait_until_it_says("other.txt added; running again");
    running.wait_until_it_says("1 ran, 3 cached");
    running.signal("INT");
    let report = running.finish();
    report.code(0).does_not_say("unrelated");
    assert_eq!(space.read("results/chain/total/count/all"), "three x2\n1\n");
    assert_eq!(space.read("results/chain/other/copy/file"), "back");
}

#[test]
fn a_change_while_a_watched_pipeline_runs_makes_it_run_again() {
    let space = TestSpace::new(
        "stages: { slow: { uses: command, with: { outputs: [o], files: [data.txt, wait.sh], environment: [DIR], run: \
         'touch $DIR/started; . ./wait.sh; wait_for go; cp data.txt out/o/f' } } }\n",
    );
    space.write("data.txt", "old");
    let running = space.start(&["--watch", "--every", "20"]);
    space.wait_for("started");
    space.write("data.txt", "new");
    space.write("go", "");
    running.wait_until_it_says("data.txt changed; running again");
    running.wait_until_it_says("1 ran, 0 cached in");
    let placed =
        || std::fs::read_to_string(space.path("results/pipeline/slow/o/f")).is_ok_and(|text| text == "new");
    crate::space::wait_until(placed, || "the change was not run".to_owned());
    running.signal("INT");
    running.finish();
}
