//! The store and the action table against a model, under random operations, damage and collections.
//!
//! The invariant: **what is recorded is whole or a miss, and never wrong.** A result that is found has
//! the bytes that were recorded first; and without damage, while it is kept, it is found.

use crate::gc::{in_days, manifest, publish};
use crate::space::{overwrite, read_tree};
use pipe_cache::{ActionRecord, Cache, Digest, GcOptions, Lookup, Manifest};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const KEYS: u8 = 4;

#[derive(Debug, Clone)]
enum Operation {
    /// Stores bytes of this content, alone.
    Put(u8),
    /// Makes the output of this content and records it under the key.
    Publish(u8, u8),
    /// Several at once, from threads.
    PublishAll(Vec<(u8, u8)>),
    /// Collects, with these keys as roots, so many days from now.
    Collect(BTreeSet<u8>, u32),
    /// A process dies while it writes: half a file in `tmp/`, half an output in `work/`.
    Die(u8),
    /// The n-th file of this bucket loses its second half, or a bit.
    Damage(&'static str, u8, bool),
    /// The n-th file of this bucket is lost.
    Lose(&'static str, u8),
    /// A result is asked for, which brings it back from quarantine.
    Look(u8),
    /// Another process opens the cache.
    Reopen,
    /// Everything is verified.
    Verify,
}

fn operation() -> impl Strategy<Value = Operation> {
    let bucket = || prop_oneof![4 => Just("objects-v1"), 1 => Just("actions-v1"), 1 => Just("trees-v1")];
    let pair = || (0..KEYS, 0_u8..6);
    prop_oneof![
        1 => (0_u8..6).prop_map(Operation::Put),
        6 => pair().prop_map(|(key, content)| Operation::Publish(key, content)),
        2 => vec(pair(), 2..6).prop_map(Operation::PublishAll),
        4 => (proptest::collection::btree_set(0..KEYS, 0..3), prop_oneof![Just(0_u32), Just(2), Just(5)])
            .prop_map(|(roots, days)| Operation::Collect(roots, days)),
        1 => any::<u8>().prop_map(Operation::Die),
        2 => (bucket(), any::<u8>(), any::<bool>()).prop_map(|(bucket, n, cut)| Operation::Damage(bucket, n, cut)),
        1 => (bucket(), any::<u8>()).prop_map(|(bucket, n)| Operation::Lose(bucket, n)),
        2 => (0..KEYS).prop_map(Operation::Look),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Verify),
    ]
}

/// The files of an output: some that all outputs share, small ones and one that is large enough to be linked.
fn files_of(content: u8) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        ("shared".to_owned(), b"the same in all".to_vec()),
        ("folder/own".to_owned(), vec![content; 100]),
        ("folder/half".to_owned(), vec![content / 2; 50]),
        ("large".to_owned(), vec![content; 70_000]),
    ])
}

fn key(name: u8) -> Manifest {
    manifest("model", &name.to_string())
}

struct World {
    root: PathBuf,
    cache: Cache,
    /// What was recorded under a key, and whether it must still be found.
    recorded: BTreeMap<u8, (u8, bool)>,
}

impl World {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Put(content) => {
                for bytes in files_of(*content).values() {
                    let digest = self.cache.store.put_bytes(bytes).unwrap();
                    assert_eq!(&self.cache.store.get_bytes(&digest).unwrap(), bytes);
                }
            }
            Operation::Publish(name, content) => self.publish(&[(*name, *content)]),
            Operation::PublishAll(pairs) => self.publish(pairs),
            Operation::Collect(roots, days) => self.collect(roots, *days),
            Operation::Die(n) => {
                let layout = &self.cache.layout;
                fs::write(layout.temporary().join(format!("left-{n}")), vec![*n; 1000]).unwrap();
                let work = layout.work().join(format!("run-{n}"));
                fs::create_dir_all(work.join("out")).unwrap();
                fs::write(work.join("out/half"), "ha").unwrap();
            }
            Operation::Damage(bucket, n, cut) => {
                if let Some(path) = self.pick(bucket, *n) {
                    let mut bytes = fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    if *cut {
                        bytes.truncate(middle);
                    } else if let Some(byte) = bytes.get_mut(middle) {
                        *byte ^= 1;
                    }
                    overwrite(&path, &bytes);
                    self.doubt_all();
                }
            }
            Operation::Lose(bucket, n) => {
                if let Some(path) = self.pick(bucket, *n) {
                    let folder = path.parent().unwrap();
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                    fs::set_permissions(folder, mode).unwrap();
                    fs::remove_file(path).unwrap();
                    self.doubt_all();
                }
            }
            Operation::Look(name) => self.check(*name),
            Operation::Reopen => self.cache = Cache::open(&self.root).unwrap(),
            Operation::Verify => {
                self.cache.verify().unwrap();
                assert_eq!(self.cache.verify().unwrap().damage, [], "verified twice");
            }
        }
    }

    fn publish(&mut self, pairs: &[(u8, u8)]) {
        let cache = &self.cache;
        let stands: Vec<(u8, ActionRecord)> = std::thread::scope(|scope| {
            let one = |(name, content): (u8, u8)| {
                let sandbox = tempfile::tempdir_in(cache.layout.temporary()).unwrap();
                for (file, bytes) in files_of(content) {
                    fs::create_dir_all(sandbox.path().join("folder")).unwrap();
                    fs::write(sandbox.path().join(file), bytes).unwrap();
                }
                let output = cache.store.ingest_dir(sandbox.path()).unwrap();
                (name, publish(cache, &key(name), output))
            };
            let threads: Vec<_> = pairs.iter().map(|pair| scope.spawn(move || one(*pair))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (name, record) in stands {
            let content = self.content(&record).expect("a record that was just published is whole");
            let allowed = |new: &(u8, u8)| *new == (name, content);
            match self.recorded.get(&name) {
                Some((first, true)) => assert_eq!(content, *first, "the first record of {name} wins"),
                Some((first, false)) => assert!(content == *first || pairs.iter().any(allowed)),
                None => assert!(pairs.iter().any(allowed)),
            }
        }
        for name in pairs.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>() {
            let Some(content) = self.look(name) else { panic!("{name} was published and is missing") };
            self.recorded.insert(name, (content, true));
        }
    }

    fn collect(&mut self, roots: &BTreeSet<u8>, days: u32) {
        let extra_roots = roots.iter().map(|name| key(*name).key().0).collect();
        // Today nothing is old enough.
        let options = GcOptions { extra_roots, ..in_days(days) };
        self.cache.collect_garbage(&options).unwrap();
        for (name, (_, certain)) in &mut self.recorded {
            *certain &= roots.contains(name) || days == 0;
        }
    }

    /// The n-th file of a bucket, in some order that is the same each time.
    fn pick(&self, bucket: &str, n: u8) -> Option<PathBuf> {
        let folder = self.cache.layout.root().join(bucket);
        let files: Vec<_> = read_tree(&folder)
            .into_iter()
            .filter(|(_, bytes)| bytes.is_some())
            .map(|(name, _)| name)
            .collect();
        (!files.is_empty()).then(|| folder.join(&files[usize::from(n) % files.len()]))
    }

    fn doubt_all(&mut self) {
        self.recorded.values_mut().for_each(|(_, certain)| *certain = false);
    }

    /// The content on record under a key, read as a stage reads it; `None` for a miss.
    fn look(&self, name: u8) -> Option<u8> {
        match self.cache.actions.lookup(&key(name).key()).unwrap() {
            Lookup::Hit(record) => self.content(&record),
            Lookup::Miss | Lookup::Corrupt { .. } => None,
        }
    }

    fn content(&self, record: &ActionRecord) -> Option<u8> {
        let output: &Digest = &record.outputs["out"];
        let read = self.cache.actions.complete(record).and_then(|()| self.cache.store.checkout(output));
        let folder = match read {
            Err(error) if error.is_miss() => return None,
            result => result.unwrap(),
        };
        let files: BTreeMap<_, _> =
            read_tree(&folder).into_iter().filter_map(|(name, bytes)| Some((name, bytes?))).collect();
        let content = files["large"][0];
        assert_eq!(files, files_of(content), "a result that is served is whole");
        Some(content)
    }

    fn check(&self, name: u8) {
        let Some((content, certain)) = self.recorded.get(&name) else {
            assert_eq!(self.look(name), None, "result {name} was never recorded");
            return;
        };
        match self.look(name) {
            Some(found) => assert_eq!(found, *content, "result {name}"),
            None => assert!(!certain, "result {name} is lost"),
        }
    }

    /// Looks at what must be there. The rest is left where it is, for collections to find.
    fn check_certain(&self) {
        let certain = self.recorded.iter().filter(|(_, (_, certain))| *certain);
        certain.for_each(|(name, _)| self.check(*name));
    }
}

fn play(root: &Path, operations: &[Operation]) {
    let cache = Cache::open(root).unwrap();
    let mut world = World { root: root.to_owned(), cache, recorded: BTreeMap::new() };
    for operation in operations {
        world.apply(operation);
        world.check_certain();
    }
    (0..KEYS).for_each(|name| world.check(name));
    // What remains after all of it can be repaired: nothing is damaged, and nothing that dead processes left is left.
    world.cache.verify().unwrap();
    assert_eq!(world.cache.verify().unwrap().damage, []);
    let now = GcOptions { grace: std::time::Duration::ZERO, now: None, ..in_days(0) };
    world.cache.collect_garbage(&now).unwrap();
    for folder in ["tmp", "work", "objects-v1", "actions-v1", "quarantine"] {
        let left: Vec<_> = read_tree(&world.cache.layout.root().join(folder))
            .into_iter()
            .filter(|(_, bytes)| bytes.is_some())
            .collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_recorded_is_whole_or_a_miss_and_never_wrong(operations in vec(operation(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        play(&dir.path().join(".pipe"), &operations);
    }
}
