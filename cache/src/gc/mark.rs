//! What is kept, and why: from the roots down to the objects.

use super::{GcOptions, Horizon, Reason};
use crate::Cache;
use crate::actions::{ActionRecord, ActionTable, Lookup};
use crate::digest::Digest;
use crate::dirty::DirtyReason;
use crate::error::{CacheError, Warning};
use crate::manifest::{ActionKey, Manifest};
use crate::memo::{ItemMemo, MemoRecord};
use crate::place::{PlaceRecord, Standing};
use crate::reach::Files;
use crate::record::Found;
use crate::scan::{self, Named};
use crate::time::Timestamp;
use crate::trace::{Outcome, RunRecord, StageRecord};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Everything that is kept. Filled once, then only read.
pub(super) struct Marks<'a> {
    cache: &'a Cache,
    horizon: &'a Horizon,
    pub(super) objects: HashMap<Digest, Reason>,
    pub(super) actions: HashMap<ActionKey, Reason>,
    pub(super) memos: HashMap<Digest, Reason>,
    /// Keys of stages of kept runs that did not finish.
    pub(super) unfinished: HashSet<ActionKey>,
    pub(super) warnings: Vec<Warning>,
    /// Trees whose files are marked.
    stored: HashSet<Digest>,
    /// Listings whose folders are marked.
    listed: HashSet<Digest>,
    /// Trees that keep the result they are all the outputs of.
    root_trees: HashMap<Digest, Reason>,
    /// Kinds of kept results.
    kinds: HashSet<String>,
    /// Kinds that did not finish, and since when they were at it.
    unfinished_kinds: HashMap<String, Timestamp>,
}

impl<'a> Marks<'a> {
    pub(super) fn new(
        cache: &'a Cache,
        options: &GcOptions,
        horizon: &'a Horizon,
    ) -> Result<Self, CacheError> {
        let mut marks = Self {
            cache,
            horizon,
            objects: HashMap::new(),
            actions: HashMap::new(),
            memos: HashMap::new(),
            unfinished: HashSet::new(),
            warnings: Vec::new(),
            stored: HashSet::new(),
            listed: HashSet::new(),
            root_trees: HashMap::new(),
            kinds: HashSet::new(),
            unfinished_kinds: HashMap::new(),
        };
        marks.runs(options.keep_runs)?;
        marks.placed()?;
        for root in &options.extra_roots {
            marks.extra(root)?;
        }
        marks.table()?;
        marks.items()?;
        Ok(marks)
    }

    fn runs(&mut self, keep: usize) -> Result<(), CacheError> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let tagged: HashSet<_> = self.cache.runs.tags()?.into_values().collect();
        for id in self.cache.runs.ids()? {
            let run = match self.cache.runs.load(&id) {
                Ok(Some(run)) => run,
                Ok(None) => continue,
                Err(CacheError::Malformed { what, reason }) => {
                    let reason = CacheError::malformed(what, reason).to_string();
                    self.warnings.push(Warning { path: self.cache.layout.run(&id), reason });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = seen.entry(run.pipeline.clone()).or_default();
            *count += 1;
            if *count <= keep || tagged.contains(&id) {
                self.run(&run)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, run: &RunRecord) -> Result<(), CacheError> {
        for stage in &run.stages {
            self.stage(run, stage)?;
        }
        Ok(())
    }

    fn stage(&mut self, run: &RunRecord, stage: &StageRecord) -> Result<(), CacheError> {
        if let Some(key) = stage.key {
            self.key(key, Reason::InRun)?;
            if matches!(stage.outcome, Outcome::Failed | Outcome::Interrupted) {
                self.unfinished.insert(key);
                let began = stage.started_at.unwrap_or(run.started_at);
                let since = self.unfinished_kinds.entry(stage.kind.clone()).or_insert(began);
                *since = began.min(*since);
            }
        }
        // The outputs too: those of a stage whose inputs moved are in no table.
        stage.outputs.values().try_for_each(|tree| self.tree(tree, Reason::InRun))?;
        if let Some(manifest) = &stage.manifest {
            self.manifest(manifest, Reason::InRun)?;
        }
        // Listings by which the reason is told in full.
        for reason in &stage.reasons {
            if let DirtyReason::ExternalChanged { old, new, .. } = reason {
                self.listing(old, Reason::InRun)?;
                self.listing(new, Reason::InRun)?;
            }
        }
        Ok(())
    }

    fn placed(&mut self) -> Result<(), CacheError> {
        for found in scan::named(&self.cache.layout.placements())? {
            let Found::Record(record) = PlaceRecord::read(&found.path)? else { continue };
            for (name, Standing { tree, .. }) in &record.standing {
                if !record.stale.contains(name) && Path::new(&record.folder).join(name).exists() {
                    self.root_trees.entry(*tree).or_insert(Reason::Placed);
                    self.tree(tree, Reason::Placed)?;
                }
            }
        }
        Ok(())
    }

    fn extra(&mut self, root: &Digest) -> Result<(), CacheError> {
        self.key(ActionKey(*root), Reason::ExtraRoot)?;
        if self.cache.store.contains(root) {
            self.root_trees.entry(*root).or_insert(Reason::ExtraRoot);
            self.tree(root, Reason::ExtraRoot)?;
        }
        Ok(())
    }

    /// Results that are young, or that consist of trees that are roots.
    fn table(&mut self) -> Result<(), CacheError> {
        for found in scan::bucket(&self.cache.layout.actions())? {
            let key = ActionKey(found.digest);
            if self.actions.contains_key(&key) {
                continue;
            }
            let Found::Record(record) = ActionTable::read(&found.path)? else { continue };
            let young = self.is_young(&found).then_some(Reason::Young);
            let roots: Option<Vec<_>> =
                record.outputs.values().map(|tree| self.root_trees.get(tree).copied()).collect();
            if let Some(reason) = young.or_else(|| roots?.into_iter().min()) {
                self.action(&record, reason)?;
            }
        }
        Ok(())
    }

    fn items(&mut self) -> Result<(), CacheError> {
        let mut others = Vec::new();
        for found in scan::bucket(&self.cache.layout.memos())? {
            let Found::Record(record) = ItemMemo::read(&found.path)? else { continue };
            let made = Timestamp(
                found
                    .stat
                    .modified()
                    .ok()
                    .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                    .unwrap_or(Duration::ZERO)
                    .as_millis() as u64,
            );
            if self.unfinished_kinds.get(&record.kind).is_some_and(|since| made >= *since) {
                self.item(&found, &record, Reason::Unfinished);
            } else if self.is_young(&found) {
                self.item(&found, &record, Reason::Young);
            } else {
                others.push((found, record));
            }
        }
        for (found, record) in others {
            let reason = if record.files.is_empty() {
                self.kinds.contains(&record.kind).then_some(Reason::LiveKind)
            } else {
                let reasons: Option<Vec<_>> =
                    record.files.iter().map(|file| self.objects.get(&file.digest).copied()).collect();
                reasons.and_then(|reasons| reasons.into_iter().min())
            };
            if let Some(reason) = reason {
                self.memos.insert(found.digest, reason);
            }
        }
        Ok(())
    }

    fn item(&mut self, found: &Named, record: &MemoRecord, reason: Reason) {
        self.memos.insert(found.digest, reason);
        for file in &record.files {
            self.objects.entry(file.digest).or_insert(reason);
        }
    }

    /// A result by its key, brought back from quarantine if it is there.
    fn key(&mut self, key: ActionKey, reason: Reason) -> Result<(), CacheError> {
        if !self.actions.contains_key(&key)
            && let Lookup::Hit(record) = self.cache.actions.lookup(&key)?
        {
            self.action(&record, reason)?;
        }
        Ok(())
    }

    fn action(&mut self, record: &ActionRecord, reason: Reason) -> Result<(), CacheError> {
        self.actions.entry(record.key).or_insert(reason);
        record.outputs.values().try_for_each(|tree| self.tree(tree, reason))?;
        if let Some(manifest) = self.manifest(&record.manifest, reason)? {
            self.kinds.insert(manifest.kind);
        }
        Ok(())
    }

    fn manifest(&mut self, digest: &Digest, reason: Reason) -> Result<Option<Manifest>, CacheError> {
        self.objects.entry(*digest).or_insert(reason);
        let manifest = match Manifest::get(&self.cache.store, digest) {
            // Another version's, or damaged: it names nothing that is known here.
            Err(CacheError::Malformed { .. }) => return Ok(None),
            Err(error) if error.is_miss() => return Ok(None),
            result => result?,
        };
        manifest.external.values().try_for_each(|record| self.listing(&record.digest, reason))?;
        Ok(Some(manifest))
    }

    fn tree(&mut self, root: &Digest, reason: Reason) -> Result<(), CacheError> {
        let Self { cache, objects, stored, .. } = self;
        let marked = std::cell::RefCell::new(objects);
        cache.store.reach(
            root,
            Files::Stored,
            &mut |folder| {
                marked.borrow_mut().entry(*folder).or_insert(reason);
                stored.insert(*folder)
            },
            &mut |file, _| {
                marked.borrow_mut().entry(*file).or_insert(reason);
            },
        )
    }

    fn listing(&mut self, root: &Digest, reason: Reason) -> Result<(), CacheError> {
        let Self { cache, objects, listed, .. } = self;
        let enter = &mut |folder: &Digest| {
            objects.entry(*folder).or_insert(reason);
            listed.insert(*folder)
        };
        cache.store.reach(root, Files::Elsewhere, enter, &mut |_, _| {})
    }

    fn is_young(&self, found: &Named) -> bool {
        self.horizon.is_young(scan::age(&found.stat, self.horizon.now))
    }
}
