//! What takes how much room, and which stage of which pipeline it is for.

use crate::Cache;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::memo::ItemMemo;
use crate::reach::Files;
use crate::record::Found;
use crate::scan;
use crate::trace::{Outcome, StageRecord};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Room taken by the parts of a cache, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// The latest result of each stage on record, by pipeline and stage.
    pub stages: Vec<StageUsage>,
    /// Objects that only these results hold or share.
    pub results: u64,
    /// Manifests and listings of these results.
    pub manifests: u64,
    /// Objects that only memoised items hold, and the items' records.
    pub items: u64,
    /// All other objects: earlier results, and what nothing needs.
    pub other_objects: u64,
    /// Checkpoints of stages that did not finish.
    pub checkpoints: u64,
    /// Materialised trees; what is a hard link to an object is not counted again.
    pub trees: u64,
    /// What was moved out of the way.
    pub quarantine: u64,
    /// Records, work folders and the rest.
    pub rest: u64,
    /// All of it: the sum of the above without the stages.
    pub total: u64,
    /// Blocks that the file system gives for it, each inode once.
    pub on_disk: u64,
}

/// Room taken by the latest result of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageUsage {
    /// The pipeline.
    pub pipeline: String,
    /// The stage, with its matrix cell.
    pub stage: String,
    /// Bytes of its output files; of folders that are equal, one.
    pub logical: u64,
    /// Bytes of the objects that no other stage of this list holds.
    pub unique: u64,
}

/// Who holds an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Stage(usize),
    Stages,
}

impl Cache {
    /// Measures the cache. What is written meanwhile may be missed.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        let objects: HashMap<Digest, u64> = scan::bucket(&self.layout.objects())?
            .into_iter()
            .map(|object| (object.digest, object.stat.len()))
            .collect();
        let latest = self.latest_results()?;
        let (mut usage, mut holders) = (Usage::default(), HashMap::new());
        let mut manifests = HashSet::new();
        for (index, ((pipeline, stage), record)) in latest.iter().enumerate() {
            let mut logical = 0;
            for tree in record.outputs.values() {
                logical += self.hold(tree, index, &mut holders)?;
            }
            let (pipeline, stage) = (pipeline.clone(), stage.clone());
            usage.stages.push(StageUsage { pipeline, stage, logical, unique: 0 });
            self.manifest_objects(record, &mut manifests)?;
        }
        for (digest, holder) in &holders {
            let bytes = objects.get(digest).copied().unwrap_or_default();
            usage.results += bytes;
            if let Holder::Stage(index) = holder {
                usage.stages[*index].unique += bytes;
            }
        }
        let mut counted: HashSet<Digest> = holders.into_keys().collect();
        let mut count = |digest: &Digest| {
            let first = counted.insert(*digest);
            if first { objects.get(digest).copied().unwrap_or_default() } else { 0 }
        };
        usage.manifests = manifests.iter().map(&mut count).sum();
        for found in scan::bucket(&self.layout.memos())? {
            usage.items += found.stat.len();
            if let Found::Record(record) = ItemMemo::read(&found.path)? {
                usage.items += record.files.iter().map(|file| count(&file.digest)).sum::<u64>();
            }
        }
        usage.other_objects = objects.keys().map(count).sum();
        self.folders(&mut usage)?;
        Ok(usage)
    }

    /// The latest result of each stage, by pipeline and stage.
    fn latest_results(&self) -> Result<BTreeMap<(String, String), StageRecord>, CacheError> {
        let mut latest = BTreeMap::new();
        for id in self.runs.ids()? {
            // A damaged run is told by `verify`; its results count as other objects here.
            let Ok(Some(run)) = self.runs.load(&id) else { continue };
            for stage in run.stages {
                if matches!(stage.outcome, Outcome::Ran | Outcome::Cached) {
                    latest.entry((run.pipeline.clone(), stage.name.clone())).or_insert(stage);
                }
            }
        }
        Ok(latest)
    }

    /// Enters a stage as holder of the objects of a tree; returns the bytes of its files.
    fn hold(
        &self,
        tree: &Digest,
        stage: usize,
        holders: &mut HashMap<Digest, Holder>,
    ) -> Result<u64, CacheError> {
        let mut enter_all = HashSet::new();
        let mut found = Vec::new();
        let mut logical = 0;
        let files = &mut |file: &Digest, size| {
            found.push(*file);
            logical += size;
        };
        self.store.reach(tree, Files::Stored, &mut |folder| enter_all.insert(*folder), files)?;
        for digest in found.into_iter().chain(enter_all) {
            let holder = holders.entry(digest).or_insert(Holder::Stage(stage));
            if *holder != Holder::Stage(stage) {
                *holder = Holder::Stages;
            }
        }
        Ok(logical)
    }

    fn manifest_objects(&self, record: &StageRecord, found: &mut HashSet<Digest>) -> Result<(), CacheError> {
        let Some(digest) = record.manifest else { return Ok(()) };
        found.insert(digest);
        // One that cannot be read names nothing.
        let Ok(manifest) = crate::Manifest::get(&self.store, &digest) else { return Ok(()) };
        for external in manifest.external.values() {
            let enter = &mut |folder: &Digest| found.insert(*folder);
            self.store.reach(&external.digest, Files::Elsewhere, enter, &mut |_, _| {})?;
        }
        Ok(())
    }

    /// Adds up all files of the cache, each inode once, objects first.
    fn folders(&self, usage: &mut Usage) -> Result<(), CacheError> {
        let mut inodes = HashSet::new();
        let mut on_disk = 0;
        let mut add = |path: &Path| {
            let mut bytes = 0;
            scan::files_below(path, &mut |_, stat| {
                if inodes.insert((stat.dev(), stat.ino())) {
                    bytes += stat.len();
                    on_disk += stat.blocks() * 512;
                }
            })?;
            Ok::<_, CacheError>(bytes)
        };
        let objects = add(&self.layout.objects())?;
        let memos = add(&self.layout.memos())?;
        usage.trees = add(&self.layout.trees())?;
        usage.checkpoints = add(&self.layout.checkpoints())?;
        usage.quarantine = add(&self.layout.quarantine())?;
        usage.rest = add(self.layout.root())?;
        usage.total = objects + memos + usage.trees + usage.checkpoints + usage.quarantine + usage.rest;
        usage.on_disk = on_disk;
        Ok(())
    }
}
