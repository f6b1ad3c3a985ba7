//! Runs a plan: keys what is ready, takes results from the cache, gives the rest to the executor, records the run.
//! This thread owns all state; workers get a job and send back what happened.

use crate::event::{Event, Totals};
use crate::explain;
use crate::external::Sources;
use crate::history::{self, LastResult};
use crate::interrupt;
use crate::key::{self, Keyed};
use crate::plan::Plan;
use crate::schedule::{Pool, Schedule, State};
use crate::stage_log::StageLogs;
use crate::worker::{Executor, Finished, Job, JobError};
use petgraph::graph::NodeIndex;
use pipe_cache::{
    ActionKey, Cache, CacheError, Digest, DirtyReason, Lookup, Manifest, Outcome, RunId, RunRecord,
    StageRecord, StatCache, Timestamp,
};
use pipe_stages::artifact::Resources;
use pipe_stages::context::StageEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// What the user asked of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stages to bring up to date with all that they need.
    pub wanted: BTreeSet<NodeIndex>,
    /// Stages that run although their result is in the cache.
    pub forced: BTreeSet<NodeIndex>,
    /// After a failure, go on with what does not depend on it.
    pub keep_going: bool,
    /// Say what would run, and run nothing.
    pub dry: bool,
    pub message: Option<String>,
    /// The command line, for the record.
    pub command: Vec<String>,
}

/// How a run ended, and what its stages made.
#[derive(Debug, Clone)]
pub struct Summary {
    pub totals: Totals,
    /// Trees of the outputs of every wanted stage; none for a stage that did not finish.
    pub outputs: BTreeMap<NodeIndex, BTreeMap<String, Digest>>,
    /// Key of every wanted stage whose result is there.
    pub keys: BTreeMap<NodeIndex, ActionKey>,
}

/// The places a run works with.
pub struct Workspace {
    pub cache: Cache,
    pub stats: Arc<StatCache>,
    pub sources: Arc<Sources>,
    /// Threads, memory and GPUs that stages share.
    pub capacity: Resources,
}

enum Message {
    Stage(NodeIndex, StageEvent),
    Ended(NodeIndex, Resources, Result<Finished, JobError>),
}

/// Runs the wanted stages of a plan and tells `observer` what happens.
pub fn run(
    plan: &Plan,
    workspace: &Workspace,
    executor: &dyn Executor,
    options: &Options,
    observer: &mut dyn FnMut(&Event),
) -> Result<Summary, CacheError> {
    let mut run = Run::new(plan, workspace, options, observer)?;
    run.tell(&Event::Started { stages: options.wanted.len() });
    let (jobs, queue) = mpsc::channel();
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        // Moved in, so that the workers see its end when this closure ends.
        let jobs = jobs;
        // Bounded, so that a program which prints faster than its log is written waits instead of filling the memory.
        let (sender, receiver) = mpsc::sync_channel(1024);
        let mut workers = 0;
        loop {
            run.settle()?;
            run.stop_if_asked();
            while let Some(job) = run.start() {
                if run.running > workers {
                    workers += 1;
                    let (sender, queue) = (sender.clone(), &queue);
                    scope.spawn(move || work(executor, queue, &sender));
                }
                // The queue outlives this scope.
                let _ = jobs.send(job);
            }
            if run.running == 0 {
                break;
            }
            match receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(Message::Stage(node, event)) => run.told(node, event),
                Ok(Message::Ended(node, taken, result)) => run.ended(node, taken, result)?,
                Err(_) => {}
            }
        }
        Ok::<_, CacheError>(())
    })?;
    run.finish()
}

/// Executes jobs one after the other until no more can come.
fn work(
    executor: &dyn Executor,
    queue: &Mutex<mpsc::Receiver<(NodeIndex, Job<'_>, Resources)>>,
    sender: &mpsc::SyncSender<Message>,
) {
    loop {
        let received = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((node, job, taken)) = received else { return };
        let events = sender.clone();
        let emit = Arc::new(move |event| {
            // The receiver outlives every worker.
            let _ = events.send(Message::Stage(node, event));
        });
        let result = executor.execute(&job, emit);
        let _ = sender.send(Message::Ended(node, taken, result));
    }
}

/// What is known of a stage during the run.
#[derive(Default)]
struct Stage {
    /// Its key, and why its result is not on record, from then until it starts.
    keyed: Option<(Keyed, Vec<DirtyReason>)>,
    outputs: BTreeMap<String, Digest>,
    record: Option<StageRecord>,
    started: Option<(Timestamp, Instant)>,
}

struct Run<'a> {
    plan: &'a Plan,
    workspace: &'a Workspace,
    options: &'a Options,
    observer: &'a mut dyn FnMut(&Event),
    schedule: Schedule,
    pool: Pool,
    stages: Vec<Stage>,
    last: BTreeMap<String, LastResult>,
    running: usize,
    /// No further stage starts.
    stopping: bool,
    totals: Totals,
    started_at: Timestamp,
    id: RunId,
    logs: StageLogs,
    /// Looked up when the first record is written: a run with nothing to do starts no git.
    commit: std::cell::OnceCell<Option<String>>,
    /// When the record is worth writing again.
    next_save: Instant,
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a Plan,
        workspace: &'a Workspace,
        options: &'a Options,
        observer: &'a mut dyn FnMut(&Event),
    ) -> Result<Self, CacheError> {
        let names = options.wanted.iter().map(|&node| plan.graph[node].id.to_string()).collect();
        let (last, warnings) = history::last_results(&workspace.cache, &plan.name, &names)?;
        for warning in warnings {
            observer(&Event::Warning(warning.to_string()));
        }
        let started_at = Timestamp::now();
        let id = RunId::at(started_at);
        Ok(Self {
            plan,
            workspace,
            options,
            observer,
            schedule: Schedule::new(&plan.graph, &plan.order, &options.wanted),
            pool: Pool::new(workspace.capacity),
            stages: (0..plan.graph.node_count()).map(|_| Stage::default()).collect(),
            last,
            running: 0,
            stopping: false,
            totals: Totals::default(),
            started_at,
            logs: StageLogs::new(workspace.cache.layout.logs(&id)),
            id,
            commit: std::cell::OnceCell::new(),
            next_save: Instant::now(),
        })
    }

    fn tell(&mut self, event: &Event) {
        if let Some(warning) = self.logs.observe(event) {
            (self.observer)(&Event::Warning(warning));
        }
        (self.observer)(event);
    }

    /// What a running stage tells.
    fn told(&mut self, node: NodeIndex, event: StageEvent) {
        if let (StageEvent::PeakMemory { bytes }, Some(record)) =
            (&event, &mut self.stages[node.index()].record)
        {
            record.peak_memory_bytes = Some(*bytes);
        }
        let stage = self.name(node);
        self.tell(&Event::Stage { stage, event });
    }

    fn name(&self, node: NodeIndex) -> String {
        self.plan.graph[node].id.to_string()
    }

    /// Keys every ready stage: done if its result is there, else queued.
    fn settle(&mut self) -> Result<(), CacheError> {
        while !self.stopping
            && let Some(node) = self.schedule.next_ready()
        {
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
        let keyed = Keyed::new(self.plan, node, cache, stats, |source, edge| {
            self.stages[source.index()].outputs[&edge.output]
        })?;
        sources.add(&keyed.externals);
        Ok(keyed)
    }

    fn look_up(&mut self, node: NodeIndex, keyed: Keyed) -> Result<(), CacheError> {
        let actions = &self.workspace.cache.actions;
        let on_record = if self.options.forced.contains(&node) {
            Err(vec![DirtyReason::Forced])
        } else {
            match actions.lookup(&keyed.key)? {
                Lookup::Hit(record) => match actions.complete(&record) {
                    Ok(()) => Ok(record),
                    Err(error) if error.is_miss() => Err(vec![DirtyReason::OutputsMissing]),
                    Err(error) => return Err(error),
                },
                Lookup::Corrupt { reason } => Err(vec![DirtyReason::RecordCorrupt { detail: reason }]),
                Lookup::Miss => Err(self.reasons(node, &keyed.manifest)),
            }
        };
        let name = self.name(node);
        match on_record {
            Ok(record) => {
                let stage = &mut self.stages[node.index()];
                stage.outputs = record.outputs.clone();
                stage.record = Some(StageRecord {
                    key: Some(keyed.key),
                    manifest: Some(record.manifest),
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
        let last = self.last.get(&self.name(node));
        match last.map(|last| history::manifest(&self.workspace.cache, last)) {
            None => vec![DirtyReason::NeverRan],
            Some(None) => vec![DirtyReason::OutputsMissing],
            Some(Some(previous)) => {
                let reasons = manifest.diff(&previous);
                if reasons.is_empty() { vec![DirtyReason::OutputsMissing] } else { reasons }
            }
        }
    }

    fn stop_if_asked(&mut self) {
        if interrupt::asked() && !self.stopping {
            self.stopping = true;
            self.totals.interrupted = true;
            self.abandon("the run was interrupted");
        }
    }

    fn abandon(&mut self, because: &str) {
        for node in self.schedule.abandon() {
            self.skip(node, because.to_owned());
        }
    }

    /// The most urgent queued stage for which there are resources.
    fn start(&mut self) -> Option<(NodeIndex, Job<'a>, Resources)> {
        if self.pool.is_full() {
            return None;
        }
        let rivals = self.schedule.queued().saturating_sub(1);
        let (plan, pool) = (self.plan, &mut self.pool);
        let mut taken = None;
        let node = self.schedule.start(|node| {
            taken = pool.take(plan.graph[node].resources, rivals);
            taken.is_some()
        })?;
        let taken = taken?;
        let (keyed, reasons) = self.stages[node.index()].keyed.take()?;
        self.running += 1;
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
        self.stages[node.index()].record = Some(record);
        self.tell(&Event::Running { stage: name, threads: taken.cpu, reasons: sentences });
        let job = Job {
            planned: &plan.graph[node],
            inputs: self.job_inputs(node),
            key: keyed.key,
            manifest: keyed.manifest,
            externals: keyed.externals,
            threads: taken.cpu,
            forced: self.options.forced.contains(&node),
        };
        Some((node, job, taken))
    }

    fn job_inputs(&self, node: NodeIndex) -> BTreeMap<String, Vec<(String, Digest)>> {
        let ports = &self.plan.graph[node].ports().inputs;
        let mut inputs: BTreeMap<String, Vec<_>> =
            ports.iter().map(|port| (port.name.to_string(), Vec::new())).collect();
        for (source, edge) in self.plan.inputs(node) {
            let tree = self.stages[source.index()].outputs[&edge.output];
            inputs.entry(edge.input.clone()).or_default().push((self.name(source), tree));
        }
        inputs
    }

    fn ended(
        &mut self,
        node: NodeIndex,
        taken: Resources,
        result: Result<Finished, JobError>,
    ) -> Result<(), CacheError> {
        self.running -= 1;
        self.pool.give_back(taken);
        let elapsed = self.stages[node.index()].started.map(|(_, since)| since.elapsed()).unwrap_or_default();
        match result {
            Ok(finished) => self.done(node, finished),
            Err(error) if error.is_interrupt() => {
                self.totals.interrupted = true;
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
            Err(error) => self.fail(node, error.chain(), elapsed),
        }
        self.save_record()
    }

    fn done(&mut self, node: NodeIndex, finished: Finished) {
        let name = self.name(node);
        let Finished { outputs, mut report, warning, reused } = finished;
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
        report.unchanged = self.last.get(&name).is_some_and(|last| last.outputs == outputs);
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

    fn fail(&mut self, node: NodeIndex, error: String, elapsed: Duration) {
        let name = self.name(node);
        self.totals.failed += 1;
        let kind = self.plan.graph[node].kind();
        self.stages[node.index()].record.get_or_insert_with(|| blank_record(&name, kind, Outcome::Failed));
        self.close_record(node, Outcome::Failed, elapsed, Some(error.clone()));
        let log = self.logs.path(&name);
        self.tell(&Event::Failed { stage: name.clone(), error, elapsed, log });
        for next in self.schedule.end(node, State::Failed) {
            self.skip(next, format!("`{name}` failed"));
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

    fn close_record(&mut self, node: NodeIndex, outcome: Outcome, elapsed: Duration, error: Option<String>) {
        let stage = &mut self.stages[node.index()];
        if let Some(record) = &mut stage.record {
            record.outcome = outcome;
            record.started_at = stage.started.map(|(time, _)| time);
            record.duration = Some(elapsed);
            record.error = error;
        }
    }

    /// Writes the record of the run so far, but spends little time on it: a killed run loses a second of it.
    fn save_record(&mut self) -> Result<(), CacheError> {
        let since = Instant::now();
        if since < self.next_save {
            return Ok(());
        }
        self.workspace.cache.runs.save(&self.record(None))?;
        self.next_save = Instant::now() + (since.elapsed() * 50).max(Duration::from_secs(1));
        Ok(())
    }

    fn record(&self, finished_at: Option<Timestamp>) -> RunRecord {
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
            device: Some(if self.workspace.capacity.gpu > 0 { "gpu" } else { "cpu" }.to_owned()),
            versions: history::versions(),
            peak_memory_bytes: pipe_stages::machine::peak_memory_bytes(),
            overrides: self.plan.overrides.clone(),
            params: self.plan.params.clone(),
            tags: Vec::new(),
            stages: self
                .plan
                .order
                .iter()
                .filter_map(|node| self.stages[node.index()].record.clone())
                .collect(),
        }
    }

    fn finish(mut self) -> Result<Summary, CacheError> {
        if !self.options.dry && self.has_news() {
            let record = self.record(Some(Timestamp::now()));
            self.workspace.cache.runs.save(&record)?;
        }
        self.tell(&Event::Ended(self.totals));
        let has_result = |node: &NodeIndex| matches!(self.schedule.state(*node), State::Cached | State::Done);
        let key = |node: &NodeIndex| Some((*node, self.stages[node.index()].record.as_ref()?.key?));
        let keys = self.options.wanted.iter().filter(|node| has_result(node)).filter_map(key).collect();
        let outputs = self
            .options
            .wanted
            .iter()
            .map(|&node| (node, std::mem::take(&mut self.stages[node.index()].outputs)));
        Ok(Summary { totals: self.totals, outputs: outputs.collect(), keys })
    }

    /// A run that found everything as the last one left it is not worth a record.
    fn has_news(&self) -> bool {
        self.options.message.is_some()
            || self.stages.iter().filter_map(|stage| stage.record.as_ref()).any(|record| {
                let last = self.last.get(&record.name).map(|last| last.key);
                record.outcome != Outcome::Cached || last != record.key
            })
    }
}

fn blank_record(name: &str, kind: &str, outcome: Outcome) -> StageRecord {
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
        summary: serde_json::Value::Null,
        sources: BTreeMap::new(),
        threads: None,
        peak_memory_bytes: None,
    }
}

/// Makes `results/` hold what the run made: `results/PIPELINE/STAGE/OUTPUT/`.
pub fn place_results(
    plan: &Plan,
    workspace: &Workspace,
    outputs: &BTreeMap<NodeIndex, BTreeMap<String, Digest>>,
    folder: &Path,
) -> Result<usize, CacheError> {
    let mut trees = BTreeMap::new();
    for (node, ports) in outputs {
        let stage = plan.graph[*node].id.folder();
        trees.extend(ports.iter().map(|(port, tree)| (format!("{stage}/{port}"), *tree)));
    }
    Ok(workspace.cache.store.place(&trees, folder, &workspace.stats)?.written.len())
}
