//! Runs one stage: sandbox, context, outputs into the store, record last. Knows no other stage.

use crate::deadline::Deadline;
use crate::event::StageReport;
use crate::external::{Externals, Sources};
use crate::interrupt;
use crate::plan::PlannedStage;
use crate::quantity;
use crate::sandbox::{Sandbox, WorkDir};
use pipe_cache::{
    ActionKey, ActionRecord, Cache, CacheError, Claim, Digest, FileStat, Lookup, Manifest, MemoKey,
    MemoLookup, StatCache, Timestamp,
};
use pipe_stages::context::{InputDir, Services, StageContext, StageEvent};
use pipe_stages::error::StageError;
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// One stage to run, with all that it may see.
pub struct Job<'a> {
    pub planned: &'a PlannedStage,
    pub manifest: Manifest,
    pub key: ActionKey,
    /// Port → its artifacts.
    pub inputs: BTreeMap<String, Vec<JobInput>>,
    pub externals: Externals,
    pub threads: usize,
    /// Names of the GPUs that it has to itself.
    pub gpus: Vec<String>,
    /// Run although a result is on record, and replace it.
    pub forced: bool,
    /// When it is asked to stop.
    pub deadline: Option<Arc<Deadline>>,
}

/// An artifact that a stage reads.
pub struct JobInput {
    /// The stage that it comes from.
    pub label: String,
    pub tree: Digest,
    /// See [`Edge::alone`](crate::plan::Edge::alone).
    pub alone: bool,
}

/// What a finished job gives.
#[derive(Debug, Clone)]
pub struct Finished {
    pub outputs: BTreeMap<String, Digest>,
    pub report: StageReport,
    /// Why the result was not recorded, where it was not.
    pub warning: Option<String>,
    /// Another process made the result while this one waited for it.
    pub reused: bool,
}

/// Why a job did not finish.
#[derive(Debug, Error)]
pub enum JobError {
    #[error("{}", .0.chain())]
    Stage(StageError),
    #[error("{}", past_deadline(*limit, error))]
    TimedOut { limit: Duration, error: StageError },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl JobError {
    pub fn is_interrupt(&self) -> bool {
        matches!(self, Self::Stage(StageError::Interrupted))
    }

    /// Whether another try may end otherwise: not where the user stopped it, nor where an input was lost.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Stage(_) | Self::TimedOut { .. } => !self.is_interrupt(),
            Self::Cache(error) => !error.is_miss(),
        }
    }

    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        match self {
            Self::Stage(error) => error.chain(),
            Self::TimedOut { limit, error } => past_deadline(*limit, error),
            Self::Cache(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(error);
                while let Some(inner) = cause {
                    text.push_str(&format!(": {inner}"));
                    cause = inner.source();
                }
                text
            }
        }
    }
}

fn past_deadline(limit: Duration, error: &StageError) -> String {
    let limit = quantity::time_text(limit);
    match error {
        StageError::Interrupted => format!("stopped at its timeout of {limit}"),
        error => format!("past its timeout of {limit}: {}", error.chain()),
    }
}

/// Runs jobs, on the calling thread, to their end.
pub trait Executor: Sync {
    fn execute(&self, job: &Job<'_>, emit: Emit) -> Result<Finished, JobError>;
}

/// Where the events of a stage go.
pub type Emit = Arc<dyn Fn(StageEvent) + Send + Sync>;

/// A stage that ran for less is made again after a power cut.
const WORTH_SYNCING: Duration = Duration::from_secs(1);

/// Runs stages in this process.
pub struct LocalExecutor {
    cache: Cache,
    stats: Arc<StatCache>,
    sources: Arc<Sources>,
    /// Made when the first stage runs: a run with nothing to do writes nothing.
    work: Mutex<Option<Arc<WorkDir>>>,
    /// Threads of stages that have ended, for those to come.
    idle: Mutex<Vec<rayon::ThreadPool>>,
}

impl LocalExecutor {
    pub fn new(cache: Cache, stats: Arc<StatCache>, sources: Arc<Sources>) -> Self {
        Self { cache, stats, sources, work: Mutex::new(None), idle: Mutex::default() }
    }

    fn work(&self) -> Result<Arc<WorkDir>, CacheError> {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = &*work {
            return Ok(work.clone());
        }
        let opened = Arc::new(WorkDir::open(&self.cache.layout)?);
        *work = Some(opened.clone());
        Ok(opened)
    }

    /// Waits until no other process works on the key, and says so if it takes long.
    fn claim(&self, job: &Job<'_>, emit: &Emit) -> Result<Claim, JobError> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let (since, mut told) = (Instant::now(), false);
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(claim) = self.cache.try_claim(&job.key)? {
                return Ok(claim);
            }
            if interrupt::asked() {
                return Err(JobError::Stage(StageError::Interrupted));
            }
            if !told && since.elapsed() >= PATIENCE {
                told = true;
                let other = self.cache.holder(&job.key);
                let other = other.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
                emit(StageEvent::Note(format!("waits for {other}, which makes the same result")));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

impl Executor for LocalExecutor {
    fn execute(&self, job: &Job<'_>, emit: Emit) -> Result<Finished, JobError> {
        self.on_threads(job.threads, || self.run(job, emit))
    }
}

impl LocalExecutor {
    fn run(&self, job: &Job<'_>, emit: Emit) -> Result<Finished, JobError> {
        let started = Instant::now();
        // One process at a time does the work of a key; who waited finds the result.
        let _claim = self.claim(job, &emit)?;
        if !job.forced
            && let Lookup::Hit(record) = self.cache.actions.lookup(&job.key)?
            && self.cache.actions.complete(&record).is_ok()
        {
            let report = StageReport { elapsed: record.duration, ..StageReport::default() };
            return Ok(Finished { outputs: record.outputs.clone(), report, warning: None, reused: true });
        }
        if let Some(deadline) = &job.deadline {
            deadline.start();
        }
        let sandbox = self.work()?.sandbox()?;
        let counts = Arc::new(Counts::default());
        let context = self.context(job, &sandbox, emit, counts.clone())?;
        run_stage(job, &context)?;
        let outputs = self.ingest(&context)?;
        let facts = context.summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        let report = StageReport {
            elapsed: started.elapsed(),
            items_made: counts.made.load(Ordering::Relaxed),
            items_reused: counts.reused.load(Ordering::Relaxed),
            facts,
            unchanged: false,
        };
        let moved = job.externals.moved(&self.cache)?;
        if let Some(first) = moved.first() {
            let count = moved.len();
            let warning = format!(
                "{count} input file(s) changed while the stage ran ({first}); its outputs are kept for this run but \
                 not recorded, run again"
            );
            return Ok(Finished { outputs, report, warning: Some(warning), reused: false });
        }
        let outputs = self.record(job, outputs, &report)?;
        remove(&context.checkpoint_dir);
        Ok(Finished { outputs, report, warning: None, reused: false })
    }

    /// Does the work on a rayon pool that no other stage uses.
    fn on_threads<T: Send>(
        &self,
        threads: usize,
        work: impl FnOnce() -> Result<T, JobError> + Send,
    ) -> Result<T, JobError> {
        thread_local! {
            /// Makes this thread a pool of one: what it does in parallel stays on it.
            static ALONE: Option<rayon::ThreadPool> =
                rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok();
        }
        if threads == 1 && ALONE.with(Option::is_some) {
            return work();
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.iter().position(|pool| pool.current_num_threads() == threads);
        let found = found.map(|at| idle.swap_remove(at));
        drop(idle);
        let pool = match found {
            Some(pool) => pool,
            None => rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
                JobError::Stage(StageError::Internal(format!("cannot start {threads} threads: {error}")))
            })?,
        };
        let result = pool.install(work);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
        result
    }

    fn context(
        &self,
        job: &Job<'_>,
        sandbox: &Sandbox,
        emit: Emit,
        counts: Arc<Counts>,
    ) -> Result<StageContext, JobError> {
        let mut inputs = BTreeMap::new();
        for (port, trees) in &job.inputs {
            let dirs = trees.iter().map(|JobInput { label, tree, alone }| {
                let dir = self.cache.store.checkout(tree)?;
                Ok(InputDir { label: label.clone(), dir, alone: *alone })
            });
            inputs.insert(port.clone(), dirs.collect::<Result<Vec<_>, CacheError>>()?);
        }
        let mut outputs = BTreeMap::new();
        for port in &job.planned.ports().outputs {
            outputs
                .insert(port.name.to_string(), create(&sandbox.work().join("out").join(port.name.as_ref()))?);
        }
        let services = LocalServices {
            cache: self.cache.clone(),
            stats: self.stats.clone(),
            sources: self.sources.clone(),
            items: sandbox.items(),
            emit,
            counts,
            deadline: job.deadline.clone(),
        };
        Ok(StageContext {
            kind: job.planned.kind(),
            version: job.planned.stage().version(),
            inputs,
            outputs,
            externals: job.externals.files().clone(),
            environment: job.manifest.environment.clone(),
            seed: job.manifest.seed,
            work: sandbox.work(),
            gpus: job.gpus.clone(),
            scratch: sandbox.scratch(),
            checkpoint_dir: self.cache.layout.checkpoint(&job.key),
            services: Box::new(services),
            summary: std::sync::Mutex::default(),
        })
    }

    fn ingest(&self, context: &StageContext) -> Result<BTreeMap<String, Digest>, JobError> {
        let ingest = |(port, dir): (&String, &PathBuf)| Ok((port.clone(), self.cache.store.ingest_dir(dir)?));
        context.outputs.iter().map(ingest).collect()
    }

    /// Objects are stored by now; the record that names them comes last.
    fn record(
        &self,
        job: &Job<'_>,
        outputs: BTreeMap<String, Digest>,
        report: &StageReport,
    ) -> Result<BTreeMap<String, Digest>, JobError> {
        job.externals.store(&self.cache)?;
        let record = ActionRecord {
            key: job.key,
            manifest: job.manifest.put(&self.cache.store)?,
            outputs,
            summary: serde_json::json!(report.facts),
            duration: report.elapsed,
            finished_at: Timestamp::now(),
            host: crate::history::host(),
        };
        if job.forced {
            self.cache.actions.replace(&record)?;
            self.protect(&record)?;
            return Ok(record.outputs);
        }
        let record = self.cache.actions.publish(&record)?;
        self.protect(&record)?;
        Ok(record.outputs)
    }

    /// Work that took long is made safe from a power cut; to do so for short work costs more than the work.
    fn protect(&self, record: &ActionRecord) -> Result<(), CacheError> {
        if record.duration < WORTH_SYNCING { Ok(()) } else { self.cache.actions.sync(record) }
    }
}

/// A panic of the stage's code is an error of this stage alone.
fn run_stage(job: &Job<'_>, context: &StageContext) -> Result<(), JobError> {
    let run = std::panic::AssertUnwindSafe(|| job.planned.stage().run(context));
    match std::panic::catch_unwind(run) {
        Ok(result) => result.map_err(|error| stopped(job, error)),
        Err(panic) => Err(JobError::Stage(StageError::Internal(format!("panic: {}", panic_text(&*panic))))),
    }
}

/// An error after the deadline is told as such, unless it is the user who stopped the stage.
fn stopped(job: &Job<'_>, error: StageError) -> JobError {
    match &job.deadline {
        Some(deadline) if deadline.passed() && !interrupt::asked() => {
            JobError::TimedOut { limit: deadline.limit, error }
        }
        _ => JobError::Stage(error),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    reused: AtomicUsize,
}

struct LocalServices {
    cache: Cache,
    stats: Arc<StatCache>,
    sources: Arc<Sources>,
    /// Where items are made; one folder each.
    items: PathBuf,
    emit: Emit,
    counts: Arc<Counts>,
    deadline: Option<Arc<Deadline>>,
}

thread_local! {
    /// Files handed out on this thread since the item began, as they were then.
    static HANDED_OUT: RefCell<Vec<(PathBuf, FileStat)>> = const { RefCell::new(Vec::new()) };
}

impl Services for LocalServices {
    fn source(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.sources.find(digest, &self.cache, &self.stats)?;
        if let Ok(stat) = FileStat::following(&path) {
            HANDED_OUT.with_borrow_mut(|handed| handed.push((path.clone(), stat)));
        }
        Some(path)
    }

    fn memo(
        &self,
        key: &serde_json::Value,
        into: &Path,
        make: &mut dyn FnMut(&Path) -> Result<serde_json::Value, StageError>,
    ) -> Result<serde_json::Value, StageError> {
        let key = MemoKey {
            kind: key["kind"].as_str().unwrap_or_default().to_owned(),
            version: key["version"].as_u64().unwrap_or_default() as u32,
            params: serde_json::Value::Null,
            item: key["item"].clone(),
        };
        let cache_error = || StageError::inner("using the item memo");
        match self.cache.memo.lookup(&key).map_err(cache_error())? {
            MemoLookup::Hit(record) => {
                self.cache.memo.restore(&record, into).map_err(cache_error())?;
                self.counts.reused.fetch_add(1, Ordering::Relaxed);
                return Ok(record.value);
            }
            MemoLookup::Miss => {}
            MemoLookup::Corrupt { reason } => {
                self.emit(StageEvent::Warning(format!("an item is made again: {reason}")));
            }
        }
        let folder = std::fs::create_dir_all(&self.items)
            .and_then(|()| tempfile::tempdir_in(&self.items))
            .map_err(StageError::io("create a folder in", &self.items))?;
        // While it waits for others, a thread may make another item inside this one.
        let outer = HANDED_OUT.take();
        let value = make(folder.path());
        let handed = HANDED_OUT.replace(outer);
        let value = value?;
        self.counts.made.fetch_add(1, Ordering::Relaxed);
        let unchanged = |(path, before): &(PathBuf, FileStat)| {
            let of_the_cache = before.is_sealed();
            FileStat::following(path).is_ok_and(|now| now == *before || of_the_cache && now.is_still(before))
        };
        if let Some((path, _)) = handed.iter().find(|file| !unchanged(file)) {
            return Err(StageError::Data(format!(
                "`{}` changed while it was read; run again",
                path.display()
            )));
        }
        let names = file_names(folder.path(), "")?;
        let record = self.cache.memo.record(&key, folder.path(), &names, value).map_err(cache_error())?;
        self.cache.memo.restore(&record, into).map_err(cache_error())?;
        Ok(record.value)
    }

    fn emit(&self, event: StageEvent) {
        (self.emit)(event);
    }

    fn interrupted(&self) -> bool {
        interrupt::asked() || self.deadline.as_ref().is_some_and(|deadline| deadline.passed())
    }

    fn insisted(&self) -> bool {
        interrupt::insisted()
    }
}

/// Relative paths of all files below `dir`.
fn file_names(dir: &Path, prefix: &str) -> Result<BTreeSet<String>, StageError> {
    let mut names = BTreeSet::new();
    for entry in fs_err::read_dir(dir).map_err(StageError::io("list", dir))? {
        let entry = entry.map_err(StageError::io("list", dir))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            names.extend(file_names(&entry.path(), &format!("{name}/"))?);
        } else {
            names.insert(name);
        }
    }
    Ok(names)
}

fn create(dir: &Path) -> Result<PathBuf, JobError> {
    std::fs::create_dir_all(dir).map_err(|error| JobError::Stage(StageError::io("create", dir)(error)))?;
    Ok(dir.to_owned())
}

/// Removes a folder that is no longer needed; if it cannot be removed now, the collector will.
fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}
