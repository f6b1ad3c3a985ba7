//! What the last run left, in one file for each way of calling `pipe run`.
//!
//! A run with nothing to do reads the head of this file, looks at each watched path once, and is done: it parses no
//! YAML, opens no record and no object, takes no lock and writes nothing. If some paths changed, the body gives the
//! plan and the results of all stages that they do not concern.
//!
//! The file is a memo. Without it, or when it is damaged or of another program, everything is found out anew.

use self::held::Held;
use self::stored::{Head, Stored, StoredPlan, Values, View};
use crate::params::Environment;
use crate::pipeline::PARAM_PREFIX;
use crate::plan::{Edge, Plan, PlannedStage};
use petgraph::graph::{DiGraph, NodeIndex};
use pipe_cache::{Digest, Layout, Watched};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod held;
mod news;
mod stored;

pub use news::News;
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
    for (source, target, output, input, position, alone) in &stored.edges {
        if let (Some(&source), Some(&target)) = (index.get(source), index.get(target)) {
            let port = |at: &u32| stored.ports.get(*at as usize).cloned();
            let (output, input, position) = (port(output)?, port(input)?, *position as usize);
            let edge = Edge { output, input, position, alone: *alone };
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
        advice: Vec::new(),
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

/// Variables that set params are told by their names too: a further one may change the plan or be an error.
fn same_environment(expected: &[(Cow<str>, Option<Cow<str>>)]) -> bool {
    let setting = |name: &str| {
        name.strip_prefix(PARAM_PREFIX).is_some() && !expected.iter().any(|(known, _)| known == name)
    };
    let same = |name: &str, expected: Option<&str>| match std::env::var_os(name) {
        // A value that is no text is not one of a plan that was made.
        Some(value) => value.to_str().is_some_and(|value| expected == Some(value)),
        None => expected.is_none(),
    };
    expected.iter().all(|(name, value)| same(name, value.as_deref()))
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
