//! The action table serves what was recorded first, and nothing that is damaged.

use crate::space::{Space, overwrite};
use pipe_cache::{ActionKey, ActionRecord, Digest, Lookup, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

fn key(name: &str) -> ActionKey {
    ActionKey(Digest::of_bytes(name.as_bytes()))
}

fn record(space: &Space, name: &str, content: &str) -> ActionRecord {
    ActionRecord {
        key: key(name),
        manifest: space.cache.store.put_bytes(b"{}").unwrap(),
        outputs: BTreeMap::from([("out".to_owned(), space.ingest(&[("file", content.as_bytes())]))]),
        summary: json!({ "dice": 0.9 }),
        duration: Duration::from_millis(1234),
        finished_at: Timestamp(1_700_000_000_000),
        host: "node1".to_owned(),
    }
}

#[track_caller]
fn hit(space: &Space, name: &str) -> ActionRecord {
    match space.cache.actions.lookup(&key(name)).unwrap() {
        Lookup::Hit(record) => *record,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn corrupt(space: &Space, name: &str) -> String {
    match space.cache.actions.lookup(&key(name)).unwrap() {
        Lookup::Corrupt { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_published_is_found_and_complete() {
    let space = Space::new();
    assert_eq!(space.cache.actions.lookup(&key("a")).unwrap(), Lookup::Miss);
    let record = record(&space, "a", "x");
    assert_eq!(space.cache.actions.publish(&record).unwrap(), record);
    assert_eq!(hit(&space, "a"), record);
    space.cache.actions.complete(&record).unwrap();
}

#[test]
fn the_first_record_wins_and_a_forced_one_replaces_it() {
    let space = Space::new();
    let [first, second] = ["x", "y"].map(|content| record(&space, "a", content));
    space.cache.actions.publish(&first).unwrap();
    assert_eq!(space.cache.actions.publish(&second).unwrap(), first);
    assert_eq!(hit(&space, "a"), first);
    space.cache.actions.replace(&second).unwrap();
    assert_eq!(hit(&space, "a"), second);
}

#[test]
fn a_first_record_that_lost_an_object_gives_way() {
    let space = Space::new();
    let [first, second] = ["x", "y"].map(|content| record(&space, "a", content));
    space.cache.actions.publish(&first).unwrap();
    fs::remove_file(space.cache.store.object_path(&Digest::of_bytes(b"x"))).unwrap();
    assert!(space.cache.actions.complete(&first).unwrap_err().is_miss());
    assert_eq!(space.cache.actions.publish(&second).unwrap(), second);
    assert_eq!(hit(&space, "a"), second);
}

#[test]
fn a_record_whose_tree_is_gone_is_a_miss_with_a_reason() {
    let space = Space::new();
    let record = space.cache.actions.publish(&record(&space, "a", "x")).unwrap();
    fs::remove_file(space.cache.store.object_path(&record.outputs["out"])).unwrap();
    let reason = corrupt(&space, "a");
    assert!(reason.contains("output `out` is missing"), "{reason}");
}

#[test]
fn a_damaged_record_is_never_a_hit_and_is_replaced() {
    let space = Space::new();
    let record = record(&space, "a", "x");
    space.cache.actions.publish(&record).unwrap();
    let path = space.cache.layout.action(&key("a"));
    let whole = fs::read(&path).unwrap();
    for size in (0..whole.len()).step_by(11) {
        overwrite(&path, &whole[..size]);
        corrupt(&space, "a");
    }
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        overwrite(&path, &bytes);
        corrupt(&space, "a");
    }
    assert_eq!(space.cache.actions.publish(&record).unwrap(), record);
    assert_eq!(hit(&space, "a"), record);
}

#[test]
fn a_record_under_the_name_of_another_key_is_not_served() {
    let space = Space::new();
    space.cache.actions.publish(&record(&space, "a", "x")).unwrap();
    let other = space.cache.layout.action(&key("b"));
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::copy(space.cache.layout.action(&key("a")), other).unwrap();
    let reason = corrupt(&space, "b");
    assert!(reason.contains("the record of"), "{reason}");
}
