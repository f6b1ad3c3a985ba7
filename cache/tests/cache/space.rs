//! A throw-away folder with a cache in it.

use pipe_cache::{Cache, Digest};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(crate) struct Space {
    dir: tempfile::TempDir,
    pub(crate) cache: Cache,
}

impl Space {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join(".pipe")).unwrap();
        Self { dir, cache }
    }

    /// Goes on as a process that starts now.
    pub(crate) fn reopen(&mut self) {
        self.cache = Cache::open(self.cache.layout.root()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes the files below a new sandbox and ingests it.
    pub(crate) fn ingest(&self, files: &[(&str, &[u8])]) -> Digest {
        let sandbox = tempfile::tempdir_in(self.cache.layout.temporary()).unwrap();
        for (name, content) in files {
            let path = sandbox.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.cache.store.ingest_dir(sandbox.path()).unwrap()
    }
}

/// Relative path → content, `None` for a folder.
pub(crate) fn read_tree(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
                found.insert(name, None);
            } else {
                found.insert(name, Some(fs::read(path).unwrap()));
            }
        }
    }
    found
}

/// Makes a file writable, as its owner may, and writes through whatever links there are.
pub(crate) fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

/// [`overwrite`] that leaves mode and mtime as they were.
pub(crate) fn forge(path: &Path, content: &[u8]) {
    // Longer than a tick of the file system's clock.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let before = fs::metadata(path).unwrap();
    overwrite(path, content);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    fs::set_permissions(path, before.permissions()).unwrap();
    let after = fs::metadata(path).unwrap();
    assert_eq!((after.modified().unwrap(), after.mode()), (before.modified().unwrap(), before.mode()));
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
