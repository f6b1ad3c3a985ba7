//! How stages end: done, failed, stopped, skipped.

use super::record::blank_record;
use super::{Resting, Run};
use crate::event::Event;
use crate::interrupt;
use crate::pool::Taken;
use crate::quantity;
use crate::schedule::State;
use crate::worker::{Finished, JobError};
use petgraph::graph::NodeIndex;
use pipe_cache::{CacheError, FailedTry, Outcome, StageRecord};
use pipe_stages::context::StageEvent;
use std::time::{Duration, Instant};

impl Run<'_> {
    pub(super) fn stop_if_asked(&mut self) {
        if interrupt::asked() && !self.stopping {
            self.stopping = true;
            self.totals.interrupted = true;
            self.abandon("the run was interrupted");
        }
    }

    fn abandon(&mut self, because: &str) {
        for Resting { node, error, elapsed, .. } in std::mem::take(&mut self.resting) {
            self.fail(node, format!("{error}\n    not tried again: {because}"), elapsed);
        }
        for node in self.schedule.abandon() {
            self.skip(node, because.to_owned());
        }
    }

    pub(super) fn ended(
        &mut self,
        node: NodeIndex,
        taken: Taken,
        result: Result<Finished, JobError>,
    ) -> Result<(), CacheError> {
        self.running -= 1;
        self.deadlines.retain(|(other, _)| *other != node);
        self.pool.give_back(taken);
        let elapsed = self.stages[node.index()].started.map(|(_, since)| since.elapsed()).unwrap_or_default();
        match result {
            Ok(finished) => self.done(node, finished),
            Err(error) if error.is_interrupt() => {
                self.totals.interrupted = true;
                self.totals.stopped += 1;
                self.close_record(node, Outcome::Interrupted, elapsed, None);
                let stage = self.name(node);
                self.tell(&Event::Interrupted { stage, elapsed });
                for next in self.schedule.end(node, State::Skipped) {
                    self.skip(next, "the run was interrupted".into());
                }
            }
            Err(JobError::Cache(error)) if error.is_miss() => {
                // An input was lost under our feet: the next run makes it again.
                let text = format!("{}; run again to make it anew", JobError::Cache(error).chain());
                self.fail(node, text, elapsed);
            }
            Err(error) if error.may_pass() && self.rest(node, &error, elapsed) => {}
            Err(error) => self.fail(node, error.chain(), elapsed),
        }
        self.unsaved = true;
        self.save_record()
    }

    /// Lets a stage whose try failed pause before another. False if it had its last.
    fn rest(&mut self, node: NodeIndex, error: &JobError, elapsed: Duration) -> bool {
        let limits = self.plan.graph[node].limits;
        let stage = &mut self.stages[node.index()];
        let failed = stage.failed_tries.len() as u32 + 1;
        if self.stopping || failed > limits.retries {
            return false;
        }
        let (error, wait) = (error.chain(), limits.pause(failed));
        if let Some((started_at, _)) = stage.started {
            stage.failed_tries.push(FailedTry { started_at, duration: elapsed, error: error.clone() });
        }
        self.schedule.rest(node);
        self.resting.push(Resting { node, until: Instant::now() + wait, error: error.clone(), elapsed });
        let (stage, tries) = (self.name(node), limits.retries.saturating_add(1));
        self.tell(&Event::Retrying { stage, error, elapsed, failed, tries, wait });
        true
    }

    /// Stages whose pause is over are ready again.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        for resting in self.resting.extract_if(.., |resting| resting.until <= now) {
            self.schedule.wake(resting.node);
        }
    }

    /// A thread cannot be ended from outside: a stage that does not look whether it is to stop keeps its resources.
    pub(super) fn warn_of_overdue(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(15);
        let overdue: Vec<_> =
            self.deadlines.extract_if(.., |(_, deadline)| deadline.passed_by(PATIENCE)).collect();
        for (node, deadline) in overdue {
            let limit = quantity::time_text(deadline.limit);
            let text = format!(
                "its timeout of {limit} is over and it does not stop; until it ends it keeps its threads"
            );
            self.tell(&Event::Stage { stage: self.name(node), event: StageEvent::Warning(text) });
        }
    }

    fn done(&mut self, node: NodeIndex, finished: Finished) {
        let name = self.name(node);
        let Finished { outputs, mut report, warning, reused } = finished;
        let stage = &mut self.stages[node.index()];
        match &mut stage.trace {
            Some((trace, _)) if warning.is_none() => {
                trace.last.outputs.clone_from(&outputs);
                trace.last.took = Some(report.elapsed);
                trace.summary = serde_json::json!(report.facts).to_string();
            }
            trace => *trace = None,
        }
        if reused {
            self.close_record(node, Outcome::Cached, report.elapsed, None);
            if let Some(record) = &mut self.stages[node.index()].record {
                record.outputs.clone_from(&outputs);
            }
            self.stages[node.index()].outputs = outputs;
            self.totals.cached += 1;
            self.tell(&Event::Cached { stage: name });
            self.schedule.end(node, State::Cached);
            return;
        }
        report.unchanged = self.last(node).is_some_and(|last| last.outputs == outputs);
        self.totals.ran += 1;
        if let Some(record) = &mut self.stages[node.index()].record {
            record.outputs.clone_from(&outputs);
            record.memo_hits = report.items_reused as u64;
            record.memo_misses = report.items_made as u64;
            record.summary = serde_json::json!(report.facts);
        }
        self.close_record(node, Outcome::Ran, report.elapsed, None);
        self.stages[node.index()].outputs = outputs;
        if let Some(text) = warning {
            self.tell(&Event::Stage { stage: name.clone(), event: StageEvent::Warning(text) });
        }
        self.tell(&Event::Done { stage: name, report });
        self.schedule.end(node, State::Done);
    }

    pub(super) fn fail(&mut self, node: NodeIndex, error: String, elapsed: Duration) {
        let name = self.name(node);
        self.totals.failed += 1;
        let kind = self.plan.graph[node].kind();
        self.stages[node.index()].record.get_or_insert_with(|| blank_record(&name, kind, Outcome::Failed));
        self.close_record(node, Outcome::Failed, elapsed, Some(error.clone()));
        let log = self.logs.path(&name);
        self.tell(&Event::Failed { stage: name.clone(), error, elapsed, log });
        for next in self.schedule.end(node, State::Failed) {
            let because = if self.options.dry {
                format!("it needs `{name}`, which would fail")
            } else {
                format!("`{name}` failed")
            };
            self.skip(next, because);
        }
        if !self.options.keep_going && !self.stopping {
            self.stopping = true;
            self.abandon(&format!("`{name}` failed (--keep-going goes on with what does not need it)"));
        }
    }

    fn skip(&mut self, node: NodeIndex, because: String) {
        let name = self.name(node);
        self.totals.skipped += 1;
        let kind = self.plan.graph[node].kind();
        let record = blank_record(&name, kind, Outcome::Skipped);
        self.stages[node.index()].record = Some(StageRecord { error: Some(because.clone()), ..record });
        self.tell(&Event::Skipped { stage: name, because });
    }
}
