//! Runs a plan: keys what is ready, takes results from the cache, gives the rest to the executor, records the run.
//! This thread owns all state; workers get a job and send back what happened.

use self::record::blank_record;
use crate::current::current;
use crate::event::{Event, Totals};
use crate::explain;
use crate::external::Sources;
use crate::history::{self, LastResult};
use crate::interrupt;
use crate::key::{self, Keyed};
use crate::plan::Plan;
use crate::schedule::{Pool, Schedule, State};
use crate::stage_log::StageLogs;
use crate::state::{Known, Trace};
use crate::worker::{Executor, Finished, Job, JobError};
use petgraph::graph::NodeIndex;
use pipe_cache::{
    ActionKey, Cache, CacheError, Digest, DirtyReason, Lookup, Manifest, Outcome, RunId, StageRecord,
    StatCache, Timestamp,
};
use pipe_stages::artifact::Resources;
use pipe_stages::context::StageEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

mod record;

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
    /// What the next run may rely on, by the index of the stage.
    pub traces: Vec<Option<Trace>>,
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
    known: &Known,
    observer: &mut dyn FnMut(&Event),
) -> Result<Summary, CacheError> {
    let mut run = Run::new(plan, workspace, options, known, observer)?;
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
    trace: Option<Trace>,
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
    known: &'a Known,
    /// Stages of which it is known that nothing they depend on has changed.
    current: Vec<bool>,
    last: Vec<Option<LastResult>>,
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
        known: &'a Known,
        observer: &'a mut dyn FnMut(&Event),
    ) -> Result<Self, CacheError> {
        let node_count = plan.graph.node_count();
        let mut last: Vec<Option<LastResult>> =
            known.traces.iter().map(|trace| trace.as_ref().map(|trace| trace.last.clone())).collect();
        if known.traces.is_empty() {
            let names = options.wanted.iter().map(|&node| plan.graph[node].id.to_string()).collect();
            let (mut found, warnings) = history::last_results(&workspace.cache, &plan.name, &names)?;
            for warning in warnings {
                observer(&Event::Warning(warning.to_string()));
            }
            last = plan.graph.node_weights().map(|planned| found.remove(&planned.id.to_string())).collect();
        }
        workspace.sources.add(known.traces.iter().flatten().flat_map(|trace| trace.sources.clone()));
        let started_at = Timestamp::now();
        let id = RunId::at(started_at);
        Ok(Self {
            plan,
            workspace,
            options,
            observer,
            schedule: Schedule::new(&plan.graph, &plan.order, &options.wanted),
            pool: Pool::new(workspace.capacity),
            stages: (0..node_count).map(|_| Stage::default()).collect(),
            current: current(plan, &options.wanted, &options.forced, known, &workspace.cache)?,
            known,
            last,
            running: 0,
            stopping: false,
            totals: Totals::default(),
            started_at,
            logs: StageLogs::new(workspace.cache.layout.logs(&id)),
            id,
            commit: std::cell::OnceCell::new(),
            // About the time that it takes to write it.
            next_save: Instant::now() + Duration::from_micros(10) * node_count as u32,
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
            if self.current[node.index()] {
                self.totals.cached += 1;
                let last = self.last[node.index()].as_ref().expect("a current stage has a result");
                self.stages[node.index()].outputs = last.outputs.clone();
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
        let keyed = Keyed::new(self.plan, node, cache, stats, |source, edge| {
            self.stages[source.index()].outputs[&edge.output]
        })?;
        sources.add(keyed.externals.sources());
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
                stage.trace = Some(Trace {
                    last: LastResult {
                        key: keyed.key,
                        manifest: record.manifest,
                        outputs: record.outputs.clone(),
                    },
                    summary: record.summary.to_string(),
                    watched: keyed.externals.watched().to_vec(),
                    sources: keyed.externals.sources(),
                });
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
        match self.last[node.index()].as_ref().map(|last| history::manifest(&self.workspace.cache, last)) {
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
        let stage = &mut self.stages[node.index()];
        stage.trace = record.manifest.map(|manifest| Trace {
            last: LastResult { key: keyed.key, manifest, outputs: BTreeMap::new() },
            summary: String::new(),
            watched: keyed.externals.watched().to_vec(),
            sources: keyed.externals.sources(),
        });
        stage.record = Some(record);
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
        let stage = &mut self.stages[node.index()];
        match &mut stage.trace {
            Some(trace) if warning.is_none() => {
                trace.last.outputs.clone_from(&outputs);
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
        report.unchanged = self.last[node.index()].as_ref().is_some_and(|last| last.outputs == outputs);
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

    fn finish(mut self) -> Result<Summary, CacheError> {
        if !self.options.dry && self.has_news() {
            let record = self.record(Some(Timestamp::now()));
            self.workspace.cache.runs.save(&record)?;
        }
        self.tell(&Event::Ended(self.totals));
        let schedule = &self.schedule;
        let has_result = |node: &NodeIndex| matches!(schedule.state(*node), State::Cached | State::Done);
        let key = |node: &NodeIndex| {
            if self.current[node.index()] {
                return Some((*node, self.last[node.index()].as_ref()?.key));
            }
            Some((*node, self.stages[node.index()].record.as_ref()?.key?))
        };
        let keys = self.options.wanted.iter().filter(|node| has_result(node)).filter_map(key).collect();
        let outputs = self
            .options
            .wanted
            .iter()
            .map(|&node| (node, std::mem::take(&mut self.stages[node.index()].outputs)))
            .collect();
        let traces = self.plan.graph.node_indices().map(|node| {
            if self.current[node.index()] {
                return self.known.traces[node.index()].clone();
            }
            self.stages[node.index()].trace.take().filter(|_| has_result(&node))
        });
        let traces = traces.collect();
        Ok(Summary { totals: self.totals, outputs, keys, traces })
    }
}

/// Makes `results/` hold what the run made: `results/PIPELINE/STAGE/OUTPUT/`. Returns what was written, and for each
/// stage the paths of its files below `folder`.
pub fn place_results(
    plan: &Plan,
    workspace: &Workspace,
    outputs: &BTreeMap<NodeIndex, BTreeMap<String, Digest>>,
    folder: &Path,
) -> Result<(usize, BTreeMap<NodeIndex, Vec<String>>), CacheError> {
    let mut trees = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (node, ports) in outputs {
        let stage = plan.graph[*node].id.folder();
        for (port, tree) in ports {
            let name = format!("{stage}/{port}");
            trees.insert(name.clone(), *tree);
            names.insert(name, *node);
        }
    }
    let placed = workspace.cache.store.place(&trees, folder, &workspace.stats)?;
    let mut files: BTreeMap<NodeIndex, Vec<String>> = BTreeMap::new();
    for (name, paths) in placed.stand {
        files.entry(names[&name]).or_default().extend(paths.iter().map(|path| format!("{name}/{path}")));
    }
    Ok((placed.written.len(), files))
}
