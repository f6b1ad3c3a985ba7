//! External files: listed by content, compared by name, never copied.

use crate::space::Space;
use pipe_cache::{CacheError, ChangeKind, Digest, FileChange, Listing, StatMode, diff_listing};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn read(space: &Space, root: &Path) -> Result<Listing, CacheError> {
    Listing::read(root, &space.cache.layout, &space.cache.stat_cache(StatMode::Strict).0)
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn a_listing_has_every_file_by_its_relative_path_and_stores_no_content() {
    let space = Space::new();
    space.write("data/imagesTr/b.nii", "b");
    space.write("data/imagesTr/a.nii", "a");
    space.write("data/dataset.json", "{}");
    fs::create_dir(space.path("data/empty")).unwrap();
    let listing = read(&space, &space.path("data")).unwrap();
    assert_eq!(names(&listing), ["dataset.json", "imagesTr/a.nii", "imagesTr/b.nii"]);
    assert_eq!(listing.entries[1].digest, Digest::of_bytes(b"a"));

    let digest = listing.store(&space.cache.store).unwrap();
    assert_eq!(digest, listing.tree_digest());
    assert_eq!(space.cache.store.tree_entries(&digest).unwrap(), listing.tree_files());
    assert!(!space.cache.store.contains(&Digest::of_bytes(b"a")));
}

#[test]
fn the_same_data_in_another_folder_has_the_same_digest() {
    let space = Space::new();
    for root in ["one", "two/deep"] {
        space.write(&format!("{root}/a/x.nii"), "x");
        space.write(&format!("{root}/b.nii"), "b");
    }
    let [one, two] = ["one", "two/deep"].map(|root| read(&space, &space.path(root)).unwrap().tree_digest());
    assert_eq!(one, two);
}

#[test]
fn one_file_is_listed_by_its_name() {
    let space = Space::new();
    let listing = read(&space, &space.write("data/labels.csv", "x")).unwrap();
    assert_eq!(names(&listing), ["labels.csv"]);
}

#[test]
fn links_are_followed_and_a_loop_is_an_error() {
    let space = Space::new();
    space.write("disk/case/x.nii", "x");
    space.write("data/y.nii", "y");
    symlink(space.path("disk/case"), space.path("data/linked")).unwrap();
    symlink(space.path("disk/case/x.nii"), space.path("data/z.nii")).unwrap();
    let listing = read(&space, &space.path("data")).unwrap();
    assert_eq!(names(&listing), ["linked/x.nii", "y.nii", "z.nii"]);

    symlink(space.path("data"), space.path("disk/case/back")).unwrap();
    let error = read(&space, &space.path("data")).unwrap_err();
    assert!(matches!(error, CacheError::LinkLoop { .. }), "{error}");
    assert!(error.to_string().contains("data/linked/back"), "{error}");
}

#[test]
fn a_broken_link_and_a_pipe_are_errors_that_name_them() {
    let space = Space::new();
    fs::create_dir(space.path("data")).unwrap();
    symlink("/nowhere", space.path("data/broken.nii")).unwrap();
    let Err(CacheError::Io { source, .. }) = read(&space, &space.path("data")) else { panic!("no error") };
    assert!(source.to_string().contains("data/broken.nii"), "{source}");

    fs::remove_file(space.path("data/broken.nii")).unwrap();
    symlink("/dev/zero", space.path("data/endless.nii")).unwrap();
    let error = read(&space, &space.path("data")).unwrap_err().to_string();
    assert!(error.contains("endless.nii` is a device"), "{error}");

    let Err(CacheError::Io { source, .. }) = read(&space, &space.path("gone")) else { panic!("no error") };
    assert!(source.to_string().contains("gone"), "{source}");
}

#[test]
fn the_cache_below_the_root_is_left_out_and_another_cache_is_not() {
    let space = Space::new();
    space.write("x.nii", "x");
    space.write("sub/.pipe/y", "y");
    let listing = read(&space, &space.path("")).unwrap();
    assert_eq!(names(&listing), ["sub/.pipe/y", "x.nii"]);
}

#[test]
fn a_set_of_files_is_listed_by_paths_relative_to_its_root() {
    let space = Space::new();
    let files = [space.write("data/b/x.nii", "x"), space.write("data/a.nii", "a")];
    space.write("data/unlisted", "");
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let listing = Listing::read_files(&space.path("data"), &files, &stats).unwrap();
    assert_eq!(names(&listing), ["a.nii", "b/x.nii"]);
    for outside in [space.path("other"), space.path("data"), space.path("data/../data/a.nii")] {
        assert!(Listing::read_files(&space.path("data"), &[outside], &stats).is_err());
    }
}

#[test]
fn two_listings_tell_which_file_changed() {
    let space = Space::new();
    for (name, content) in [("same", "1"), ("edited", "1"), ("gone", "1"), ("dir/gone", "1")] {
        space.write(&format!("data/{name}"), content);
    }
    let old = read(&space, &space.path("data")).unwrap().store(&space.cache.store).unwrap();
    space.write("data/edited", "2");
    space.write("data/dir/came", "1");
    fs::remove_file(space.path("data/gone")).unwrap();
    fs::remove_file(space.path("data/dir/gone")).unwrap();
    let new = read(&space, &space.path("data")).unwrap();
    let change = |path: &str, kind| FileChange { path: path.to_owned(), kind };
    assert_eq!(
        diff_listing(&space.cache.store.tree_entries(&old).unwrap(), &new.tree_files()),
        [
            change("dir/came", ChangeKind::Added),
            change("dir/gone", ChangeKind::Removed),
            change("edited", ChangeKind::Changed),
            change("gone", ChangeKind::Removed),
        ]
    );
    assert_eq!(diff_listing(&new.tree_files(), &new.tree_files()), []);
}

#[test]
fn a_file_that_moved_during_a_run_is_told_even_if_it_was_changed_back() {
    let space = Space::new();
    space.write("data/same", "1");
    let edited = space.write("data/edited", "1");
    let gone = space.write("data/gone", "1");
    std::thread::sleep(std::time::Duration::from_millis(25));
    let listing = read(&space, &space.path("data")).unwrap();
    let moved = || listing.moved(&space.cache.layout).unwrap();
    assert_eq!(moved(), [""; 0]);
    fs::write(&edited, "2").unwrap();
    fs::write(&edited, "1").unwrap();
    fs::remove_file(gone).unwrap();
    space.write("data/came", "1");
    assert_eq!(moved(), ["came", "edited", "gone"]);
}

#[test]
fn a_declared_file_that_vanished_during_a_run_is_told() {
    let space = Space::new();
    let file = space.write("data/a.nii", "a");
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let listing = Listing::read_files(&space.path("data"), std::slice::from_ref(&file), &stats).unwrap();
    fs::remove_file(file).unwrap();
    assert_eq!(listing.moved(&space.cache.layout).unwrap(), ["a.nii"]);
}

#[test]
fn what_a_run_writes_is_left_out() {
    let space = Space::new();
    space.write("cases.csv", "id");
    space.write("p.lock", "# pipe lock file, format 1. …\n{}\n");
    space.write("poetry.lock", "not of pipe");
    space.write("results/p/a/o/x", "x");
    space.write("data/results/y", "y");
    let root = space.path("cases.csv").parent().unwrap().to_owned();
    assert_eq!(names(&read(&space, &root).unwrap()), ["cases.csv", "data/results/y", "poetry.lock"]);
    assert_eq!(names(&read(&space, &space.path("results")).unwrap()), ["p/a/o/x"]);
}
