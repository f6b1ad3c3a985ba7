//! What a collection keeps and what it takes, and that nothing which is needed is ever lost.

use crate::space::Space;
use pipe_cache::{
    ActionKey, ActionRecord, Cache, Digest, ExternalRecord, GcOptions, Lookup, Manifest, MemoKey, MemoLookup,
    Outcome, Owner, Reason, RunId, RunRecord, StageRecord, StatMode, Thing, Timestamp,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

/// No grace, no runs: only what else is a root stays.
const NOTHING_KEPT: GcOptions =
    GcOptions { keep_runs: 0, grace: Duration::ZERO, extra_roots: Vec::new(), now: None };
const DAY: Duration = Duration::from_hours(24);

/// A collection that keeps no run, so many days from now, with a day of grace.
pub(crate) fn in_days(days: u32) -> GcOptions {
    GcOptions { grace: DAY, now: Some(SystemTime::now() + days * DAY), ..NOTHING_KEPT }
}

pub(crate) fn manifest(kind: &str, param: &str) -> Manifest {
    Manifest {
        kind: kind.to_owned(),
        version: 1,
        params: json!({ "param": param }),
        inputs: BTreeMap::new(),
        external: BTreeMap::new(),
        outputs: BTreeMap::new(),
        seed: None,
        device: None,
        environment: BTreeMap::new(),
    }
}

/// A recorded result with one file that holds `content`.
pub(crate) fn publish_result(space: &Space, kind: &str, content: &str) -> ActionRecord {
    let output = space.ingest(&[("folder/file", content.as_bytes())]);
    publish(&space.cache, &manifest(kind, content), output)
}

pub(crate) fn publish(cache: &Cache, manifest: &Manifest, output: Digest) -> ActionRecord {
    let record = ActionRecord {
        key: manifest.key(),
        manifest: manifest.put(&cache.store).unwrap(),
        outputs: BTreeMap::from([("out".to_owned(), output)]),
        summary: Value::Null,
        duration: Duration::ZERO,
        finished_at: Timestamp::now(),
        host: String::new(),
    };
    cache.actions.publish(&record).unwrap()
}

pub(crate) fn stage(kind: &str, key: ActionKey, outcome: Outcome) -> StageRecord {
    StageRecord {
        name: kind.to_owned(),
        kind: kind.to_owned(),
        key: Some(key),
        manifest: None,
        outcome,
        reasons: Vec::new(),
        started_at: Some(Timestamp(0)),
        duration: None,
        outputs: BTreeMap::new(),
        error: None,
        memo_hits: 0,
        memo_misses: 0,
        failed_tries: Vec::new(),
        summary: Value::Null,
        sources: BTreeMap::new(),
        threads: None,
        peak_memory_bytes: None,
    }
}

/// A run of `pipeline` at `second` with these stages.
pub(crate) fn run(cache: &Cache, pipeline: &str, second: u64, stages: Vec<StageRecord>) {
    let started_at = Timestamp(second * 1000);
    let run = RunRecord {
        unchanged: None,
        id: RunId::at(started_at),
        pipeline: pipeline.to_owned(),
        file: String::new(),
        message: None,
        started_at,
        finished_at: None,
        command: Vec::new(),
        commit: None,
        host: None,
        cores: None,
        threads: None,
        device: None,
        versions: BTreeMap::new(),
        peak_memory_bytes: None,
        overrides: Vec::new(),
        params: BTreeMap::new(),
        tags: Vec::new(),
        stages,
    };
    cache.runs.save(&run).unwrap();
}

pub(crate) fn run_of(space: &Space, pipeline: &str, second: u64, record: &ActionRecord) {
    let stage = StageRecord {
        manifest: Some(record.manifest),
        outputs: record.outputs.clone(),
        ..stage("kind", record.key, Outcome::Ran)
    };
    run(&space.cache, pipeline, second, vec![stage]);
}

/// Whether the result is on record with every object of its output.
fn is_whole(cache: &Cache, record: &ActionRecord) -> bool {
    match cache.actions.lookup(&record.key).unwrap() {
        Lookup::Hit(found) => cache.actions.complete(&found).is_ok(),
        Lookup::Miss => false,
        Lookup::Corrupt { reason } => panic!("{reason}"),
    }
}

/// Bytes of the files below a folder of the cache.
fn files(cache: &Cache, folder: &str) -> usize {
    crate::space::read_tree(&cache.layout.root().join(folder)).values().flatten().count()
}

#[test]
fn a_young_result_is_kept_and_an_old_one_goes_with_all_its_objects() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    space.cache.collect_garbage(&in_days(0)).unwrap();
    assert!(is_whole(&space.cache, &record));
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(!is_whole(&space.cache, &record));
    for folder in ["objects-v1", "actions-v1", "quarantine", "tmp"] {
        assert_eq!(files(&space.cache, folder), 0, "{folder}");
    }
}

#[test]
fn finding_garbage_removes_nothing_and_counts_what_removing_removes() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    let found = space.cache.find_garbage(&NOTHING_KEPT).unwrap();
    assert!(is_whole(&space.cache, &record));
    let counted: Vec<_> =
        found.garbage.iter().map(|group| (group.thing, group.reason, group.count)).collect();
    // The file, the folder and its parent, the manifest.
    let expected = [
        (Thing::Objects, Reason::Unused, 4),
        (Thing::Results, Reason::Unused, 1),
        (Thing::Trees, Reason::Unused, 1),
    ];
    assert_eq!(counted, expected);
    assert_eq!(space.cache.collect_garbage(&NOTHING_KEPT).unwrap().garbage, found.garbage);
    assert_eq!(space.cache.find_garbage(&NOTHING_KEPT).unwrap().garbage, []);
}

#[test]
fn the_results_of_the_last_runs_of_each_pipeline_are_kept() {
    let space = Space::new();
    let records: Vec<_> = (0..4).map(|i| publish_result(&space, "crop", &format!("content {i}"))).collect();
    run_of(&space, "rare", 1, &records[0]);
    for (second, record) in (2..).zip(&records[1..]) {
        run_of(&space, "frequent", second, record);
    }
    space.cache.collect_garbage(&GcOptions { keep_runs: 2, ..NOTHING_KEPT }).unwrap();
    let kept: Vec<_> = records.iter().map(|record| is_whole(&space.cache, record)).collect();
    assert_eq!(kept, [true, false, true, true]);
    for record in [&records[0], &records[2], &records[3]] {
        Manifest::get(&space.cache.store, &record.manifest).unwrap();
    }
}

#[test]
fn the_results_of_a_tagged_run_are_kept() {
    let space = Space::new();
    let [tagged, other] = ["tagged", "other"].map(|name| publish_result(&space, "crop", name));
    run_of(&space, "p", 1, &tagged);
    run_of(&space, "p", 2, &other);
    let oldest = space.cache.runs.ids().unwrap().pop().unwrap();
    space.cache.runs.tag("paper", &oldest).unwrap();
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(is_whole(&space.cache, &tagged) && !is_whole(&space.cache, &other));
}

#[test]
fn a_file_that_a_kept_and_an_unused_result_share_is_kept() {
    let space = Space::new();
    let shared: (&str, &[u8]) = ("shared", b"both");
    let kept = publish(&space.cache, &manifest("crop", "1"), space.ingest(&[shared, ("a", b"1")]));
    let unused = publish(&space.cache, &manifest("crop", "2"), space.ingest(&[shared, ("a", b"2")]));
    run_of(&space, "p", 1, &kept);
    space.cache.collect_garbage(&GcOptions { keep_runs: 1, ..NOTHING_KEPT }).unwrap();
    assert!(is_whole(&space.cache, &kept) && !is_whole(&space.cache, &unused));
}

#[test]
fn listings_of_kept_results_are_kept_and_an_output_equal_to_its_listing_keeps_its_files() {
    let space = Space::new();
    space.write("data/image", b"voxels");
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let listing = pipe_cache::Listing::read(&space.path("data"), &space.cache.layout, &stats).unwrap();
    let mut with_listing = manifest("import", "");
    let digest = listing.store(&space.cache.store).unwrap();
    with_listing.external.insert("data".to_owned(), ExternalRecord { digest });
    let small = publish(&space.cache, &with_listing, space.ingest(&[("summary", b"1")]));
    let same = publish(&space.cache, &manifest("import", "copy"), space.ingest(&[("image", b"voxels")]));
    assert_eq!(same.outputs["out"], digest);
    run_of(&space, "p", 1, &same);
    run_of(&space, "p", 2, &small);
    space.cache.collect_garbage(&GcOptions { keep_runs: 2, ..NOTHING_KEPT }).unwrap();
    assert!(is_whole(&space.cache, &small) && is_whole(&space.cache, &same));
    // The files of a listing lie with the user.
    space.cache.collect_garbage(&GcOptions { keep_runs: 1, ..NOTHING_KEPT }).unwrap();
    assert_eq!(space.cache.store.tree_entries(&digest).unwrap().len(), 1);
    assert!(!space.cache.store.contains(&Digest::of_bytes(b"voxels")));
}

#[test]
fn placed_results_are_kept_while_their_folder_is_there() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let folder = space.path("results/p");
    let trees = BTreeMap::from([("crop/out".to_owned(), record.outputs["out"])]);
    space.cache.store.place(&trees, &folder, Owner::default(), &stats).unwrap();
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(is_whole(&space.cache, &record));
    fs::remove_dir_all(folder.join("crop")).unwrap();
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(
        !is_whole(&space.cache, &record),
        "the folder of the pipeline is there, that of the stage is not"
    );
    fs::remove_dir_all(&folder).unwrap();
    let gone = space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(gone.garbage.iter().any(|group| group.reason == Reason::FolderGone), "{gone:?}");
    assert_eq!(files(&space.cache, "placed-v5"), 0);
}

#[test]
fn placed_results_of_a_stage_that_is_gone_go_but_for_what_was_edited() {
    let space = Space::new();
    let [crop, old] = ["crop", "old"].map(|name| publish_result(&space, name, name).outputs["out"]);
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let folder = space.path("results/p");
    let place = |trees: &[(&str, Digest)], names: &[&str]| {
        let trees = trees.iter().map(|(name, tree)| ((*name).to_owned(), *tree)).collect();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let owner = Owner { file: "p.yaml", names: Some(&names) };
        space.cache.store.place(&trees, &folder, owner, &stats).unwrap().stale
    };
    let gone = || {
        let found = space.cache.find_garbage(&NOTHING_KEPT).unwrap();
        found.stale.into_iter().map(|stale| (stale.folder, stale.files)).collect::<Vec<_>>()
    };
    let both = ["crop/out", "old/out"];
    assert_eq!(place(&[(both[0], crop), (both[1], old)], &both), [""; 0]);
    assert_eq!(gone(), []);
    assert_eq!(place(&[(both[0], crop)], &both[..1]), ["old/out"]);
    assert_eq!(gone(), [(folder.join("old/out"), 1)]);
    // It is back, and gone again.
    assert_eq!(place(&[(both[1], old)], &both), [""; 0]);
    assert_eq!(gone(), []);
    place(&[], &both[..1]);
    let left = space.cache.collect_garbage(&NOTHING_KEPT).unwrap().left;
    assert_eq!((left, folder.join("old").exists(), folder.join("crop").exists()), (Vec::new(), false, true));
    assert_eq!(gone(), []);
    let old = publish_result(&space, "old", "old").outputs["out"];
    place(&[(both[1], old)], &both);
    place(&[], &both[..1]);
    let file = folder.join("old/out/folder/file");
    crate::space::overwrite(&file, b"mine");
    let left = space.cache.collect_garbage(&NOTHING_KEPT).unwrap().left;
    assert_eq!((left, fs::read(&file).unwrap()), (vec![file.display().to_string()], b"mine".to_vec()));
    assert_eq!(gone(), [], "what was edited is the user's from now on");
}

#[test]
fn extra_roots_name_results_trees_and_objects() {
    let space = Space::new();
    let [by_key, by_tree, unused] =
        ["key", "tree", "unused"].map(|name| publish_result(&space, "crop", name));
    let object = space.cache.store.put_bytes(b"object").unwrap();
    let extra_roots = vec![by_key.key.0, by_tree.outputs["out"], object];
    space.cache.collect_garbage(&GcOptions { extra_roots, ..NOTHING_KEPT }).unwrap();
    assert!(is_whole(&space.cache, &by_key) && is_whole(&space.cache, &by_tree));
    assert!(space.cache.store.contains(&object) && !is_whole(&space.cache, &unused));
}

#[test]
fn what_was_moved_is_served_from_quarantine_until_it_is_deleted() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    space.cache.collect_garbage(&in_days(2)).unwrap();
    assert_eq!(files(&space.cache, "objects-v1"), 0);
    // Brought back as a whole by those who ask for it, and young from then on.
    assert!(is_whole(&space.cache, &record));
    space.cache.store.verify(&Digest::of_bytes(b"voxels")).unwrap();
    assert_eq!(files(&space.cache, "quarantine"), 1, "the manifest, which nobody asked for");
    space.cache.collect_garbage(&in_days(0)).unwrap();
    assert!(is_whole(&space.cache, &record));
}

#[test]
fn what_nobody_asked_for_is_deleted_after_the_grace_time() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    space.cache.collect_garbage(&in_days(2)).unwrap();
    let sooner = GcOptions { now: in_days(3).now.map(|now| now - Duration::from_mins(1)), ..in_days(3) };
    space.cache.collect_garbage(&sooner).unwrap();
    assert_eq!(files(&space.cache, "quarantine"), 5);
    let last = space.cache.collect_garbage(&in_days(3)).unwrap();
    let counted: Vec<_> = last.garbage.iter().map(|group| (group.thing, group.reason, group.count)).collect();
    assert_eq!(counted, [(Thing::Quarantine, Reason::Expired, 1)]);
    assert_eq!(files(&space.cache, "quarantine"), 0);
    assert!(!is_whole(&space.cache, &record));
}

/// A process may take an object for stored just before it is moved, and record it long after.
#[test]
fn a_result_recorded_after_its_objects_were_moved_is_whole_again_before_they_would_be_deleted() {
    let space = Space::new();
    let output = space.ingest(&[("folder/file", b"voxels")]);
    space.cache.collect_garbage(&in_days(2)).unwrap();
    assert_eq!(files(&space.cache, "objects-v1"), 0);
    let record = publish(&space.cache, &manifest("crop", ""), output);
    run_of(&space, "p", 1, &record);
    space.cache.collect_garbage(&GcOptions { keep_runs: 1, ..in_days(4) }).unwrap();
    assert_eq!(files(&space.cache, "quarantine"), 0);
    assert!(is_whole(&space.cache, &record));
}

#[test]
fn while_a_process_runs_stages_nothing_that_it_may_have_seen_is_deleted() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    let tree = space.cache.store.checkout(&record.outputs["out"]).unwrap();
    let work = space.cache.layout.work().join("run-1");
    fs::create_dir(&work).unwrap();
    let lock = fs::File::create(work.join(pipe_cache::WORK_LOCK)).unwrap();
    lock.lock().unwrap();
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(is_whole(&space.cache, &record) && tree.exists() && work.exists());
    drop(lock);
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert!(!is_whole(&space.cache, &record) && !tree.exists() && !work.exists());
}

fn memo(space: &Space, kind: &str, item: u32, content: Option<&str>) -> MemoKey {
    let key = MemoKey { kind: kind.to_owned(), version: 1, params: Value::Null, item: json!(item) };
    let folder = tempfile::tempdir().unwrap();
    let mut names = BTreeSet::new();
    if let Some(content) = content {
        fs::write(folder.path().join("item"), content).unwrap();
        names.insert("item".to_owned());
    }
    space.cache.memo.record(&key, folder.path(), &names, json!(item)).unwrap();
    key
}

#[test]
fn an_item_lives_with_its_files_or_with_its_kind_or_with_an_unfinished_stage() {
    let space = Space::new();
    let kept = publish_result(&space, "crop", "case 1");
    let unfinished = ActionKey(Digest::of_bytes(b"unfinished"));
    let stages = vec![stage("crop", kept.key, Outcome::Cached), stage("train", unfinished, Outcome::Failed)];
    run(&space.cache, "p", 1, stages);
    let items = [
        (memo(&space, "crop", 1, Some("case 1")), true),
        (memo(&space, "crop", 2, Some("case of an earlier run")), false),
        (memo(&space, "crop", 3, None), true),
        (memo(&space, "evaluate", 4, None), false),
        (memo(&space, "train", 5, Some("half done")), true),
    ];
    space.cache.collect_garbage(&GcOptions { keep_runs: 1, ..NOTHING_KEPT }).unwrap();
    for (key, expected) in items {
        let found = space.cache.memo.lookup(&key).unwrap();
        assert_eq!(matches!(found, MemoLookup::Hit(_)), expected, "{key:?}: {found:?}");
    }
}

#[test]
fn a_checkpoint_lives_with_the_unfinished_stage_of_a_kept_run_or_with_its_claim() {
    let space = Space::new();
    let [unfinished, claimed, orphan, empty] =
        ["unfinished", "claimed", "orphan", "empty"].map(|name| ActionKey(Digest::of_bytes(name.as_bytes())));
    // Killed after its result was recorded and before its checkpoint was removed.
    let finished = publish_result(&space, "train", "weights");
    for key in &[unfinished, claimed, orphan, finished.key] {
        fs::create_dir(space.cache.layout.checkpoint(key)).unwrap();
        fs::write(space.cache.layout.checkpoint(key).join("weights"), "w").unwrap();
    }
    fs::create_dir(space.cache.layout.checkpoint(&empty)).unwrap();
    let stages = [unfinished, empty, finished.key].map(|key| stage("train", key, Outcome::Interrupted));
    run(&space.cache, "p", 1, stages.to_vec());
    let _claim = space.cache.claim(&claimed).unwrap();
    space.cache.collect_garbage(&GcOptions { keep_runs: 1, ..NOTHING_KEPT }).unwrap();
    let kept = [unfinished, claimed, orphan, finished.key, empty]
        .map(|key| space.cache.layout.checkpoint(&key).exists());
    assert_eq!(kept, [true, true, false, false, false]);
}

#[test]
fn what_dead_processes_left_goes() {
    let space = Space::new();
    let layout = &space.cache.layout;
    fs::write(layout.temporary().join("half-written"), "x").unwrap();
    let dead = layout.work().join("run-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join(pipe_cache::WORK_LOCK), "").unwrap();
    space.cache.collect_garbage(&GcOptions::default()).unwrap();
    assert!(layout.temporary().join("half-written").exists(), "it may still be written");
    space.cache.collect_garbage(&NOTHING_KEPT).unwrap();
    assert_eq!(files(&space.cache, "tmp"), 0);
    assert!(!dead.exists());
}

#[test]
fn a_damaged_run_is_told_and_the_others_still_protect_their_results() {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    run_of(&space, "p", 1, &record);
    let damaged = RunId::at(Timestamp(2000));
    fs::write(space.cache.layout.run(&damaged), "{").unwrap();
    let found = space.cache.collect_garbage(&GcOptions { keep_runs: 1, ..NOTHING_KEPT }).unwrap();
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    assert_eq!(found.warnings[0].path, space.cache.layout.run(&damaged));
    assert!(is_whole(&space.cache, &record));
}

#[test]
fn times_in_the_future_are_young() {
    let space = Space::new();
    let digest = space.cache.store.put_bytes(b"from tomorrow").unwrap();
    let object = fs::File::open(space.cache.store.object_path(&digest)).unwrap();
    object.set_modified(SystemTime::now() + 2 * DAY).unwrap();
    let grace = Duration::from_millis(1);
    std::thread::sleep(2 * grace);
    space.cache.collect_garbage(&GcOptions { grace, ..NOTHING_KEPT }).unwrap();
    assert_eq!(files(&space.cache, "objects-v1"), 1);
}

#[test]
fn collections_beside_writers_and_each_other_lose_nothing() {
    let space = Space::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..60 {
                    // Everything is moved as soon as it is seen.
                    space.cache.collect_garbage(&in_days(2)).unwrap();
                }
            });
        }
        for round in 0..60 {
            let record = publish_result(&space, "crop", &format!("content {}", round % 7));
            assert!(is_whole(&space.cache, &record), "round {round}");
            // The folder itself may be taken at once: it is made again when it is needed.
            space.cache.store.checkout(&record.outputs["out"]).unwrap();
        }
    });
}
