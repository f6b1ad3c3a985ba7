//! Remembers the stat at which a large object with several names was last known to be whole.
//!
//! A large object may be one file with what stands in `results/`. A write through that name breaks the seal, unless the
//! mtime is set back, as `cp -a` by root does. No program can set the ctime back, but every new name changes it: so the
//! stat is remembered after each name that the cache gives, and an object with another one is hashed.

use crate::digest::Digest;
use crate::files::{self, LINK_SIZE};
use crate::layout::Layout;
use crate::record::{self, Format, Found};
use crate::stat::FileStat;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const LINKED: Format = Format { name: "linked", version: 1 };

/// The stats of one `.pipe` folder, read when the first is asked for and written at the latest when it is dropped. To lose
/// them costs hashing and nothing else.
#[derive(Debug)]
pub(crate) struct Linked {
    layout: Arc<Layout>,
    known: OnceLock<Mutex<HashMap<Digest, FileStat>>>,
    changed: AtomicBool,
}

impl Linked {
    pub(crate) fn new(layout: Arc<Layout>) -> Self {
        Self { layout, known: OnceLock::new(), changed: AtomicBool::new(false) }
    }

    /// Whether nobody but the cache can have had to do with an object since it was known to be whole.
    pub(crate) fn vouches(&self, digest: &Digest, found: &Metadata) -> bool {
        found.len() < LINK_SIZE
            || match self.lock().get(digest) {
                Some(known) => is_same(known, &FileStat::of(found)),
                None => found.nlink() == 1,
            }
    }

    /// Remembers an object that is known to be whole now.
    pub(crate) fn learn(&self, digest: &Digest, object: &Path) {
        let Ok(found) = std::fs::symlink_metadata(object) else { return };
        if found.len() < LINK_SIZE || !files::is_sealed(&found) {
            return;
        }
        let mut known = self.lock();
        if found.nlink() > 1 || known.contains_key(digest) {
            let stat = FileStat::of(&found);
            if known.insert(*digest, stat) != Some(stat) {
                self.changed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&Digest) -> bool) {
        let mut known = self.lock();
        let before = known.len();
        known.retain(|digest, _| is_there(digest));
        if known.len() < before {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what was learnt since the last time.
    pub(crate) fn save(&self) {
        if self.changed.swap(false, Ordering::Relaxed) {
            let known: Vec<(Digest, FileStat)> =
                self.lock().iter().map(|(digest, stat)| (*digest, *stat)).collect();
            // In a cache of another user nothing can be remembered.
            let _ = record::replace(&self.layout, &self.layout.linked(), LINKED, &known);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, FileStat>> {
        let read = || match record::read::<Vec<(Digest, FileStat)>>(&self.layout.linked(), LINKED) {
            Ok(Found::Record(known)) => Mutex::new(known.into_iter().collect()),
            Ok(Found::Absent | Found::Corrupt(_)) | Err(_) => Mutex::default(),
        };
        self.known.get_or_init(read).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.save();
    }
}

/// The device is left out: hosts that share a folder number it as they like.
fn is_same(known: &FileStat, now: &FileStat) -> bool {
    *known == FileStat { device: known.device, ..*now }
}

#[cfg(test)]
mod tests {
    use crate::Cache;
    use std::fs;

    #[test]
    fn names_that_the_cache_gives_need_no_hashing_and_others_do() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Cache::open(&dir.path().join(".pipe")).unwrap();
        let store = open().store;
        let digest = store.put_bytes(&vec![1; 100_000]).unwrap();
        let object = store.object_path(&digest);
        let vouched =
            |store: &crate::Store| store.linked.vouches(&digest, &fs_err::symlink_metadata(&object).unwrap());
        assert!(vouched(&store), "one name");
        let give = |name: &str| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let place = |from: &std::path::Path| store.inside.place(from, &dir.path().join(name), false);
            store.place_checked("volume", &digest, 100_000, place).unwrap().unwrap();
        };
        give("one");
        give("two");
        assert!(vouched(&store), "names of the cache");
        store.sync_objects(&[digest].into()).unwrap();
        assert!(vouched(&store), "a new seal");
        drop(store);
        let store = open().store;
        assert!(vouched(&store), "remembered");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::hard_link(&object, dir.path().join("three")).unwrap();
        assert!(!vouched(&store), "a name of somebody else");
        store.check(&digest, 100_000).unwrap();
        assert!(vouched(&store), "hashed");
    }
}
