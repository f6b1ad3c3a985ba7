//! Reads everything that may be served and says what is damaged. What is damaged goes to quarantine,
//! from where it is never served; the next run makes it again.

use crate::Cache;
use crate::actions::{ActionRecord, ActionTable};
use crate::digest::{Digest, hash_file};
use crate::error::{CacheError, Doing};
use crate::files;
use crate::gc::collector;
use crate::manifest::{ActionKey, Manifest};
use crate::memo::{ItemMemo, MemoRecord};
use crate::place::PlaceRecord;
use crate::quarantine;
use crate::reach::Files;
use crate::record::Found;
use crate::scan::{self, Named};
use crate::stat_cache::StatMode;
use crate::trace::{RUN_FORMAT, RunId};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;

const ACTION: &str = "verify the cache";

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verification {
    /// Objects that were hashed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Results whose records, manifests and trees were read.
    pub results: u64,
    /// Memoised items.
    pub items: u64,
    /// Materialised trees.
    pub trees: u64,
    /// Records of placed folders.
    pub placings: u64,
    /// Records of runs.
    pub runs: u64,
    /// What was damaged.
    pub damage: Vec<Damage>,
}

/// One damaged thing, which is now in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    /// What it was.
    pub part: Part,
    /// Its digest, key or file name.
    pub name: String,
    /// How it was damaged.
    pub reason: String,
    /// Stages that need it, as `pipeline: stage`.
    pub needed_by: BTreeSet<String>,
}

/// A part of the cache that can be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Bytes that are not what their name says.
    Object,
    /// A result: its record, its manifest, or a tree or file of its outputs.
    Result,
    /// A memoised item.
    Item,
    /// A materialised tree.
    Tree,
    /// The record of a placed folder.
    Placing,
    /// The record of a run.
    Run,
    /// The stat cache.
    Stat,
}

impl Part {
    /// What becomes of it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Object | Self::Result => "the next run makes it again",
            Self::Item | Self::Tree => "made again when a stage needs it",
            Self::Placing => "the next run checks the folder file by file",
            Self::Run => "lost from the history; no result depends on it",
            Self::Stat => "the next run hashes the input files again",
        }
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Result => "result",
            Self::Item => "item",
            Self::Tree => "materialised tree",
            Self::Placing => "placing",
            Self::Run => "run",
            Self::Stat => "stat cache",
        }
    }
}

impl Cache {
    /// Hashes every object, in parallel, and reads every record with all that it names.
    pub fn verify(&self) -> Result<Verification, CacheError> {
        // Nobody moves what is being read.
        let _only_one = collector(self)?;
        let mut verifier = Verifier { cache: self, done: Verification::default(), broken: HashMap::new() };
        verifier.objects()?;
        let results = verifier.results()?;
        verifier.items()?;
        verifier.trees()?;
        verifier.placings()?;
        verifier.runs()?;
        verifier.stat()?;
        let mut done = verifier.done;
        if !done.damage.is_empty() {
            self.name_stages(&mut done.damage, &results)?;
        }
        done.damage.sort();
        Ok(done)
    }

    /// Adds the stages of the runs on record to the damage that they need.
    fn name_stages(&self, damage: &mut [Damage], results: &[ActionRecord]) -> Result<(), CacheError> {
        let mut stages: BTreeMap<ActionKey, BTreeSet<String>> = BTreeMap::new();
        for id in self.runs.ids()? {
            // What is damaged has been told.
            let Ok(Some(run)) = self.runs.load_news(&id) else { continue };
            for stage in run.stages {
                if let Some(key) = stage.key {
                    stages.entry(key).or_default().insert(format!("{}: {}", run.pipeline, stage.name));
                }
            }
        }
        let wanted: HashSet<String> = damage.iter().map(|damage| damage.name.clone()).collect();
        let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, names) in &stages {
            needed.insert(key.to_string(), names.clone());
        }
        for record in results {
            let Some(names) = stages.get(&record.key) else { continue };
            for digest in self.objects_of(record)? {
                let digest = digest.to_string();
                if wanted.contains(&digest) {
                    needed.entry(digest).or_default().extend(names.iter().cloned());
                }
            }
        }
        for damage in damage {
            damage.needed_by.extend(needed.get(&damage.name).into_iter().flatten().cloned());
        }
        Ok(())
    }

    /// Every object of a result that can be reached.
    fn objects_of(&self, record: &ActionRecord) -> Result<HashSet<Digest>, CacheError> {
        let found = std::cell::RefCell::new(HashSet::from([record.manifest]));
        for tree in record.outputs.values() {
            let enter = &mut |folder: &Digest| found.borrow_mut().insert(*folder);
            let file = &mut |file: &Digest, _| {
                found.borrow_mut().insert(*file);
            };
            self.store.reach(tree, Files::Stored, enter, file)?;
        }
        Ok(found.into_inner())
    }
}

struct Verifier<'a> {
    cache: &'a Cache,
    done: Verification,
    /// Trees that are not whole, and why; whole ones have no reason.
    broken: HashMap<Digest, Option<String>>,
}

impl Verifier<'_> {
    fn damage(&mut self, part: Part, name: String, reason: String) {
        self.done.damage.push(Damage { part, name, reason, needed_by: BTreeSet::new() });
    }

    /// Tells of a record and moves it away.
    fn reject(&mut self, part: Part, path: &Path, name: String, reason: String) -> Result<(), CacheError> {
        let kind = part.word().replace(' ', "-");
        quarantine::reject(&self.cache.layout, path, &format!("{kind}-{name}")).doing(ACTION)?;
        self.damage(part, name, reason);
        Ok(())
    }

    fn objects(&mut self) -> Result<(), CacheError> {
        let objects = scan::bucket(&self.cache.layout.objects())?;
        let checked: Vec<_> = objects
            .par_iter()
            .map(|object| {
                let store = &self.cache.store;
                let is_file = object.stat.is_file();
                match if is_file { store.verify(&object.digest) } else { store.check(&object.digest, 0) } {
                    // What is missing was moved by somebody who read it just now.
                    Ok(()) | Err(CacheError::MissingObject { .. }) => Ok(None),
                    Err(CacheError::CorruptObject { reason, .. }) => Ok(Some((object.digest, reason))),
                    Err(error) => Err(error),
                }
            })
            .collect();
        self.done.objects = objects.len() as u64;
        self.done.bytes = objects.iter().map(|object| object.stat.len()).sum();
        for result in checked {
            if let Some((digest, reason)) = result? {
                self.damage(Part::Object, digest.to_string(), reason);
            }
        }
        Ok(())
    }

    /// Returns all records that can be read.
    fn results(&mut self) -> Result<Vec<ActionRecord>, CacheError> {
        let mut records = Vec::new();
        for found in scan::bucket(&self.cache.layout.actions())? {
            self.done.results += 1;
            let wrong = match ActionTable::read(&found.path)? {
                Found::Absent => continue,
                Found::Corrupt(reason) => Some(reason),
                Found::Record(record) => {
                    let wrong = self.result(&found, &record)?;
                    records.push(record);
                    wrong
                }
            };
            if let Some(reason) = wrong {
                self.reject(Part::Result, &found.path, found.digest.to_string(), reason)?;
            }
        }
        Ok(records)
    }

    /// What is wrong with a result.
    fn result(&mut self, found: &Named, record: &ActionRecord) -> Result<Option<String>, CacheError> {
        if record.key.0 != found.digest {
            return Ok(Some(format!("it is the record of {}", record.key)));
        }
        match Manifest::get(&self.cache.store, &record.manifest) {
            Err(error) if error.is_miss() => return Ok(Some(format!("its manifest: {error}"))),
            Err(CacheError::Malformed { reason, .. }) => return Ok(Some(format!("its manifest: {reason}"))),
            result => result?,
        };
        for (port, tree) in &record.outputs {
            if !self.broken.contains_key(tree) {
                let wrong = match self.cache.store.check_tree(tree) {
                    Err(error) if error.is_miss() => Some(error.to_string()),
                    result => result.map(|()| None)?,
                };
                self.broken.insert(*tree, wrong);
            }
            if let Some(reason) = self.broken.get(tree).into_iter().flatten().next() {
                return Ok(Some(format!("its output `{port}`: {reason}")));
            }
        }
        Ok(None)
    }

    fn items(&mut self) -> Result<(), CacheError> {
        for found in scan::bucket(&self.cache.layout.memos())? {
            self.done.items += 1;
            let wrong = match ItemMemo::read(&found.path)? {
                Found::Absent => continue,
                Found::Corrupt(reason) => Some(reason),
                Found::Record(record) => self.item(&found, &record)?,
            };
            if let Some(reason) = wrong {
                self.reject(Part::Item, &found.path, found.digest.to_string(), reason)?;
            }
        }
        Ok(())
    }

    /// What is wrong with an item.
    fn item(&self, found: &Named, record: &MemoRecord) -> Result<Option<String>, CacheError> {
        if record.key != found.digest {
            return Ok(Some(format!("it is the record of {}", record.key)));
        }
        for file in &record.files {
            match self.cache.store.check_file(&file.name, &file.digest, file.size) {
                Err(error) if error.is_miss() => return Ok(Some(error.to_string())),
                result => result?,
            }
        }
        Ok(None)
    }

    fn trees(&mut self) -> Result<(), CacheError> {
        let trees = scan::named(&self.cache.layout.trees())?;
        self.done.trees = trees.len() as u64;
        let checked: Vec<_> = trees.par_iter().map(|found| self.tree(found)).collect();
        for (found, result) in trees.iter().zip(checked) {
            if let Some(reason) = result? {
                self.cache.store.move_aside(&found.path)?;
                self.damage(Part::Tree, found.digest.to_string(), reason);
            }
        }
        Ok(())
    }

    /// What is wrong with a materialised tree. Files that are links to objects have been hashed as objects.
    fn tree(&self, found: &Named) -> Result<Option<String>, CacheError> {
        let files = match self.cache.store.tree_entries(&found.digest) {
            // Nothing is served from the folder while its tree is missing.
            Err(error) if error.is_miss() => return Ok(None),
            result => result?,
        };
        for file in files {
            let path = found.path.join(&file.path);
            if files::same_inode(&path, &self.cache.store.object_path(&file.digest)) {
                continue;
            }
            match hash_file(&path) {
                Ok(digest) if digest == file.digest => {}
                Ok(digest) => return Ok(Some(format!("the bytes of `{}` hash to {digest}", file.path))),
                Err(CacheError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    // Gone with its folder where somebody has just moved that aside.
                    return Ok(found.path.exists().then(|| format!("file `{}` is missing", file.path)));
                }
                Err(CacheError::UnsupportedFile { found, .. }) => {
                    return Ok(Some(format!("`{}` is a {found}, not a file", file.path)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn placings(&mut self) -> Result<(), CacheError> {
        for found in scan::named(&self.cache.layout.placements())? {
            self.done.placings += 1;
            if let Found::Corrupt(reason) = PlaceRecord::read(&found.path)? {
                self.reject(Part::Placing, &found.path, found.digest.to_string(), reason)?;
            }
        }
        Ok(())
    }

    fn runs(&mut self) -> Result<(), CacheError> {
        for id in self.cache.runs.ids()? {
            self.done.runs += 1;
            match self.cache.runs.load_news(&id) {
                Ok(_) => {}
                Err(CacheError::Malformed { reason, .. }) => {
                    let path = self.cache.layout.run(&id);
                    if !is_of_another_format(&path, &id) {
                        self.reject(Part::Run, &path, id.to_string(), reason)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn stat(&mut self) -> Result<(), CacheError> {
        if let (_, Some(warning)) = self.cache.stat_cache(StatMode::Strict) {
            self.reject(Part::Stat, &warning.path, "stat-v1".to_owned(), warning.reason)?;
        }
        Ok(())
    }
}

/// Whether another version of pipe wrote the record of a run.
fn is_of_another_format(path: &Path, id: &RunId) -> bool {
    let file: Option<serde_json::Value> =
        fs_err::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    file.is_some_and(|file| {
        file["format"].as_u64().is_some_and(|format| format != u64::from(RUN_FORMAT))
            && file["run"]["id"] == id.to_string()
    })
}
