//! What runs and what does not, after each kind of change.

use crate::space::TestSpace;
use std::fs::File;
use std::time::{Duration, SystemTime};

/// `clean` → `scale` → `total`, and `other` by itself. `clean` drops comments, `total` counts lines.
pub(crate) const CHAIN: &str = r#"
name: chain
params: { step: 1 }
stages:
  clean:
    uses: command
    with:
      run: echo clean >> "$LOG"; grep -v '^#' data.txt > out/text/lines
      outputs: [text]
      files: [data.txt]
      environment: [LOG]
  scale:
    uses: command
    in: { text: clean }
    with:
      run: |
        echo scale >> "$LOG"
        step=$(tr -dc 0-9 < "$PIPE_PARAMS")
        sed "s/$/ x$step/" in/text/lines > out/scaled/lines
      outputs: [scaled]
      params: { step: "${step}" }
      environment: [LOG]
  total:
    uses: command
    in: { scaled: scale }
    with:
      run: echo total >> "$LOG"; cat in/scaled/lines > out/count/all; wc -l < in/scaled/lines >> out/count/all
      outputs: [count]
      environment: [LOG]
  other:
    uses: command
    with:
      run: echo other >> "$LOG"; cp other.txt out/copy/file
      outputs: [copy]
      files: [other.txt]
      environment: [LOG]
"#;

const EVERYTHING: [&str; 4] = ["clean", "other", "scale", "total"];

/// [`CHAIN`] with its inputs, after a first run.
pub(crate) fn chain() -> TestSpace {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "# two words\none\ntwo\n");
    space.write("other.txt", "other");
    space.run(&[]).ran(&EVERYTHING);
    space
}

#[test]
fn a_first_run_runs_everything_and_shows_the_results() {
    let space = chain();
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
    assert_eq!(space.read("results/chain/other/copy/file"), "other");
}

#[test]
fn a_second_run_runs_nothing() {
    let space = chain();
    space.run(&[]).ran(&[]).says("nothing to do, 4 stages up to date");
    space.run(&[]).ran(&[]);
}

#[test]
fn a_run_with_nothing_to_do_leaves_no_record_and_no_files() {
    let space = chain();
    space.run(&[]).ran(&[]);
    let before = (space.files(".pipe"), space.files("results"));
    space.run(&[]).ran(&[]);
    assert_eq!(before, (space.files(".pipe"), space.files("results")));
}

#[test]
fn a_touched_input_runs_nothing() {
    let space = chain();
    let file = File::options().append(true).open(space.path("data.txt")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_hours(1)).unwrap();
    space.run(&[]).ran(&[]);
}

#[test]
fn an_input_written_again_with_the_same_bytes_runs_nothing() {
    let space = chain();
    space.write("data.txt", "# two words\none\ntwo\n");
    space.run(&[]).ran(&[]);
}

#[test]
fn an_edit_of_the_same_size_with_its_old_time_is_seen() {
    let space = chain();
    let path = space.path("data.txt");
    let before = path.metadata().unwrap().modified().unwrap();
    std::fs::write(&path, "# two words\none\nsix\n").unwrap();
    File::options().append(true).open(&path).unwrap().set_modified(before).unwrap();
    space.run(&[]).ran(&["clean", "scale", "total"]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\nsix x1\n2\n");
}

#[test]
fn an_edit_that_makes_the_same_bytes_stops_there() {
    let space = chain();
    space.write("data.txt", "# other words\none\ntwo\n");
    space.run(&[]).ran(&["clean"]).says("same bytes as before").says("`data.txt` changed");
    space.run(&[]).ran(&[]);
}

#[test]
fn a_changed_param_reruns_what_hangs_on_it_and_nothing_else() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&[]).ran(&["scale", "total"]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x2\ntwo x2\n2\n");
}

#[test]
fn why_names_the_old_and_the_new_value_before_and_after_the_run() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    let now = space.pipe(&["why", "pipeline.yaml", "scale"]);
    now.code(0).prints("now: would run\n    because parameter `params.step`: 1 → 2\n");
    space.run(&[]).ran(&["scale", "total"]);
    let later = space.pipe(&["why", "pipeline.yaml", "scale"]);
    later.code(0).prints("because parameter `params.step`: 1 → 2\n").prints("now: up to date\n");
    space
        .pipe(&["why", "pipeline.yaml", "total"])
        .code(0)
        .prints("because input `scaled` from stage `scale` changed: `lines` changed\n");
}

#[test]
fn what_was_made_before_comes_back_without_running() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&[]).ran(&["scale", "total"]);
    space.write("pipeline.yaml", CHAIN);
    space.run(&[]).ran(&[]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
}

#[test]
fn a_renamed_stage_and_a_written_out_default_run_nothing() {
    let space = chain();
    let renamed = CHAIN.replace("  other:", "  another:");
    space.write(
        "pipeline.yaml",
        renamed.replace("files: [other.txt]", "files: [other.txt]\n      params: {}"),
    );
    space.run(&[]).ran(&[]);
    assert_eq!(space.read("results/chain/another/copy/file"), "other");
}

#[test]
fn a_comment_or_another_order_of_stages_runs_nothing() {
    let space = chain();
    let (top, stages) = CHAIN.split_once("  clean:").unwrap();
    let (chain, other) = stages.split_once("  other:").unwrap();
    space.write("pipeline.yaml", format!("# a comment\n{top}  other:{other}  clean:{chain}"));
    space.run(&[]).ran(&[]);
}

#[test]
fn the_same_folder_elsewhere_runs_nothing() {
    let space = chain();
    let moved = tempfile::tempdir().unwrap();
    let to = moved.path().join("elsewhere");
    let copied = std::process::Command::new("cp").arg("-a").arg(space.path(".")).arg(&to).status().unwrap();
    assert!(copied.success());
    let output = space.command(&["run", "pipeline.yaml"]).current_dir(&to).output().unwrap();
    assert!(output.status.success());
    assert!(!space.exists("ran.log"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn deleted_and_edited_results_are_restored_without_running() {
    let space = chain();
    std::fs::remove_file(space.path("results/chain/clean/text/lines")).unwrap();
    space.write("results/chain/other/copy/file", "OTHER");
    space.run(&[]).ran(&[]);
    assert_eq!(space.read("results/chain/clean/text/lines"), "one\ntwo\n");
    assert_eq!(space.read("results/chain/other/copy/file"), "other");
    std::fs::remove_dir_all(space.path("results")).unwrap();
    space.run(&[]).ran(&[]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
}

#[test]
fn files_that_a_stage_no_longer_makes_leave_the_results_and_files_of_others_stay() {
    let pipeline = r"
stages:
  make:
    uses: command
    with: { run: 'mkdir out/o/sub; touch out/o/sub/NAME out/o/NAME', outputs: [o] }
";
    let space = TestSpace::new(&pipeline.replace("NAME", "old"));
    space.run(&[]).code(0);
    space.write("results/pipeline/make/o/notes.txt", "mine");
    space.write("pipeline.yaml", pipeline.replace("NAME", "new"));
    space.run(&[]).code(0);
    assert_eq!(
        space.files("results"),
        ["pipeline/make/o/new", "pipeline/make/o/notes.txt", "pipeline/make/o/sub/new"]
    );
}

#[test]
fn results_cannot_be_written_by_accident() {
    let space = chain();
    let permissions = space.path("results/chain/other/copy/file").metadata().unwrap().permissions();
    assert!(permissions.readonly());
}

#[test]
fn a_failing_program_shows_its_code_and_its_stderr_and_leaves_no_result() {
    let space = TestSpace::new(
        "stages:\n  bad: { uses: command, with: { run: 'echo half > out/o/f; echo no such case >&2; exit 3', outputs: [o] } }\n",
    );
    let report = space.run(&[]);
    report.code(1).says("FAILED bad").says("exit status: 3").says("no such case").says("1 FAILED");
    assert_eq!(space.files("results"), [] as [&str; 0]);
    // A failure is not a result.
    space.run(&[]).code(1).says("no such case");
}

#[test]
fn an_output_without_files_is_an_error_that_names_it() {
    let space = TestSpace::new(
        "stages: { bad: { uses: command, with: { run: 'touch out/a/f', outputs: [a, b] } } }\n",
    );
    space.run(&[]).code(1).says("wrote nothing into its output `out/b/`");
}

#[test]
fn a_declared_file_that_is_missing_is_an_error_that_names_it() {
    let space = chain();
    std::fs::remove_file(space.path("other.txt")).unwrap();
    let report = space.run(&[]);
    report.code(2).says("`other.txt`: `files` of `other`");
    assert_eq!(report.ran, [] as [&str; 0], "the program must not start: {report}");
}

#[test]
fn a_program_sees_declared_variables_and_declared_files_only() {
    let mut space = TestSpace::new(
        "stages:\n  look:\n    uses: command\n    with: { run: 'env > out/o/env; ls > out/o/files', outputs: [o], \
         files: [seen.txt], environment: [SEEN] }\n",
    );
    space.write("seen.txt", "");
    space.write("hidden.txt", "");
    space.set_env("SEEN", "1");
    space.set_env("HIDDEN", "2");
    space.run(&[]).code(0);
    let environment = space.read("results/pipeline/look/o/env");
    assert!(environment.contains("SEEN=1") && !environment.contains("HIDDEN"), "{environment}");
    assert_eq!(space.read("results/pipeline/look/o/files"), "out\nseen.txt\n");
}

#[test]
fn a_declared_variable_enters_the_key_and_an_undeclared_one_does_not() {
    let mut space = TestSpace::new(
        "stages:\n  look:\n    uses: command\n    with: { run: 'echo look >> $LOG; echo $SEEN > out/o/f', \
         outputs: [o], environment: [LOG, SEEN] }\n",
    );
    space.set_env("SEEN", "1");
    space.run(&[]).ran(&["look"]);
    space.set_env("HIDDEN", "2");
    space.run(&[]).ran(&[]);
    space.set_env("SEEN", "3");
    space.run(&[]).ran(&["look"]).says("environment `SEEN`: 1 → 3");
}

#[test]
fn a_program_and_its_arguments_may_be_a_list_and_need_no_shell() {
    let space = TestSpace::new(
        "stages: { copy: { uses: command, with: { run: [cp, a b.txt, out/o/f], outputs: [o], files: [a b.txt] } } }\n",
    );
    space.write("a b.txt", "text");
    space.run(&[]).code(0);
    assert_eq!(space.read("results/pipeline/copy/o/f"), "text");
}

#[test]
fn outputs_keep_folders_executables_and_empty_files() {
    let space = TestSpace::new(
        "stages:\n  make: { uses: command, with: { run: 'mkdir -p out/o/a/b; echo x > out/o/a/b/run; chmod +x \
         out/o/a/b/run; touch out/o/empty', outputs: [o] } }\n  use: { uses: command, in: { made: make }, with: \
         { run: 'test -x in/made/a/b/run && test -f in/made/empty && touch out/o/good', outputs: [o] } }\n",
    );
    space.run(&[]).code(0);
    assert_eq!(space.files("results/pipeline"), ["make/o/a/b/run", "make/o/empty", "use/o/good"]);
}

#[test]
fn a_folder_of_inputs_is_followed_file_by_file() {
    let space = TestSpace::new(
        "stages:\n  list: { uses: command, with: { run: 'echo list >> $LOG; find data -type f | sort > out/o/f', \
         outputs: [o], files: [data], environment: [LOG] } }\n",
    );
    space.write("data/a/one", "1");
    space.write("data/b/two", "2");
    space.run(&[]).ran(&["list"]);
    space.run(&[]).ran(&[]);
    space.write("data/b/three", "3");
    space.run(&[]).ran(&["list"]).says("`b/three` added");
    std::fs::remove_file(space.path("data/a/one")).unwrap();
    space.run(&[]).ran(&["list"]).says("`a/one` removed");
    std::fs::rename(space.path("data/b/three"), space.path("data/b/four")).unwrap();
    space.run(&[]).ran(&["list"]);
    assert_eq!(space.read("results/pipeline/list/o/f"), "data/b/four\ndata/b/two\n");
}

#[test]
fn files_of_the_user_among_the_results_are_kept_and_told() {
    let space = chain();
    let result = "results/chain/total/count/all";
    let made = space.read(result);
    std::fs::set_permissions(space.path(result), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    space.write(result, "mine");
    space.run(&[]).ran(&[]).says("results/chain/total/count/all.edited`");
    assert_eq!(
        (space.read(result), space.read(&format!("{result}.edited"))),
        (made.clone(), "mine".to_owned())
    );
    space.run(&[]).ran(&[]).does_not_say("edited");
    std::fs::set_permissions(space.path(result), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    space.write(result, "mine again");
    space.run(&[]).ran(&[]).says("all.edited-2`");
    assert_eq!(space.read(&format!("{result}.edited")), "mine");
    // What pipe itself put there before is not kept.
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&[]).ran(&["scale", "total"]).does_not_say("edited");
    assert_eq!(space.files("results/chain/total").len(), 3);
}

#[test]
fn a_forced_stage_that_is_not_asked_for_is_told() {
    let space = chain();
    space.run(&["clean", "--force", "total"]).code(2).says("`--force total`: it is not among the stages");
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let space = chain();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = space.command(&["history"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_folder_in_place_of_a_record_is_a_damaged_record() {
    let space = chain();
    for bucket in [".pipe/actions-v1", ".pipe/objects-v1"] {
        for name in space.files(bucket) {
            let path = space.path(bucket).join(name);
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        }
        std::fs::remove_dir_all(space.path(".pipe/state-v1")).ok();
        space.run(&[]).code(0);
        space.pipe(&["cache", "verify"]).code(0);
        assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
    }
}
