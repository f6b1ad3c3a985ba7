//! A folder of the user is made equal to a tree, and nothing of the user is lost.

use crate::space::{Space, mode, overwrite, read_tree};
use pipe_cache::{CacheError, Digest, Owner, Placed, StatCache, StatMode};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

const LARGE: &[u8] = &[9; 100_000];

fn stats(space: &Space) -> StatCache {
    space.cache.stat_cache(StatMode::Strict).0
}

/// Makes the folder itself hold the tree.
fn place(space: &Space, tree: &Digest, folder: &std::path::Path) -> Result<Placed, CacheError> {
    space.cache.store.place(&[(String::new(), *tree)].into(), folder, Owner::default(), &stats(space))
}

fn placed(space: &Space) -> (Digest, PathBuf) {
    let tree = space.ingest(&[("metrics.csv", b"dice\n0.9\n"), ("deep/volume.npy", LARGE)]);
    let folder = space.path("results/train");
    let done = place(space, &tree, &folder).unwrap();
    assert_eq!(done.written, ["deep/volume.npy", "metrics.csv"]);
    (tree, folder)
}

#[test]
fn a_placed_folder_is_left_alone_when_nothing_changed() {
    let space = Space::new();
    let (tree, folder) = placed(&space);
    let inodes =
        || ["metrics.csv", "deep/volume.npy"].map(|name| fs::metadata(folder.join(name)).unwrap().ino());
    let before = inodes();
    assert!(place(&space, &tree, &folder).unwrap().nothing_to_do());
    assert_eq!(inodes(), before);
}

#[test]
fn a_small_file_shares_no_inode_with_its_object() {
    let space = Space::new();
    let (_, folder) = placed(&space);
    assert_eq!(fs::metadata(folder.join("metrics.csv")).unwrap().nlink(), 1);
    assert_eq!(mode(&folder.join("metrics.csv")), 0o444);
    assert_eq!(mode(&folder.join("deep/volume.npy")) & 0o222, 0);
}

/// Damages the placed folder, then checks that it is restored and what was rewritten.
#[track_caller]
fn check_restored(damage: impl Fn(&std::path::Path), rewritten: &[&str]) {
    let space = Space::new();
    let (tree, folder) = placed(&space);
    let expected = read_tree(&folder);
    damage(&folder);
    let done = place(&space, &tree, &folder).unwrap();
    assert_eq!(done.written, rewritten);
    let mut found = read_tree(&folder);
    for kept in &done.kept {
        assert!(kept.ends_with(".edited"), "{kept}");
        found.remove(kept).unwrap();
    }
    assert_eq!(found, expected);
}

#[test]
fn a_deleted_or_tampered_file_is_restored() {
    check_restored(|folder| fs::remove_file(folder.join("metrics.csv")).unwrap(), &["metrics.csv"]);
    check_restored(|folder| fs::remove_dir_all(folder).unwrap(), &["deep/volume.npy", "metrics.csv"]);
    check_restored(|folder| overwrite(&folder.join("metrics.csv"), b"dice\n1.0\n"), &["metrics.csv"]);
    check_restored(
        |folder| {
            fs::remove_file(folder.join("deep/volume.npy")).unwrap();
            fs::write(folder.join("deep/volume.npy"), vec![8; 100_000]).unwrap();
        },
        &["deep/volume.npy"],
    );
}

#[test]
fn a_link_in_the_place_of_a_file_or_folder_is_replaced_and_what_it_leads_to_is_kept() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("volume.npy"), "of the user").unwrap();
    check_restored(
        |folder| {
            fs::remove_dir_all(folder.join("deep")).unwrap();
            symlink(outside.path(), folder.join("deep")).unwrap();
            fs::remove_file(folder.join("metrics.csv")).unwrap();
            symlink(outside.path().join("volume.npy"), folder.join("metrics.csv")).unwrap();
        },
        &["deep/volume.npy", "metrics.csv"],
    );
    assert_eq!(fs::read(outside.path().join("volume.npy")).unwrap(), b"of the user");
}

#[test]
fn a_write_through_a_hard_link_is_never_taken_for_the_result() {
    let space = Space::new();
    let (tree, folder) = placed(&space);
    overwrite(&folder.join("deep/volume.npy"), &vec![8; 100_000]);
    match place(&space, &tree, &folder) {
        Ok(done) => assert_eq!(done.written, ["deep/volume.npy"]),
        Err(error) => {
            assert!(error.is_miss(), "{error}");
            // The rerun that follows a miss:
            space.ingest(&[("metrics.csv", b"dice\n0.9\n"), ("deep/volume.npy", LARGE)]);
            let done = place(&space, &tree, &folder).unwrap();
            assert_eq!(done.written, ["deep/volume.npy"]);
        }
    }
    assert_eq!(fs::read(folder.join("deep/volume.npy")).unwrap(), LARGE);
}

#[test]
fn files_of_the_tree_before_go_and_files_of_the_user_stay() {
    let space = Space::new();
    let (_, folder) = placed(&space);
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    let tree = space.ingest(&[("metrics.csv", b"dice\n0.8\n")]);
    let done = place(&space, &tree, &folder).unwrap();
    assert_eq!(
        (done.written, done.removed),
        (vec!["metrics.csv".to_owned()], vec!["deep/volume.npy".to_owned()])
    );
    let names: Vec<_> = read_tree(&folder).into_keys().collect();
    assert_eq!(names, ["metrics.csv", "notes.txt"]);
}

#[test]
fn a_file_of_the_tree_before_that_somebody_edited_stays() {
    let space = Space::new();
    let (_, folder) = placed(&space);
    fs::remove_file(folder.join("deep/volume.npy")).unwrap();
    fs::write(folder.join("deep/volume.npy"), "edited").unwrap();
    let tree = space.ingest(&[("metrics.csv", b"dice\n0.8\n")]);
    let done = place(&space, &tree, &folder).unwrap();
    assert_eq!(done.left, ["deep/volume.npy"]);
    assert_eq!(fs::read(folder.join("deep/volume.npy")).unwrap(), b"edited");
}

#[test]
fn a_file_of_the_user_where_a_folder_must_go_is_an_error() {
    let space = Space::new();
    space.write("results/train/deep", "mine");
    let tree = space.ingest(&[("deep/volume.npy", LARGE)]);
    let error = place(&space, &tree, &space.path("results/train")).unwrap_err();
    assert!(matches!(error, CacheError::InTheWay { found: "file", .. }), "{error}");
    assert_eq!(fs::read(space.path("results/train/deep")).unwrap(), b"mine");
}

#[test]
fn a_folder_with_files_of_the_user_where_a_file_must_go_is_an_error() {
    let space = Space::new();
    space.write("results/train/metrics.csv/mine", "mine");
    let tree = space.ingest(&[("metrics.csv", b"")]);
    let error = place(&space, &tree, &space.path("results/train")).unwrap_err();
    assert!(matches!(error, CacheError::InTheWay { found: "folder", .. }), "{error}");
}

#[test]
fn a_placed_file_becomes_a_folder_and_a_placed_folder_a_file() {
    let space = Space::new();
    let folder = space.path("results/train");
    for files in [
        [("a", &b"file"[..]), ("b/c", b"x")],
        [("a/c", b"x"), ("b", b"file")],
        [("a", b"file"), ("b/c", b"x")],
    ] {
        let tree = space.ingest(&files);
        place(&space, &tree, &folder).unwrap();
        for (name, content) in files {
            assert_eq!(fs::read(folder.join(name)).unwrap(), content);
        }
    }
}

#[test]
fn after_a_lost_record_of_placing_nothing_is_removed() {
    let space = Space::new();
    let (_, folder) = placed(&space);
    for record in fs::read_dir(space.path(".pipe/placed-v5")).unwrap() {
        fs::write(record.unwrap().path(), "damaged").unwrap();
    }
    let tree = space.ingest(&[("metrics.csv", b"dice\n0.8\n")]);
    let done = place(&space, &tree, &folder).unwrap();
    assert_eq!(done.removed, [""; 0]);
    assert!(folder.join("deep/volume.npy").exists());
}

#[test]
fn a_subfolder_that_is_not_named_stays_and_the_others_get_their_trees() {
    let space = Space::new();
    let one = space.ingest(&[("a.csv", b"one")]);
    let two = space.ingest(&[("b.csv", b"two")]);
    let folder = space.path("results");
    let store = &space.cache.store;
    let both = [("train/model".to_owned(), one), ("report".to_owned(), two)].into();
    store.place(&both, &folder, Owner::default(), &stats(&space)).unwrap();
    let done =
        store.place(&[("report".to_owned(), one)].into(), &folder, Owner::default(), &stats(&space)).unwrap();
    assert_eq!((done.written, done.removed), (vec!["report/a.csv".into()], vec!["report/b.csv".into()]));
    let found: Vec<_> =
        read_tree(&folder).into_iter().filter(|(_, bytes)| bytes.is_some()).map(|(path, _)| path).collect();
    assert_eq!(found, ["report/a.csv", "train/model/a.csv"]);
}
