//! The item memo gives back the files of an item, or nothing.

use crate::space::Space;
use pipe_cache::{Digest, MemoKey, MemoLookup, MemoRecord};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;

fn key(item: &str) -> MemoKey {
    MemoKey {
        kind: "crop".to_owned(),
        version: 1,
        params: json!({ "spacing_mm": [1.0, 1.0, 1.0] }),
        item: json!(Digest::of_bytes(item.as_bytes())),
    }
}

fn recorded(space: &Space) -> MemoRecord {
    space.write(".pipe/work/one/images/c1.npy", "voxels");
    space.write(".pipe/work/one/c1.csv", "row");
    let names = BTreeSet::from(["images/c1.npy".to_owned(), "c1.csv".to_owned()]);
    space
        .cache
        .memo
        .record(&key("c1"), &space.path(".pipe/work/one"), &names, json!({ "shape": [3, 4, 5] }))
        .unwrap()
}

#[track_caller]
fn corrupt(space: &Space) {
    let found = space.cache.memo.lookup(&key("c1")).unwrap();
    assert!(matches!(found, MemoLookup::Corrupt { .. }), "{found:?}");
}

#[test]
fn an_item_is_restored_with_its_files_and_its_value() {
    let space = Space::new();
    assert_eq!(space.cache.memo.lookup(&key("c1")).unwrap(), MemoLookup::Miss);
    let record = recorded(&space);
    assert_eq!(space.cache.memo.lookup(&key("c1")).unwrap(), MemoLookup::Hit(record.clone()));
    assert_eq!(space.cache.memo.lookup(&key("c2")).unwrap(), MemoLookup::Miss);
    assert_eq!(record.value, json!({ "shape": [3, 4, 5] }));

    space.cache.memo.restore(&record, &space.path(".pipe/work/two")).unwrap();
    assert_eq!(fs::read(space.path(".pipe/work/two/images/c1.npy")).unwrap(), b"voxels");
    assert_eq!(fs::read(space.path(".pipe/work/two/c1.csv")).unwrap(), b"row");
    // Computed and restored items make the same output.
    let [one, two] = ["one", "two"]
        .map(|name| space.cache.store.ingest_dir(&space.path(&format!(".pipe/work/{name}"))).unwrap());
    assert_eq!(one, two);
    space.cache.store.check_tree(&one).unwrap();
}

#[test]
fn every_part_of_the_key_counts() {
    let keys = [
        key("c1"),
        key("c2"),
        MemoKey { kind: "downsample".to_owned(), ..key("c1") },
        MemoKey { version: 2, ..key("c1") },
        MemoKey { params: json!({ "spacing_mm": [1, 1, 1] }), ..key("c1") },
    ];
    assert_eq!(keys.iter().map(MemoKey::digest).collect::<BTreeSet<_>>().len(), keys.len());
}

#[test]
fn an_item_whose_object_or_record_is_damaged_is_a_miss_and_is_recorded_again() {
    let space = Space::new();
    let record = recorded(&space);
    fs::remove_file(space.cache.store.object_path(&record.files[0].digest)).unwrap();
    corrupt(&space);
    fs::remove_dir_all(space.path(".pipe/work/one")).unwrap();
    recorded(&space);
    let path = space.cache.layout.memo(&key("c1").digest());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    crate::space::overwrite(&path, &bytes);
    corrupt(&space);
    fs::remove_dir_all(space.path(".pipe/work/one")).unwrap();
    recorded(&space);
    assert!(matches!(space.cache.memo.lookup(&key("c1")).unwrap(), MemoLookup::Hit(_)));
}

#[test]
fn an_item_may_not_name_a_file_outside_of_its_folder() {
    let space = Space::new();
    space.write(".pipe/work/secret", "x");
    for name in ["../secret", "/etc/passwd", "a/../../secret", "", "a//b"] {
        let names = BTreeSet::from([name.to_owned()]);
        let result = space.cache.memo.record(&key("c1"), &space.path(".pipe/work/one"), &names, json!(null));
        assert!(result.unwrap_err().to_string().contains("cannot be stored"), "{name:?}");
    }
    // A record with a valid checksum, as a hostile remote could send one.
    let mut record = recorded(&space);
    record.files[0].name = "../secret".to_owned();
    assert!(space.cache.memo.restore(&record, &space.path(".pipe/work/one")).is_err());
    let path = space.cache.layout.memo(&key("c1").digest());
    let body = [serde_json::to_vec(&record).unwrap(), b"\n".to_vec()].concat();
    let head = format!("pipe memo 1 {}\n", Digest::of_bytes(&body));
    crate::space::overwrite(&path, &[head.into_bytes(), body].concat());
    corrupt(&space);
}
