//! Folders in which stages run: one below `.pipe/work` for each process, removed when it ends; those of killed
//! processes are removed by the next.

use pipe_cache::{CacheError, Layout};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of this process. Its lock tells others that the process lives.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl WorkDir {
    pub fn open(layout: &Layout) -> Result<Self, CacheError> {
        let action = "create a folder to work in";
        let error = |source: io::Error| CacheError::Io { action, source };
        fs_err::create_dir_all(layout.work()).map_err(error)?;
        sweep(&layout.work());
        let path = tempfile::Builder::new().prefix("run-").tempdir_in(layout.work()).map_err(error)?.keep();
        let lock = File::create(path.join(LOCK)).map_err(error)?;
        lock.lock().map_err(error)?;
        Ok(Self { path, _lock: lock })
    }

    /// An empty folder for one stage, removed when dropped.
    pub fn sandbox(&self) -> Result<tempfile::TempDir, CacheError> {
        let action = "create a sandbox";
        tempfile::tempdir_in(&self.path).map_err(|source| CacheError::Io { action, source })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What is left is swept by the next process.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of processes that are gone: their locks went with them.
fn sweep(work: &Path) {
    let Ok(entries) = std::fs::read_dir(work) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let gone = match File::open(path.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            // A folder without a lock is about to get one, unless it is old.
            Err(_) => entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > std::time::Duration::from_mins(1))),
        };
        if gone {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
