//! The stat cache never takes a changed file for unchanged, and soon stops reading unchanged ones.

use crate::space::Space;
use pipe_cache::{CacheError, Digest, StatCache, StatMode};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn load(space: &Space) -> StatCache {
    let (stats, warning) = space.cache.stat_cache(StatMode::Strict);
    assert_eq!(warning, None);
    stats
}

/// Longer than a tick of the kernel's clock, so that what was written before is not racy.
fn wait_a_tick() {
    std::thread::sleep(Duration::from_millis(25));
}

fn digest(stats: &StatCache, path: &Path) -> Digest {
    stats.digest_file(path).unwrap().digest
}

/// A file that was hashed, saved and is trusted from then on.
fn settled(space: &Space, content: &[u8]) -> PathBuf {
    let path = space.write("data/case.nii", content);
    wait_a_tick();
    let stats = load(space);
    assert_eq!(digest(&stats, &path), Digest::of_bytes(content));
    stats.save().unwrap();
    path
}

/// Replaces the digests in the saved cache, to see whether one is believed or the file is read.
fn forge(space: &Space, real: &[u8], forged: Digest) {
    let path = space.path(".pipe/stat-v1");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 32);
    let real = Digest::of_bytes(real).0;
    let at = bytes.windows(32).position(|window| window == real).expect("the digest is in the file");
    bytes[at..at + 32].copy_from_slice(&forged.0);
    bytes.extend(Digest::of_bytes(&bytes).0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_settled_file_is_not_read_again() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    let forged = Digest::of_bytes(b"forged");
    forge(&space, b"voxels", forged);
    assert_eq!(digest(&load(&space), &path), forged);
}

#[test]
fn a_file_written_in_the_tick_in_which_it_was_hashed_is_read_again() {
    let space = Space::new();
    // Many times, as a tick may end between the two steps: then the entry is rightly settled.
    let mut read_again = 0;
    for round in 0..50_u8 {
        let content = [round; 6];
        let path = space.write(&format!("data/{round}"), content);
        let stats = load(&space);
        digest(&stats, &path);
        // The same size, so in one tick the stat may be the same in all fields.
        fs::write(&path, [round + 100; 6]).unwrap();
        assert_eq!(digest(&stats, &path), Digest::of_bytes(&[round + 100; 6]), "round {round}");
        stats.save().unwrap();
        forge(&space, &[round + 100; 6], Digest::of_bytes(b"forged"));
        read_again += usize::from(digest(&load(&space), &path) == Digest::of_bytes(&[round + 100; 6]));
        fs::remove_file(space.path(".pipe/stat-v1")).unwrap();
    }
    assert!(read_again > 0, "no round was racy, so this test tested nothing");
}

#[test]
fn an_edit_of_the_same_size_with_restored_mtime_is_seen() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"voxelz").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
    assert_eq!(digest(&load(&space), &path), Digest::of_bytes(b"voxelz"));
}

#[test]
fn another_file_of_the_same_size_and_mtime_moved_into_place_is_seen() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let other = space.write("data/other.nii", b"voxelz");
    fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    for mode in [StatMode::Strict, StatMode::NoInode] {
        fs::rename(&other, &path).unwrap();
        assert_eq!(digest(&space.cache.stat_cache(mode).0, &path), Digest::of_bytes(b"voxelz"), "{mode:?}");
        fs::rename(&path, &other).unwrap();
    }
}

#[test]
fn a_touched_file_has_the_same_digest_and_is_trusted_again() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    wait_a_tick();
    let stats = load(&space);
    assert_eq!(digest(&stats, &path), Digest::of_bytes(b"voxels"));
    stats.save().unwrap();
    forge(&space, b"voxels", Digest::of_bytes(b"forged"));
    assert_eq!(digest(&load(&space), &path), Digest::of_bytes(b"forged"));
}

#[test]
fn nothing_is_written_when_nothing_was_learnt() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(space.path(".pipe/stat-v1")).unwrap());
    let before = inode();
    let stats = load(&space);
    digest(&stats, &path);
    stats.save().unwrap();
    assert_eq!(inode(), before);
}

#[test]
fn a_damaged_cache_is_empty_and_told() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    let file = space.path(".pipe/stat-v1");
    let whole = fs::read(&file).unwrap();
    forge(&space, b"voxels", Digest::of_bytes(b"forged"));
    let forged = fs::read(&file).unwrap();
    for size in [0, 1, 9, 10, 41, 42, 100, whole.len() - 1] {
        fs::write(&file, &forged[..size]).unwrap();
        let (stats, warning) = space.cache.stat_cache(StatMode::Strict);
        assert!(warning.is_some(), "{size} bytes");
        assert_eq!(digest(&stats, &path), Digest::of_bytes(b"voxels"));
    }
    for at in (0..forged.len()).step_by(7) {
        let mut bytes = forged.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let (stats, warning) = space.cache.stat_cache(StatMode::Strict);
        assert!(warning.is_some(), "byte {at}");
        assert_eq!(digest(&stats, &path), Digest::of_bytes(b"voxels"));
    }
}

#[test]
fn in_content_mode_every_file_is_read() {
    let space = Space::new();
    let path = settled(&space, b"voxels");
    forge(&space, b"voxels", Digest::of_bytes(b"forged"));
    assert_eq!(digest(&space.cache.stat_cache(StatMode::Content).0, &path), Digest::of_bytes(b"voxels"));
}

#[test]
fn a_missing_file_is_an_error_that_names_it_and_the_others_are_hashed() {
    let space = Space::new();
    let there = space.write("data/there", "x");
    let results = load(&space).digest_files(&[there, space.path("data/gone")]);
    assert_eq!(results[0].as_ref().unwrap().digest, Digest::of_bytes(b"x"));
    let Err(CacheError::Io { source, .. }) = &results[1] else { panic!("{results:?}") };
    assert!(source.to_string().contains("data/gone"), "{source}");
}

#[test]
fn ten_thousand_files_keep_their_order() {
    let space = Space::new();
    let paths: Vec<_> = (0..10_000).map(|i| space.write(&format!("data/{i}"), i.to_string())).collect();
    for (i, result) in load(&space).digest_files(&paths).into_iter().enumerate() {
        assert_eq!(result.unwrap().digest, Digest::of_bytes(i.to_string().as_bytes()), "file {i}");
    }
}

#[test]
fn a_file_on_another_device_is_trusted_from_the_second_time_on_that_it_is_hashed() {
    use std::os::unix::fs::MetadataExt;
    let space = Space::new();
    let device = |path: &Path| fs::metadata(path).map(|stat| stat.dev()).ok();
    let memory = Path::new("/dev/shm");
    if device(memory).is_none_or(|memory| Some(memory) == device(&space.path(""))) {
        println!("skipped: /dev/shm is not another device here");
        return;
    }
    let dir = tempfile::tempdir_in(memory).unwrap();
    let path = dir.path().join("case.nii");
    fs::write(&path, b"voxels").unwrap();
    let forged = Digest::of_bytes(b"forged");
    // Hashed at once, hashed again after more than the tick of any file system, believed.
    for (wait_ms, expected) in [(25, b"voxels"), (4200, b"voxels"), (25, b"forged")] {
        std::thread::sleep(Duration::from_millis(wait_ms));
        let stats = load(&space);
        assert_eq!(digest(&stats, &path), Digest::of_bytes(expected), "after {wait_ms} ms");
        stats.save().unwrap();
        if expected == b"voxels" {
            forge(&space, b"voxels", forged);
        }
    }
}
