//! What the last run left, in one file for each way of calling `pipe run`.
//!
//! A run with nothing to do reads the head of this file, looks at each watched path once, and is done: it parses no
//! YAML, opens no record and no object, takes no lock and writes nothing. If some paths changed, the body gives the
//! plan and the results of all stages that they do not concern.
//!
//! The file is a memo. Without it, or when it is damaged or of another program, everything is found out anew.

use crate::history::LastResult;
use crate::params::Environment;
use crate::pipeline::PARAM_PREFIX;
use crate::plan::{Edge, Plan, PlannedStage, StoredStage};
use petgraph::graph::{DiGraph, NodeIndex};
use pipe_cache::{Digest, Layout, StatCache, Watched};
use rustix::fs::CWD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// All that decides which plan a call of `pipe run` makes, but for the contents of files and the environment.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub file: PathBuf,
    pub set: Vec<(String, String)>,
    pub params: Vec<PathBuf>,
    pub targets: Vec<String>,
}

impl Call {
    /// Names the state file. Another build of the program has other state: its stages may differ.
    fn digest(&self) -> io::Result<Digest> {
        let program = std::fs::metadata(std::env::current_exe()?)?;
        let built = program.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let text = format!("{} {} {built:?} {self:?}", env!("CARGO_PKG_VERSION"), program.len());
        Ok(Digest::of_bytes(text.as_bytes()))
    }
}

/// The last result of a stage, and what it was read from outside of the cache.
#[derive(Debug, Clone)]
pub struct Trace {
    pub last: LastResult,
    /// The facts that it told, as JSON.
    pub summary: String,
    pub watched: Vec<Watched<'static>>,
    /// Content and path of the files.
    pub sources: Vec<(Digest, PathBuf)>,
}

/// What is known before a run, of each stage by its index in the plan. Empty where nothing is known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The files that the plan was made from.
    pub files: Vec<Watched<'static>>,
    /// The variables that the plan and its stages depend on.
    pub environment: BTreeMap<String, Option<String>>,
    /// The last result, where it is on record.
    pub traces: Vec<Option<Trace>>,
    /// Whether everything outside of the cache that the stage reads is as it was.
    pub unchanged: Vec<bool>,
    /// The files below the folder of the results, where all stand as they were placed.
    pub placed: Vec<Option<Vec<Watched<'static>>>>,
    /// The plan as it stood in the state file.
    pub plan: Option<Vec<u8>>,
}

/// What a state file tells.
pub enum Found {
    /// It is not there or of no use.
    Nothing,
    /// Every stage is up to date and every result in its place.
    UpToDate {
        name: String,
        stages: usize,
    },
    Changed(Box<(Plan, Known)>),
}

const MAGIC: &[u8; 16] = b"pipe state v1\n\0\0";

/// Read for every run.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    stages: u32,
    /// Whether every stage has a result.
    complete: bool,
    #[serde(borrow)]
    environment: Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>,
    /// The folder of the results.
    #[serde(borrow)]
    results: Cow<'a, str>,
    /// The pipeline and parameter files; then for each stage what it reads, and its results below their folder.
    #[serde(borrow)]
    watched: Vec<Watched<'a>>,
    /// Where each of those groups ends in `watched`.
    ends: Vec<u32>,
}

/// Read when something changed: the plan.
#[derive(Serialize, Deserialize)]
struct StoredPlan {
    /// As JSON.
    params: String,
    overrides: Vec<String>,
    order: Vec<u32>,
    stages: Vec<StoredStage>,
    /// Source, target, output, input, position.
    edges: Vec<(u32, u32, String, String, u32)>,
}

/// Read when something changed, of each stage: a [`Trace`] without what it watches.
type StoredResult<Last, Text, Sources> = Option<(Last, Text, Sources)>;

/// Reads the state of a call and looks at everything that it watches. With `plan_anyway`, the plan is read also when all
/// is up to date.
pub fn open(layout: &Layout, call: &Call, plan_anyway: bool) -> Found {
    let Some(path) = call.digest().ok().map(|digest| layout.state(&digest)) else { return Found::Nothing };
    // What cannot be read is found out anew; so is what cannot be used.
    read(&path, plan_anyway).unwrap_or(Found::Nothing)
}

fn read(path: &Path, plan_anyway: bool) -> Option<Found> {
    let mut file = File::open(path).ok()?;
    let head = read_part(&mut file)?;
    let head: Head = postcard::from_bytes(&head).ok()?;
    let stages = head.stages as usize;
    if head.ends.len() != 1 + 2 * stages || !head.ends.is_sorted() || !same_environment(&head.environment) {
        return None;
    }
    let holds = check(&head)?;
    let group = |at: usize| {
        let begin = if at == 0 { 0 } else { head.ends[at - 1] as usize };
        begin..(head.ends[at] as usize).min(holds.len()).max(begin)
    };
    let group_holds = |at: usize| holds[group(at)].iter().all(|holds| *holds);
    if !group_holds(0) {
        return None;
    }
    if !plan_anyway && head.complete && holds.iter().all(|holds| *holds) {
        return Some(Found::UpToDate { name: head.name.into_owned(), stages });
    }
    let results: Vec<StoredResult<LastResult, String, Vec<(Digest, PathBuf)>>> =
        postcard::from_bytes(&read_part(&mut file)?).ok()?;
    let plan_bytes = read_part(&mut file)?;
    let stored: StoredPlan = postcard::from_bytes(&plan_bytes).ok()?;
    if stored.stages.len() != stages || results.len() != stages {
        return None;
    }
    let owned = |at: usize| head.watched[group(at)].iter().cloned().map(Watched::into_owned).collect();
    let traces = results.into_iter().enumerate().map(|(node, result)| {
        let (last, summary, sources) = result?;
        Some(Trace { last, summary, sources, watched: owned(1 + node) })
    });
    let known = Known {
        files: owned(0),
        environment: head
            .environment
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_deref().map(str::to_owned)))
            .collect(),
        traces: traces.collect(),
        unchanged: (0..stages).map(|node| group_holds(1 + node)).collect(),
        placed: (0..stages)
            .map(|node| group_holds(1 + stages + node).then(|| owned(1 + stages + node)))
            .collect(),
        plan: Some(plan_bytes),
    };
    let mut graph = DiGraph::with_capacity(stages, stored.edges.len());
    for stored in stored.stages {
        graph.add_node(PlannedStage::restore(stored)?);
    }
    for (source, target, output, input, position) in stored.edges {
        let edge = Edge { output, input, position: position as usize };
        graph.add_edge(NodeIndex::new(source as usize), NodeIndex::new(target as usize), edge);
    }
    let plan = Plan {
        name: head.name.into_owned(),
        file: PathBuf::from(&*head.watched.first()?.path),
        params: serde_json::from_str(&stored.params).ok()?,
        overrides: stored.overrides,
        graph,
        order: stored.order.into_iter().map(|node| NodeIndex::new(node as usize)).collect(),
    };
    Some(Found::Changed(Box::new((plan, known))))
}

/// Looks at everything that is watched.
fn check(head: &Head<'_>) -> Option<Vec<bool>> {
    let (read, placed) = head.watched.split_at_checked(head.ends[head.stages as usize] as usize)?;
    // What is relative to a folder is found faster from that folder.
    let results = File::open(&*head.results).ok();
    let mut holds = vec![false; head.watched.len()];
    let (read_holds, placed_holds) = holds.split_at_mut(read.len());
    look_at(read, read_holds, |watched| watched.holds(CWD));
    if let Some(results) = results {
        look_at(placed, placed_holds, |watched| watched.holds(results.as_fd()));
    }
    Some(holds)
}

/// A thread is worth its start for so many paths.
const PATHS_A_THREAD: usize = 700;

/// Looks at many paths on a few threads. They are started here: a pool would cost more than a small pipeline takes.
fn look_at(watched: &[Watched<'_>], holds: &mut [bool], look: impl Fn(&Watched<'_>) -> bool + Sync) {
    let most = watched.len() / PATHS_A_THREAD;
    let threads = if most > 1 {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4).min(most)
    } else {
        1
    };
    let look_at_part = |watched: &[Watched<'_>], holds: &mut [bool]| {
        for (watched, holds) in watched.iter().zip(holds) {
            *holds = look(watched);
        }
    };
    let part = watched.len().div_ceil(threads).max(1);
    let mut parts = watched.chunks(part).zip(holds.chunks_mut(part));
    let own = parts.next();
    std::thread::scope(|scope| {
        for (watched, holds) in parts {
            scope.spawn(move || look_at_part(watched, holds));
        }
        if let Some((watched, holds)) = own {
            look_at_part(watched, holds);
        }
    });
}

/// A part is its magic, its length and its BLAKE3 hash, then its bytes.
fn read_part(file: &mut File) -> Option<Vec<u8>> {
    let mut start = [0; 16 + 8 + 32];
    file.read_exact(&mut start).ok()?;
    let (found_magic, rest) = start.split_first_chunk::<16>()?;
    let (length, hash) = rest.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    if found_magic != MAGIC || length > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).ok()?;
    (Digest::of_bytes(&bytes).0 == hash).then_some(bytes)
}

fn write_part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend(MAGIC);
    bytes.extend((part.len() as u64).to_le_bytes());
    bytes.extend(Digest::of_bytes(part).0);
    bytes.extend(part);
}

fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(io::Error::other)
}

/// Variables that set params are told by their names too: a further one may change the plan or be an error.
fn same_environment(expected: &[(Cow<str>, Option<Cow<str>>)]) -> bool {
    let setting = |name: &str| {
        name.strip_prefix(PARAM_PREFIX).is_some() && !expected.iter().any(|(known, _)| known == name)
    };
    expected.iter().all(|(name, value)| std::env::var(&**name).ok().as_deref() == value.as_deref())
        && !std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(setting))
}

/// The variables that a plan depends on: those that its text names, and those that its stages declare. Programs are
/// found by `PATH`.
pub fn environment(asked: &Environment, plan: &Plan) -> BTreeMap<String, Option<String>> {
    let mut found = asked.asked();
    let declared = plan.stages().flat_map(|(_, planned)| planned.ports().environment.clone());
    for name in declared.chain(["PATH".to_owned()]) {
        let value = std::env::var(&name).ok();
        found.insert(name, value);
    }
    found
}

/// What a finished run leaves for the next.
pub struct Saved<'a> {
    pub plan: &'a Plan,
    pub wanted: &'a BTreeSet<NodeIndex>,
    /// The folder of the results.
    pub results: &'a Path,
    pub known: &'a Known,
}

impl Saved<'_> {
    /// Writes the state of a call in place of what is there.
    pub fn write(&self, stats: &StatCache, layout: &Layout, call: &Call) -> io::Result<()> {
        let Self { plan, known, .. } = self;
        let mut watched: Vec<Watched<'_>> = known.files.iter().map(Watched::borrowed).collect();
        let mut ends = vec![watched.len() as u32];
        for trace in &known.traces {
            watched.extend(trace.iter().flat_map(|trace| &trace.watched).map(Watched::borrowed));
            ends.push(watched.len() as u32);
        }
        let mut complete = true;
        for (node, placed) in known.placed.iter().enumerate() {
            let has_all = known.traces[node].is_some() && placed.is_some();
            complete &= has_all || !self.wanted.contains(&NodeIndex::new(node));
            watched.extend(placed.iter().flatten().map(Watched::borrowed));
            ends.push(watched.len() as u32);
        }
        let environment = known
            .environment
            .iter()
            .map(|(name, value)| (name.into(), value.as_deref().map(Cow::from)))
            .collect();
        let stages = plan.graph.node_count() as u32;
        let name = Cow::from(&plan.name);
        let results = self.results.to_string_lossy();
        let mut bytes = Vec::new();
        let head = Head { name, stages, complete, environment, results, watched, ends };
        write_part(&mut bytes, &encode(&head)?);
        let results = known.traces.iter().map(|trace| {
            let Trace { last, summary, sources, .. } = trace.as_ref()?;
            Some((last, summary, sources))
        });
        write_part(&mut bytes, &encode(&results.collect::<Vec<StoredResult<_, _, _>>>())?);
        match &known.plan {
            Some(stored) => write_part(&mut bytes, stored),
            None => write_part(&mut bytes, &encode(&self.stored_plan())?),
        }
        stats.replace_memo(&layout.state(&call.digest()?), &bytes)
    }

    fn stored_plan(&self) -> StoredPlan {
        let plan = self.plan;
        let index = |node: NodeIndex| node.index() as u32;
        let edges = plan.graph.raw_edges().iter().map(|edge| {
            let Edge { output, input, position } = edge.weight.clone();
            (index(edge.source()), index(edge.target()), output, input, position as u32)
        });
        StoredPlan {
            params: serde_json::json!(plan.params).to_string(),
            overrides: plan.overrides.clone(),
            order: plan.order.iter().copied().map(index).collect(),
            stages: plan.graph.node_weights().map(PlannedStage::to_stored).collect(),
            edges: edges.collect(),
        }
    }
}
