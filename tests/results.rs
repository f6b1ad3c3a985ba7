//! Whose results stand in `results/`, and what becomes of those that nobody stands for any more.

use crate::running::{CHAIN, chain};
use crate::space::TestSpace;
use std::fs;

const MAKE: &str =
    "name: same\nstages: { a: { uses: command, with: { run: 'echo TEXT > out/o/x', outputs: [o] } } }\n";

#[test]
fn two_pipeline_files_of_one_name_do_not_share_a_folder_of_results() {
    let space = TestSpace::new(&MAKE.replace("TEXT", "one"));
    space.write("sub/other.yaml", MAKE.replace("TEXT", "two"));
    space.run(&[]).code(0);
    let refused = space.pipe(&["run", "sub/other.yaml"]);
    refused
        .code(2)
        .says("`results/same/` holds the results of `pipeline.yaml`, not those of `sub/other.yaml`");
    refused.says("give one of the two files another name than `same`");
    assert_eq!(space.read("results/same/a/o/x"), "one\n");
    assert!(!space.exists("sub/other.lock"), "it ran nothing");
    space.run(&[]).code(0).says("nothing to do");
    // The advice works for either of the two.
    space.write("pipeline.yaml", MAKE.replace("TEXT", "one").replace("same", "first"));
    space.pipe(&["run", "sub/other.yaml"]).code(0);
    assert_eq!(space.read("results/same/a/o/x"), "two\n");
    space.run(&[]).code(0);
    assert_eq!(space.read("results/first/a/o/x"), "one\n");
}

#[test]
fn a_pipeline_file_that_was_moved_or_linked_goes_on_with_its_results() {
    let space = TestSpace::new(&MAKE.replace("TEXT", "one"));
    space.run(&[]).code(0);
    std::os::unix::fs::symlink("pipeline.yaml", space.path("link.yaml")).unwrap();
    space.pipe(&["run", "link.yaml"]).code(0);
    space.pipe(&["run", "./pipeline.yaml"]).code(0);
    fs::remove_file(space.path("link.yaml")).unwrap();
    fs::rename(space.path("pipeline.yaml"), space.path("moved.yaml")).unwrap();
    space.pipe(&["run", "moved.yaml"]).code(0);
    // From now on they are those of the moved file.
    space.write("pipeline.yaml", MAKE.replace("TEXT", "one"));
    space.run(&[]).code(2).says("holds the results of `moved.yaml`");
}

#[test]
fn checkout_places_nothing_over_the_results_of_another_file() {
    let space = TestSpace::new(&MAKE.replace("TEXT", "one"));
    space.run(&[]).code(0);
    space.write("other.yaml", MAKE.replace("TEXT", "one"));
    fs::copy(space.path("pipeline.lock"), space.path("other.lock")).unwrap();
    space.pipe(&["checkout", "other.yaml"]).code(2).says("holds the results of `pipeline.yaml`");
}

#[test]
fn results_of_a_stage_that_is_gone_are_told_and_removed_by_gc_but_for_edits() {
    let space = chain();
    let renamed = CHAIN.replace("  other:", "  another:").replace("count", "counts");
    space.write("pipeline.yaml", &renamed);
    let report = space.run(&[]);
    report.says(
        "warning: results/chain/ still holds `other/copy`, `total/count`, which the pipeline has no more; `pipe gc` \
         offers to remove that",
    );
    let told = space.pipe(&["gc"]);
    told.code(0).prints("would go: 1 files that pipe placed in `results/chain/other/copy`");
    told.prints("placed")
        .prints("the pipeline has their stage or output no more")
        .says("`pipe gc --yes` does it");
    assert_eq!(space.read("results/chain/other/copy/file"), "other");
    fs::remove_file(space.path("results/chain/total/count/all")).unwrap();
    space.write("results/chain/total/count/all", "mine");
    space.write("results/chain/other/notes.txt", "mine too");
    space.pipe(&["gc", "--yes"]).code(0).says("`results/chain/total/count/all` is left");
    assert!(!space.exists("results/chain/other/copy"));
    assert_eq!(space.read("results/chain/other/notes.txt"), "mine too");
    assert_eq!(space.read("results/chain/total/count/all"), "mine");
    assert_eq!(space.read("results/chain/another/copy/file"), "other");
    space.pipe(&["gc"]).code(0).says("nothing to collect");
    space.write("pipeline.yaml", format!("{renamed}# a comment\n"));
    space.run(&[]).ran(&[]).does_not_say("still holds");
    // What is asked for in part says nothing of the rest.
    space.run(&["clean"]).ran(&[]).does_not_say("still holds");
}
