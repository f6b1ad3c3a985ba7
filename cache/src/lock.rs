//! Claims: at most one process at a time does the work of one key.
//!
//! A claim is an advisory lock of the kernel on a file, so it ends with its process, `kill -9`
//! included. It saves work and is not what makes the cache right: where locks do not reach across
//! hosts (some NFS mounts), two hosts do the same work and the first record wins.

use crate::error::{CacheError, Doing};
use crate::layout::Layout;
use crate::manifest::ActionKey;
use fs_err::File;
use std::fs::TryLockError;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ACTION: &str = "claim a stage";

/// A held claim; dropping it ends it.
#[derive(Debug)]
#[must_use = "dropping a claim ends it"]
pub struct Claim {
    path: PathBuf,
    // Dropped, and so unlocked, after `drop` has removed the name.
    _file: File,
}

/// Waits for the claim on `key`.
pub fn claim(layout: &Layout, key: &ActionKey) -> Result<Claim, CacheError> {
    claim_path(&layout.claim(&key.0)).doing(ACTION)
}

/// Takes the claim on `key`; `None` while another process or thread holds it.
pub fn try_claim(layout: &Layout, key: &ActionKey) -> Result<Option<Claim>, CacheError> {
    try_claim_path(&layout.claim(&key.0)).doing(ACTION)
}

/// Who holds the claim on `key`, as far as it is known: `process 4242`. For messages only.
pub fn holder(layout: &Layout, key: &ActionKey) -> Option<String> {
    let text = std::fs::read_to_string(layout.claim(&key.0)).ok()?;
    (!text.is_empty()).then_some(text)
}

pub(crate) fn claim_path(path: &Path) -> io::Result<Claim> {
    loop {
        let file = open(path)?;
        file.lock()?;
        if let Some(claim) = held(path, file)? {
            return Ok(claim);
        }
    }
}

fn try_claim_path(path: &Path) -> io::Result<Option<Claim>> {
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if let Some(claim) = held(path, file)? {
            return Ok(Some(claim));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// The claim, if the locked file still has its name: the last holder removes it, so a waiter may
/// wake up with a lock on a file that nobody else will ever open.
fn held(path: &Path, file: File) -> io::Result<Option<Claim>> {
    let locked = file.metadata()?;
    let named = std::fs::symlink_metadata(path).ok();
    if named.is_none_or(|named| (named.dev(), named.ino()) != (locked.dev(), locked.ino())) {
        return Ok(None);
    }
    file.set_len(0)?;
    (&file).write_all(format!("process {}", std::process::id()).as_bytes())?;
    Ok(Some(Claim { path: path.to_owned(), _file: file }))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held: a name removed later could be the next holder's.
        let _ = std::fs::remove_file(&self.path);
    }
}
