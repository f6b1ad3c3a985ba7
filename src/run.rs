//! Runs a plan: keys what is ready, takes results from the cache, gives the rest to the executor, records the run.
//! This thread owns all state; workers get a job and send back what happened.

use self::expect::Expected;
use crate::capacity::Capacity;
use crate::current::current;
use crate::deadline::Deadline;
use crate::event::{Event, Totals};
use crate::external::Sources;
use crate::history::{self, LastResult};
use crate::key::Keyed;
use crate::plan::Plan;
use crate::pool::{Pool, Taken};
use crate::schedule::{Schedule, State};
use crate::stage_log::StageLogs;
use crate::state::{Known, Told, Trace};
use crate::worker::{Executor, Finished, Job, JobError};
use petgraph::graph::NodeIndex;
use pipe_cache::{
    ActionKey, Cache, CacheError, Digest, DirtyReason, FailedTry, RunId, StageRecord, StatCache, Timestamp,
    Watched,
};
use pipe_stages::context::StageEvent;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

mod end;
mod expect;
mod record;
mod results;
mod settle;
mod start;

#[cfg(test)]
mod tests;

pub use results::{Results, other_owner, place_results};

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
#[derive(Debug)]
pub struct Summary {
    pub totals: Totals,
    /// Every wanted stage of which it was not known that nothing it depends on has changed. `None` without a result.
    pub looked_at: BTreeMap<NodeIndex, Option<Made>>,
    /// The record that tells the last result of every wanted stage, if there is one.
    pub told: Option<Told>,
}

/// The result of one stage.
#[derive(Debug)]
pub struct Made {
    pub key: ActionKey,
    pub outputs: BTreeMap<String, Digest>,
    /// What the next run may rely on; `None` if the result is not on record.
    pub trace: Option<(Trace, Vec<Watched<'static>>)>,
}

impl Summary {
    /// Key and outputs of a wanted stage that has a result.
    pub fn result<'s>(
        &'s self,
        node: NodeIndex,
        known: &'s Known,
    ) -> Option<(ActionKey, &'s BTreeMap<String, Digest>)> {
        match self.looked_at.get(&node) {
            Some(made) => made.as_ref().map(|made| (made.key, &made.outputs)),
            None => {
                known.traces.get(node.index())?.as_ref().map(|trace| (trace.last.key, &trace.last.outputs))
            }
        }
    }
}

/// The places a run works with.
pub struct Workspace {
    pub cache: Cache,
    pub stats: Arc<StatCache>,
    pub sources: Arc<Sources>,
    /// Threads, memory and GPUs that stages share.
    pub capacity: Capacity,
}

enum Message {
    Stage(NodeIndex, StageEvent),
    Ended(NodeIndex, Taken, Result<Finished, JobError>),
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
    let id = (!options.dry).then(|| run.id.clone());
    run.tell(&Event::Started {
        pipeline: plan.name.clone(),
        run: id,
        stages: options.wanted.len() + known.others,
    });
    let (jobs, queue) = mpsc::channel();
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        // Moved in, so that the workers see its end when this closure ends.
        let jobs = jobs;
        // Bounded, so that a program which prints faster than its log is written waits instead of filling the memory.
        let (sender, receiver) = mpsc::sync_channel(1024);
        let mut workers = 0;
        loop {
            run.wake();
            run.settle()?;
            run.stop_if_asked();
            run.warn_of_overdue();
            while let Some(job) = run.start() {
                if run.running > workers {
                    workers += 1;
                    let (sender, queue) = (sender.clone(), &queue);
                    scope.spawn(move || work(executor, queue, &sender));
                }
                // The queue outlives this scope.
                let _ = jobs.send(job);
            }
            run.save_record()?;
            run.look_ahead();
            if run.running == 0 && run.resting.is_empty() {
                break;
            }
            match receiver.recv_timeout(Duration::from_millis(100)) {
                Ok(Message::Stage(node, event)) => run.told(node, event),
                Ok(Message::Ended(node, taken, result)) => run.ended(node, taken, result)?,
                Err(_) => run.tell(&Event::Tick),
            }
        }
        Ok::<_, CacheError>(())
    })?;
    run.finish()
}

/// Executes jobs one after the other until no more can come.
fn work(
    executor: &dyn Executor,
    queue: &Mutex<mpsc::Receiver<(NodeIndex, Job<'_>, Taken)>>,
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
    trace: Option<(Trace, Vec<Watched<'static>>)>,
    started: Option<(Timestamp, Instant)>,
    failed_tries: Vec<FailedTry>,
}

/// A stage between two tries.
struct Resting {
    node: NodeIndex,
    until: Instant,
    /// Why the last try failed, and how long it took.
    error: String,
    elapsed: Duration,
}

struct Run<'a> {
    plan: &'a Plan,
    workspace: &'a Workspace,
    options: &'a Options,
    observer: &'a mut dyn FnMut(&Event),
    schedule: Schedule,
    expected: Expected,
    pool: Pool,
    stages: Vec<Stage>,
    known: &'a Known,
    /// Stages of which it is known that nothing they depend on has changed.
    current: Vec<bool>,
    /// Last results found in run records, where no state tells them.
    recorded: Vec<Option<LastResult>>,
    running: usize,
    /// Stages that pause before another try.
    resting: Vec<Resting>,
    /// Deadlines of running stages, until they are told to be overdue.
    deadlines: Vec<(NodeIndex, Arc<Deadline>)>,
    /// No further stage starts.
    stopping: bool,
    totals: Totals,
    started_at: Timestamp,
    id: RunId,
    logs: StageLogs,
    /// Looked up when the first record is written: a run with nothing to do starts no git.
    commit: std::cell::OnceCell<Option<String>>,
    /// Whether a stage started or ended since the record was written.
    unsaved: bool,
    /// When the record is worth writing again.
    next_save: Instant,
    /// When the end of the run is worth estimating again.
    next_outlook: Instant,
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
        let mut recorded = Vec::new();
        let is_traced = |node: &NodeIndex| known.traces.get(node.index()).is_some_and(Option::is_some);
        // A stage that failed in the run before has no trace, but perhaps a result of an earlier one.
        let names: BTreeSet<String> = options
            .wanted
            .iter()
            .filter(|node| !is_traced(node))
            .map(|&node| plan.graph[node].id.to_string())
            .collect();
        if !names.is_empty() {
            let (mut found, warnings) = history::last_results(&workspace.cache, &plan.name, &names)?;
            for warning in warnings {
                observer(&Event::Warning(warning.to_string()));
            }
            recorded =
                plan.graph.node_weights().map(|planned| found.remove(&planned.id.to_string())).collect();
        }
        if let Some(more) = known.more_sources() {
            workspace.sources.add_later(more);
        }
        workspace.sources.add(known.traces.iter().flatten().flat_map(|trace| trace.sources.iter().cloned()));
        let expected = Expected::new(plan, |node| last(known, &recorded, node));
        let started_at = Timestamp::now();
        let latest = workspace.cache.runs.ids()?.into_iter().next();
        let id = RunId::after(started_at, latest.as_ref());
        Ok(Self {
            plan,
            workspace,
            options,
            observer,
            schedule: Schedule::new(&plan.graph, &plan.order, &options.wanted, &expected.times),
            expected,
            pool: Pool::new(workspace.capacity.clone()),
            stages: (0..node_count).map(|_| Stage::default()).collect(),
            current: current(plan, &options.wanted, &options.forced, known, &workspace.cache)?,
            known,
            recorded,
            running: 0,
            resting: Vec::new(),
            deadlines: Vec::new(),
            stopping: false,
            totals: Totals { cached: known.others, ..Totals::default() },
            started_at,
            logs: StageLogs::new(workspace.cache.layout.logs(&id)),
            id,
            commit: std::cell::OnceCell::new(),
            unsaved: false,
            // Not at once, for a run that is soon over, and not before about the time that it takes to write it.
            next_save: Instant::now()
                + (Duration::from_micros(10) * node_count as u32).max(Duration::from_millis(100)),
            next_outlook: Instant::now(),
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

    /// The last result of a stage before this run.
    fn last(&self, node: NodeIndex) -> Option<&LastResult> {
        last(self.known, &self.recorded, node)
    }

    /// The outputs of a stage that has ended.
    fn outputs(&self, node: NodeIndex) -> &BTreeMap<String, Digest> {
        match self.known.traces.get(node.index()) {
            Some(Some(trace)) if self.current[node.index()] => &trace.last.outputs,
            _ => &self.stages[node.index()].outputs,
        }
    }

    fn name(&self, node: NodeIndex) -> String {
        self.plan.graph[node].id.to_string()
    }

    fn finish(mut self) -> Result<Summary, CacheError> {
        let mut told = self.known.told.clone();
        if !self.options.dry && self.has_news() {
            let record = self.whole_record();
            self.workspace.cache.runs.save(&record)?;
            let earlier = record.unchanged.as_ref().map_or(0, |unchanged| unchanged.records as u32);
            told = Some(Told { run: record.id, records: 1 + earlier });
        }
        self.tell(&Event::Ended(self.totals));
        let (schedule, stages) = (&self.schedule, &mut self.stages);
        let looked_at = self.options.wanted.iter().filter(|node| !self.current[node.index()]).map(|&node| {
            let stage = &mut stages[node.index()];
            let key = stage.record.as_ref().and_then(|record| record.key);
            let has_result = matches!(schedule.state(node), State::Cached | State::Done);
            let made = key.filter(|_| has_result).map(|key| Made {
                key,
                outputs: std::mem::take(&mut stage.outputs),
                trace: stage.trace.take(),
            });
            (node, made)
        });
        Ok(Summary { totals: self.totals, looked_at: looked_at.collect(), told })
    }
}

fn last<'l>(known: &'l Known, recorded: &'l [Option<LastResult>], node: NodeIndex) -> Option<&'l LastResult> {
    let traced = known.traces.get(node.index()).and_then(Option::as_ref).map(|trace| &trace.last);
    traced.or_else(|| recorded.get(node.index())?.as_ref())
}
