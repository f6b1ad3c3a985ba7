//! Bytes add up: by stage, and in all.

use crate::gc::{manifest, publish, run, stage};
use crate::space::{Space, read_tree};
use pipe_cache::{Outcome, StageRecord};

fn stage_of(space: &Space, name: &str, files: &[(&str, &[u8])]) -> StageRecord {
    let record = publish(&space.cache, &manifest("crop", name), space.ingest(files));
    StageRecord {
        manifest: Some(record.manifest),
        outputs: record.outputs,
        ..stage(name, record.key, Outcome::Ran)
    }
}

#[test]
fn what_two_stages_share_is_unique_to_none_and_counted_once_in_all() {
    let space = Space::new();
    let (shared, own) = ([1; 1000], [2; 300]);
    let first = stage_of(&space, "first", &[("shared", &shared), ("own", &own)]);
    let second = stage_of(&space, "second", &[("shared", &shared), ("again", &shared)]);
    run(&space.cache, "p", 1, vec![first, second]);
    let usage = space.cache.usage().unwrap();
    let logical: Vec<_> = usage.stages.iter().map(|stage| (&*stage.stage, stage.logical)).collect();
    assert_eq!(logical, [("first", 1300), ("second", 2000)]);
    // Each stage has its own tree object, with two entries: 14 bytes of head, then 43 and a name each.
    let trees = [14 + 2 * 43 + "sharedown".len() as u64, 14 + 2 * 43 + "sharedagain".len() as u64];
    let unique: Vec<_> = usage.stages.iter().map(|stage| stage.unique).collect();
    assert_eq!(unique, [300 + trees[0], trees[1]]);
    assert_eq!(usage.results, 1300 + trees[0] + trees[1]);
}

#[test]
fn the_latest_result_of_a_stage_counts_and_earlier_ones_are_other_objects() {
    let space = Space::new();
    let old = stage_of(&space, "crop", &[("f", &[1; 5000])]);
    let mut new = stage_of(&space, "later", &[("f", &[2; 100])]);
    new.name = "crop".to_owned();
    run(&space.cache, "p", 1, vec![old]);
    run(&space.cache, "p", 2, vec![new]);
    let usage = space.cache.usage().unwrap();
    assert_eq!(usage.stages.iter().map(|stage| stage.logical).collect::<Vec<_>>(), [100]);
    assert!((5000..5500).contains(&usage.other_objects), "{usage:?}");
}

#[test]
fn the_parts_add_up_to_the_bytes_of_all_files_with_links_once() {
    let space = Space::new();
    let record = stage_of(&space, "crop", &[("large", &vec![7; 200_000]), ("small", b"x")]);
    space.cache.store.checkout(&record.outputs["out"]).unwrap();
    run(&space.cache, "p", 1, vec![record]);
    let usage = space.cache.usage().unwrap();
    let linked = usage.trees < 200_000;
    let all: usize = read_tree(space.cache.layout.root()).values().flatten().map(Vec::len).sum();
    let all = all as u64 - if linked { 200_001 } else { 0 };
    assert_eq!(usage.total, all, "{usage:?}");
    let parts = [usage.results, usage.manifests, usage.items, usage.other_objects];
    let folders = [usage.checkpoints, usage.trees, usage.quarantine];
    // The rest holds the records too, of which the items' are counted with the items.
    assert_eq!(parts.iter().chain(&folders).sum::<u64>() + usage.rest, usage.total);
}
