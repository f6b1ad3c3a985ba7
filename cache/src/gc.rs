//! Collects garbage: what no kept result needs goes to quarantine, and from there after a grace time.
//!
//! **Kept** is what one of these names, with the objects, trees and records below it:
//!
//! - the last runs of each pipeline ([`GcOptions::keep_runs`]) and tagged runs: their results, manifests, listings of
//!   external files, and the checkpoints of stages that did not finish;
//! - a folder that results were placed in and that is still there, unless the pipeline has its stage or output no more:
//!   then what was placed there goes, but for what somebody edited;
//! - a digest of [`GcOptions::extra_roots`], e.g. of a lock file;
//! - anything younger than the grace time: written, linked or brought back.
//!
//! A memoised item lives while all its files are kept; without files, while a kept result is of its
//! kind; and, where a stage of a kept run did not finish, if it was made since that stage began.
//! Records of runs are history and are never removed.
//!
//! **Concurrent runs** lose nothing, though nothing is locked:
//!
//! - The marks are complete before the first move, and what has changed since stays.
//! - What was moved is still served: whoever misses it brings it back ([`quarantine`]).
//! - It is deleted by a later collection, once it has been in quarantine for the grace time and still
//!   nothing names it. While a process runs stages here, nothing counts as older than that process.
//!
//! So a process may take an object for stored and name it in a record later: the record is a root
//! from then on, and the next collection brings back what it names. A grace time of zero deletes
//! at once what no process that runs stages can be using. Two collections wait for each other.

mod mark;
mod sweep;

use crate::Cache;
use crate::digest::Digest;
use crate::error::{CacheError, Doing, Warning};
use crate::files;
use crate::lock;
use crate::quarantine;
use crate::time::Timestamp;
use crate::work::work_folders;
use mark::Marks;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sweep::Sweep;

/// What is kept for longer than it is needed.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Runs of each pipeline whose results are kept, the latest.
    pub keep_runs: usize,
    /// What is younger is kept, and what is moved is deleted once it has been moved for so long.
    pub grace: Duration,
    /// Keys of results, trees and objects that are kept too.
    pub extra_roots: Vec<Digest>,
    /// The present; `None` asks the file system that holds the cache. Tests look ahead.
    pub now: Option<SystemTime>,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { keep_runs: 20, grace: Duration::from_hours(24), extra_roots: Vec::new(), now: None }
    }
}

/// What a thing in the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// Bytes of files, trees and manifests.
    Objects,
    /// Records of results.
    Results,
    /// Records of memoised items.
    Items,
    /// Materialised trees.
    Trees,
    /// Checkpoints of stages that did not finish.
    Checkpoints,
    /// Records of what was placed in a folder.
    Placings,
    /// Files that were placed in a folder of results.
    Placed,
    /// Work folders.
    Work,
    /// Files that were being written.
    Temporary,
    /// What was moved out of the way before.
    Quarantine,
}

impl fmt::Display for Thing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Objects => "objects",
            Self::Results => "results",
            Self::Items => "items",
            Self::Trees => "trees",
            Self::Checkpoints => "checkpoints",
            Self::Placings => "placings",
            Self::Placed => "placed",
            Self::Work => "work",
            Self::Temporary => "temporary",
            Self::Quarantine => "quarantine",
        })
    }
}

/// Why a thing is kept or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Kept: one of the last runs, or a tagged one, names it.
    InRun,
    /// Kept: it stands in a folder of results.
    Placed,
    /// Kept: it is an extra root or belongs to one.
    ExtraRoot,
    /// Kept: it is younger than the grace time, or belongs to what is.
    Young,
    /// Kept: a stage that did not finish can go on with it.
    Unfinished,
    /// Kept: a kept result is of its kind.
    LiveKind,
    /// Kept: a living process holds it.
    InUse,
    /// Goes: nothing that is kept names it.
    Unused,
    /// Goes: its process is gone.
    LeftOver,
    /// Goes: the folder is gone.
    FolderGone,
    /// Goes: the pipeline has its stage or output no more.
    Stale,
    /// Goes: it has been in quarantine for the grace time.
    Expired,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::InRun => "named by one of the last runs or a tagged one",
            Self::Placed => "stands in a folder of results",
            Self::ExtraRoot => "named by a lock file",
            Self::Young => "younger than the grace time",
            Self::Unfinished => "an unfinished stage can go on with it",
            Self::LiveKind => "a kept result is of its kind",
            Self::InUse => "in use by a process",
            Self::Unused => "nothing that is kept needs it",
            Self::LeftOver => "left behind by a process that is gone",
            Self::FolderGone => "the folder is gone",
            Self::Stale => "the pipeline has their stage or output no more",
            Self::Expired => "in quarantine for the grace time: deleted for good",
        })
    }
}

/// Things of one sort that are kept, or go, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What they are.
    pub thing: Thing,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: u64,
    /// Their bytes. For a materialised tree those that are nowhere else.
    pub bytes: u64,
}

/// What was placed for a stage or output that the pipeline has no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleResult {
    /// Its folder.
    pub folder: PathBuf,
    /// The files that pipe placed there and that are still there; those that were edited among them stay.
    pub files: u64,
}

/// What a collection found.
#[derive(Debug, Clone, Serialize)]
pub struct Collection {
    /// What stays.
    pub kept: Vec<Group>,
    /// What goes, or has gone.
    pub garbage: Vec<Group>,
    /// Results in the user's folders that are among the garbage.
    pub stale: Vec<StaleResult>,
    /// Files among those that stay, because somebody edited them; known once the rest is removed.
    pub left: Vec<String>,
    /// Records that could not be read: what they alone name is not protected by them.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

impl Collection {
    /// Bytes of the garbage.
    pub fn garbage_bytes(&self) -> u64 {
        self.garbage.iter().map(|group| group.bytes).sum()
    }
}

impl Cache {
    /// Finds the garbage and changes nothing, except that what a root names is brought back from quarantine.
    pub fn find_garbage(&self, options: &GcOptions) -> Result<Collection, CacheError> {
        let _only_one = collector(self)?;
        Ok(self.plan(options)?.collection())
    }

    /// Finds the garbage and removes it.
    pub fn collect_garbage(&self, options: &GcOptions) -> Result<Collection, CacheError> {
        let _only_one = collector(self)?;
        let sweep = self.plan(options)?;
        let left = sweep.remove()?;
        Ok(Collection { left, ..sweep.collection() })
    }

    fn plan(&self, options: &GcOptions) -> Result<Sweep<'_>, CacheError> {
        let now = options.now.map_or_else(|| clock(self), Ok)?;
        let folders = work_folders(&self.layout)?;
        let oldest = folders.iter().filter(|folder| folder.alive).map(|folder| folder.since).min();
        let in_use = oldest.map(|since| now.duration_since(since).unwrap_or_default() + LOOKING_UP);
        let horizon = Horizon { now, grace: options.grace.max(in_use.unwrap_or_default()) };
        let marks = Marks::new(self, options, &horizon)?;
        Sweep::new(self, marks, horizon, folders)
    }
}

/// A process makes its work folder when its first stage runs; until then it has looked up results and
/// hashed inputs for at most about this long.
const LOOKING_UP: Duration = Duration::from_hours(1);

/// The present, and how far back nothing is garbage.
#[derive(Debug, Clone, Copy)]
struct Horizon {
    now: SystemTime,
    grace: Duration,
}

impl Horizon {
    fn is_young(&self, age: Duration) -> bool {
        age < self.grace
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
    }

    fn is_expired(&self, entry: &quarantine::Entry) -> bool {
        let age = match entry.collected_at {
            Some(time) => self.now().since(time),
            None => match fs_err::symlink_metadata(&entry.path) {
                Ok(stat) => crate::scan::age(&stat, self.now),
                Err(_) => return false,
            },
        };
        !self.is_young(age)
    }
}

/// Held by whoever collects or verifies: one at a time in a cache.
pub(crate) fn collector(cache: &Cache) -> Result<lock::Claim, CacheError> {
    lock::wait_for(&cache.layout, &Digest::of_bytes(b"pipe gc")).doing("wait for another collection")
}

fn clock(cache: &Cache) -> Result<SystemTime, CacheError> {
    let file = files::temporary(&cache.layout).doing("read the clock of the file system")?;
    file.as_file().metadata().and_then(|stat| stat.modified()).doing("read the clock of the file system")
}
