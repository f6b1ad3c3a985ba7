//! What goes, and how it goes. Finds everything before it removes anything.

use super::mark::Marks;
use super::{Collection, Group, Horizon, Reason, StaleResult, Thing};
use crate::Cache;
use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::files;
use crate::lock;
use crate::manifest::ActionKey;
use crate::place::PlaceRecord;
use crate::quarantine;
use crate::record::Found;
use crate::scan::{self, Named};
use crate::stat_cache::StatMode;
use crate::work::WorkFolder;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ACTION: &str = "collect garbage";

/// How one piece of garbage goes.
enum Step {
    /// Into quarantine, unless it has changed since it was found.
    Move(Named),
    /// A checkpoint: into quarantine, unless somebody took it up.
    MoveCheckpoint(ActionKey, PathBuf),
    /// A materialised tree, which is made again when it is needed.
    Tree(PathBuf),
    /// The record of a placing, unless the folder is back.
    Placing(Digest),
    /// What was placed for stages and outputs that are gone, but for what was edited.
    Stale(Digest),
    /// At once.
    Delete(PathBuf),
}

pub(super) struct Sweep<'a> {
    cache: &'a Cache,
    horizon: Horizon,
    kept: BTreeMap<(Thing, Reason), (u64, u64)>,
    garbage: BTreeMap<(Thing, Reason), (u64, u64)>,
    steps: Vec<Step>,
    stale: Vec<StaleResult>,
    warnings: Vec<crate::Warning>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        cache: &'a Cache,
        mut marks: Marks<'_>,
        horizon: Horizon,
        work: Vec<WorkFolder>,
    ) -> Result<Self, CacheError> {
        let warnings = std::mem::take(&mut marks.warnings);
        let (kept, garbage) = (BTreeMap::new(), BTreeMap::new());
        let (steps, stale) = (Vec::new(), Vec::new());
        let mut sweep = Self { cache, horizon, kept, garbage, steps, stale, warnings };
        sweep.quarantine(&marks)?;
        sweep.bucket(Thing::Results, &cache.layout.actions(), |digest| {
            marks.actions.get(&ActionKey(*digest)).copied()
        })?;
        sweep.bucket(Thing::Items, &cache.layout.memos(), |digest| marks.memos.get(digest).copied())?;
        sweep.bucket(Thing::Objects, &cache.layout.objects(), |digest| marks.objects.get(digest).copied())?;
        sweep.trees(&marks)?;
        sweep.checkpoints(&marks)?;
        sweep.placings()?;
        sweep.work(work)?;
        sweep.temporary()?;
        Ok(sweep)
    }

    pub(super) fn collection(self) -> Collection {
        let groups = |map: BTreeMap<(Thing, Reason), (u64, u64)>| {
            map.into_iter()
                .map(|((thing, reason), (count, bytes))| Group { thing, reason, count, bytes })
                .collect()
        };
        Collection {
            kept: groups(self.kept),
            garbage: groups(self.garbage),
            stale: self.stale,
            left: Vec::new(),
            warnings: self.warnings,
        }
    }

    fn keep(&mut self, thing: Thing, reason: Reason, bytes: u64) {
        let group = self.kept.entry((thing, reason)).or_default();
        *group = (group.0 + 1, group.1 + bytes);
    }

    fn discard(&mut self, thing: Thing, reason: Reason, bytes: u64, step: Step) {
        let group = self.garbage.entry((thing, reason)).or_default();
        *group = (group.0 + 1, group.1 + bytes);
        self.steps.push(step);
    }

    fn is_young(&self, age: Duration) -> bool {
        self.horizon.is_young(age)
    }

    /// Brings back what is needed, and gives up what has been there for long enough.
    fn quarantine(&mut self, marks: &Marks<'_>) -> Result<(), CacheError> {
        let layout = &self.cache.layout;
        for entry in quarantine::entries(layout)? {
            if entry.collected_at.is_some() {
                self.bring_back(&entry.path, &layout.objects(), |digest| marks.objects.contains_key(digest))?;
            }
            let (mut files, mut bytes) = (0, 0);
            scan::files_below(&entry.path, &mut |_, stat| {
                files += 1;
                bytes += stat.len();
            })?;
            if files == 0 {
                // All of it was brought back.
                self.steps.push(Step::Delete(entry.path));
            } else if self.horizon.is_expired(&entry) {
                self.discard(Thing::Quarantine, Reason::Expired, bytes, Step::Delete(entry.path));
            } else {
                self.keep(Thing::Quarantine, Reason::Young, bytes);
            }
        }
        Ok(())
    }

    /// Brings the needed files of a bucket back from one folder of the quarantine.
    fn bring_back(
        &self,
        moved: &Path,
        bucket: &Path,
        is_needed: impl Fn(&Digest) -> bool,
    ) -> Result<(), CacheError> {
        let layout = &self.cache.layout;
        let folder = moved.join(bucket.strip_prefix(layout.root()).unwrap_or(bucket));
        if !folder.exists() {
            return Ok(());
        }
        for found in scan::bucket(&folder)?.into_iter().filter(|found| is_needed(&found.digest)) {
            let path = bucket.join(found.path.strip_prefix(&folder).unwrap_or(&found.path));
            if !path.exists() {
                quarantine::recall(layout, &path);
            }
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        thing: Thing,
        folder: &Path,
        kept: impl Fn(&Digest) -> Option<Reason>,
    ) -> Result<(), CacheError> {
        for found in scan::bucket(folder)? {
            let bytes = found.stat.len();
            let young = || self.is_young(scan::age(&found.stat, self.horizon.now)).then_some(Reason::Young);
            match kept(&found.digest).or_else(young) {
                Some(reason) => self.keep(thing, reason, bytes),
                None => self.discard(thing, Reason::Unused, bytes, Step::Move(found)),
            }
        }
        Ok(())
    }

    fn trees(&mut self, marks: &Marks<'_>) -> Result<(), CacheError> {
        for found in scan::named(&self.cache.layout.trees())? {
            let mut bytes = 0;
            scan::files_below(&found.path, &mut |_, stat| {
                bytes += if stat.nlink() == 1 { stat.len() } else { 0 };
            })?;
            let young = || self.is_young(scan::age(&found.stat, self.horizon.now)).then_some(Reason::Young);
            match marks.objects.get(&found.digest).copied().or_else(young) {
                Some(reason) => self.keep(Thing::Trees, reason, bytes),
                None => self.discard(Thing::Trees, Reason::Unused, bytes, Step::Tree(found.path)),
            }
        }
        Ok(())
    }

    fn checkpoints(&mut self, marks: &Marks<'_>) -> Result<(), CacheError> {
        for found in scan::named(&self.cache.layout.checkpoints())? {
            let key = ActionKey(found.digest);
            let (mut files, mut bytes, mut age) = (0, 0, scan::age(&found.stat, self.horizon.now));
            scan::files_below(&found.path, &mut |_, stat| {
                files += 1;
                bytes += stat.len();
                age = age.min(scan::age(stat, self.horizon.now));
            })?;
            let unfinished = marks.unfinished.contains(&key) && !marks.actions.contains_key(&key);
            let reason = if unfinished && files > 0 {
                Some(Reason::Unfinished)
            } else if self.cache.try_claim(&key)?.is_none() {
                Some(Reason::InUse)
            } else {
                self.is_young(age).then_some(Reason::Young)
            };
            match reason {
                Some(reason) => self.keep(Thing::Checkpoints, reason, bytes),
                None => self.discard(
                    Thing::Checkpoints,
                    Reason::Unused,
                    bytes,
                    Step::MoveCheckpoint(key, found.path),
                ),
            }
        }
        Ok(())
    }

    fn placings(&mut self) -> Result<(), CacheError> {
        for found in scan::named(&self.cache.layout.placements())? {
            let bytes = found.stat.len();
            if folder_is_gone(&found.path)? {
                let step = Step::Placing(found.digest);
                self.discard(Thing::Placings, Reason::FolderGone, bytes, step);
            } else {
                self.keep(Thing::Placings, Reason::Placed, bytes);
                self.stale(found.digest, &found.path)?;
            }
        }
        Ok(())
    }

    /// What stands in a folder of results for stages and outputs that are gone.
    fn stale(&mut self, place: Digest, record: &Path) -> Result<(), CacheError> {
        let Found::Record(record) = PlaceRecord::read(record)? else { return Ok(()) };
        let root = PathBuf::from(&record.folder);
        let (mut count, mut bytes) = (0, 0);
        for (name, standing) in record.standing.iter().filter(|(name, _)| record.stale.contains(*name)) {
            let folder = root.join(name);
            let stats = standing.paths().filter_map(|path| std::fs::symlink_metadata(folder.join(path)).ok());
            let sizes: Vec<u64> = stats.filter(std::fs::Metadata::is_file).map(|stat| stat.len()).collect();
            let files = sizes.len() as u64;
            count += files;
            bytes += sizes.iter().sum::<u64>();
            if files > 0 {
                self.stale.push(StaleResult { folder, files });
            }
        }
        if count > 0 {
            let group = self.garbage.entry((Thing::Placed, Reason::Stale)).or_default();
            *group = (group.0 + count, group.1 + bytes);
            self.steps.push(Step::Stale(place));
        }
        Ok(())
    }

    fn work(&mut self, work: Vec<WorkFolder>) -> Result<(), CacheError> {
        for folder in work {
            let bytes = size(&folder.path)?;
            if folder.alive {
                self.keep(Thing::Work, Reason::InUse, bytes);
            } else {
                self.discard(Thing::Work, Reason::LeftOver, bytes, Step::Delete(folder.path));
            }
        }
        Ok(())
    }

    fn temporary(&mut self) -> Result<(), CacheError> {
        // By the real clock, wherever the caller stands: files are being written right now.
        let now = super::clock(self.cache)?;
        for entry in scan::entries(&self.cache.layout.temporary())? {
            let bytes = size(&entry.path)?;
            if self.is_young(scan::age(&entry.stat, now)) {
                self.keep(Thing::Temporary, Reason::Young, bytes);
            } else {
                self.discard(Thing::Temporary, Reason::LeftOver, bytes, Step::Delete(entry.path));
            }
        }
        Ok(())
    }

    /// Returns the placed files that are left, because they were edited.
    pub(super) fn remove(&self) -> Result<Vec<String>, CacheError> {
        let mut left = Vec::new();
        let layout = &self.cache.layout;
        if !self.steps.is_empty() {
            // Nothing is to be taken for present without a look.
            self.cache.store.forget_states();
        }
        let moves = self.steps.iter().any(|step| matches!(step, Step::Move(_) | Step::MoveCheckpoint(..)));
        let folder = if moves { Some(quarantine::folder(layout, self.horizon.now())?) } else { None };
        let into_quarantine = |path: &Path| match &folder {
            Some(folder) => quarantine::move_into(layout, folder, path).map(|_| ()),
            None => Ok(()),
        };
        for step in &self.steps {
            match step {
                Step::Move(found) => {
                    let unchanged = |stat: std::fs::Metadata| {
                        (stat.ino(), stat.ctime(), stat.ctime_nsec())
                            == (found.stat.ino(), found.stat.ctime(), found.stat.ctime_nsec())
                    };
                    if std::fs::symlink_metadata(&found.path).is_ok_and(unchanged) {
                        into_quarantine(&found.path).doing(ACTION)?;
                    }
                }
                Step::MoveCheckpoint(key, path) => {
                    if let Some(_claim) = self.cache.try_claim(key)? {
                        into_quarantine(path).doing(ACTION)?;
                    }
                }
                Step::Tree(path) => self.cache.store.move_aside(path)?,
                Step::Placing(place) => {
                    let path = layout.placed(place);
                    let _claim = lock::wait_for(layout, place).doing(ACTION)?;
                    if folder_is_gone(&path)? {
                        delete(&path)?;
                    }
                }
                Step::Stale(place) => {
                    let (stats, _) = self.cache.stat_cache(StatMode::Strict);
                    left.extend(self.cache.store.remove_stale(place, &stats)?);
                }
                Step::Delete(path) => delete(path)?,
            }
        }
        let store = &self.cache.store;
        store.linked.retain(|digest| store.object_path(digest).exists());
        if let Some(folder) = folder
            && !self.is_young(Duration::ZERO)
        {
            delete(&folder)?;
        }
        Ok(left)
    }
}

/// Whether the folder that the record of a placing names is gone. A damaged record names none.
fn folder_is_gone(path: &Path) -> Result<bool, CacheError> {
    Ok(match PlaceRecord::read(path)? {
        Found::Record(record) => matches!(
            fs_err::symlink_metadata(&record.folder).map_err(|error| error.kind()),
            Err(ErrorKind::NotFound | ErrorKind::NotADirectory)
        ),
        Found::Corrupt(_) => true,
        Found::Absent => false,
    })
}

fn size(path: &Path) -> Result<u64, CacheError> {
    let mut bytes = 0;
    scan::files_below(path, &mut |_, stat| bytes += stat.len())?;
    Ok(bytes)
}

fn delete(path: &Path) -> Result<(), CacheError> {
    let stat = match fs_err::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.doing(ACTION)?,
    };
    if stat.is_dir() {
        return files::remove_tree(path).doing(ACTION);
    }
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.doing(ACTION),
    }
}
