//! What is queued starts when there are resources for it.

use super::Run;
use super::record::blank_record;
use crate::deadline::Deadline;
use crate::event::Event;
use crate::explain;
use crate::history::LastResult;
use crate::key;
use crate::pool::Taken;
use crate::state::Trace;
use crate::worker::{Job, JobInput};
use petgraph::graph::NodeIndex;
use pipe_cache::{Outcome, Timestamp};
use pipe_stages::context::StageEvent;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

impl<'a> Run<'a> {
    /// The most urgent queued stage for which there are resources.
    pub(super) fn start(&mut self) -> Option<(NodeIndex, Job<'a>, Taken)> {
        let plan = self.plan;
        let (node, taken) = self.schedule.start(&mut self.pool, |node| plan.graph[node].resources)?;
        let (keyed, reasons) = self.stages[node.index()].keyed.take()?;
        self.running += 1;
        self.unsaved = true;
        let deadline = plan.graph[node].limits.timeout.map(|limit| Arc::new(Deadline::new(limit)));
        self.deadlines.extend(deadline.clone().map(|deadline| (node, deadline)));
        self.stages[node.index()].started = Some((Timestamp::now(), Instant::now()));
        let name = self.name(node);
        let mut record = blank_record(&name, plan.graph[node].kind(), Outcome::Interrupted);
        record.key = Some(keyed.key);
        record.manifest = keyed.manifest.put(&self.workspace.cache.store).ok();
        record.sources = key::sources(plan, node);
        record.threads = Some(taken.cpu);
        // Listings are small; stored before the run, they also explain a run that fails. Without them the sentences
        // name no files, which is no reason not to run.
        let _ = keyed.externals.store(&self.workspace.cache);
        let sentences = explain::describe(&reasons, &record.sources, &self.workspace.cache.store);
        record.reasons = reasons;
        let stage = &mut self.stages[node.index()];
        stage.trace = record.manifest.map(|manifest| {
            let last = LastResult { key: keyed.key, manifest, outputs: BTreeMap::new(), took: None };
            let trace = Trace { last, summary: String::new(), sources: keyed.externals.sources() };
            (trace, keyed.externals.watched().to_vec())
        });
        stage.record = Some(record);
        let expected = self.expected.of(node);
        self.tell(&Event::Running { stage: name, threads: taken.cpu, reasons: sentences, expected });
        let beyond = self.pool.beyond(plan.graph[node].resources);
        if !beyond.is_empty() {
            let text = format!("it asks for {}; it runs with what there is", beyond.join(", and for "));
            self.tell(&Event::Stage { stage: self.name(node), event: StageEvent::Warning(text) });
        }
        let job = Job {
            planned: &plan.graph[node],
            inputs: self.job_inputs(node),
            key: keyed.key,
            manifest: keyed.manifest,
            externals: keyed.externals,
            threads: taken.cpu,
            gpus: taken.gpus.clone(),
            forced: self.options.forced.contains(&node),
            deadline,
        };
        Some((node, job, taken))
    }

    fn job_inputs(&self, node: NodeIndex) -> BTreeMap<String, Vec<JobInput>> {
        let ports = &self.plan.graph[node].ports().inputs;
        let mut inputs: BTreeMap<String, Vec<_>> =
            ports.iter().map(|port| (port.name.to_string(), Vec::new())).collect();
        for (source, edge) in self.plan.inputs(node) {
            let tree = self.outputs(source)[&edge.output];
            let input = JobInput { label: self.name(source), tree, alone: edge.alone };
            inputs.entry(edge.input.clone()).or_default().push(input);
        }
        inputs
    }
}
