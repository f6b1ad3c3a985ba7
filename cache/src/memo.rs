//! Results of single items within a stage, e.g. one case of a thousand.
//!
//! The stage's own key changes with any of its inputs; an item's key holds what this item depends on.

use crate::canonical;
use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::layout::Layout;
use crate::quarantine;
use crate::record::{self, Found};
use crate::store::Store;
use crate::tree::check_relative_path;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const RECORD: record::Format = record::Format { name: "memo", version: 1 };
const RESTORING: &str = "restore a memoised item";

/// Everything that may change the result of one item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoKey {
    /// Kind of the stage.
    pub kind: String,
    /// Version of its code.
    pub version: u32,
    /// The params that the result of an item depends on.
    pub params: Value,
    /// The item, e.g. the digests of its image and mask and its name, if the name is written.
    pub item: Value,
}

impl MemoKey {
    /// Names the item's record: the BLAKE3 hash of the canonical encoding of this key.
    pub fn digest(&self) -> Digest {
        let value = serde_json::to_value(self).expect("a memo key has only text keys");
        canonical::hash("pipe-memo", RECORD.version, &value)
    }
}

/// One file of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoFile {
    /// Path relative to the output folder, its names joined by `/`.
    pub name: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
}

/// The result of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoRecord {
    /// The key's digest, so that a record under another's name is noticed.
    pub(crate) key: Digest,
    /// Kind of the stage, for the collector of garbage. Records of before it was kept have none.
    #[serde(default)]
    pub(crate) kind: String,
    /// The files that the item wrote.
    pub files: Vec<MemoFile>,
    /// A small value that goes with them, e.g. a row of a table.
    pub value: Value,
}

/// What is known of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum MemoLookup {
    /// A result whose files are all in the store.
    Hit(MemoRecord),
    /// Not on record.
    Miss,
    /// On record but not usable: a miss, with a reason to tell.
    Corrupt {
        /// What is wrong with it.
        reason: String,
    },
}

/// The item memo of one `.pipe` folder. Shared like its [`Store`].
#[derive(Debug, Clone)]
pub struct ItemMemo {
    layout: Arc<Layout>,
    store: Store,
}

impl ItemMemo {
    /// The memo below the store's layout.
    pub fn new(store: Store) -> Self {
        Self { layout: store.layout.clone(), store }
    }

    /// What stands in the file of an item.
    pub(crate) fn read(path: &Path) -> Result<Found<MemoRecord>, CacheError> {
        record::read(path, RECORD).doing("look up an item")
    }

    /// Finds the result of an item.
    pub fn lookup(&self, key: &MemoKey) -> Result<MemoLookup, CacheError> {
        let digest = key.digest();
        let corrupt = |reason| Ok(MemoLookup::Corrupt { reason });
        let path = self.layout.memo(&digest);
        let record = match Self::read(&path)? {
            Found::Absent if quarantine::recall(&self.layout, &path) => Self::read(&path)?,
            found => found,
        };
        let record = match record {
            Found::Absent => return Ok(MemoLookup::Miss),
            Found::Corrupt(reason) => return corrupt(reason),
            Found::Record(record) => record,
        };
        if record.key != digest {
            return corrupt(format!("it is the record of {}", record.key));
        }
        for file in &record.files {
            if let Err(error) = check_relative_path(&file.name) {
                return corrupt(error.to_string());
            }
            match self.store.check_file(&file.name, &file.digest, file.size) {
                Err(error) if error.is_miss() => return corrupt(error.to_string()),
                result => result?,
            }
        }
        Ok(MemoLookup::Hit(record))
    }

    /// Puts the files of a found item below `folder`, where none of them may exist yet. Read-only.
    pub fn restore(&self, record: &MemoRecord, folder: &Path) -> Result<(), CacheError> {
        for file in &record.files {
            check_relative_path(&file.name)?;
            let path = folder.join(&file.name);
            fs_err::create_dir_all(path.parent().unwrap_or(folder)).doing(RESTORING)?;
            let place = |object: &Path| self.store.inside.place(object, &path, false);
            self.store.place_checked(&file.name, &file.digest, file.size, place)?.doing(RESTORING)?;
        }
        Ok(())
    }

    /// Stores the files that an item wrote below `folder`, and records them with `value`.
    ///
    /// The files stay where they are but must not be written to any more. Objects are durable before
    /// the record is written; the first record of a key wins unless it is not usable. Returns the
    /// record that was made here: it fits the files in `folder`.
    pub fn record(
        &self,
        key: &MemoKey,
        folder: &Path,
        names: &BTreeSet<String>,
        value: Value,
    ) -> Result<MemoRecord, CacheError> {
        let files = names
            .par_iter()
            .map(|name| {
                check_relative_path(name)?;
                let stored = self.store.put_file(&folder.join(name))?;
                Ok(MemoFile { name: name.clone(), digest: stored.digest, size: stored.size })
            })
            .collect::<Result<Vec<_>, CacheError>>()?;
        let digest = key.digest();
        let record = MemoRecord { key: digest, kind: key.kind.clone(), files, value };
        let path = self.layout.memo(&digest);
        let first = record::write_new(&self.layout, &path, RECORD, &record).doing(RECORDING)?;
        if !first && !matches!(self.lookup(key)?, MemoLookup::Hit(_)) {
            record::replace(&self.layout, &path, RECORD, &record).doing(RECORDING)?;
        }
        Ok(record)
    }
}

const RECORDING: &str = "record an item";
