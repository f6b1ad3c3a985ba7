//! Damage of every kind is found, told with who needs it, and gone at the next look.

use crate::gc::{publish_result, run_of};
use crate::space::{Space, overwrite};
use pipe_cache::{Digest, Lookup, MemoKey, Owner, Part, RunId, StatMode, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A cache with one of each, of the stage `kind` of pipeline `p`.
fn filled() -> Space {
    let space = Space::new();
    let record = publish_result(&space, "crop", "voxels");
    run_of(&space, "p", 1, &record);
    let key = MemoKey { kind: "crop".to_owned(), version: 1, params: Value::Null, item: json!(1) };
    let item = space.write("item", "memoised");
    let names = BTreeSet::from(["item".to_owned()]);
    space.cache.memo.record(&key, item.parent().unwrap(), &names, Value::Null).unwrap();
    let (stats, _) = space.cache.stat_cache(StatMode::Strict);
    let tree = record.outputs["out"];
    space
        .cache
        .store
        .place(&[("crop".to_owned(), tree)].into(), &space.path("results"), Owner::default(), &stats)
        .unwrap();
    space.cache.store.checkout(&tree).unwrap();
    stats.digest_file(&item).unwrap();
    stats.save().unwrap();
    space
}

/// The only file below a folder of the cache.
fn only(space: &Space, folder: &str) -> PathBuf {
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let found = files(&space.cache.layout.root().join(folder));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn object(space: &Space, content: &[u8]) -> PathBuf {
    space.cache.store.object_path(&Digest::of_bytes(content))
}

/// Damages a file; verify must tell these parts, with the stage where `needed`, and then nothing more.
#[track_caller]
fn check(damage: impl Fn(&Space) -> PathBuf, expected: &[(Part, bool)]) {
    let space = filled();
    assert_eq!(space.cache.verify().unwrap().damage, []);
    overwrite(&damage(&space), b"damage");
    let found = space.cache.verify().unwrap().damage;
    let told: Vec<_> = found.iter().map(|damage| (damage.part, !damage.needed_by.is_empty())).collect();
    assert_eq!(told, expected, "{found:?}");
    for damage in found.iter().filter(|damage| !damage.needed_by.is_empty()) {
        assert_eq!(damage.needed_by, BTreeSet::from(["p: kind".to_owned()]));
    }
    assert_eq!(space.cache.verify().unwrap().damage, []);
}

#[test]
fn everything_is_counted_once() {
    let space = filled();
    let found = space.cache.verify().unwrap();
    // Two files, a folder and its parent, a manifest.
    assert_eq!((found.objects, found.results, found.items), (5, 1, 1));
    assert_eq!((found.trees, found.placings, found.runs), (1, 1, 1));
}

#[test]
fn a_damaged_object_damages_the_result_that_needs_it() {
    let both = [(Part::Object, true), (Part::Result, true)];
    // The materialised tree links to the object.
    let with_tree = [both[0], both[1], (Part::Tree, true)];
    check(|space| object(space, b"voxels"), &with_tree);
    let record = |space: &Space| {
        let key = pipe_cache::ActionKey(
            format!("{}{}", shard(&only(space, "actions-v1")), name(&only(space, "actions-v1")))
                .parse()
                .unwrap(),
        );
        match space.cache.actions.lookup(&key).unwrap() {
            Lookup::Hit(record) => record,
            other => panic!("{other:?}"),
        }
    };
    check(|space| space.cache.store.object_path(&record(space).manifest), &both);
    check(|space| space.cache.store.object_path(&record(space).outputs["out"]), &both);
}

fn shard(path: &Path) -> String {
    name(path.parent().unwrap())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_damaged_object_damages_the_item_that_needs_it() {
    check(|space| object(space, b"memoised"), &[(Part::Object, false), (Part::Item, false)]);
}

#[test]
fn damaged_records_are_told() {
    check(|space| only(space, "actions-v1"), &[(Part::Result, true)]);
    check(|space| only(space, "memo-v1"), &[(Part::Item, false)]);
    check(|space| only(space, "placed-v5"), &[(Part::Placing, false)]);
    check(|space| only(space, "runs"), &[(Part::Run, false)]);
    check(|space| space.path(".pipe/stat-v1"), &[(Part::Stat, false)]);
}

#[test]
fn a_record_under_the_name_of_another_is_told() {
    let swap = |folder: &str| {
        let space = filled();
        let path = only(&space, folder);
        let mut wrong = name(&path).into_bytes();
        wrong[0] = if wrong[0] == b'0' { b'1' } else { b'0' };
        fs::rename(&path, path.with_file_name(String::from_utf8(wrong).unwrap())).unwrap();
        let parts: Vec<_> = space.cache.verify().unwrap().damage.iter().map(|damage| damage.part).collect();
        assert_eq!(space.cache.verify().unwrap().damage, []);
        parts
    };
    assert_eq!(swap("actions-v1"), [Part::Result]);
    assert_eq!(swap("memo-v1"), [Part::Item]);
}

#[test]
fn a_copy_in_a_materialised_tree_that_rotted_under_its_seal_is_told() {
    let space = filled();
    let file = only(&space, "trees-v1");
    // A copy that keeps the time of the seal, as a disk does that returns other bytes.
    let time = file.metadata().unwrap().modified().unwrap();
    fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, b"VOXELS").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let found = space.cache.verify().unwrap().damage;
    assert_eq!(found.iter().map(|damage| damage.part).collect::<Vec<_>>(), [Part::Tree]);
    assert_eq!(space.cache.verify().unwrap().damage, []);
}

#[test]
fn a_run_of_another_format_is_left_alone() {
    let space = filled();
    let path = only(&space, "runs");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"format\": 1", "\"format\": 99", 1)).unwrap();
    assert_eq!(space.cache.verify().unwrap().damage, []);
    assert!(path.exists());
    // A file that is none at all, under a proper name.
    fs::write(space.cache.layout.run(&RunId::at(Timestamp(9))), "").unwrap();
    assert_eq!(space.cache.verify().unwrap().damage.len(), 1);
}
