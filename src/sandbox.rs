//! Folders in which stages run: one below `.pipe/work` for each process, removed when it ends; those of killed
//! processes are removed by the next.

use pipe_cache::{CacheError, Layout, WORK_LOCK, work_folders};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The folder of this process. Its lock tells others that the process lives.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    /// Sandboxes of stages that have ended, emptied: to make and remove folders costs more than to empty them.
    free: Mutex<Vec<PathBuf>>,
    _lock: File,
}

impl WorkDir {
    pub fn open(layout: &Layout) -> Result<Self, CacheError> {
        let action = "create a folder to work in";
        let error = |source: io::Error| CacheError::Io { action, source };
        fs_err::create_dir_all(layout.work()).map_err(error)?;
        sweep(layout)?;
        let made =
            tempfile::Builder::new().prefix("run-").tempdir_in(layout.temporary()).map_err(error)?.keep();
        let lock = File::create(made.join(WORK_LOCK)).map_err(error)?;
        lock.lock().map_err(error)?;
        // Only now: a work folder without a held lock is taken for one of a dead process.
        let path = layout.work().join(made.file_name().unwrap_or_default());
        fs_err::rename(&made, &path).map_err(error)?;
        Ok(Self { path, free: Mutex::default(), _lock: lock })
    }

    /// Empty folders for one stage, emptied when dropped.
    pub fn sandbox(self: &Arc<Self>) -> Result<Sandbox, CacheError> {
        let action = "create a sandbox";
        let used = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let path = match used {
            Some(path) => path,
            None => Sandbox::create(&self.path).map_err(|source| CacheError::Io { action, source })?,
        };
        Ok(Sandbox { path, work: self.clone() })
    }
}

/// The folders of one running stage.
#[derive(Debug)]
pub struct Sandbox {
    path: PathBuf,
    work: Arc<WorkDir>,
}

impl Sandbox {
    fn create(work: &Path) -> io::Result<PathBuf> {
        let path = tempfile::tempdir_in(work)?.keep();
        ["work", "work/out", "scratch"].iter().try_for_each(|name| fs_err::create_dir(path.join(name)))?;
        Ok(path)
    }

    /// The folder that a program works in. Outputs are written below its `out/`.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Where the stage may keep what it needs while it runs.
    pub fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// Where items are made, one folder each; not there at first.
    pub fn items(&self) -> PathBuf {
        self.path.join("items")
    }

    /// Removes everything but folders of `work/` that the next stage is likely to need too.
    fn empty(&self) -> io::Result<()> {
        remove_below(&self.scratch(), 0)?;
        remove_below(&self.work(), 2)?;
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path == self.work() || path == self.scratch() {
                continue;
            }
            // Items, or what a program wrote beside its folder: another stage must not find it.
            if path.is_dir() && !path.is_symlink() {
                pipe_cache::remove_tree(&path)?;
            } else {
                fs_err::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Else it is not used again, and goes with the folder of the process.
        if self.empty().is_ok() {
            let path = std::mem::take(&mut self.path);
            self.work.free.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        }
    }
}

/// Removes what a folder holds, but for the folders on its first levels. It may hold anything that a program can make,
/// also folders without the right to write to them.
fn remove_below(folder: &Path, kept_levels: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            fs_err::remove_file(path)?;
        } else if kept_levels == 0 || remove_below(&path, kept_levels - 1).is_err() {
            pipe_cache::remove_tree(&path)?;
        }
    }
    Ok(())
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What is left is swept by the next process.
        let _ = pipe_cache::remove_tree(&self.path);
    }
}

/// Removes the folders of processes that are gone: their locks went with them.
fn sweep(layout: &Layout) -> Result<(), CacheError> {
    for folder in work_folders(layout)?.into_iter().filter(|folder| !folder.alive) {
        // What cannot be removed now is left for the collector.
        let _ = pipe_cache::remove_tree(&folder.path);
    }
    Ok(())
}
