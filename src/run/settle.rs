//! What is ready gets its key: done if its result is there, else queued.

use super::Run;
use super::record::blank_record;
use crate::event::Event;
use crate::explain;
use crate::history::{self, LastResult};
use crate::key::{self, Keyed};
use crate::run::Workspace;
use crate::schedule::State;
use crate::state::Trace;
use crate::worker::JobError;
use petgraph::graph::NodeIndex;
use pipe_cache::{CacheError, DirtyReason, Lookup, Manifest, Outcome, StageRecord};
use std::time::Duration;

impl Run<'_> {
    /// Keys every ready stage: done if its result is there, else queued.
    pub(super) fn settle(&mut self) -> Result<(), CacheError> {
        while !self.stopping
            && let Some(node) = self.schedule.next_ready()
        {
            if self.current[node.index()] {
                self.totals.cached += 1;
                self.tell(&Event::Cached { stage: self.name(node) });
                self.schedule.end(node, State::Cached);
                continue;
            }
            match self.key(node) {
                Ok(keyed) => self.look_up(node, keyed)?,
                // Reading the user's files failed: that stage fails, the run does not.
                Err(error) => {
                    let text = JobError::Cache(error).chain();
                    self.fail(node, text, Duration::ZERO);
                }
            }
        }
        Ok(())
    }

    fn key(&self, node: NodeIndex) -> Result<Keyed, CacheError> {
        let Workspace { cache, stats, sources, .. } = self.workspace;
        let keyed =
            Keyed::new(self.plan, node, cache, stats, |source, edge| self.outputs(source)[&edge.output])?;
        sources.add(keyed.externals.sources());
        Ok(keyed)
    }

    fn look_up(&mut self, node: NodeIndex, keyed: Keyed) -> Result<(), CacheError> {
        let actions = &self.workspace.cache.actions;
        let on_record = if self.options.forced.contains(&node) {
            Err(vec![DirtyReason::Forced])
        } else {
            match actions.lookup(&keyed.key)? {
                Lookup::Hit(record) if !self.plan.graph[node].ports().has_outputs(&record.outputs) => {
                    Err(vec![DirtyReason::RecordCorrupt { detail: "it has other outputs".to_owned() }])
                }
                Lookup::Hit(record) => match actions.complete(&record) {
                    Ok(()) => Ok(record),
                    Err(error) if error.is_miss() => {
                        self.workspace.cache.forget_states();
                        Err(vec![DirtyReason::OutputsMissing])
                    }
                    Err(error) => return Err(error),
                },
                Lookup::Corrupt { reason } => {
                    self.workspace.cache.forget_states();
                    Err(vec![DirtyReason::RecordCorrupt { detail: reason }])
                }
                Lookup::Miss => Err(self.reasons(node, &keyed.manifest)),
            }
        };
        let name = self.name(node);
        match on_record {
            Ok(record) => {
                let stage = &mut self.stages[node.index()];
                stage.outputs = record.outputs.clone();
                let last = LastResult {
                    key: keyed.key,
                    manifest: record.manifest,
                    outputs: record.outputs.clone(),
                    took: Some(record.duration),
                };
                let (summary, sources) = (record.summary.to_string(), keyed.externals.sources());
                stage.trace = Some((Trace { last, summary, sources }, keyed.externals.watched().to_vec()));
                stage.record = Some(StageRecord {
                    key: Some(keyed.key),
                    manifest: Some(record.manifest),
                    duration: Some(record.duration),
                    outputs: record.outputs.clone(),
                    summary: record.summary.clone(),
                    sources: key::sources(self.plan, node),
                    ..blank_record(&name, self.plan.graph[node].kind(), Outcome::Cached)
                });
                self.totals.cached += 1;
                self.tell(&Event::Cached { stage: name });
                self.schedule.end(node, State::Cached);
            }
            Err(reasons) => {
                if self.options.dry {
                    // The listings of the old state are in the cache; those of the new must be for a comparison.
                    keyed.externals.store(&self.workspace.cache)?;
                    let sources = key::sources(self.plan, node);
                    let reasons = explain::describe(&reasons, &sources, &self.workspace.cache.store);
                    self.tell(&Event::WouldRun { stage: name.clone(), reasons });
                    self.totals.ran += 1;
                    for next in self.schedule.end(node, State::Skipped) {
                        let stage = self.name(next);
                        let because = format!("it needs `{name}`, which would run");
                        self.tell(&Event::MightRun { stage, because });
                    }
                } else {
                    self.stages[node.index()].keyed = Some((keyed, reasons));
                    self.schedule.queue(node);
                }
            }
        }
        Ok(())
    }

    /// Why the result is not on record: what differs from the last result of the stage.
    fn reasons(&self, node: NodeIndex, manifest: &Manifest) -> Vec<DirtyReason> {
        match self.last(node).map(|last| history::manifest(&self.workspace.cache, last)) {
            None => vec![DirtyReason::NeverRan],
            Some(None) => vec![DirtyReason::OutputsMissing],
            Some(Some(previous)) => {
                let reasons = manifest.diff(&previous);
                if reasons.is_empty() { vec![DirtyReason::OutputsMissing] } else { reasons }
            }
        }
    }
}
