//! The file of a state: a journal of the head, which every run reads, the results, the plan, and what later runs changed.

use crate::history::LastResult;
use pipe_cache::{Digest, Journal, Layout, Magic, RunId, Watched};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const MAGIC: &Magic = b"pipe state v2\n\0\0";

const HEAD: usize = 0;
const RESULTS: usize = 1;
const PLAN: usize = 2;
/// The first change.
const CHANGES: usize = 3;

/// Read for every run. What is watched is told once and named by its place, for thousands of stages may run the same
/// program.
#[derive(Serialize, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) stages: u32,
    #[serde(borrow)]
    pub(super) environment: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
    /// Stages that the call does not ask for.
    pub(super) unwanted: Vec<u32>,
    /// The folder of the results.
    #[serde(borrow)]
    pub(super) results: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tail: Tail<'a>,
    /// Everything outside of the results that is watched.
    #[serde(borrow)]
    pub(super) table: Vec<Watched<'a>>,
    /// What each stage reads, by its place in `table`, one stage after the other.
    pub(super) reads: Lists<u32>,
    /// The results of each stage, seen from their folder.
    #[serde(borrow)]
    pub(super) placed: Lists<Watched<'a>>,
}

/// What every run that has news tells anew.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Tail<'a> {
    /// Whether every stage that was asked for has a result.
    pub(super) complete: bool,
    /// Whether the lock file tells all that.
    pub(super) locked: bool,
    pub(super) told: Option<Told>,
    /// The pipeline, its parameter files and its lock file.
    #[serde(borrow)]
    pub(super) files: Vec<Watched<'a>>,
}

/// The run record that tells the last result of every stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub run: RunId,
    /// How many records must be read to know all of them, that one included.
    pub records: u32,
}

/// Lists one after the other.
#[derive(Serialize, Deserialize)]
pub(super) struct Lists<T> {
    all: Vec<T>,
    /// Where each ends.
    ends: Vec<u32>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { all: Vec::new(), ends: Vec::new() }
    }
}

impl<T> Lists<T> {
    pub(super) fn push(&mut self, list: impl IntoIterator<Item = T>) {
        self.all.extend(list);
        self.ends.push(self.all.len() as u32);
    }

    /// Empty if there is none.
    fn get(&self, at: usize) -> &[T] {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.ends.get(at).and_then(|end| self.all.get(begin..*end as usize)).unwrap_or_default()
    }
}

/// Values of which few are read, each encoded for itself.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Values<'a> {
    #[serde(borrow)]
    all: Cow<'a, [u8]>,
    ends: Vec<u32>,
}

impl Values<'_> {
    pub(super) fn push(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.push_encoded(&encode(value)?);
        Ok(())
    }

    pub(super) fn push_encoded(&mut self, value: &[u8]) {
        self.all.to_mut().extend(value);
        self.ends.push(self.all.len() as u32);
    }

    pub(super) fn encoded(&self, at: usize) -> Option<&[u8]> {
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())? as usize;
        self.all.get(begin..*self.ends.get(at)? as usize)
    }

    pub(super) fn get<V: DeserializeOwned>(&self, at: usize) -> Option<V> {
        postcard::from_bytes(self.encoded(at)?).ok()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Read when something changed: the plan.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPlan<'a> {
    /// As JSON.
    #[serde(borrow)]
    pub(super) params: Cow<'a, str>,
    pub(super) overrides: Vec<String>,
    pub(super) order: Vec<u32>,
    /// [`StoredStage`](crate::plan::StoredStage)s.
    #[serde(borrow)]
    pub(super) stages: Values<'a>,
    /// Names of ports.
    pub(super) ports: Vec<String>,
    /// Source, target, output, input, position, whether it is alone; ports by their place in `ports`.
    pub(super) edges: Vec<(u32, u32, u32, u32, u32, bool)>,
}

/// The last result of a stage, and what it was read from outside of the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trace {
    pub last: LastResult,
    /// The facts that it told, as JSON.
    pub summary: String,
    /// Content and path of the files.
    pub sources: Vec<(Digest, PathBuf)>,
}

/// What a later run changed.
#[derive(Serialize, Deserialize)]
pub(super) struct Change<'a> {
    #[serde(borrow)]
    pub(super) tail: Tail<'a>,
    /// Added to the table.
    #[serde(borrow)]
    pub(super) table: Vec<Watched<'a>>,
    /// By the index of the stage: its result, if it has one, and what it reads.
    pub(super) results: Vec<(u32, Option<Cow<'a, Trace>>, Vec<u32>)>,
    #[serde(borrow)]
    pub(super) placed: Vec<(u32, Vec<Watched<'a>>)>,
}

/// The parts of a file that every run reads.
#[derive(Debug)]
pub(super) struct Stored {
    journal: Journal,
    head: Vec<u8>,
    changes: Vec<Vec<u8>>,
}

impl Stored {
    /// `None` if there is none, or it is of no use.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let journal = Journal::open(path, MAGIC).ok()??;
        let part = |at| journal.read(at).ok().flatten();
        let head = part(HEAD)?;
        // What follows a damaged change does not count; what came before holds.
        let changes = (CHANGES..journal.count()).map_while(part).collect();
        Some(Self { journal, head, changes })
    }

    pub(super) fn view(&self) -> Option<View<'_>> {
        let head: Head = postcard::from_bytes(&self.head).ok()?;
        let changes: Vec<Change> =
            self.changes.iter().map(|bytes| postcard::from_bytes(bytes).ok()).collect::<Option<_>>()?;
        let (mut reads, mut placed) = (HashMap::new(), HashMap::new());
        for (at, change) in changes.iter().enumerate() {
            reads.extend(change.results.iter().enumerate().map(|(entry, (node, ..))| (*node, (at, entry))));
            placed.extend(change.placed.iter().enumerate().map(|(entry, (node, _))| (*node, (at, entry))));
        }
        Some(View { head, changes, reads, placed })
    }

    /// The last results as they were first written: encoded [`Values`].
    pub(super) fn results(&self) -> Option<Vec<u8>> {
        self.journal.read(RESULTS).ok()?
    }

    /// The encoded [`StoredPlan`].
    pub(super) fn plan(&self) -> Option<Vec<u8>> {
        self.journal.read(PLAN).ok()?
    }

    /// Content and path of every external file that any stage reads.
    pub(super) fn sources(&self) -> Option<Vec<(Digest, PathBuf)>> {
        let (view, results) = (self.view()?, self.results()?);
        let results: Values = postcard::from_bytes(&results).ok()?;
        let traces = (0..view.head.stages as usize).filter_map(|node| view.trace(&results, node).ok()?);
        Some(traces.flat_map(|trace| trace.sources).collect())
    }

    /// Adds a change. `false` if all must be written anew: the file is another by now, or has many changes.
    pub(super) fn add(&self, change: &Change<'_>) -> io::Result<bool> {
        let bytes = encode(change)?;
        let changed = self.journal.size_from(CHANGES) + bytes.len() as u64;
        let whole = CHANGES + self.changes.len() == self.journal.count();
        // Every run reads all changes.
        let few = changed <= (self.head.len() / 4).max(MANY_BYTES) as u64;
        Ok(whole && few && self.journal.append(&bytes)?)
    }
}

/// The file contradicts itself.
#[derive(Debug)]
pub(super) struct Unreadable;

/// So much of changes is read in no time.
const MANY_BYTES: usize = 64 * 1024;

/// What the parts of a file say together.
pub(super) struct View<'a> {
    pub(super) head: Head<'a>,
    changes: Vec<Change<'a>>,
    /// By stage, the last change that tells what it reads, and the place in it.
    reads: HashMap<u32, (usize, usize)>,
    placed: HashMap<u32, (usize, usize)>,
}

impl<'a> View<'a> {
    pub(super) fn tail(&self) -> &Tail<'a> {
        self.changes.last().map_or(&self.head.tail, |change| &change.tail)
    }

    /// Everything outside of the results that is or was watched.
    pub(super) fn table(&self) -> Vec<&Watched<'a>> {
        let later = self.changes.iter().flat_map(|change| &change.table);
        self.head.table.iter().chain(later).collect()
    }

    /// The last result of a stage, if it has one.
    pub(super) fn trace(&self, results: &Values<'_>, node: usize) -> Result<Option<Trace>, Unreadable> {
        match self.reads.get(&(node as u32)) {
            Some((change, entry)) => {
                let trace = &self.changes[*change].results[*entry].1;
                Ok(trace.as_ref().map(|trace| trace.clone().into_owned()))
            }
            None => results.get(node).ok_or(Unreadable),
        }
    }

    /// The same, encoded.
    pub(super) fn encoded_trace<'r>(&self, results: &'r Values<'_>, node: usize) -> Option<Cow<'r, [u8]>> {
        match self.reads.get(&(node as u32)) {
            Some((change, entry)) => Some(Cow::Owned(encode(&self.changes[*change].results[*entry].1).ok()?)),
            None => results.encoded(node).map(Cow::Borrowed),
        }
    }

    /// What a stage reads, by its place in the table.
    pub(super) fn reads(&self, node: usize) -> &[u32] {
        match self.reads.get(&(node as u32)) {
            Some((change, entry)) => &self.changes[*change].results[*entry].2,
            None => self.head.reads.get(node),
        }
    }

    /// The results of a stage.
    pub(super) fn placed(&self, node: usize) -> &[Watched<'a>] {
        match self.placed.get(&(node as u32)) {
            Some((change, entry)) => &self.changes[*change].placed[*entry].1,
            None => self.head.placed.get(node),
        }
    }
}

/// Everything about a call, in place of what is there.
pub(super) fn write_all(
    layout: &Layout,
    path: &Path,
    head: &Head<'_>,
    results: &Values<'_>,
    plan: &[u8],
) -> io::Result<()> {
    Journal::replace(layout, path, MAGIC, &[&encode(head)?, &encode(results)?, plan])
}

pub(super) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(io::Error::other)
}
