//! A large result is one file with its object: what is written through it is seen, whatever its mtime says.

use crate::space::{Space, forge};
use pipe_cache::{Cache, Digest, Owner, StatMode};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static VOXELS: [u8; 70_000] = [5; 70_000];
static FORGED: [u8; 70_000] = [6; 70_000];

fn place(space: &Space, tree: Digest) -> PathBuf {
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let folder = space.path("results");
    space.cache.store.place(&[(String::new(), tree)].into(), &folder, Owner::default(), &stats).unwrap();
    folder.join("volume.npy")
}

/// Forges the placed file, in the process that placed it or a later one. `look` must not take the result for whole; once
/// it is made again, no name leads to the forgery.
#[track_caller]
fn check(later: bool, look: impl Fn(&Cache, &Digest) -> bool) {
    let mut space = Space::new();
    let tree = space.ingest(&[("volume.npy", &VOXELS)]);
    space.cache.store.checkout(&tree).unwrap();
    let placed = place(&space, tree);
    if fs::metadata(&placed).unwrap().nlink() == 1 {
        return; // A clone or a copy of the object.
    }
    if later {
        space.reopen();
    }
    assert!(look(&space.cache, &tree));
    forge(&placed, &FORGED);
    assert!(!look(&space.cache, &tree));
    assert_eq!(space.ingest(&[("volume.npy", &VOXELS)]), tree);
    let found = space.cache.store.checkout(&tree).unwrap();
    assert_eq!(fs::read(found.join("volume.npy")).unwrap(), VOXELS);
    assert_eq!(fs::read(place(&space, tree)).unwrap(), VOXELS);
}

#[test]
fn a_forged_result_is_not_taken_for_whole() {
    for later in [false, true] {
        check(later, |cache, tree| cache.store.check_tree(tree).is_ok());
    }
}

#[test]
fn a_forged_result_is_not_handed_out_in_a_new_place() {
    for later in [false, true] {
        let count = AtomicUsize::new(0);
        check(later, |cache, tree| {
            let (stats, _) = cache.stat_cache(StatMode::Strict);
            let folder = cache.layout.root().join(format!("../other{}", count.fetch_add(1, Relaxed)));
            cache.store.place(&[(String::new(), *tree)].into(), &folder, Owner::default(), &stats).is_ok()
        });
    }
}

#[test]
fn a_forged_result_is_told_where_it_stands() {
    for later in [false, true] {
        check(later, |cache, tree| {
            let (stats, _) = cache.stat_cache(StatMode::Strict);
            let folder = cache.layout.root().join("../results");
            match cache.store.place(&[(String::new(), *tree)].into(), &folder, Owner::default(), &stats) {
                Ok(placed) => placed.nothing_to_do(),
                Err(error) => !error.is_miss(),
            }
        });
    }
}
