//! The folders in which processes run stages, and whether their processes live.
//!
//! A process holds the lock of a file in its folder for as long as it lives; the kernel ends it,
//! `kill -9` included. The lock is taken before the folder gets its name here, so a folder without a
//! held lock is of a dead process, and one with it is the sign that somebody uses this cache.

use crate::error::{CacheError, Doing};
use crate::layout::Layout;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

/// Name of the locked file in a work folder.
pub const WORK_LOCK: &str = "lock";

/// A folder below [`Layout::work`].
#[derive(Debug, Clone)]
pub struct WorkFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether its process lives.
    pub alive: bool,
    /// When its lock was made, else when the folder was.
    pub since: SystemTime,
}

/// All work folders.
pub fn work_folders(layout: &Layout) -> Result<Vec<WorkFolder>, CacheError> {
    const ACTION: &str = "list the work folders";
    let mut folders = Vec::new();
    for entry in fs_err::read_dir(layout.work()).doing(ACTION)? {
        let path = entry.doing(ACTION)?.path();
        let lock = File::open(path.join(WORK_LOCK)).ok();
        let alive = lock.as_ref().is_some_and(|lock| lock.try_lock().is_err());
        let stat = lock.map_or_else(|| std::fs::symlink_metadata(&path), |lock| lock.metadata());
        match stat.and_then(|stat| stat.modified()) {
            Ok(since) => folders.push(WorkFolder { path, alive, since }),
            // Its process has ended and removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing(ACTION),
        }
    }
    Ok(folders)
}
