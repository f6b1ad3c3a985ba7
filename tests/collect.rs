//! `pipe gc` and `pipe cache`: what is kept, what goes, and what the next run makes of it.

use crate::running::{CHAIN, chain};
use crate::space::TestSpace;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Deletes at once, and keeps what the last run and `results/` name.
const NOW: [&str; 6] = ["gc", "--yes", "--grace", "0s", "--keep-runs", "1"];

fn json(space: &TestSpace, arguments: &[&str]) -> Value {
    let report = space.pipe(arguments);
    serde_json::from_str(&report.code(0).stdout).unwrap()
}

/// [`chain`] after a second run with another param.
fn changed() -> TestSpace {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&[]).ran(&["scale", "total"]);
    space
}

#[test]
fn without_yes_nothing_goes_and_the_reasons_are_told() {
    let space = changed();
    let before = space.files(".pipe");
    let report = space.pipe(&["gc", "--grace", "0s", "--keep-runs", "1"]);
    report
        .code(0)
        .prints("kept\n")
        .prints("named by one of the last runs or a tagged one")
        .prints("would go\n");
    report.prints("nothing that is kept needs it").says("nothing was removed, `pipe gc --yes` does it");
    assert_eq!(space.files(".pipe"), before);
    // The same by its other name, and in the default grace time nothing is old enough.
    let other = space.pipe(&["cache", "gc", "--grace", "0s", "--keep-runs", "1"]);
    assert_eq!(other.code(0).stdout, report.stdout);
    space.pipe(&["gc"]).code(0).says("nothing to collect");
}

#[test]
fn an_earlier_result_goes_and_the_last_one_stays() {
    let space = changed();
    space.pipe(&NOW).code(0).prints("removed\n");
    space.run(&[]).ran(&[]);
    space.pipe(&["cache", "verify"]).code(0).prints("all whole");
    space.write("pipeline.yaml", CHAIN);
    space.run(&[]).ran(&["scale", "total"]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
}

#[test]
fn an_earlier_result_comes_back_from_quarantine_without_running() {
    let space = changed();
    // Moved, as the grace time is over, but not yet there for as long.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    space.pipe(&["gc", "--yes", "--grace", "1s", "--keep-runs", "1"]).code(0).prints("removed\n");
    assert!(!space.files(".pipe/quarantine").is_empty());
    space.write("pipeline.yaml", CHAIN);
    space.run(&[]).ran(&[]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
    space.pipe(&["cache", "verify"]).code(0).prints("all whole");
}

#[test]
fn a_lock_file_that_cannot_be_read_stops_the_collection() {
    let space = changed();
    space.write("pipeline.lock", "<<<<<<< HEAD\n");
    let before = space.files(".pipe/objects-v1");
    space.pipe(&NOW).code(2).says("is a merge conflict").says("`pipe lock` computes it again");
    assert_eq!(space.files(".pipe/objects-v1"), before);
}

#[test]
fn results_of_a_pipeline_that_was_not_run_lately_are_kept_with_their_folder() {
    let space = chain();
    space.write(
        "other.yaml",
        "stages: { a: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } } }\n",
    );
    space.pipe(&["run", "other.yaml"]).code(0);
    space.pipe(&["gc", "--yes", "--grace", "0s", "--keep-runs", "0"]).code(0);
    space.run(&[]).ran(&[]);
    // Its lock file names them too.
    fs::remove_dir_all(space.path("results/chain")).unwrap();
    let report = space.pipe(&["gc", "--yes", "--grace", "0s", "--keep-runs", "0"]);
    report.code(0).prints("the folder is gone").prints("named by a lock file");
    space.run(&[]).ran(&[]);
    fs::remove_dir_all(space.path("results/chain")).unwrap();
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    space.pipe(&["gc", "--yes", "--grace", "0s", "--keep-runs", "0"]).code(0);
    space.run(&[]).ran(&["clean", "other", "scale", "total"]);
    space.pipe(&["run", "other.yaml"]).code(0).says("nothing to do");
}

#[test]
fn a_run_under_way_loses_nothing_to_a_collection() {
    let space = TestSpace::new(
        r#"
stages:
  first: { uses: command, with: { run: 'echo first >> "$LOG"; seq 1 40000 > out/o/f', outputs: [o], environment: [LOG] } }
  slow:
    uses: command
    in: { first: first }
    with:
      run: |
        . ./wait.sh
        touch "$DIR/started"
        wait_for go
        cat in/first/f > out/o/f
      outputs: [o]
      files: [wait.sh]
      environment: [DIR]
  last: { uses: command, in: { first: first, slow: slow }, with: { run: 'cmp in/first/f in/slow/f && touch out/o/f', outputs: [o] } }
"#,
    );
    let running = space.start(&[]);
    space.wait_for("started");
    for _ in 0..2 {
        space.pipe(&["gc", "--yes", "--grace", "0s", "--keep-runs", "0"]).code(0);
    }
    space.write("go", "");
    running.finish().code(0).says("3 ran");
    space.run(&[]).ran(&[]).says("3 stages up to date");
}

#[test]
fn damage_is_told_with_its_stage_and_the_next_run_repairs_it() {
    let space = chain();
    let objects = space.files(".pipe/objects-v1");
    let object = objects.iter().map(|file| space.path(".pipe/objects-v1").join(file));
    let object = object.into_iter().find(|file| fs::read(file).unwrap() == b"one x1\ntwo x1\n").unwrap();
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, "one x1\ntwo x9\n").unwrap();
    let report = space.pipe(&["cache", "verify"]);
    report.code(1).prints("damaged object ").prints("needed by chain: scale; the next run makes it again");
    space.pipe(&["cache", "verify"]).code(0).prints("all whole");
    space.run(&[]).ran(&["scale"]);
    assert_eq!(space.read("results/chain/scale/scaled/lines"), "one x1\ntwo x1\n");
    let found = json(&space, &["cache", "verify", "--json"]);
    assert_eq!((&found["results"], &found["damage"]), (&4.into(), &Value::Array(Vec::new())));
}

#[test]
fn the_size_of_each_stage_is_told() {
    let space = chain();
    space.pipe(&["cache", "size"]).code(0).prints("chain\n").prints("    scale\n").prints("in all\n");
    let usage = json(&space, &["cache", "size", "--json"]);
    let stages = usage["stages"].as_array().unwrap();
    let other = stages.iter().find(|stage| stage["stage"] == "other").unwrap();
    assert_eq!((&other["pipeline"], &other["logical"]), (&"chain".into(), &5.into()));
}

#[test]
fn where_there_is_no_cache_that_is_said_and_none_is_made() {
    let space = TestSpace::new("");
    for arguments in [["gc", "--yes"], ["cache", "verify"], ["cache", "size"]] {
        space.pipe(&arguments).code(2).says("there is no cache in").says("help: ");
    }
    assert!(!space.exists(".pipe"));
}

#[test]
fn a_grace_time_without_a_unit_is_refused() {
    let space = chain();
    space.pipe(&["gc", "--grace", "24"]).code(2).says("write a number and s, m, h or d, e.g. 24h");
}
