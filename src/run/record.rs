//! The record that a run leaves of itself.

use super::Run;
use crate::history;
use crate::state::{MOST_RECORDS, Trace};
use petgraph::graph::NodeIndex;
use pipe_cache::{CacheError, Outcome, RunRecord, StageRecord, Timestamp, Unchanged};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

impl Run<'_> {
    pub(super) fn close_record(
        &mut self,
        node: NodeIndex,
        outcome: Outcome,
        elapsed: Duration,
        error: Option<String>,
    ) {
        let stage = &mut self.stages[node.index()];
        if let Some(record) = &mut stage.record {
            record.outcome = outcome;
            record.started_at = stage.started.map(|(time, _)| time);
            record.duration = Some(elapsed);
            record.error = error;
        }
    }

    /// Writes the record of the run so far, but spends little time on it: a killed run loses a second of it.
    pub(super) fn save_record(&mut self) -> Result<(), CacheError> {
        let since = Instant::now();
        if !self.unsaved || self.options.dry || since < self.next_save {
            return Ok(());
        }
        self.workspace.cache.runs.save(&self.record(None, false))?;
        self.unsaved = false;
        self.next_save = Instant::now() + (since.elapsed() * 50).max(Duration::from_secs(1));
        Ok(())
    }

    /// The record of the whole run. Stages that are as an earlier run told it are not told again, unless too many
    /// records would have to be read to know them.
    pub(super) fn whole_record(&self) -> RunRecord {
        let at = Some(Timestamp::now());
        let Some(told) = self.known.told.as_ref().filter(|told| told.records < MOST_RECORDS) else {
            return self.record(at, true);
        };
        let current = self.options.wanted.iter().filter(|node| self.current[node.index()]);
        let unchanged = Unchanged {
            run: told.run.clone(),
            stages: current.count() + self.known.others,
            records: told.records as usize,
        };
        RunRecord { unchanged: Some(unchanged), ..self.record(at, false) }
    }

    /// The record of the stages that were looked at so far, or of all.
    fn record(&self, finished_at: Option<Timestamp>, all: bool) -> RunRecord {
        let is_listed = |node: &&NodeIndex| all || !self.current[node.index()];
        RunRecord {
            id: self.id.clone(),
            pipeline: self.plan.name.clone(),
            file: self.plan.file.display().to_string(),
            message: self.options.message.clone(),
            started_at: self.started_at,
            finished_at,
            command: self.options.command.clone(),
            commit: self.commit.get_or_init(history::commit).clone(),
            host: Some(history::host()),
            cores: std::thread::available_parallelism().ok().map(std::num::NonZero::get),
            threads: Some(self.workspace.capacity.cpu),
            device: Some(self.device().to_owned()),
            versions: history::versions(),
            peak_memory_bytes: pipe_stages::machine::peak_memory_bytes(),
            overrides: self.plan.overrides.clone(),
            params: self.plan.params.clone(),
            tags: Vec::new(),
            stages: self
                .plan
                .order
                .iter()
                .filter(is_listed)
                .filter_map(|node| self.stage_record(*node))
                .collect(),
            unchanged: None,
        }
    }

    fn device(&self) -> &'static str {
        let asks = |node: &NodeIndex| self.plan.graph[*node].resources.gpu > 0;
        let has_gpu = !self.workspace.capacity.gpus.is_empty();
        if has_gpu && self.options.wanted.iter().any(asks) { "gpu" } else { "cpu" }
    }

    /// A run that found everything as the last one left it is not worth a record.
    pub(super) fn has_news(&self) -> bool {
        self.options.message.is_some()
            || self.plan.graph.node_indices().any(|node| {
                let last = || self.last(node).map(|last| last.key);
                let news = |record: &StageRecord| record.outcome != Outcome::Cached || last() != record.key;
                self.stages[node.index()].record.as_ref().is_some_and(news)
            })
    }

    pub(super) fn stage_record(&self, node: NodeIndex) -> Option<StageRecord> {
        if !self.current[node.index()] || !self.options.wanted.contains(&node) {
            let stage = &self.stages[node.index()];
            let failed_tries = stage.failed_tries.clone();
            return stage.record.clone().map(|record| StageRecord { failed_tries, ..record });
        }
        let Trace { last, summary, .. } = self.known.traces[node.index()].as_ref()?;
        Some(StageRecord {
            key: Some(last.key),
            manifest: Some(last.manifest),
            duration: last.took,
            outputs: last.outputs.clone(),
            summary: serde_json::from_str(summary).unwrap_or_default(),
            ..blank_record(&self.name(node), self.plan.graph[node].kind(), Outcome::Cached)
        })
    }
}

pub(super) fn blank_record(name: &str, kind: &str, outcome: Outcome) -> StageRecord {
    StageRecord {
        name: name.to_owned(),
        kind: kind.to_owned(),
        key: None,
        manifest: None,
        outcome,
        reasons: Vec::new(),
        started_at: None,
        duration: None,
        outputs: BTreeMap::new(),
        error: None,
        memo_hits: 0,
        memo_misses: 0,
        failed_tries: Vec::new(),
        summary: serde_json::Value::Null,
        sources: BTreeMap::new(),
        threads: None,
        peak_memory_bytes: None,
    }
}
