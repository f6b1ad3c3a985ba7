//! The lock file: written by runs that bring everything up to date, checked, recomputed, and placed from the cache.

use crate::running::{CHAIN, chain};
use crate::space::TestSpace;
use std::fs;

/// The stages that the lock file names, in its order.
fn locked(space: &TestSpace) -> Vec<String> {
    let text = space.read("pipeline.lock");
    let (header, lines) = text.split_once('\n').unwrap();
    assert!(header.starts_with("# pipe lock file, format 1."), "{header}");
    let name = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["stage"].as_str().unwrap().to_owned()
    };
    lines.lines().map(name).collect()
}

/// The line of one stage.
fn line(space: &TestSpace, stage: &str) -> String {
    let text = space.read("pipeline.lock");
    text.lines().find(|line| line.contains(&format!("\"stage\":\"{stage}\""))).unwrap().to_owned()
}

#[track_caller]
fn fits(space: &TestSpace) {
    space.pipe(&["lock", "--check", "pipeline.yaml"]).code(0).says("pipeline.lock fits");
}

#[track_caller]
fn misfits(space: &TestSpace, expected: &str) {
    let report = space.pipe(&["lock", "--check", "pipeline.yaml"]);
    assert_eq!(report.code(1).stdout, expected, "{report}");
    report.says("does not fit; `pipe run pipeline.yaml` updates it");
}

#[test]
fn a_run_writes_a_sorted_line_a_stage_and_only_when_something_changed() {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "one\n");
    space.write("other.txt", "other");
    space.run(&[]).code(0).says("wrote pipeline.lock");
    assert_eq!(locked(&space), ["clean", "other", "scale", "total"]);
    let before = space.path("pipeline.lock").metadata().unwrap().modified().unwrap();
    space.run(&[]).code(0).does_not_say("pipeline.lock");
    assert_eq!(space.path("pipeline.lock").metadata().unwrap().modified().unwrap(), before);
    fits(&space);
}

#[test]
fn a_run_with_nothing_else_to_do_restores_the_file() {
    let space = chain();
    let good = space.read("pipeline.lock");
    // The second finds everything settled, so that the third has least to look at.
    space.run(&[]).ran(&[]);
    space.run(&[]).ran(&[]);
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    space.run(&[]).ran(&[]).says("wrote pipeline.lock");
    assert_eq!(space.read("pipeline.lock"), good);
    space.run(&[]).ran(&[]);
    space.write("pipeline.lock", good.replace("clean", "cleen"));
    space.run(&[]).ran(&[]).says("wrote pipeline.lock");
    assert_eq!(space.read("pipeline.lock"), good);
}

#[test]
fn a_change_touches_the_lines_of_the_stages_that_it_reaches() {
    let space = chain();
    let before = space.read("pipeline.lock");
    space.write("data.txt", "# another comment\none\ntwo\n");
    space.run(&[]).ran(&["clean"]);
    let after = space.read("pipeline.lock");
    let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(old, new)| old != new).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].1.contains("\"clean\""));
}

#[test]
fn the_file_can_be_read_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let space = chain();
    assert_eq!(space.path("pipeline.lock").metadata().unwrap().permissions().mode() & 0o600, 0o600);
    let made_by_us =
        fs::write(space.path("mine"), "").map(|()| space.path("mine").metadata().unwrap()).unwrap();
    assert_eq!(
        space.path("pipeline.lock").metadata().unwrap().permissions().mode(),
        made_by_us.permissions().mode()
    );
}

#[test]
fn a_run_of_some_stages_updates_their_lines_and_one_with_overrides_none() {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "one\n");
    space.write("other.txt", "other");
    space.run(&["--set", "step=4"]).code(0).does_not_say("pipeline.lock");
    assert!(!space.exists("pipeline.lock"));
    space.run(&[]).code(0);
    let before = space.read("pipeline.lock");
    space.run(&["--set", "step=5"]).code(0).says("pipeline.lock is left as it is: params were overridden");
    assert_eq!(space.read("pipeline.lock"), before);
    let [total, other] = ["total", "other"].map(|stage| line(&space, stage));
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.write("other.txt", "changed");
    space.run(&["scale"]).ran(&["scale"]).says("wrote pipeline.lock");
    assert_eq!(locked(&space), ["clean", "other", "scale", "total"]);
    assert!(!before.contains(&line(&space, "scale")));
    assert_eq!([line(&space, "total"), line(&space, "other")], [total, other]);
}

#[test]
fn a_stage_that_left_the_pipeline_leaves_the_file() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.split_once("  other:").unwrap().0);
    misfits(&space, "stage `other` is in the lock file but not in the pipeline\n");
    space.run(&["clean"]).code(0);
    assert_eq!(locked(&space), ["clean", "scale", "total"]);
}

#[test]
fn a_run_that_fails_leaves_the_file_as_it_was() {
    let space = chain();
    let before = space.read("pipeline.lock");
    space.write("data.txt", "# nothing is left\n");
    space.write("other.txt", "changed");
    space.run(&["-k"]).code(1);
    assert_eq!(space.read("pipeline.lock"), before);
}

#[test]
fn a_result_that_is_not_on_record_is_not_locked() {
    let space = TestSpace::new(
        "stages:\n  slow:\n    uses: command\n    with:\n      run: |\n        . ./wait.sh\n        touch $DIR/started\n        \
         wait_for go\n        cp data.txt out/o/f\n      outputs: [o]\n      files: [wait.sh, data.txt]\n      environment: [DIR]\n",
    );
    space.write("data.txt", "one");
    let running = space.start(&[]);
    space.wait_for("started");
    space.write("data.txt", "two");
    space.write("go", "");
    running.finish().code(0).says("pipeline.lock is left as it is: run again, inputs changed");
    assert!(!space.exists("pipeline.lock"));
}

#[test]
fn a_dry_run_writes_no_file() {
    let space = TestSpace::new(CHAIN);
    space.write("data.txt", "one\n");
    space.write("other.txt", "");
    space.run(&["-n"]).code(0);
    assert!(!space.exists("pipeline.lock"));
}

#[test]
fn a_check_names_each_stage_that_does_not_fit() {
    let space = chain();
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    misfits(&space, "stage `scale` has changed: parameter `params.step`: 1 → 2\n");
    space.write("pipeline.yaml", CHAIN);
    space.write("data.txt", "three\n");
    misfits(
        &space,
        "stage `clean` has changed: external files `files/data.txt` changed: `data.txt` changed\n",
    );
    space.run(&[]).code(0);
    fits(&space);
    let more =
        format!("{CHAIN}  more: {{ uses: command, with: {{ run: 'touch out/o/f', outputs: [o] }} }}\n");
    space.write("pipeline.yaml", &more);
    misfits(&space, "stage `more` is not in the lock file\n");
}

#[test]
fn a_clone_without_a_cache_can_be_checked() {
    let space = chain();
    for folder in [".pipe", "results"] {
        fs::rename(space.path(folder), space.path(&format!("away-{folder}"))).unwrap();
    }
    fits(&space);
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    misfits(&space, "stage `scale` has changed\n");
    assert!(!space.exists(".pipe"));
}

#[test]
fn a_stage_that_gave_something_else_than_what_is_locked_is_named() {
    let space = TestSpace::new(
        "stages: { s: { uses: command, with: { run: 'cat $DIR/secret > out/o/f', outputs: [o], environment: [DIR] } } }\n",
    );
    space.write("secret", "1");
    space.run(&[]).code(0);
    let locked = space.read("pipeline.lock");
    // It reads what it did not declare, so the same key gives other bytes.
    space.write("secret", "2");
    space.run(&["--force", "s"]).code(0).says("wrote pipeline.lock");
    fits(&space);
    space.write("pipeline.lock", &locked);
    let report = space.pipe(&["lock", "--check", "pipeline.yaml"]);
    report
        .code(1)
        .prints("output `o` of stage `s` is ")
        .prints(" in the lock file but ")
        .prints(" in the cache\n");
}

#[test]
fn a_merge_conflict_is_an_error_with_a_way_out() {
    let space = chain();
    let good = space.read("pipeline.lock");
    let lines: Vec<_> = good.lines().collect();
    let conflict = format!(
        "{}\n<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> branch\n{}\n{}\n",
        lines[0], lines[1], lines[2], lines[3], lines[4]
    );
    space.write("pipeline.lock", &conflict);
    for command in [&["lock", "--check", "pipeline.yaml"][..], &["checkout", "pipeline.yaml"]] {
        let report = space.pipe(command);
        report
            .code(2)
            .says("`pipeline.lock:2` is a merge conflict")
            .says("help: `pipe lock pipeline.yaml` makes it anew");
    }
    // A run of some stages does not know the others.
    space.write("other.txt", "changed");
    let report = space.run(&["other"]);
    report.code(0).says("warning: the lock file is left as it is: `pipeline.lock:2` is a merge conflict");
    assert_eq!(space.read("pipeline.lock"), conflict);
    space.write("other.txt", "other");
    space.pipe(&["lock", "pipeline.yaml"]).code(0).says("wrote pipeline.lock: 4 stages");
    assert_eq!(space.read("pipeline.lock"), good);
    // A run of all stages knows them all.
    space.write("pipeline.lock", &conflict);
    space.run(&[]).ran(&[]).says("wrote pipeline.lock");
    assert_eq!(space.read("pipeline.lock"), good);
}

#[test]
fn a_file_that_is_no_lock_file_is_refused_at_its_line() {
    let space = chain();
    let good = space.read("pipeline.lock");
    let twice = format!("{good}{}\n", good.lines().nth(1).unwrap());
    for (text, told) in [
        ("", "there is no"),
        (good.replace("format 1", "format 2").as_str(), "`pipeline.lock:1` is not a line of a lock file"),
        (
            good.replacen("\"key\"", "\"kye\"", 1).as_str(),
            "`pipeline.lock:2` is not a line of a lock file: unknown field `kye`",
        ),
        (twice.as_str(), "`pipeline.lock:6` is not a line of a lock file: stage `clean` is there twice"),
    ] {
        space.write("pipeline.lock", text);
        if text.is_empty() {
            fs::remove_file(space.path("pipeline.lock")).unwrap();
        }
        space.pipe(&["lock", "--check", "pipeline.yaml"]).code(2).says(told).says("help: ");
    }
}

#[test]
fn lock_recomputes_the_file_from_the_cache_or_says_what_is_missing() {
    let space = chain();
    let good = space.read("pipeline.lock");
    space.pipe(&["lock", "pipeline.yaml"]).code(0).says("nothing to do for pipeline.lock");
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    space.pipe(&["lock", "pipeline.yaml"]).code(0).says("wrote pipeline.lock: 4 stages");
    assert_eq!(space.read("pipeline.lock"), good);
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    let report = space.pipe(&["lock", "pipeline.yaml"]);
    report.code(1).says("not up to date: scale, total").says("`pipe run pipeline.yaml` makes them");
    assert_eq!(space.read("pipeline.lock"), good);
}

#[test]
fn params_from_elsewhere_have_no_lock_file() {
    let mut space = chain();
    space.set_env("PIPE_PARAM_step", "3");
    space
        .pipe(&["lock", "pipeline.yaml"])
        .code(2)
        .says("params are overridden: PIPE_PARAM_step=3")
        .says("help: ");
}

#[test]
fn a_checkout_places_what_is_locked_without_running() {
    let space = chain();
    let locked = space.read("pipeline.lock");
    space.write("pipeline.yaml", CHAIN.replace("step: 1", "step: 2"));
    space.run(&[]).ran(&["scale", "total"]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x2\ntwo x2\n2\n");
    space.write("pipeline.lock", &locked);
    let report = space.pipe(&["checkout", "pipeline.yaml", "scale"]);
    report.code(0).says("1 files written to results/chain/, 1 stages as locked");
    assert_eq!(space.read("results/chain/scale/scaled/lines"), "one x1\ntwo x1\n");
    assert_eq!(space.read("results/chain/total/count/all"), "one x2\ntwo x2\n2\n");
    fs::remove_dir_all(space.path("results")).unwrap();
    let report = space.pipe(&["checkout", "pipeline.yaml"]);
    report.code(0).says("4 stages as locked");
    assert_eq!(report.ran, [] as [&str; 0]);
    assert_eq!(space.read("results/chain/total/count/all"), "one x1\ntwo x1\n2\n");
    assert_eq!(space.read("results/chain/clean/text/lines"), "one\ntwo\n");
}

#[test]
fn a_checkout_names_what_is_missing_and_places_nothing() {
    let space = chain();
    let content = space.read("results/chain/scale/scaled/lines");
    fs::remove_dir_all(space.path("results")).unwrap();
    for name in space.files(".pipe/objects-v1") {
        let path = space.path(".pipe/objects-v1").join(name);
        if fs::read(&path).unwrap() == content.as_bytes() {
            fs::remove_file(path).unwrap();
        }
    }
    let report = space.pipe(&["checkout", "pipeline.yaml"]);
    report.code(1).prints("output `scaled` of stage `scale`: object ").prints("is missing from the cache\n");
    report.says("nothing was placed; `pipe run pipeline.yaml` makes what is missing");
    assert!(!space.exists("results"));
    space.pipe(&["checkout", "pipeline.yaml", "other"]).code(0);
    assert_eq!(space.files("results"), ["chain/other/copy/file"]);
    space.pipe(&["checkout", "pipeline.yaml", "totl"]).code(2).says("did you mean `total`?");
}

#[test]
fn what_was_checked_out_stays_when_a_later_run_of_the_same_key_gave_something_else() {
    let run = "head -c 20 /dev/urandom | od > out/o/x";
    let space = TestSpace::new(&format!(
        "stages:\n  r: {{ uses: command, with: {{ run: '{run}', outputs: [o] }} }}\n"
    ));
    let result = "results/pipeline/r/o/x";
    space.run(&[]).code(0).says("1 ran");
    let (locked, first) = (space.read("pipeline.lock"), space.read(result));
    space.run(&["--force", "r"]).code(0).says("1 ran");
    assert_ne!(space.read(result), first);
    space.write("pipeline.lock", &locked);
    space.pipe(&["checkout", "pipeline.yaml"]).code(0).says("is the one of its key again");
    space.run(&[]).code(0).says("nothing to do");
    assert_eq!((space.read(result), space.read("pipeline.lock")), (first, locked));
}

#[test]
fn an_output_that_the_stage_does_not_have_is_not_placed() {
    let space = chain();
    let locked = space.read("pipeline.lock");
    for port in ["../../../evil", "..", "a/b"] {
        space.write(
            "pipeline.lock",
            locked.replacen("\"outputs\":{\"", &format!("\"outputs\":{{\"{port}"), 1),
        );
        space.pipe(&["checkout", "pipeline.yaml"]).code(2).says("cannot name an output");
    }
    space.write("pipeline.lock", locked.replacen("\"outputs\":{\"", "\"outputs\":{\"other", 1));
    space.pipe(&["checkout", "pipeline.yaml"]).code(1).prints("has other outputs than the lock file says");
    assert!(!space.exists("evil"));
}

#[test]
fn a_lock_file_is_no_pipeline_file() {
    let space = chain();
    space.pipe(&["run", "pipeline.lock"]).code(2).says("has the name of a lock file");
}
