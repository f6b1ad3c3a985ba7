//! The ONNX Runtime library: where it is looked for, how it is fetched, and the one copy a process loads.
//! Prints nothing: whoever calls decides where notices go. Must not know models or sessions.
//!
//! The library is not linked; it is opened at run time. Places, in this order:
//!
//! 1. `$ORT_DYLIB_PATH`: a library file, or a folder that holds one. If it is set it must work: nothing else is tried.
//! 2. pipe's cache: `onnxruntime-<version>/` in `$PIPE_HOME`, else `$XDG_CACHE_HOME/pipe`, else `~/.cache/pipe`.
//! 3. The `onnxruntime` package of the active Python (`python3`, then `python`, on the path).
//! 4. Fetched into place 2 with that Python's pip, with a notice. `PIPE_OFFLINE=1` forbids it.
//!
//! Any version from 1.17 serves. A candidate that cannot be used is told by a notice, then the next one is tried.

mod fetch;
mod search;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use fetch::FETCHED_VERSION;

/// The oldest minor version of ONNX Runtime 1.x that pipe runs on: the C interface it is compiled for.
pub const OLDEST_MINOR: u32 = ort::MINOR_VERSION;

const HELP: &str = "help: one of these gives pipe a runtime
  1. let pipe fetch it once: unset PIPE_OFFLINE, with a network and a python3 that has pip
  2. python3 -m pip install onnxruntime    (in the Python that is active where pipe runs)
  3. ORT_DYLIB_PATH=/path/to/libonnxruntime.so    (any ONNX Runtime from 1.17)";

/// Where a runtime was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// `$ORT_DYLIB_PATH`.
    Environment,
    /// pipe's user cache, from an earlier fetch or put there by hand.
    Cache,
    /// The site-packages of the active Python.
    Python,
    /// Fetched just now into the user cache.
    Fetched,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Environment => "ORT_DYLIB_PATH",
            Self::Cache => "pipe's cache",
            Self::Python => "the active Python",
            Self::Fetched => "fetched with pip",
        })
    }
}

/// The runtime in use, for reports and `pipe doctor`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RuntimeInfo {
    /// Version of the library, e.g. `1.31.1`; `1.31.x` where it tells no more than that.
    pub version: String,
    /// The library file, links resolved.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
}

impl std::fmt::Display for RuntimeInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ONNX Runtime {} ({}: {})", self.version, self.origin, self.path.display())
    }
}

/// What may be tried to find a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A library file or folder to use and nothing else.
    pub library: Option<PathBuf>,
    /// pipe's cache folder; `None` if the user has none.
    pub cache: Option<PathBuf>,
    /// Python interpreters to ask, best first; those that do not exist are passed over.
    pub pythons: Vec<PathBuf>,
    /// Whether to fetch the library when it is nowhere else.
    pub fetch: bool,
}

impl Policy {
    /// Reads `ORT_DYLIB_PATH`, `PIPE_HOME`, `XDG_CACHE_HOME`, the home folder and `PIPE_OFFLINE`.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = set("PIPE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| Path::new(&folder).join("pipe")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("pipe")));
        let offline = set("PIPE_OFFLINE").is_some_and(|value| value != "0");
        Self {
            library: set("ORT_DYLIB_PATH").map(PathBuf::from),
            cache,
            pythons: ["python3", "python"].map(PathBuf::from).to_vec(),
            fetch: !offline,
        }
    }

    /// Returns the same policy without fetching.
    #[must_use]
    pub fn without_fetch(self) -> Self {
        Self { fetch: false, ..self }
    }
}

/// Why there is no runtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The library that the user named does not work.
    #[error("ORT_DYLIB_PATH names `{path}`, which {reason}\n\n{HELP}")]
    Explicit { path: PathBuf, reason: String },
    /// Nothing was found and nothing could be fetched; `tried` has one line a place.
    #[error("there is no ONNX Runtime on this machine:\n{}\n\n{HELP}", list(tried))]
    NotFound { tried: Vec<String> },
    /// A library that looked right did not load.
    #[error("cannot load ONNX Runtime from `{path}`: {reason}\n\n{HELP}")]
    Load { path: PathBuf, reason: String },
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}

/// The loaded library. There is at most one a process, and it is never unloaded.
#[derive(Debug)]
pub struct Runtime {
    info: RuntimeInfo,
    build: String,
    environment: ort::environment::Environment,
}

impl Runtime {
    /// Returns version, file and origin.
    pub fn info(&self) -> &RuntimeInfo {
        &self.info
    }

    /// Returns the library's own description of its build, with the source revision it was made from.
    pub fn build(&self) -> &str {
        &self.build
    }

    pub(crate) fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }
}

/// Finds a usable runtime without loading it for good, fetching it if `policy` says so.
///
/// `notice` gets one line for each candidate passed over and for a fetch. Several processes may do this at once: one
/// fetches, the others wait for it.
pub fn locate(policy: &Policy, notice: &mut dyn FnMut(&str)) -> Result<RuntimeInfo, RuntimeError> {
    if let Some(path) = &policy.library {
        return search::explicit(path)
            .map_err(|reason| RuntimeError::Explicit { path: path.clone(), reason });
    }
    let mut tried = Vec::new();
    let mut passed_over = |notice: &mut dyn FnMut(&str), line: String| {
        notice(&line);
        tried.push(line);
    };

    match &policy.cache {
        None => passed_over(notice, "cache: no home folder is known and PIPE_HOME is not set".to_owned()),
        Some(cache) => match search::folder(&fetch::target(cache), Origin::Cache) {
            Ok(info) => return Ok(info),
            Err(search::Miss::Absent(line)) => tried.push(format!("cache: {line}")),
            Err(search::Miss::Unusable(line)) => passed_over(notice, format!("cache: {line}")),
        },
    }

    let mut interpreter = None;
    for python in &policy.pythons {
        match search::python(python) {
            Ok(info) => return Ok(info),
            Err(search::PythonMiss::NoInterpreter(line)) => tried.push(line),
            Err(search::PythonMiss::Package(miss)) => {
                interpreter.get_or_insert(python);
                match miss {
                    search::Miss::Absent(line) => tried.push(line),
                    search::Miss::Unusable(line) => {
                        notice(&line);
                        tried.push(line);
                    }
                }
            }
        }
    }

    match (&policy.cache, interpreter) {
        _ if !policy.fetch => tried.push("fetch: not allowed here".to_owned()),
        (None, _) => tried.push("fetch: there is no cache folder to fetch into".to_owned()),
        (_, None) => tried.push("fetch: needs a Python with pip".to_owned()),
        (Some(cache), Some(python)) => match fetch::fetch(cache, python, notice) {
            Ok(info) => return Ok(info),
            Err(line) => tried.push(format!("fetch: {line}")),
        },
    }
    Err(RuntimeError::NotFound { tried })
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Returns the process's runtime, finding and loading it first if this is the first call that succeeds.
///
/// Safe from any number of threads. A failure is returned and not remembered: a later call may succeed. Once a
/// runtime is loaded, it is returned whatever `policy` says, because a process can hold only one.
pub fn load(policy: &Policy, notice: &mut dyn FnMut(&str)) -> Result<&'static Runtime, RuntimeError> {
    static LOADING: Mutex<()> = Mutex::new(());

    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    // The lock guards no data, so a panic of another holder leaves nothing broken.
    let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let loaded = open(locate(policy, notice)?)?;
    Ok(RUNTIME.get_or_init(|| loaded))
}

/// Returns the process's runtime if one has been loaded. Looks for none.
pub fn loaded() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// Returns the process's runtime, or loads the one that this machine already has. Never fetches: a download must be
/// visible, so it takes a call of [`load`] with somewhere to put the notices.
pub fn runtime() -> Result<&'static Runtime, RuntimeError> {
    load(&Policy::from_environment().without_fetch(), &mut |_| {})
}

fn open(info: RuntimeInfo) -> Result<Runtime, RuntimeError> {
    let failed = |reason: String| RuntimeError::Load { path: info.path.clone(), reason };
    // `ort::init` and everything that touches the interface panics until `init_from` has succeeded.
    let builder = ort::init_from(&info.path).map_err(|error| failed(error.to_string()))?;
    let environment = builder
        .with_name("pipe")
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(error.message().to_owned()))?;
    // The library writes to stderr what it also returns as an error. Setting ORT_LOG brings that back.
    if std::env::var_os("ORT_LOG").is_none() {
        environment.set_log_level(ort::logging::LogLevel::Fatal);
    }
    Ok(Runtime { build: ort::info().to_owned(), environment, info })
}
