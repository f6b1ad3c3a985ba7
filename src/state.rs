//! What the last run left, in one file for each way of calling `pipe run`.
//!
//! A run with nothing to do reads the head of this file, looks at each watched path once, and is done: it parses no
//! YAML, opens no record and no object, takes no lock and writes nothing. If some paths changed, the body gives the
//! plan and the results of all stages that they do not concern.
//!
//! The file is a memo. Without it, or when it is damaged or of another program, everything is found out anew.

use self::stored::{Change, Head, Lists, Stored, StoredPlan, Tail, Values, View, encode, write_all};
use crate::params::Environment;
use crate::pipeline::PARAM_PREFIX;
use crate::plan::{Edge, Plan, PlannedStage};
use crate::run::Made;
use petgraph::graph::{DiGraph, NodeIndex};
use pipe_cache::{Digest, Expected, Layout, Watched};
use rustix::fs::CWD;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod stored;

pub use stored::{Told, Trace};

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

/// What is known before a run, of each stage by its index in the plan. Empty where nothing is known.
#[derive(Debug, Default)]
pub struct Known {
    /// The files that the plan was made from.
    pub files: Vec<Watched<'static>>,
    /// The variables that the plan and its stages depend on.
    pub environment: BTreeMap<String, Option<String>>,
    /// The run record that tells of all stages that have a trace.
    pub told: Option<Told>,
    /// Whether the lock file tells of all stages what is known here.
    pub locked: bool,
    /// The last result, where it is on record.
    pub traces: Vec<Option<Trace>>,
    /// Whether everything outside of the cache that the stage reads is as it was.
    pub unchanged: Vec<bool>,
    /// Whether the files below the folder of the results stand as they were placed.
    pub placed: Vec<bool>,
    /// Stages that are asked for, up to date, and not part of the plan.
    pub others: usize,
    /// Stages that read from some of those.
    pub border: Vec<NodeIndex>,
    stored: Option<Arc<Stored>>,
    /// The place of each stage in the whole plan, in rising order.
    places: Vec<u32>,
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

/// How much of the plan is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Nothing if all is up to date; of a large plan where little changed, what changed, all that hangs on it, and what
    /// those stages read from.
    Changes,
    Whole,
}

/// A plan of at least so many stages is taken in part, if the part is smaller than one in four.
const LARGE: usize = 100;
/// So many run records may be read to know what became of one run.
pub const MOST_RECORDS: u32 = 50;

/// Reads the state of a call and looks at everything that it watches.
pub fn open(layout: &Layout, call: &Call, extent: Extent) -> Found {
    let Some(path) = call.digest().ok().map(|digest| layout.state(&digest)) else { return Found::Nothing };
    // What cannot be read is found out anew; so is what cannot be used.
    read(&path, extent).unwrap_or(Found::Nothing)
}

fn read(path: &Path, extent: Extent) -> Option<Found> {
    let stored = Stored::open(path)?;
    let view = stored.view()?;
    let (head, tail) = (&view.head, view.tail());
    let stages = head.stages as usize;
    if !same_environment(&head.environment) {
        return None;
    }
    let held = Held::look(&view)?;
    if !held.files {
        return None;
    }
    let all = |holds: &[bool]| holds.iter().all(|holds| *holds);
    if extent == Extent::Changes && tail.complete && all(&held.reads) && all(&held.placed) {
        return Some(Found::UpToDate { name: head.name.clone().into_owned(), stages });
    }
    let (plan, results) = (stored.plan()?, stored.results()?);
    let plan: StoredPlan = postcard::from_bytes(&plan).ok()?;
    let results: Values = postcard::from_bytes(&results).ok()?;
    if plan.stages.len() != stages || results.len() != stages {
        return None;
    }
    // A part will do only where the rest need not be told: by the lock file, and by the record of the run.
    let rest_is_told = tail.locked && tail.told.as_ref().is_some_and(|told| told.records < MOST_RECORDS);
    let part = (extent == Extent::Changes && rest_is_told)
        .then(|| changed_part(&view, &results, &held, &plan))
        .flatten()
        .filter(|part| stages >= LARGE && part.places.len() < stages / 4);
    let whole = || Part { places: (0..head.stages).collect(), border: Vec::new() };
    let part = part.unwrap_or_else(whole);
    let of_part = |of: &dyn Fn(usize) -> bool| part.places.iter().map(|&at| of(at as usize)).collect();
    let known = Known {
        files: tail.files.iter().cloned().map(Watched::into_owned).collect(),
        environment: head
            .environment
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_deref().map(str::to_owned)))
            .collect(),
        told: tail.told.clone(),
        locked: tail.locked,
        traces: part
            .places
            .iter()
            .map(|&at| view.trace(&results, at as usize))
            .collect::<Result<_, _>>()
            .ok()?,
        unchanged: of_part(&|at| held.reads[at]),
        placed: of_part(&|at| held.placed[at]),
        others: if part.places.len() < stages { stages - head.unwanted.len() - part.places.len() } else { 0 },
        border: part.border.iter().map(|&at| NodeIndex::new(at as usize)).collect(),
        stored: None,
        places: part.places,
    };
    let plan = restore(&plan, &known.places, head, &known.files)?;
    drop(view);
    Some(Found::Changed(Box::new((plan, Known { stored: Some(Arc::new(stored)), ..known }))))
}

/// Some stages of a plan.
struct Part {
    /// In rising order.
    places: Vec<u32>,
    /// Which of them read from stages that are not among them, by their index in `places`.
    border: Vec<u32>,
}

/// The stages that something changed for, all that hangs on them, and what those read from.
fn changed_part(view: &View<'_>, results: &Values<'_>, held: &Held, plan: &StoredPlan<'_>) -> Option<Part> {
    const NO_RESULT: &[u8] = &[0];
    let stages = view.head.stages as usize;
    let mut wanted = vec![true; stages];
    for &node in &view.head.unwanted {
        *wanted.get_mut(node as usize)? = false;
    }
    let mut changed = vec![false; stages];
    for node in (0..stages).filter(|&node| wanted[node]) {
        let has_result = *view.encoded_trace(results, node)? != *NO_RESULT;
        changed[node] = !(held.reads[node] && held.placed[node] && has_result);
    }
    let mut readers: Vec<Vec<u32>> = vec![Vec::new(); stages];
    for &(source, target, ..) in &plan.edges {
        readers.get_mut(source as usize)?.push(target);
    }
    let mut open: Vec<usize> = (0..stages).filter(|&node| changed[node]).collect();
    while let Some(node) = open.pop() {
        for &reader in &readers[node] {
            let reader = reader as usize;
            if *wanted.get(reader)? && !changed[reader] {
                changed[reader] = true;
                open.push(reader);
            }
        }
    }
    let mut part = changed.clone();
    for &(source, target, ..) in &plan.edges {
        part[source as usize] |= changed[target as usize];
    }
    let mut at_border = vec![false; stages];
    for &(source, target, ..) in &plan.edges {
        at_border[target as usize] |= part[target as usize] && !part[source as usize];
    }
    let places: Vec<u32> = (0..view.head.stages).filter(|&node| part[node as usize]).collect();
    let border = (0..).zip(&places).filter(|(_, place)| at_border[**place as usize]).map(|(index, _)| index);
    Some(Part { border: border.collect(), places })
}

/// The plan of the stages at these places, with the edges between them.
fn restore(stored: &StoredPlan<'_>, places: &[u32], head: &Head<'_>, files: &[Watched<'_>]) -> Option<Plan> {
    let index: HashMap<u32, NodeIndex> =
        places.iter().enumerate().map(|(index, place)| (*place, NodeIndex::new(index))).collect();
    let mut graph = DiGraph::with_capacity(places.len(), 0);
    for &place in places {
        graph.add_node(PlannedStage::restore(stored.stages.get(place as usize)?)?);
    }
    for (source, target, output, input, position) in &stored.edges {
        if let (Some(&source), Some(&target)) = (index.get(source), index.get(target)) {
            let port = |at: &u32| stored.ports.get(*at as usize).cloned();
            let edge = Edge { output: port(output)?, input: port(input)?, position: *position as usize };
            graph.add_edge(source, target, edge);
        }
    }
    Some(Plan {
        name: head.name.clone().into_owned(),
        file: PathBuf::from(&*files.first()?.path),
        params: serde_json::from_str(&stored.params).ok()?,
        overrides: stored.overrides.clone(),
        graph,
        order: stored.order.iter().filter_map(|place| index.get(place).copied()).collect(),
    })
}

impl Known {
    /// Whether the plan holds only the stages that something changed for, and what belongs to them.
    pub fn is_part(&self) -> bool {
        self.others > 0
    }

    /// Content and path of the external files that stages beyond the plan read; to know them takes a moment.
    pub fn more_sources(&self) -> Option<impl FnOnce() -> Vec<(Digest, PathBuf)> + Send + 'static> {
        let stored = self.stored.clone().filter(|_| self.is_part())?;
        // Without them a file is looked for in the cache, and is missing if it is not there.
        Some(move || stored.sources().unwrap_or_default())
    }

    /// The place of a stage in the whole plan.
    fn place(&self, node: NodeIndex) -> u32 {
        self.places.get(node.index()).copied().unwrap_or(node.index() as u32)
    }
}

/// What of all that is watched is as it was.
struct Held {
    /// The pipeline, its parameter files and its lock file.
    files: bool,
    /// By stage, what it reads.
    reads: Vec<bool>,
    /// By stage, its results.
    placed: Vec<bool>,
}

impl Held {
    /// Looks at everything once. `None` if the state contradicts itself.
    fn look(view: &View<'_>) -> Option<Self> {
        let stages = view.head.stages as usize;
        let table = view.table();
        let mut needed = vec![false; table.len()];
        for &place in (0..stages).flat_map(|node| view.reads(node)) {
            *needed.get_mut(place as usize)? = true;
        }
        let mut reads: Vec<&Watched<'_>> =
            table.iter().zip(&needed).filter(|(_, needed)| **needed).map(|(watched, _)| *watched).collect();
        let read_by_stages = reads.len();
        reads.extend(&view.tail().files);
        let holds = look_at(&reads, |watched| watched.holds(CWD));
        let (holds, files) = holds.split_at(read_by_stages);
        // Back to the places in the table. What no stage reads any more does not matter.
        let mut holds = holds.iter();
        let of_table: Vec<bool> =
            needed.iter().map(|needed| !needed || holds.next() == Some(&true)).collect();
        let placed: Vec<&Watched<'_>> = (0..stages).flat_map(|node| view.placed(node)).collect();
        // What is relative to a folder is found faster from that folder.
        let stands = match File::open(&*view.head.results) {
            Ok(results) => look_at(&placed, |watched| watched.holds(results.as_fd())),
            Err(_) => vec![false; placed.len()],
        };
        let mut rest = &stands[..];
        let mut stand = |node: usize| {
            let (of_stage, others) = rest.split_at(view.placed(node).len());
            rest = others;
            of_stage.iter().all(|stands| *stands)
        };
        Some(Self {
            files: files.iter().all(|holds| *holds),
            placed: (0..stages).map(&mut stand).collect(),
            reads: (0..stages)
                .map(|node| view.reads(node).iter().all(|&place| of_table[place as usize]))
                .collect(),
        })
    }
}

/// A thread is worth its start for so many paths.
const PATHS_A_THREAD: usize = 700;

/// Looks at many paths on a few threads. They are started here: a pool would cost more than a small pipeline takes.
fn look_at<'w>(watched: &[&Watched<'w>], look: impl Fn(&Watched<'w>) -> bool + Sync) -> Vec<bool> {
    let most = watched.len() / PATHS_A_THREAD;
    let threads = if most > 1 {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4).min(most)
    } else {
        1
    };
    let mut holds = vec![false; watched.len()];
    let look_at_part = |watched: &[&Watched<'w>], holds: &mut [bool]| {
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
    holds
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
pub struct News<'a> {
    pub plan: &'a Plan,
    pub wanted: &'a BTreeSet<NodeIndex>,
    /// The folder of the results.
    pub results: &'a Path,
    pub files: &'a [Watched<'static>],
    pub environment: &'a BTreeMap<String, Option<String>>,
    pub told: Option<Told>,
    pub locked: bool,
    /// Of every stage that was looked at: its result, if it has one, and what it reads.
    pub looked_at: &'a BTreeMap<NodeIndex, Option<Made>>,
    /// The results that were looked at or placed, seen from their folder.
    pub placed: &'a BTreeMap<NodeIndex, Vec<Watched<'static>>>,
}

impl News<'_> {
    /// Adds to the state that was read before the run, or writes all anew.
    pub fn save(&self, known: &Known, layout: &Layout, call: &Call) -> io::Result<()> {
        let has_result = |node: &NodeIndex| {
            let before = || known.traces.get(node.index()).is_some_and(Option::is_some);
            self.looked_at.get(node).map_or_else(before, |made| trace_of(made.as_ref()).is_some())
        };
        let stands = |node: &NodeIndex| {
            self.placed.contains_key(node) || known.placed.get(node.index()).is_some_and(|placed| *placed)
        };
        let tail = Tail {
            complete: self.wanted.iter().all(|node| has_result(node) && stands(node)),
            told: self.told.clone(),
            locked: self.locked,
            files: self.files.iter().map(Watched::borrowed).collect(),
        };
        let before = known.stored.as_deref().and_then(|stored| Some((stored, stored.view()?)));
        match &before {
            Some((stored, view)) if stored.add(&self.change(known, view, &tail))? => Ok(()),
            _ => self.write_all(known, before, tail, &layout.state(&call.digest()?), layout),
        }
    }

    fn change<'s>(&'s self, known: &Known, view: &'s View<'_>, tail: &Tail<'s>) -> Change<'s> {
        let mut table = Table::new(view.table());
        let of_stage = |(node, made): (&NodeIndex, &'s Option<Made>)| {
            let trace = trace_of(made.as_ref());
            let watched = trace.iter().flat_map(|(_, watched)| watched);
            let reads = watched.map(|watched| table.place(watched)).collect();
            (known.place(*node), trace.map(|(trace, _)| Cow::Borrowed(trace)), reads)
        };
        let results = self.looked_at.iter().map(of_stage).collect();
        let placed = self
            .placed
            .iter()
            .map(|(node, watched)| (known.place(*node), watched.iter().map(Watched::borrowed).collect()));
        Change { tail: tail.clone(), results, placed: placed.collect(), table: table.new_ones() }
    }

    fn write_all(
        &self,
        known: &Known,
        before: Option<(&Stored, View<'_>)>,
        tail: Tail<'_>,
        path: &Path,
        layout: &Layout,
    ) -> io::Result<()> {
        let unusable = || io::Error::other("the state before cannot be read");
        let (stored, view) = before.map_or((None, None), |(stored, view)| (Some(stored), Some(view)));
        let stages = view.as_ref().map_or(self.plan.graph.node_count(), |view| view.head.stages as usize);
        let results_before = stored.map(|stored| stored.results().ok_or_else(unusable)).transpose()?;
        let results_before = results_before.as_deref().map(postcard::from_bytes::<Values>);
        let results_before = results_before.transpose().map_err(io::Error::other)?;
        let table_before = view.as_ref().map(View::table).unwrap_or_default();
        let looked_at: HashMap<u32, &Option<Made>> =
            self.looked_at.iter().map(|(node, made)| (known.place(*node), made)).collect();
        let placed_now: HashMap<u32, &Vec<Watched<'static>>> =
            self.placed.iter().map(|(node, watched)| (known.place(*node), watched)).collect();
        let mut table = Table::new(Vec::new());
        let (mut reads, mut placed, mut results) = (Lists::default(), Lists::default(), Values::default());
        for (node, place) in (0..stages).zip(0..) {
            match (looked_at.get(&place), &view, &results_before) {
                (Some(made), ..) => {
                    let trace = trace_of(made.as_ref());
                    results.push(&trace.map(|(trace, _)| trace))?;
                    let watched = trace.iter().flat_map(|(_, watched)| watched);
                    reads.push(watched.map(|watched| table.place(watched)));
                }
                (None, Some(view), Some(before)) => {
                    results.push_encoded(&view.encoded_trace(before, node).ok_or_else(unusable)?);
                    let places = view.reads(node).iter();
                    reads.push(places.map(|place| table.place(table_before[*place as usize])));
                }
                (None, ..) => {
                    results.push(&None::<Trace>)?;
                    reads.push([]);
                }
            }
            match (placed_now.get(&place), &view) {
                (Some(watched), _) => placed.push(watched.iter().map(Watched::borrowed)),
                (None, Some(view)) => placed.push(view.placed(node).iter().map(Watched::borrowed)),
                (None, None) => placed.push([]),
            }
        }
        let unwanted = || {
            let nodes = self.plan.graph.node_indices();
            nodes.filter(|node| !self.wanted.contains(node)).map(|node| node.index() as u32).collect()
        };
        let head = Head {
            name: Cow::from(&self.plan.name),
            stages: stages as u32,
            environment: self
                .environment
                .iter()
                .map(|(name, value)| (name.into(), value.as_deref().map(Cow::from)))
                .collect(),
            unwanted: view.as_ref().map_or_else(unwanted, |view| view.head.unwanted.clone()),
            results: self.results.to_string_lossy(),
            tail,
            table: table.new_ones(),
            reads,
            placed,
        };
        let plan = match stored {
            Some(stored) => stored.plan().ok_or_else(unusable)?,
            None => self.stored_plan()?,
        };
        write_all(layout, path, &head, &results, &plan)
    }

    fn stored_plan(&self) -> io::Result<Vec<u8>> {
        let plan = self.plan;
        let mut stages = Values::default();
        for planned in plan.graph.node_weights() {
            stages.push(&planned.to_stored())?;
        }
        let mut names = Names::default();
        let edges = plan.graph.raw_edges().iter().map(|edge| {
            let Edge { output, input, position } = &edge.weight;
            let (source, target) = (edge.source().index() as u32, edge.target().index() as u32);
            (source, target, names.place(output), names.place(input), *position as u32)
        });
        let edges = edges.collect();
        encode(&StoredPlan {
            params: serde_json::json!(plan.params).to_string().into(),
            overrides: plan.overrides.clone(),
            order: plan.order.iter().map(|node| node.index() as u32).collect(),
            stages,
            ports: names.all.into_iter().map(str::to_owned).collect(),
            edges,
        })
    }
}

/// Names, each once.
#[derive(Default)]
struct Names<'a> {
    places: HashMap<&'a str, u32>,
    all: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn place(&mut self, name: &'a str) -> u32 {
        *self.places.entry(name).or_insert_with(|| {
            self.all.push(name);
            self.all.len() as u32 - 1
        })
    }
}

fn trace_of(made: Option<&Made>) -> Option<&(Trace, Vec<Watched<'static>>)> {
    made?.trace.as_ref()
}

/// Watched things, each once.
struct Table<'a> {
    known: usize,
    places: HashMap<(&'a str, Expected), u32>,
    new: Vec<&'a Watched<'a>>,
}

impl<'a> Table<'a> {
    fn new(known: Vec<&'a Watched<'a>>) -> Self {
        let count = known.len();
        let places = known.into_iter().zip(0..).map(|(watched, at)| ((&*watched.path, watched.expected), at));
        Self { known: count, places: places.collect(), new: Vec::new() }
    }

    fn place(&mut self, watched: &'a Watched<'a>) -> u32 {
        let next = (self.known + self.new.len()) as u32;
        *self.places.entry((&watched.path, watched.expected)).or_insert_with(|| {
            self.new.push(watched);
            next
        })
    }

    /// Those that were not known, in the order of their places.
    fn new_ones(&self) -> Vec<Watched<'a>> {
        self.new.iter().map(|watched| watched.borrowed()).collect()
    }
}
