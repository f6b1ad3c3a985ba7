//! Writes what a run found: adds it to the state that was read before, or writes all anew.

use super::stored::{
    Change, Head, Lists, Stored, StoredPlan, Tail, Told, Trace, Values, View, encode, write_all,
};
use super::{Call, Known};
use crate::plan::{Edge, Plan};
use crate::run::Made;
use petgraph::graph::NodeIndex;
use pipe_cache::{Expected, Layout, Watched};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;

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
            let Edge { output, input, position, alone } = &edge.weight;
            let (source, target) = (edge.source().index() as u32, edge.target().index() as u32);
            (source, target, names.place(output), names.place(input), *position as u32, *alone)
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
