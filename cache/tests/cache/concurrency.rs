//! Many threads and processes on one cache, some of them killed.

use crate::space::{Space, read_tree};
use pipe_cache::{ActionKey, ActionRecord, Cache, Digest, Lookup, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CHILD_CACHE: &str = "PIPE_TEST_CHILD_CACHE";

/// Starts this test program again to run one of the ignored tests below as another process.
fn child(test: &str, cache: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", test])
        .env(CHILD_CACHE, cache)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn child_cache() -> Option<Cache> {
    Some(Cache::open(Path::new(&std::env::var_os(CHILD_CACHE)?)).unwrap())
}

/// Ten stages with shared and own files; the same in every process.
fn do_stage(cache: &Cache, stage: usize) -> ActionRecord {
    let sandbox = tempfile::tempdir_in(cache.layout.work()).unwrap();
    for file in 0..6 {
        let content = vec![(file * stage % 7) as u8; 100 + 40_000 * file];
        fs::write(sandbox.path().join(format!("{file}.npy")), content).unwrap();
    }
    let tree = cache.store.ingest_dir(sandbox.path()).unwrap();
    let record = ActionRecord {
        key: stage_key(stage),
        manifest: cache.store.put_bytes(b"{}").unwrap(),
        outputs: BTreeMap::from([("out".to_owned(), tree)]),
        summary: json!(null),
        duration: Duration::ZERO,
        finished_at: Timestamp::now(),
        host: format!("process {}", std::process::id()),
    };
    cache.actions.publish(&record).unwrap()
}

fn stage_key(stage: usize) -> ActionKey {
    ActionKey(Digest::of_bytes(&stage.to_le_bytes()))
}

/// Re-hashes every object and checks out every recorded result. Returns how many results there are.
fn check_whole(cache: &Cache) -> usize {
    for shard in fs::read_dir(cache.layout.root().join("objects-v1")).unwrap() {
        let shard = shard.unwrap();
        for object in fs::read_dir(shard.path()).unwrap() {
            let name = object.unwrap().file_name().into_string().unwrap();
            let name = format!("{}{name}", shard.file_name().into_string().unwrap());
            cache.store.verify(&name.parse().unwrap()).unwrap();
        }
    }
    let mut results = 0;
    for stage in 0..10 {
        match cache.actions.lookup(&stage_key(stage)).unwrap() {
            Lookup::Hit(record) => {
                cache.actions.complete(&record).unwrap();
                assert_eq!(read_tree(&cache.store.checkout(&record.outputs["out"]).unwrap()).len(), 6);
                results += 1;
            }
            Lookup::Miss => {}
            Lookup::Corrupt { reason } => panic!("stage {stage}: {reason}"),
        }
    }
    assert_eq!(fs::read_dir(cache.layout.quarantine()).unwrap().count(), 0);
    results
}

#[test]
#[ignore = "runs as another process, started by the tests below"]
fn child_does_all_stages_until_its_parent_is_gone() {
    let Some(cache) = child_cache() else { return };
    let parent = parent_id();
    for stage in (0..10).cycle().take_while(|_| parent_id() == parent) {
        let record = do_stage(&cache, stage);
        cache.store.checkout(&record.outputs["out"]).unwrap();
    }
}

#[test]
#[ignore = "runs as another process, started by the tests below"]
fn child_does_all_stages_once() {
    let Some(cache) = child_cache() else { return };
    for stage in 0..10 {
        let record = do_stage(&cache, stage);
        cache.store.checkout(&record.outputs["out"]).unwrap();
    }
}

#[test]
#[ignore = "runs as another process, started by the tests below"]
fn child_holds_a_claim_until_its_parent_is_gone() {
    let Some(cache) = child_cache() else { return };
    let _claim = cache.claim(&stage_key(0)).unwrap();
    fs::write(cache.layout.root().join("claimed"), "").unwrap();
    let parent = parent_id();
    while parent_id() == parent {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_nothing_half_written() {
    let space = Space::new();
    for round in 0..25 {
        let mut children = [(); 2].map(|()| {
            child("concurrency::child_does_all_stages_until_its_parent_is_gone", space.cache.layout.root())
        });
        std::thread::sleep(Duration::from_millis(15 + 7 * round));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        check_whole(&space.cache);
    }
    for stage in 0..10 {
        do_stage(&space.cache, stage);
    }
    assert_eq!(check_whole(&space.cache), 10);
}

#[test]
fn four_processes_that_do_the_same_work_agree_on_its_result() {
    let space = Space::new();
    let children =
        [(); 4].map(|()| child("concurrency::child_does_all_stages_once", space.cache.layout.root()));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(check_whole(&space.cache), 10);
}

#[test]
fn threads_that_publish_one_key_all_get_the_same_record() {
    let space = Space::new();
    let tree = space.ingest(&[("a", b"x")]);
    let manifest = space.cache.store.put_bytes(b"{}").unwrap();
    let publish = |i: usize| {
        let record = ActionRecord {
            key: stage_key(0),
            manifest,
            outputs: BTreeMap::from([("out".to_owned(), tree)]),
            summary: json!(i),
            duration: Duration::ZERO,
            finished_at: Timestamp(0),
            host: String::new(),
        };
        space.cache.actions.publish(&record).unwrap().summary
    };
    let summaries: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|i| scope.spawn(move || publish(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(summaries.iter().all(|summary| *summary == summaries[0]), "{summaries:?}");
}

#[test]
fn a_damaged_object_put_by_many_threads_at_once_ends_whole() {
    for _ in 0..20 {
        let space = Space::new();
        let digest = space.cache.store.put_bytes(b"voxels").unwrap();
        crate::space::overwrite(&space.cache.store.object_path(&digest), b"voxelz");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| space.cache.store.put_bytes(b"voxels").unwrap());
            }
        });
        space.cache.store.verify(&digest).unwrap();
    }
}

#[test]
fn one_thread_at_a_time_holds_a_claim() {
    let space = Space::new();
    let (inside, entered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _claim = space.cache.claim(&stage_key(0)).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    entered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(entered.into_inner(), 400);
    assert_eq!(fs::metadata(space.cache.layout.claims(&stage_key(0).0)).unwrap().len(), 0);
}

#[test]
fn a_claim_keeps_others_out_until_its_process_is_killed() {
    let space = Space::new();
    let mut holder =
        child("concurrency::child_holds_a_claim_until_its_parent_is_gone", space.cache.layout.root());
    while !space.path(".pipe/claimed").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(space.cache.try_claim(&stage_key(0)).unwrap().is_none());
    assert!(space.cache.try_claim(&stage_key(1)).unwrap().is_some());
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(space.cache.try_claim(&stage_key(0)).unwrap().is_some());
}
