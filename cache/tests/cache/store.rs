//! Objects and trees: what goes in comes out, and what was damaged does not.

use crate::space::{Space, mode, overwrite, read_tree};
use pipe_cache::{CacheError, Digest, Owner, Tree, TreeEntry};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

const LARGE: &[u8] = &[9; 100_000];

/// A folder for tests: names → content or subfolder.
#[derive(Debug, Clone)]
enum Model {
    File(Vec<u8>),
    Folder(BTreeMap<String, Model>),
}

fn model() -> impl Strategy<Value = BTreeMap<String, Model>> {
    let name = "[a-c]{1,2}|[.]{3}|é|x y";
    let file = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..40),
        // Around the border between small and large files, for links and copies alike.
        (65_530_usize..65_545, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]),
    ]
    .prop_map(Model::File);
    let entry = file.prop_recursive(3, 24, 5, move |inner| {
        prop::collection::btree_map(name, inner, 0..5).prop_map(Model::Folder)
    });
    prop::collection::btree_map(name, entry, 0..5)
}

fn write_model(folder: &std::path::Path, model: &BTreeMap<String, Model>) {
    fs::create_dir_all(folder).unwrap();
    for (name, entry) in model {
        match entry {
            Model::File(content) => fs::write(folder.join(name), content).unwrap(),
            Model::Folder(inner) => write_model(&folder.join(name), inner),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_folder_that_is_ingested_is_checked_out_and_placed_the_same(model in model(), other in model()) {
        let space = Space::new();
        let store = &space.cache.store;
        let (stats, _) = space.cache.stat_cache(pipe_cache::StatMode::Strict);
        write_model(&space.path("one"), &model);
        write_model(&space.path("two"), &other);
        let [one, two] = ["one", "two"].map(|name| read_tree(&space.path(name)));
        let trees = ["one", "two"].map(|name| store.ingest_dir(&space.path(name)).unwrap());

        prop_assert_eq!(trees[0] == trees[1], one == two);
        for (tree, expected) in trees.iter().zip([&one, &two]) {
            prop_assert_eq!(&read_tree(&store.checkout(tree).unwrap()), expected);
            let listed: BTreeMap<_, _> =
                store.tree_entries(tree).unwrap().into_iter().map(|file| (file.path, (file.digest, file.size))).collect();
            let files: BTreeMap<_, _> = expected
                .iter()
                .filter_map(|(name, content)| Some((name.clone(), content.as_ref()?)))
                .map(|(name, content)| (name, (Digest::of_bytes(content), content.len() as u64)))
                .collect();
            prop_assert_eq!(listed, files);
        }
        // One after the other in the same place, and back: nothing of the other remains but empty folders.
        let files_only = |tree: BTreeMap<String, Option<Vec<u8>>>| -> BTreeMap<_, _> {
            tree.into_iter().filter(|(_, content)| content.is_some()).collect()
        };
        let conflict = one.iter().any(|(name, content)| {
            two.get(name).is_some_and(|other| other.is_some() != content.is_some())
        });
        if !conflict {
            for (tree, expected) in [(&trees[0], &one), (&trees[1], &two), (&trees[0], &one)] {
                store.place(&[(String::new(), *tree)].into(), &space.path("results"), Owner::default(), &stats).unwrap();
                let placed = read_tree(&space.path("results"));
                for (name, content) in expected {
                    prop_assert_eq!(placed.get(name), Some(content));
                }
                prop_assert_eq!(files_only(placed), files_only(expected.clone()));
            }
        }
    }

    #[test]
    fn bytes_that_were_put_are_got(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..8)) {
        let space = Space::new();
        for content in &contents {
            let digest = space.cache.store.put_bytes(content).unwrap();
            prop_assert_eq!(digest, Digest::of_bytes(content));
            prop_assert_eq!(&space.cache.store.get_bytes(&digest).unwrap(), content);
        }
    }

    #[test]
    fn bytes_from_anywhere_never_decode_to_a_tree_of_another_encoding(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let with_head = [&Tree::default().encode()[..10], &bytes].concat();
        for bytes in [bytes, with_head] {
            if let Ok(tree) = Tree::decode(&bytes) {
                prop_assert_eq!(tree.encode(), bytes);
            }
        }
    }
}

#[test]
fn identical_files_are_stored_once_and_read_only() {
    let space = Space::new();
    let tree = space.ingest(&[("a.txt", b"same"), ("deep/b.txt", b"same")]);
    let object = space.cache.store.object_path(&Digest::of_bytes(b"same"));
    assert_eq!(mode(&object), 0o444);
    let folder = space.cache.store.checkout(&tree).unwrap();
    assert_eq!(fs::read(folder.join("deep/b.txt")).unwrap(), b"same");
    assert_eq!(
        (mode(&folder), mode(&folder.join("deep")), mode(&folder.join("a.txt"))),
        (0o555, 0o555, 0o444)
    );
}

#[test]
fn a_changed_file_changes_the_trees_on_its_path_and_no_others() {
    let space = Space::new();
    let [before, after] = [&b"1"[..], b"2"].map(|content| {
        let tree = space.ingest(&[("a/x", content), ("b/y", b"same")]);
        space
            .cache
            .store
            .get_tree(&tree)
            .unwrap()
            .entries()
            .map(|(_, entry)| entry.clone())
            .collect::<Vec<_>>()
    });
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

#[test]
fn an_executable_file_stays_executable_and_shares_no_inode_with_its_object() {
    let space = Space::new();
    let script = space.write(".pipe/work/sandbox/run.sh", vec![b'#'; 100_000]);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let tree = space.cache.store.ingest_dir(script.parent().unwrap()).unwrap();
    let files = space.cache.store.tree_entries(&tree).unwrap();
    assert!(files[0].executable);
    let out = space.cache.store.checkout(&tree).unwrap().join("run.sh");
    let object = space.cache.store.object_path(&files[0].digest);
    assert_eq!((mode(&out), mode(&object)), (0o555, 0o444));
    assert_ne!(fs::metadata(out).unwrap().ino(), fs::metadata(object).unwrap().ino());
}

#[test]
fn a_link_or_a_socket_in_an_output_is_refused_before_anything_is_moved() {
    let space = Space::new();
    let kept = space.write(".pipe/work/one/a.txt", "kept");
    symlink("/etc/passwd", space.path(".pipe/work/one/z-link")).unwrap();
    let error = space.cache.store.ingest_dir(&space.path(".pipe/work/one")).unwrap_err();
    assert!(error.to_string().contains("z-link` is a symbolic link"), "{error}");
    assert!(kept.exists());

    fs::create_dir_all(space.path(".pipe/work/two")).unwrap();
    let _listener = UnixListener::bind(space.path(".pipe/work/two/s")).unwrap();
    let error = space.cache.store.ingest_dir(&space.path(".pipe/work/two")).unwrap_err();
    assert!(error.to_string().contains("is a socket"), "{error}");

    let link = space.path(".pipe/work/one/z-link");
    assert!(matches!(
        space.cache.store.put_file(&link),
        Err(CacheError::UnsupportedFile { found: "symbolic link", .. })
    ));
}

#[test]
fn a_file_with_a_second_name_is_copied_so_that_the_other_name_stays_writable() {
    let space = Space::new();
    let users = space.write("users.nii", "voxels");
    fs::create_dir_all(space.path(".pipe/work/sandbox")).unwrap();
    fs::hard_link(&users, space.path(".pipe/work/sandbox/out.nii")).unwrap();
    space.cache.store.ingest_dir(&space.path(".pipe/work/sandbox")).unwrap();
    assert_eq!(mode(&users) & 0o200, 0o200);
    fs::write(&users, "edited").unwrap();
    assert_eq!(space.cache.store.get_bytes(&Digest::of_bytes(b"voxels")).unwrap(), b"voxels");
}

#[test]
fn an_ingested_folder_is_its_own_checkout() {
    let space = Space::new();
    let script = space.write(".pipe/work/sandbox/deep/run.sh", "#!");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let volume = space.write(".pipe/work/sandbox/volume.npy", vec![3; 300_000]);
    let inode = fs::metadata(&volume).unwrap().ino();
    let sandbox = space.path(".pipe/work/sandbox");
    let tree = space.cache.store.ingest_dir(&sandbox).unwrap();
    assert!(!sandbox.exists());
    let out = space.cache.store.checkout(&tree).unwrap();
    assert_eq!(fs::metadata(out.join("volume.npy")).unwrap().ino(), inode);
    assert_eq!((mode(&out), mode(&out.join("deep")), mode(&out.join("deep/run.sh"))), (0o555, 0o555, 0o555));
}

#[test]
fn an_object_that_was_not_synced_is_hashed_after_a_restart_of_the_system() {
    let space = Space::new();
    let tree = space.ingest(&[("volume.npy", LARGE)]);
    let digest = Digest::of_bytes(LARGE);
    let object = space.cache.store.object_path(&digest);
    // As a power cut leaves a file whose blocks were never written: same size, same times, other bytes.
    let tear = || {
        let sealed = fs::metadata(&object).unwrap().modified().unwrap();
        overwrite(&object, &vec![0; LARGE.len()]);
        let file = fs::File::open(&object).unwrap();
        let before_the_start = sealed - std::time::Duration::from_hours(87600);
        file.set_modified(before_the_start).unwrap();
        fs::set_permissions(&object, fs::Permissions::from_mode(0o444)).unwrap();
    };
    tear();
    assert!(space.cache.store.check(&digest, LARGE.len() as u64).unwrap_err().is_miss());

    assert_eq!(space.ingest(&[("volume.npy", LARGE)]), tree);
    space.cache.store.sync_tree(&tree).unwrap();
    let synced = fs::metadata(&object).unwrap();
    assert_eq!(synced.mtime_nsec(), 271_828_000);
}

/// Damages an object, then checks that it is not served, is told, and is repaired by the next put.
#[track_caller]
fn check_damage(damage: impl Fn(&std::path::Path)) {
    let space = Space::new();
    let store = &space.cache.store;
    let content = vec![5; 70_000];
    let tree = space.ingest(&[("volume.npy", &content)]);
    let digest = Digest::of_bytes(&content);
    // A whole materialisation would be served without its object.
    let out = store.checkout(&tree).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(&out).unwrap();
    damage(&store.object_path(&digest));

    let error = store.checkout(&tree).unwrap_err();
    assert!(error.is_miss(), "checkout: {error}");
    let error = store.get_bytes(&digest).unwrap_err();
    assert!(error.is_miss(), "get: {error}");
    assert!(store.check_tree(&tree).unwrap_err().to_string().contains("`volume.npy`"), "names the file");

    assert_eq!(space.ingest(&[("volume.npy", &content)]), tree);
    assert_eq!(fs::read(store.checkout(&tree).unwrap().join("volume.npy")).unwrap(), content);
    store.verify(&digest).unwrap();
}

#[test]
fn a_missing_object_is_a_miss_and_is_repaired() {
    check_damage(|object| fs::remove_file(object).unwrap());
}

#[test]
fn a_truncated_object_is_a_miss_and_is_repaired() {
    check_damage(|object| overwrite(object, &vec![5; 69_999]));
}

#[test]
fn an_empty_object_is_a_miss_and_is_repaired() {
    check_damage(|object| overwrite(object, b""));
}

#[test]
fn an_object_with_a_flipped_bit_is_a_miss_and_is_repaired() {
    check_damage(|object| {
        let mut content = fs::read(object).unwrap();
        content[40_000] ^= 4;
        overwrite(object, &content);
        fs::set_permissions(object, fs::Permissions::from_mode(0o444)).unwrap();
    });
}

#[test]
fn an_object_that_became_a_link_is_a_miss_and_is_repaired() {
    check_damage(|object| {
        fs::remove_file(object).unwrap();
        symlink("/etc/passwd", object).unwrap();
    });
}

#[test]
fn a_bit_that_the_disk_flipped_is_found_when_the_object_is_read_and_by_verify() {
    // As a failing disk would: the content differs, size, mode and times do not.
    let space = Space::new();
    let store = &space.cache.store;
    for read in [true, false] {
        let digest = store.put_bytes(b"voxels").unwrap();
        let object = store.object_path(&digest);
        let modified = fs::metadata(&object).unwrap().modified().unwrap();
        overwrite(&object, b"voxelz");
        let file = fs::File::options().write(true).open(&object).unwrap();
        file.set_modified(modified).unwrap();
        fs::set_permissions(&object, fs::Permissions::from_mode(0o444)).unwrap();
        store.check(&digest, 6).unwrap();
        let error = if read { store.get_bytes(&digest).map(drop) } else { store.verify(&digest) };
        assert!(matches!(error, Err(CacheError::CorruptObject { .. })), "{error:?}");
        assert!(!store.contains(&digest), "moved to quarantine");
    }
}

#[test]
fn an_object_whose_seal_is_lost_but_whose_bytes_are_right_is_kept_and_sealed_again() {
    let space = Space::new();
    let digest = space.cache.store.put_bytes(b"voxels").unwrap();
    let object = space.cache.store.object_path(&digest);
    overwrite(&object, b"voxels");
    space.cache.store.check(&digest, 6).unwrap();
    assert_eq!(mode(&object), 0o444);
}

#[test]
fn an_object_that_is_no_tree_is_refused_as_one() {
    let space = Space::new();
    let digest = space.cache.store.put_bytes(b"pipe-tree\x01 but not really").unwrap();
    let error = space.cache.store.checkout(&digest).unwrap_err();
    assert!(error.to_string().contains("as a tree"), "{error}");
}

/// A chain of trees, each with the one before under all of `names`.
fn chain(space: &Space, length: usize, names: &[&str]) -> Digest {
    (0..length).fold(space.cache.store.put_tree(&Tree::default()).unwrap(), |digest, _| {
        let mut tree = Tree::default();
        for name in names {
            tree.insert(*name, TreeEntry::Dir { digest }).unwrap();
        }
        space.cache.store.put_tree(&tree).unwrap()
    })
}

#[test]
fn trees_too_deep_or_with_too_many_files_are_refused_before_they_are_walked() {
    let space = Space::new();
    let store = &space.cache.store;
    assert_eq!(store.tree_entries(&chain(&space, 255, &["a"])).unwrap(), []);
    for (length, names) in [(256, &["a"][..]), (60, &["a", "b"]), (24, &["a", "b"])] {
        let error = store.tree_entries(&chain(&space, length, names)).unwrap_err();
        assert!(matches!(error, CacheError::CorruptObject { .. }), "{length}: {error}");
    }
}

/// Damages a checkout, then checks that the next one is right again.
#[track_caller]
fn check_checkout(damage: impl Fn(&std::path::Path)) {
    let space = Space::new();
    let content = vec![5; 70_000];
    let tree = space.ingest(&[("deep/volume.npy", &content), ("meta.csv", b"id\n")]);
    let folder = space.cache.store.checkout(&tree).unwrap();
    let expected = read_tree(&folder);
    for path in [&folder, &folder.join("deep")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    damage(&folder);
    assert_eq!(read_tree(&space.cache.store.checkout(&tree).unwrap()), expected);
}

#[test]
fn a_checkout_that_lost_a_file_or_gained_one_is_made_again() {
    check_checkout(|folder| fs::remove_file(folder.join("deep/volume.npy")).unwrap());
    check_checkout(|folder| fs::remove_dir_all(folder.join("deep")).unwrap());
    check_checkout(|folder| fs::write(folder.join("deep/extra"), "").unwrap());
    check_checkout(|folder| {
        fs::remove_file(folder.join("meta.csv")).unwrap();
        fs::write(folder.join("meta.csv"), "ID\n").unwrap();
    });
}

#[test]
fn a_write_through_a_checkout_damages_no_later_one() {
    let space = Space::new();
    let content = vec![5; 70_000];
    let tree = space.ingest(&[("volume.npy", &content)]);
    let folder = space.cache.store.checkout(&tree).unwrap();
    overwrite(&folder.join("volume.npy"), &vec![6; 70_000]);
    match space.cache.store.checkout(&tree) {
        // The file was a clone or a copy.
        Ok(folder) => assert_eq!(fs::read(folder.join("volume.npy")).unwrap(), content),
        // It was a hard link: the object is gone with it.
        Err(error) => assert!(error.is_miss(), "{error}"),
    }
}

#[test]
fn files_that_a_dead_process_left_behind_are_not_served() {
    let space = Space::new();
    space.write(".pipe/tmp/abcdefghijklmnopqrstuv", "half an obj");
    space.write(".pipe/tmp/tree-abcdefghijklmnopqrstuv/meta.csv", "half a tree");
    let tree = space.ingest(&[("meta.csv", b"id\n")]);
    let found = read_tree(&space.cache.store.checkout(&tree).unwrap());
    assert_eq!(found, BTreeMap::from([("meta.csv".to_owned(), Some(b"id\n".to_vec()))]));
}
