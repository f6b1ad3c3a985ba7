//! The cache of pipe: objects named by their hash, results named by what they depend on, and the
//! records that explain them. Knows bytes; knows no stages, no plan and no YAML.
//!
//! [`Cache::open`] gives all parts of one `.pipe` folder:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let cache = pipe_cache::Cache::open(&dir.path().join(".pipe"))?;
//! let digest = cache.store.put_bytes(b"voxels")?;
//! assert_eq!(cache.store.get_bytes(&digest)?, b"voxels");
//! # Ok(())
//! # }
//! ```
//!
//! Order of writing, which makes a kill at any moment harmless: objects first, then the record that
//! names them; nothing is read that was not written whole. A power cut may undo the last half minute:
//! what it tears is noticed and made again, and what took long to make is synced at once.

mod actions;
mod canonical;
mod checkout;
mod digest;
mod dirty;
mod error;
mod files;
mod gc;
mod ingest;
mod journal;
mod layout;
mod linked;
mod listing;
mod lock;
mod manifest;
mod memo;
mod place;
mod quarantine;
mod reach;
mod record;
mod scan;
mod size;
mod stat;
mod stat_cache;
mod store;
mod tags;
mod time;
mod trace;
mod transfer;
mod tree;
mod verify;
mod walk;
mod watch;
mod work;

pub use actions::{ActionRecord, ActionTable, Lookup};
pub use digest::{Digest, hash_file};
pub use dirty::DirtyReason;
pub use error::{CacheError, Warning};
pub use files::remove_tree;
pub use gc::{Collection, GcOptions, Group, Reason, StaleResult, Thing};
pub use journal::{Journal, Magic};
pub use layout::Layout;
pub use listing::{ChangeKind, FileChange, ListedFile, Listing, diff_listing};
pub use lock::{Claim, claim, holder, try_claim};
pub use manifest::{
    ActionKey, ArtifactType, ExternalRecord, InputRecord, MANIFEST_VERSION, Manifest, input_element,
};
pub use memo::{ItemMemo, MemoFile, MemoKey, MemoLookup, MemoRecord};
pub use place::{Owner, Placed};
pub use size::{StageUsage, Usage};
pub use stat::{FileStat, FileTime};
pub use stat_cache::{HashedFile, StatCache, StatMode};
pub use store::{Store, Stored};
pub use tags::check_tag;
pub use time::Timestamp;
pub use trace::{FailedTry, Outcome, RunHistory, RunId, RunRecord, StageRecord, Unchanged};
pub use transfer::Transfer;
pub use tree::{Tree, TreeEntry};
pub use verify::{Damage, Part, Verification};
pub use walk::TreeFile;
pub use watch::{Expected, Watched};
pub use work::{WORK_LOCK, WorkFolder, work_folders};

use std::path::Path;
use std::sync::Arc;

/// All parts of one `.pipe` folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Where everything lies.
    pub layout: Arc<Layout>,
    /// Objects and trees.
    pub store: Store,
    /// Results by key.
    pub actions: ActionTable,
    /// Results of single items.
    pub memo: ItemMemo,
    /// Records of runs.
    pub runs: RunHistory,
}

impl Cache {
    /// Opens the folder `root`, created if it is not there.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let layout = Arc::new(Layout::new(root));
        layout.create()?;
        let store = Store::new(layout.clone());
        Ok(Self {
            actions: ActionTable::new(store.clone()),
            memo: ItemMemo::new(store.clone()),
            runs: RunHistory::new(layout.clone()),
            store,
            layout,
        })
    }

    /// Makes the next runs look at the cache itself: something that was taken for whole is not.
    pub fn forget_states(&self) {
        self.store.forget_states();
    }

    /// Waits for the claim on `key`: one process at a time does the work of a key.
    pub fn claim(&self, key: &ActionKey) -> Result<Claim, CacheError> {
        claim(&self.layout, key)
    }

    /// Takes the claim on `key`; `None` while somebody else holds it.
    pub fn try_claim(&self, key: &ActionKey) -> Result<Option<Claim>, CacheError> {
        try_claim(&self.layout, key)
    }

    /// The other process that holds the claim on `key`, where the system tells it.
    pub fn holder(&self, key: &ActionKey) -> Option<u32> {
        holder(&self.layout, key)
    }

    /// Loads the stat cache; a damaged one is empty, with a warning.
    pub fn stat_cache(&self, mode: StatMode) -> (StatCache, Option<Warning>) {
        StatCache::load(self.layout.clone(), mode)
    }
}
