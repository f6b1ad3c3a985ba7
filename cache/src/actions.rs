//! The action table: key of a stage → its result. One checksummed file a key.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::layout::Layout;
use crate::manifest::ActionKey;
use crate::quarantine;
use crate::record::{self, Found};
use crate::store::Store;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const RECORD: record::Format = record::Format { name: "action", version: 1 };

/// The result of one run of a stage. Times and host are told to people; nothing depends on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionRecord {
    /// The key that this is the result of.
    pub key: ActionKey,
    /// Object that holds the manifest: see [`Manifest::get`](crate::Manifest::get).
    pub manifest: Digest,
    /// Output port → tree.
    pub outputs: BTreeMap<String, Digest>,
    /// Small facts that the stage told, e.g. a score.
    pub summary: Value,
    /// How long it ran.
    pub duration: Duration,
    /// When it was done.
    pub finished_at: Timestamp,
    /// Where it ran.
    pub host: String,
}

/// What the table knows of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// A result; the tree object of each output is there. [`ActionTable::complete`] checks the rest.
    Hit(Box<ActionRecord>),
    /// No result is on record.
    Miss,
    /// A result cannot be used: a miss, with a reason to tell.
    Corrupt {
        /// What is wrong with it.
        reason: String,
    },
}

/// The action table of one `.pipe` folder. Shared like its [`Store`].
#[derive(Debug, Clone)]
pub struct ActionTable {
    layout: Arc<Layout>,
    store: Store,
}

impl ActionTable {
    /// The table below the store's layout.
    pub fn new(store: Store) -> Self {
        Self { layout: store.layout.clone(), store }
    }

    /// What stands in the file of a result.
    pub(crate) fn read(path: &Path) -> Result<Found<ActionRecord>, CacheError> {
        record::read(path, RECORD).doing("look up a result")
    }

    /// Finds the result of `key`. A damaged record is a value, an unreadable disk an error.
    pub fn lookup(&self, key: &ActionKey) -> Result<Lookup, CacheError> {
        let path = self.layout.action(key);
        let record = match Self::read(&path)? {
            Found::Absent if quarantine::recall(&self.layout, &path) => Self::read(&path)?,
            found => found,
        };
        let record = match record {
            Found::Absent => return Ok(Lookup::Miss),
            Found::Corrupt(reason) => return Ok(Lookup::Corrupt { reason }),
            Found::Record(record) => record,
        };
        if record.key != *key {
            return Ok(Lookup::Corrupt { reason: format!("it is the record of {}", record.key) });
        }
        if let Some((port, tree)) = record.outputs.iter().find(|(_, tree)| !self.store.contains(tree)) {
            let reason = format!("tree {} of output `{port}` is missing from the cache", tree.short());
            return Ok(Lookup::Corrupt { reason });
        }
        Ok(Lookup::Hit(Box::new(record)))
    }

    /// Checks that every object of every output is there; the error names the first that is not, and
    /// [is a miss](CacheError::is_miss).
    pub fn complete(&self, record: &ActionRecord) -> Result<(), CacheError> {
        record.outputs.values().try_for_each(|tree| self.store.check_tree(tree))
    }

    /// Records a result whose objects are all stored, and returns the record that stands.
    ///
    /// The first record of a key wins, so all who read the key see one result even of a stage that is
    /// not deterministic. It gives way only if it is damaged or its objects are not complete.
    pub fn publish(&self, record: &ActionRecord) -> Result<ActionRecord, CacheError> {
        let path = self.layout.action(&record.key);
        // One that was moved is still the first.
        let moved = !path.exists() && quarantine::recall(&self.layout, &path);
        if !moved && record::write_new(&self.layout, &path, RECORD, record).doing(RECORDING)? {
            return Ok(record.clone());
        }
        if let Lookup::Hit(first) = self.lookup(&record.key)? {
            match self.complete(&first) {
                Ok(()) => return Ok(*first),
                Err(error) if error.is_miss() => {}
                Err(error) => return Err(error),
            }
        }
        self.replace(record)?;
        Ok(record.clone())
    }

    /// Makes a recorded result outlive a power cut: its objects first, then the record that names them.
    pub fn sync(&self, record: &ActionRecord) -> Result<(), CacheError> {
        record.outputs.values().try_for_each(|tree| self.store.sync_tree(tree))?;
        self.store.sync_objects(&BTreeSet::from([record.manifest]))?;
        let path = self.layout.action(&record.key);
        let parent = path.parent().expect("a record lies in a folder");
        fs_err::File::open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs_err::File::open(parent)?.sync_all())
            .doing(RECORDING)
    }

    /// Records a result in place of an earlier one, as the user forced the run.
    pub fn replace(&self, record: &ActionRecord) -> Result<(), CacheError> {
        record::replace(&self.layout, &self.layout.action(&record.key), RECORD, record).doing(RECORDING)
    }
}

const RECORDING: &str = "record a result";
