//! Copying results from one cache to another, such as a folder that a team shares.
//!
//! Every object is hashed after it has arrived and the record comes last, so a copy that is cut short, or comes from a
//! disk that lies, leaves nothing that is served. Copying again goes on where it ended.

use crate::Cache;
use crate::actions::{ActionRecord, Lookup};
use crate::digest::{self, Digest};
use crate::error::{CacheError, Doing};
use crate::files;
use crate::manifest::{ActionKey, Manifest};
use crate::reach::Files;
use crate::store::{Store, Stored};
use crate::walk::Node;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

const ACTION: &str = "copy an object from another cache";

/// What was copied for one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Objects that were not there.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Cache {
    /// The result of `key` if it is whole here, with what explains it.
    pub fn whole_result(&self, key: &ActionKey) -> Result<Option<ActionRecord>, CacheError> {
        let Lookup::Hit(record) = self.actions.lookup(key)? else { return Ok(None) };
        let explained = || {
            let objects = explanation(&self.store, &record.manifest)?;
            objects.iter().try_for_each(|digest| self.store.get_bytes(digest).map(drop))
        };
        match self.actions.complete(&record).and_then(|()| explained()) {
            Ok(()) => Ok(Some(*record)),
            Err(error) if error.is_miss() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies the result of `key` from `source`, with its objects and what explains it; it takes the place of another that
    /// is on record here. `None` if `source` has none.
    ///
    /// A damaged or missing object of the source is an error that [is a miss](CacheError::is_miss).
    pub fn copy_result(&self, key: &ActionKey, source: &Cache) -> Result<Option<Transfer>, CacheError> {
        let record = match source.actions.lookup(key)? {
            Lookup::Hit(record) => *record,
            Lookup::Miss => return Ok(None),
            Lookup::Corrupt { reason } => {
                return Err(CacheError::MissingObject {
                    digest: key.0,
                    role: format!("usable record ({reason})"),
                });
            }
        };
        let (from, to) = (&source.store, &self.store);
        let mut folders = BTreeSet::new();
        let mut found = BTreeMap::new();
        for tree in record.outputs.values() {
            from.walk(tree, &mut |_, node| {
                match node {
                    Node::Folder(tree) => drop(folders.insert(tree.digest())),
                    Node::File { digest, size, .. } => drop(found.insert(digest, size)),
                }
                Ok(())
            })?;
        }
        let explains = explanation(from, &record.manifest)?;
        let fetch =
            |(digest, size): (&Digest, &u64)| to.fetch(from, &Stored { digest: *digest, size: *size });
        let files: Vec<Option<u64>> = found.par_iter().map(fetch).collect::<Result<_, _>>()?;
        let small = folders.iter().chain(&explains).map(|digest| to.fetch_bytes(from, digest));
        let small: Vec<Option<u64>> = small.collect::<Result<_, _>>()?;
        let copied: Vec<u64> = files.into_iter().chain(small).flatten().collect();
        if self.actions.publish(&record)?.outputs != record.outputs {
            self.actions.replace(&record)?;
            self.forget_states();
        }
        Ok(Some(Transfer { objects: copied.len() as u64, bytes: copied.iter().sum() }))
    }
}

/// The manifest and the listings that it names.
fn explanation(store: &Store, manifest: &Digest) -> Result<BTreeSet<Digest>, CacheError> {
    let mut found = BTreeSet::from([*manifest]);
    for external in Manifest::get(store, manifest)?.external.values() {
        let enter = &mut |folder: &Digest| found.insert(*folder);
        store.reach(&external.digest, Files::Elsewhere, enter, &mut |_, _| {})?;
    }
    Ok(found)
}

impl Store {
    /// Copies an object of another store; its size, or `None` if it was here.
    fn fetch(&self, from: &Store, wanted: &Stored) -> Result<Option<u64>, CacheError> {
        if self.has(wanted)? {
            return Ok(None);
        }
        from.check(&wanted.digest, wanted.size)?;
        let file = files::temporary(&self.layout).doing(ACTION)?;
        let mut source = File::open(from.object_path(&wanted.digest)).doing(ACTION)?;
        // Of the standard library, which lets the system copy where it can.
        io::copy(&mut source, &mut file.as_file().file()).doing(ACTION)?;
        let (digest, stat) = digest::hash_stable(file.path())?;
        if digest != wanted.digest {
            // Where it is damaged there, it is moved away, so that the next copy to there repairs it.
            from.verify(&wanted.digest)?;
            let reason = format!("what arrived hashes to {digest}");
            return Err(CacheError::CorruptObject { digest: wanted.digest, reason });
        }
        self.publish(file, wanted)?;
        Ok(Some(stat.size))
    }

    /// [`Store::fetch`] of a small object, such as a tree.
    fn fetch_bytes(&self, from: &Store, digest: &Digest) -> Result<Option<u64>, CacheError> {
        let bytes = from.get_bytes(digest)?;
        let stored = Stored { digest: *digest, size: bytes.len() as u64 };
        if self.has(&stored)? {
            return Ok(None);
        }
        self.put_bytes(&bytes)?;
        Ok(Some(stored.size))
    }
}
