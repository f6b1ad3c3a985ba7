//! Runs one stage on temporary folders, as the engine would. Tests only.
//!
//! Items are memoised across the stages of one [`TestSpace`], and every file that a stage wrote or declared can be
//! read again by its digest.

use crate::artifact::{Absent, Artifact, External, Out};
use crate::context::{ExternalFile, ExternalFiles, InputDir, Services, StageContext, StageEvent};
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage, stage};
use fs_err as fs;
use pipe_cache::Digest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A folder that plays the cache, and the seed that stages get.
pub(crate) struct TestSpace {
    dir: TempDir,
    shared: Arc<Shared>,
    runs: AtomicUsize,
    seed: u64,
}

#[derive(Default)]
struct Shared {
    memo: Mutex<BTreeMap<String, (PathBuf, Value)>>,
    made: AtomicUsize,
    sources: Mutex<BTreeMap<Digest, PathBuf>>,
    interrupted: AtomicBool,
}

/// What one run left behind.
#[derive(Debug)]
pub(crate) struct TestRun {
    pub(crate) outputs: BTreeMap<String, PathBuf>,
    pub(crate) facts: BTreeMap<String, Value>,
    pub(crate) warnings: Vec<String>,
    /// How often `make` of a memo was called.
    pub(crate) memo_misses: usize,
}

impl TestRun {
    pub(crate) fn load<A: Artifact>(&self, port: &Out<A>) -> A {
        A::load(self.dir(port.name)).expect("an output reads back")
    }

    pub(crate) fn dir(&self, port: &str) -> &Path {
        &self.outputs[port]
    }

    /// Digest of every file of an output, by relative path.
    pub(crate) fn content(&self, port: &str) -> BTreeMap<String, Digest> {
        let files = files_below(self.dir(port)).into_iter();
        files.map(|path| (relative(self.dir(port), &path), file_digest(&path))).collect()
    }
}

impl TestSpace {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        Self { dir, shared: Arc::default(), runs: AtomicUsize::new(0), seed: 1 }
    }

    /// Gives this seed to the stages that are run.
    pub(crate) fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes every later run see that the user asked to stop.
    pub(crate) fn interrupt(&self) {
        self.shared.interrupted.store(true, Ordering::Relaxed);
    }

    /// Stores a value to be wired to an input port.
    pub(crate) fn stored<A: Artifact>(&self, value: &A) -> PathBuf {
        let dir = self.fresh("stored");
        value.store(&dir).expect("a value can be stored");
        dir
    }

    /// Makes the files below `dir` readable by digest.
    pub(crate) fn ingest(&self, dir: &Path) {
        let mut sources = self.shared.sources.lock().expect("no test thread panicked");
        sources.extend(files_below(dir).into_iter().map(|path| (file_digest(&path), path)));
    }

    /// Runs `S` with these parameters; panics when they are refused.
    #[track_caller]
    pub(crate) fn run<S: Stage>(
        &self,
        params: Value,
        inputs: &[(&str, &Path)],
    ) -> Result<TestRun, StageError> {
        let inputs: Vec<(&str, Vec<&Path>)> = inputs.iter().map(|(port, dir)| (*port, vec![*dir])).collect();
        self.run_many::<S>(params, &inputs)
    }

    /// The same for stages with ports that take many artifacts; labels are `port[0]`, `port[1]`, …
    #[track_caller]
    pub(crate) fn run_many<S: Stage>(
        &self,
        params: Value,
        inputs: &[(&str, Vec<&Path>)],
    ) -> Result<TestRun, StageError> {
        let stage = stage::<S>();
        let configured = stage
            .configure(&mut <dyn erased_serde::Deserializer<'_>>::erase(params))
            .expect("parameters parse");
        assert_eq!(configured.check(), [], "parameters are accepted");
        let ports = configured.ports();
        let label = |port: &str, index: usize, many: bool| {
            if many { format!("{port}[{index}]") } else { port.to_owned() }
        };
        let input = |(port, dirs): &(&str, Vec<&Path>)| {
            let dirs = dirs.iter().enumerate().map(|(index, dir)| InputDir {
                label: label(port, index, dirs.len() > 1),
                dir: dir.to_path_buf(),
                alone: false,
            });
            ((*port).to_owned(), dirs.collect())
        };
        let unwired = ports.inputs.iter().map(|port| (port.name.to_string(), Vec::new()));
        let run = self.fresh("run");
        let new_dir = |name: &str| {
            let dir = run.join(name);
            fs::create_dir_all(&dir).expect("temporary folder");
            dir
        };
        let events = Arc::new(Mutex::new(Vec::new()));
        let context = StageContext {
            kind: stage.kind(),
            version: stage.version(),
            // As the engine does: a port that nothing is wired to is there and empty.
            inputs: unwired.chain(inputs.iter().map(input)).collect(),
            outputs: ports
                .outputs
                .iter()
                .map(|port| (port.name.to_string(), new_dir(&format!(".work/out/{}", port.name))))
                .collect(),
            externals: ports
                .externals
                .iter()
                .map(|external| (external.name.to_string(), self.external(external)))
                .collect(),
            environment: ports
                .environment
                .iter()
                .map(|name| (name.clone(), std::env::var(name).ok()))
                .collect(),
            seed: ports.seeded.then_some(self.seed),
            work: new_dir(".work"),
            gpus: Vec::new(),
            scratch: new_dir(".scratch"),
            checkpoint_dir: new_dir(".checkpoint"),
            services: Box::new(TestServices {
                shared: Arc::clone(&self.shared),
                events: Arc::clone(&events),
                items: self.path().join("items"),
            }),
            summary: Mutex::default(),
        };
        let before = self.shared.made.load(Ordering::Relaxed);
        configured.run(&context)?;
        context.outputs.values().for_each(|dir| self.ingest(dir));
        let warning = |event: StageEvent| match event {
            StageEvent::Warning(text) => Some(text),
            _ => None,
        };
        let events = std::mem::take(&mut *events.lock().expect("no test thread panicked"));
        Ok(TestRun {
            facts: context.summary.lock().expect("no test thread panicked").clone(),
            outputs: context.outputs,
            warnings: events.into_iter().filter_map(warning).collect(),
            memo_misses: self.shared.made.load(Ordering::Relaxed) - before,
        })
    }

    fn external(&self, external: &External) -> ExternalFiles {
        let root = &external.path;
        let mut parts: Vec<PathBuf> = external.parts.iter().map(|part| root.join(part)).collect();
        let none_there = parts.iter().all(|part| !part.exists());
        if parts.is_empty() || (external.absent == Absent::Whole && none_there) {
            parts = vec![root.clone()];
        }
        let mut files: Vec<ExternalFile> = Vec::new();
        for path in parts.iter().flat_map(|part| files_below(part)) {
            let digest = file_digest(&path);
            let size = fs::metadata(&path).expect("file was just hashed").len();
            files.push(ExternalFile { path: relative(root, &path), digest, size });
            self.shared.sources.lock().expect("no test thread panicked").insert(digest, path);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        ExternalFiles { root: root.clone(), files }
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let dir = self.path().join(format!("{name}-{number}"));
        fs::create_dir_all(&dir).expect("temporary folder");
        dir
    }
}

/// What is wrong with these parameters beyond their types; panics when they do not parse.
#[track_caller]
pub(crate) fn problems<S: Stage>(params: Value) -> Vec<ParamProblem> {
    S::check(&serde_json::from_value(params).expect("parameters parse"))
}

struct TestServices {
    shared: Arc<Shared>,
    events: Arc<Mutex<Vec<StageEvent>>>,
    items: PathBuf,
}

impl Services for TestServices {
    fn source(&self, digest: &Digest) -> Option<PathBuf> {
        self.shared.sources.lock().expect("no test thread panicked").get(digest).cloned()
    }

    fn memo(
        &self,
        key: &Value,
        into: &Path,
        make: &mut dyn FnMut(&Path) -> Result<Value, StageError>,
    ) -> Result<Value, StageError> {
        let key = key.to_string();
        let known = self.shared.memo.lock().expect("no test thread panicked").get(&key).cloned();
        let (dir, value) = if let Some(known) = known {
            known
        } else {
            let number = self.shared.made.fetch_add(1, Ordering::Relaxed);
            let dir = self.items.join(number.to_string());
            fs::create_dir_all(&dir).expect("temporary folder");
            // Through text, as a cache on disk would: a value that does not survive that is found here.
            let value = serde_json::from_str(&make(&dir)?.to_string()).expect("a value is JSON");
            let known = (dir, value);
            self.shared.memo.lock().expect("no test thread panicked").insert(key, known.clone());
            known
        };
        for file in files_below(&dir) {
            let target = into.join(relative(&dir, &file));
            fs::create_dir_all(target.parent().expect("a file has a folder")).expect("temporary folder");
            fs::copy(&file, &target).expect("a memoised file can be copied");
        }
        Ok(value)
    }

    fn emit(&self, event: StageEvent) {
        self.events.lock().expect("no test thread panicked").push(event);
    }

    fn interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::Relaxed)
    }
}

/// The real data set `name`, or `None` with a loud line when it is not at hand.
///
/// Looked for in `$PIPE_TEST_DATA`, and in `../shared/data` next to the workspace.
pub(crate) fn real_data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PIPE_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: `{}` is not there; set PIPE_TEST_DATA to test on real data", path.display());
    None
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("folder can be listed").path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| files_below(path)).collect()
}

fn relative(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).expect("path is below root");
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn file_digest(path: &Path) -> Digest {
    Digest::of_bytes(&fs::read(path).expect("file can be read"))
}
