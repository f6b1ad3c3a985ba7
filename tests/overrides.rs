//! What the user asks of a run: targets, forced stages, dry runs, failures to go on after, params from elsewhere.

use crate::running::chain;
use crate::space::TestSpace;

const NOTHING: [&str; 0] = [];

/// `s[x=1]`, `s[x=2]`, `s[x=3]`, read by `all`.
const MATRIX: &str = r#"
stages:
  s:
    uses: command
    matrix: { x: { range: [1, 4] } }
    with: { run: 'echo "s[x=${matrix.x}]" >> $LOG; echo ${matrix.x} > out/o/f', outputs: [o], environment: [LOG] }
  all:
    uses: command
    in: { parts: "s[*]" }
    with: { run: 'echo all >> $LOG; cat in/parts/*/f > out/o/f', outputs: [o], environment: [LOG] }
"#;

#[test]
fn a_target_runs_with_all_that_it_needs_and_nothing_else() {
    let space = chain();
    space.write("data.txt", "three\n");
    space.write("other.txt", "three\n");
    space.run(&["scale"]).ran(&["clean", "scale"]);
    space.run(&["other"]).ran(&["other"]);
    space.run(&[]).ran(&["total"]);
}

#[test]
fn one_of_a_matrix_is_a_target_and_so_is_all_of_it() {
    let space = TestSpace::new(MATRIX);
    space.run(&["s[x=2]"]).ran(&["s[x=2]"]);
    assert_eq!(space.files("results/pipeline"), ["s/x=2/o/f"]);
    space.run(&["s"]).ran(&["s[x=1]", "s[x=3]"]);
    space.run(&["all"]).ran(&["all"]);
    assert_eq!(space.read("results/pipeline/all/o/f"), "1\n2\n3\n");
}

#[test]
fn a_longer_matrix_runs_what_was_added() {
    let space = TestSpace::new(MATRIX);
    space.run(&[]).ran(&["all", "s[x=1]", "s[x=2]", "s[x=3]"]);
    space.write("pipeline.yaml", MATRIX.replace("[1, 4]", "[1, 5]"));
    space.run(&[]).ran(&["all", "s[x=4]"]);
    space.write("pipeline.yaml", MATRIX.replace("{ range: [1, 4] }", "[3, 2, 1]"));
    space.run(&["s"]).ran(&[]);
}

#[test]
fn values_that_look_alike_as_file_names_keep_their_own_results() {
    let pipeline = r#"
stages:
  s:
    uses: command
    matrix: { x: ["a/b", "a b", "a_b"] }
    with: { run: 'echo "${matrix.x}" > out/o/f', outputs: [o] }
"#;
    let space = TestSpace::new(pipeline);
    space.run(&[]).code(0);
    let mut contents: Vec<_> =
        space.files("results").iter().map(|file| space.read(&format!("results/{file}"))).collect();
    contents.sort();
    assert_eq!(contents, ["a b\n", "a/b\n", "a_b\n"]);
}

#[test]
fn a_pipeline_whose_name_leads_out_of_the_results_folder_is_refused() {
    for name in ["../../escaped", "/escaped", "a/b", ".."] {
        let space = TestSpace::new("");
        let stages = "stages: { a: { uses: command, with: { run: 'touch out/o/f', outputs: [o] } } }";
        space.write("inner/pipeline.yaml", format!("name: '{name}'\n{stages}\n"));
        let report = space.pipe(&["-C", "inner", "check", "pipeline.yaml"]);
        report.code(2).says(&format!("`{name}`"));
    }
}

#[test]
fn an_unknown_target_is_a_user_error_with_a_suggestion() {
    let space = chain();
    space.run(&["scal"]).code(2).says("`scal` names no stage").says("did you mean `scale`?");
    space.run(&["s[x=9]"]).code(2).says("`s[x=9]` names no stage");
    space.run(&["--force", "nothing"]).code(2).says("`nothing` names no stage");
}

#[test]
fn a_forced_stage_runs_and_the_same_bytes_go_no_further() {
    let space = chain();
    space.run(&["--force", "clean"]).ran(&["clean"]).says("it was forced").says("same bytes as before");
    space.run(&[]).ran(&[]);
}

#[test]
fn a_forced_stage_that_makes_other_bytes_replaces_its_result() {
    let space = TestSpace::new(
        "stages:\n  a: { uses: command, with: { run: 'cat $DIR/secret > out/o/f', outputs: [o], environment: [DIR] } }\n\
         \x20 b: { uses: command, in: { a: a }, with: { run: 'cp in/a/f out/o/f', outputs: [o] } }\n",
    );
    space.write("secret", "1");
    space.run(&[]).code(0);
    // The program reads what it did not declare: only the user can know.
    space.write("secret", "2");
    space.run(&[]).code(0);
    assert_eq!(space.read("results/pipeline/b/o/f"), "1");
    space.run(&["--force", "a"]).code(0);
    assert_eq!(space.read("results/pipeline/b/o/f"), "2");
    space.run(&[]).code(0).says("nothing to do");
}

#[test]
fn a_dry_run_says_what_would_run_and_why_and_changes_nothing() {
    let space = chain();
    space.write("data.txt", "three\n");
    let report = space.run(&["--dry-run"]);
    report
        .ran(&[])
        .says("would run clean")
        .says("`data.txt` changed")
        .says("may run scale")
        .says("may run total");
    report.says("cached other").does_not_say("results are in");
    assert_eq!(space.read("results/chain/clean/text/lines"), "one\ntwo\n");
    space.run(&[]).ran(&["clean", "scale", "total"]);
}

#[test]
fn a_dry_run_of_nothing_known_leaves_no_results() {
    let space = TestSpace::new(MATRIX);
    space.run(&["-n"]).ran(&[]).says("would run s[x=1]").says("may run all");
    assert!(!space.exists("results"));
    assert_eq!(space.files(".pipe/runs"), NOTHING);
}

#[test]
fn status_and_list_and_why_change_nothing() {
    let space = chain();
    space.write("data.txt", "three\n");
    let status = space.pipe(&["status", "pipeline.yaml"]);
    status.ran(&[]).prints("stale   clean  ").prints("unsure  scale").prints("cached  other");
    space.pipe(&["why", "pipeline.yaml"]).ran(&[]);
    space.pipe(&["graph", "pipeline.yaml"]).ran(&[]);
    let status = space.pipe(&["status", "pipeline.yaml", "--json", "other"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(json, serde_json::json!([{ "stage": "other", "state": "cached", "reasons": [] }]));
    space.run(&[]).ran(&["clean", "scale", "total"]);
}

/// `bad` fails, `after` needs it, `apart` does not.
const FAILING: &str = r"
stages:
  bad: { uses: command, with: { run: 'echo bad >> $LOG; exit 1', outputs: [o], environment: [LOG] } }
  after: { uses: command, in: { bad: bad }, with: { run: 'touch out/o/f', outputs: [o] } }
  last: { uses: command, in: { after: after }, with: { run: 'touch out/o/f', outputs: [o] } }
  apart: { uses: command, with: { run: 'echo apart >> $LOG; touch out/o/f', outputs: [o], environment: [LOG] } }
";

#[test]
fn the_first_failure_stops_what_has_not_started() {
    let space = TestSpace::new(FAILING);
    // One at a time, and the stage that most hangs on goes first.
    let report = space.run(&["-j", "1"]);
    report.code(1).says("skipped after  `bad` failed").says("skipped apart").says("--keep-going");
    assert_eq!(report.ran, ["bad"]);
}

#[test]
fn keep_going_runs_what_does_not_need_the_failure() {
    let space = TestSpace::new(FAILING);
    let report = space.run(&["--keep-going"]);
    report.code(1).says("skipped after  `bad` failed").says("skipped last").says("done apart");
    report.says("1 ran, 0 cached, 1 FAILED, 2 skipped");
    assert_eq!(report.ran, ["apart", "bad"]);
    let report = space.run(&["-k"]);
    assert_eq!(report.ran, ["bad"], "{report}");
}

/// Prints the params into a file. Three places can set them.
const PARAMS: &str = r#"
params: { a: 1, b: 1, c: 1, d: 1, list: [1, 2] }
stages:
  show:
    uses: command
    with:
      run: echo ${a} ${b} ${c} ${d} > out/o/f; cat params.json >> out/o/f
      outputs: [o]
      params: { list: "${list}" }
"#;

#[test]
fn the_command_line_wins_over_files_and_files_over_the_environment() {
    let mut space = TestSpace::new(PARAMS);
    space.write("first.yaml", "b: file\nc: file\n");
    space.write("second.yaml", "c: second\nd: second\n");
    for name in ["a", "b", "c", "d"] {
        space.set_env(&format!("PIPE_PARAM_{name}"), "env");
    }
    space
        .run(&["--params", "first.yaml", "--params", "second.yaml", "--set", "d=x", "--set", "d=set"])
        .code(0);
    let shown = space.read("results/pipeline/show/o/f");
    assert!(shown.starts_with("env file second set\n"), "{shown}");
}

#[test]
fn a_value_on_the_command_line_is_yaml() {
    let space = TestSpace::new(PARAMS);
    space.run(&["--set", "list=[3, {x: four}]", "--set", "b=${a}5"]).code(0);
    let shown = space.read("results/pipeline/show/o/f");
    let (line, json) = shown.split_once('\n').unwrap();
    assert_eq!(line, "1 15 1 1");
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["list"], serde_json::json!([3, { "x": "four" }]));
}

#[test]
fn an_override_that_sets_nothing_is_an_error() {
    let mut space = TestSpace::new(PARAMS);
    space.run(&["--set", "lst=1"]).code(2).says("--set lst=… sets no param").says("did you mean `list`?");
    space.run(&["--set", "a"]).code(2).says("NAME=VALUE");
    space.write("more.yaml", "zebra: 1\n");
    space.run(&["--params", "more.yaml"]).code(2).says("`zebra` in `more.yaml` sets no param");
    space.run(&["--params", "none.yaml"]).code(2).says("cannot read `none.yaml`");
    space.write("more.yaml", "[1]\n");
    space.run(&["--params", "more.yaml"]).code(2).says("`more.yaml` must be a mapping");
    space.run(&["--set", "a=[1"]).code(2).says("not YAML");
    space.set_env("PIPE_PARAM_zebra", "1");
    space.run(&[]).code(2).says("environment variable `PIPE_PARAM_zebra` sets no param");
}

#[test]
fn a_run_keeps_its_message_command_and_outcome() {
    let space = TestSpace::new(FAILING);
    space.run(&["-k", "-m", "first try"]).code(1);
    let list = space.pipe(&["list", "--json"]);
    let runs: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let run = &runs[0];
    assert_eq!(run["message"], "first try");
    assert_eq!(run["command"][1], "run");
    let outcomes: Vec<_> = run["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (stage["name"].as_str().unwrap(), stage["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(outcomes, [("bad", "failed"), ("after", "skipped"), ("last", "skipped"), ("apart", "ran")]);
    space.pipe(&["list"]).code(0).prints("1 ran, 1 failed, 2 skipped").prints("first try");
}
