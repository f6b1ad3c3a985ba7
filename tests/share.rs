//! `pipe push` and `pipe pull`: a colleague gets the results that the lock file names, whole or not at all.

use crate::running::CHAIN;
use crate::space::{Report, TestSpace};
use std::fs;
use std::path::{Path, PathBuf};

/// A workspace with the chain, up to date. Where its log lies is part of the keys, so it must be the same for all.
fn chain() -> TestSpace {
    let space = clone_with("");
    space.write("data.txt", "# a comment\none\ntwo\n");
    space.write("other.txt", "other");
    space.run(&[]).code(0);
    space
}

/// A workspace with the pipeline, and a lock file unless it is empty.
fn clone_with(lock: &str) -> TestSpace {
    let mut space = TestSpace::new(CHAIN);
    space.set_env("LOG", "/dev/null");
    if !lock.is_empty() {
        space.write("pipeline.lock", lock);
    }
    space
}

/// A workspace whose results were pushed to a folder, and that folder.
fn pushed() -> (TestSpace, PathBuf) {
    let space = chain();
    let remote = space.path("shared");
    share(&space, "push", &remote).code(0).says("pushed total").says("4 results are in");
    (space, remote)
}

fn share(space: &TestSpace, command: &str, remote: &Path) -> Report {
    space.pipe(&[command, "pipeline.yaml", "--remote", remote.to_str().unwrap()])
}

/// What a colleague gets from git: pipeline and lock file, and no data.
fn clone(space: &TestSpace) -> TestSpace {
    clone_with(&space.read("pipeline.lock"))
}

/// Every file below a folder of the shared cache, by relative path.
fn objects(remote: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(remote.join("objects-v1")).unwrap() {
        found.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    found.sort();
    found
}

/// Replaces the content of an object, as a failing disk would: its size and its seal stay.
fn damage(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(metadata.modified().unwrap())).unwrap();
    file.set_permissions(metadata.permissions()).unwrap();
}

#[test]
fn a_colleague_without_the_data_gets_the_same_results() {
    let (space, remote) = pushed();
    let clone = clone(&space);
    share(&clone, "pull", &remote).code(0).says("4 results are here");
    assert_eq!(clone.files("results"), space.files("results"));
    for file in space.files("results") {
        let name = format!("results/{file}");
        assert_eq!(clone.read(&name), space.read(&name), "{name}");
    }
    clone.pipe(&["cache", "verify"]).code(0);
}

#[test]
fn with_the_data_a_run_finds_what_was_pulled_and_can_explain_it() {
    let (space, remote) = pushed();
    let clone = clone(&space);
    share(&clone, "pull", &remote).code(0);
    for name in ["data.txt", "other.txt"] {
        clone.write(name, space.read(name));
    }
    clone.run(&[]).code(0).says("nothing to do, 4 stages").does_not_say("running");
    clone.write("data.txt", "quite another line\n");
    clone.run(&[]).code(0).says("data.txt").says("running clean").does_not_say("running other");
}

#[test]
fn what_is_there_is_not_copied_again() {
    let (space, remote) = pushed();
    share(&space, "push", &remote).code(0).says("copied 0 objects");
    let clone = clone(&space);
    share(&clone, "pull", &remote).code(0).does_not_say("copied 0 objects");
    share(&clone, "pull", &remote).code(0).says("copied 0 objects");
}

#[test]
fn stages_can_be_chosen() {
    let (space, remote) = pushed();
    let clone = clone(&space);
    clone
        .pipe(&["pull", "pipeline.yaml", "other", "--remote", remote.to_str().unwrap()])
        .code(0)
        .says("1 results are here");
    assert!(clone.exists("results/chain/other"));
    assert!(!clone.exists("results/chain/total"));
    clone.pipe(&["pull", "pipeline.yaml", "nobody", "--remote", remote.to_str().unwrap()]).code(2);
}

#[test]
fn a_damaged_object_of_the_shared_cache_never_arrives() {
    let (space, remote) = pushed();
    for object in objects(&remote) {
        damage(&object);
        let clone = clone(&space);
        let report = share(&clone, "pull", &remote);
        assert!(report.code(1).stdout.contains("missing "), "{report}");
        report.says("nothing was placed");
        assert!(!clone.exists("results"), "{report}");
        clone.pipe(&["cache", "verify"]).code(0);
        share(&space, "push", &remote).code(0);
        share(&clone, "pull", &remote).code(0);
    }
}

#[test]
fn a_record_that_says_other_than_the_lock_file_is_not_taken() {
    let (space, remote) = pushed();
    let clone = clone(&space);
    let text = space.read("pipeline.lock");
    let outputs = |stage: &str| {
        let line = text.lines().find(|line| line.contains(&format!("\"stage\":\"{stage}\""))).unwrap();
        line.split_once("\"outputs\":").unwrap().1.to_owned()
    };
    let tree = |stage: &str| outputs(stage).rsplit_once(":\"").unwrap().1[..64].to_owned();
    let (of, to) = (tree("clean"), tree("total"));
    assert_ne!(of, to);
    clone.write("pipeline.lock", text.replace(&of, &to));
    let report = share(&clone, "pull", &remote);
    assert_eq!(
        report.code(1).stdout,
        format!(
            "missing clean: `{}` holds another result of the same key than the lock file names\n",
            remote.display()
        )
    );
    assert!(!clone.exists("results"));
}

#[test]
fn what_is_not_in_the_cache_is_told() {
    let space = chain();
    let remote = space.path("shared");
    fs::remove_dir_all(space.path(".pipe/actions-v1")).unwrap();
    let report = share(&space, "push", &remote);
    assert_eq!(report.code(1).stdout.lines().count(), 4, "{report}");
    assert!(report.stdout.starts_with("missing clean: no result of it is in `.pipe`\n"), "{report}");
    report.says("`pipe run pipeline.yaml` makes what is missing");
}

#[test]
fn a_wrong_name_is_told() {
    let space = chain();
    space.pipe(&["push", "pipeline.yaml"]).code(2).says("no shared cache is named").says("PIPE_REMOTE");
    share(&space, "push", Path::new("no/such/folder")).code(2).says("cannot create `no/such/folder`");
    space.write("docs/thesis.txt", "");
    share(&space, "push", Path::new("docs")).code(2).says("`docs` is a folder with other things in it");
    assert_eq!(space.files("docs"), ["thesis.txt"]);
    share(&space, "pull", Path::new("nowhere")).code(2).says("`nowhere` is not a cache of pipe");
    share(&space, "pull", Path::new("s3://bucket/cache")).code(2).says("is an address, not a folder");
    assert!(!space.exists("nowhere"));
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    share(&space, "push", &space.path("shared")).code(2).says("there is no lock file `pipeline.lock`");
    assert!(!space.exists("shared"));
}

#[test]
fn the_variable_names_the_shared_cache() {
    let (space, remote) = pushed();
    let mut clone = clone(&space);
    clone.set_env("PIPE_REMOTE", remote.to_str().unwrap());
    clone.pipe(&["pull", "pipeline.yaml"]).code(0).says("4 results are here");
}

#[test]
fn several_may_push_at_once() {
    let space = chain();
    let remote = space.path("shared");
    let remote_name = remote.to_str().unwrap();
    let push = || space.command(&["push", "pipeline.yaml", "--remote", remote_name]).spawn().unwrap();
    for child in std::iter::repeat_with(push).take(6).collect::<Vec<_>>() {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let clone = clone(&space);
    share(&clone, "pull", &remote).code(0);
    assert_eq!(clone.files("results"), space.files("results"));
}

#[test]
fn a_push_or_pull_that_was_killed_goes_on_where_it_ended() {
    let (space, remote) = pushed();
    let clone = clone(&space);
    // As it is after a kill between objects and record.
    fs::remove_dir_all(remote.join("actions-v1")).unwrap();
    share(&clone, "pull", &remote).code(1);
    share(&space, "push", &remote).code(0).says("copied 0 objects");
    share(&clone, "pull", &remote).code(0).says("4 results are here");
}

/// A stage that gives other bytes each time, in a workspace where it has run.
fn random(lock: Option<&TestSpace>) -> TestSpace {
    let run = "head -c 20 /dev/urandom | od > out/o/x";
    let space = TestSpace::new(&format!(
        "stages:\n  r: {{ uses: command, with: {{ run: '{run}', outputs: [o] }} }}\n"
    ));
    if let Some(lock) = lock {
        space.run(&[]).code(0).says("1 ran");
        space.write("pipeline.lock", lock.read("pipeline.lock"));
    }
    space
}

const RANDOM: &str = "results/pipeline/r/o/x";

#[test]
fn what_is_pulled_takes_the_place_of_another_result_of_the_same_key() {
    let space = random(None);
    space.run(&[]).code(0).says("1 ran");
    let remote = space.path("shared");
    share(&space, "push", &remote).code(0);
    let clone = random(Some(&space));
    assert_ne!(clone.read(RANDOM), space.read(RANDOM));
    share(&clone, "pull", &remote).code(0);
    assert_eq!(clone.read(RANDOM), space.read(RANDOM));
    clone.run(&[]).code(0).says("nothing to do");
    assert_eq!(clone.read(RANDOM), space.read(RANDOM));
    assert_eq!(clone.read("pipeline.lock"), space.read("pipeline.lock"));
}

#[test]
fn a_push_replaces_nothing_that_others_may_have() {
    let space = random(None);
    space.run(&[]).code(0).says("1 ran");
    let remote = space.path("shared");
    share(&space, "push", &remote).code(0);
    let other = random(None);
    other.run(&[]).code(0).says("1 ran");
    let report = share(&other, "push", &remote);
    assert!(report.code(1).stdout.contains("missing r: `"), "{report}");
    assert!(
        report.stdout.contains("holds another result of the same key, which others may have"),
        "{report}"
    );
    let clone = random(Some(&space));
    share(&clone, "pull", &remote).code(0);
    assert_eq!(clone.read(RANDOM), space.read(RANDOM));
}

#[test]
fn the_collector_keeps_what_was_pulled() {
    let (space, remote) = pushed();
    let clone = clone(&space);
    share(&clone, "pull", &remote).code(0);
    fs::remove_dir_all(clone.path("results")).unwrap();
    clone.pipe(&["gc", "--yes", "--grace", "0s"]).code(0);
    clone.pipe(&["checkout", "pipeline.yaml"]).code(0).says("4 stages as locked");
}

#[test]
fn a_damaged_record_of_the_shared_cache_costs_its_stage_alone() {
    let (space, remote) = pushed();
    let actions = space.files("shared/actions-v1");
    fs::write(remote.join("actions-v1").join(&actions[0]), "damaged").unwrap();
    let clone = clone(&space);
    let report = share(&clone, "pull", &remote);
    assert_eq!(report.code(1).stdout.lines().count(), 1, "{report}");
    assert!(report.stdout.contains(&remote.display().to_string()), "{report}");
    share(&space, "push", &remote).code(0);
    share(&clone, "pull", &remote).code(0);
}
