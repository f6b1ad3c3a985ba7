//! Fetches the runtime library with pip into the user cache, once, and safely for several processes.
//!
//! pip is the way that works behind mirrors and proxies, because people have configured it already. Only the library
//! and its licence files are kept; the Python package around it (half of the size) is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::search::{folder, is_library, last_line};
use super::{Origin, RuntimeInfo};

/// The version of ONNX Runtime that pipe fetches.
pub const FETCHED_VERSION: &str = "1.31.1";

/// The library does not depend on Python, but wheels are made for each of its versions: asking for one that has a
/// wheel lets any Python fetch it.
const WHEEL_PYTHON: &str = "3.12";

/// Folder of the library inside the cache; the version is in its name, so another one never meets old files.
pub(super) fn target(cache: &Path) -> PathBuf {
    cache.join(format!("onnxruntime-{FETCHED_VERSION}"))
}

/// Fetches the library, or waits for another process that does; the error is one line.
pub(super) fn fetch(
    cache: &Path,
    python: &Path,
    notice: &mut dyn FnMut(&str),
) -> Result<RuntimeInfo, String> {
    fs_err::create_dir_all(cache).map_err(|error| error.to_string())?;
    let target = target(cache);
    let partial = format!("onnxruntime-{FETCHED_VERSION}.partial-");
    let lock = lock(&cache.join(format!("onnxruntime-{FETCHED_VERSION}.lock")), notice)?;

    // Another process may have finished while this one waited for the lock.
    if let Ok(info) = folder(&target, Origin::Cache) {
        return Ok(info);
    }
    if lock.is_some() {
        remove_partial(cache, &partial);
    }
    notice(&format!(
        "fetching ONNX Runtime {FETCHED_VERSION} into `{}` with `{} -m pip` (about 24 MB, once; PIPE_OFFLINE=1 forbids it)",
        target.display(),
        python.display()
    ));
    let work =
        tempfile::Builder::new().prefix(&partial).tempdir_in(cache).map_err(|error| error.to_string())?;
    let wheel = work.path().join("wheel");
    pip(python, &wheel)?;
    let kept = work.path().join("kept");
    keep_library(&wheel, &kept)?;
    folder(&kept, Origin::Fetched).map_err(|miss| format!("the fetched library cannot be used: {miss:?}"))?;

    if target.exists() {
        // What is there did not work, or the fetch would not have been needed. It leaves with `work`.
        fs_err::rename(&target, work.path().join("replaced")).map_err(|error| error.to_string())?;
    }
    // Rename last: a reader must never see half a library. Without a lock, another process may have been faster.
    let renamed = fs_err::rename(&kept, &target);
    match folder(&target, Origin::Fetched) {
        Ok(info) => Ok(info),
        Err(miss) => Err(match renamed {
            Err(error) => error.to_string(),
            Ok(()) => format!("the fetched library cannot be used: {miss:?}"),
        }),
    }
}

/// Waits for the lock, which dies with its process. `None` on a file system without locks, where the final rename
/// alone keeps the cache whole.
fn lock(path: &Path, notice: &mut dyn FnMut(&str)) -> Result<Option<File>, String> {
    let file = fs_err::File::create(path).map_err(|error| error.to_string())?.into_file();
    match file.try_lock() {
        Ok(()) => return Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => {
            notice("another process is fetching ONNX Runtime; waiting for it");
        }
        Err(std::fs::TryLockError::Error(_)) => return Ok(None),
    }
    Ok(file.lock().is_ok().then_some(file))
}

/// Removes what a killed process left; called only under the lock.
fn remove_partial(cache: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(cache) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // Leftovers cost space only, so a failure here must not stop the fetch.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn pip(python: &Path, wheel: &Path) -> Result<(), String> {
    let output = Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--no-input"])
        .args(["--disable-pip-version-check", "--only-binary=:all:", "--retries=2"])
        .arg(format!("--python-version={WHEEL_PYTHON}"))
        .arg("--target")
        .arg(wheel)
        .arg(format!("onnxruntime=={FETCHED_VERSION}"))
        // Personal settings that pip refuses together with --target.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        // A folder `pip` in the working folder is not the program meant (Python 3.11 and later).
        .env("PYTHONSAFEPATH", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{}` does not start: {error}", python.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut errors = stderr.lines().map(str::trim).filter(|line| line.starts_with("ERROR"));
    let reason = errors.next_back().map_or_else(|| last_line(&output.stderr), str::to_owned);
    Err(format!("`{} -m pip install onnxruntime=={FETCHED_VERSION}` failed: {reason}", python.display()))
}

/// Moves the library, what it loads beside itself, and the licence texts out of the package.
fn keep_library(wheel: &Path, kept: &Path) -> Result<(), String> {
    fs_err::create_dir(kept).map_err(|error| error.to_string())?;
    let package = wheel.join("onnxruntime");
    let mut library = false;
    for folder in [package.join("capi"), package] {
        for entry in fs_err::read_dir(&folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let text = ["LICENSE", "ThirdPartyNotices.txt"].contains(&name);
            if text || is_library(&path) || name.contains("onnxruntime_providers_") {
                library |= is_library(&path);
                fs_err::rename(&path, kept.join(name)).map_err(|error| error.to_string())?;
            }
        }
    }
    if library { Ok(()) } else { Err("the package from pip holds no ONNX Runtime library".to_owned()) }
}
