//! Where everything lies below `.pipe/`. The only file that knows these names.
//!
//! A bucket carries the version of its format in its name, so two versions of pipe share one
//! `.pipe` without reading each other's files.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::manifest::ActionKey;
use crate::trace::RunId;
use std::path::{Path, PathBuf};

/// The paths of one `.pipe` folder. All of it must lie on one file system.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// Tells backup programs to skip the folder. Source: the Cache Directory Tagging Specification.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder is the cache of pipe. Everything in it can be computed again.\n";

impl Layout {
    /// The layout of an existing or future folder; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Creates what is missing of the folder; changes nothing that exists.
    pub fn create(&self) -> Result<(), CacheError> {
        const ACTION: &str = "create the cache folder";
        // The first tells others that this is a cache, or will be one.
        let folders = ["objects-v1", "tmp", "trees-v1", "actions-v1", "memo-v1", "placed-v5"];
        for name in folders.into_iter().chain(["work", "checkpoints", "runs", "quarantine"]) {
            fs_err::create_dir_all(self.root.join(name)).doing(ACTION)?;
        }
        for (name, text) in [("CACHEDIR.TAG", TAG), (".gitignore", "*\n")] {
            let path = self.root.join(name);
            if !path.exists() {
                crate::files::replace(self, &path, text.as_bytes()).doing(ACTION)?;
            }
        }
        Ok(())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The bucket of all objects.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects-v1")
    }
    /// The bytes named by `digest`.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        shard(&self.objects(), digest)
    }
    /// The folder of all materialised trees.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees-v1")
    }
    /// The read-only materialisation of a tree.
    pub fn tree(&self, tree: &Digest) -> PathBuf {
        self.trees().join(tree.to_string())
    }
    /// The bucket of all results.
    pub fn actions(&self) -> PathBuf {
        self.root.join("actions-v1")
    }
    /// The record of the result of `key`.
    pub fn action(&self, key: &ActionKey) -> PathBuf {
        shard(&self.actions(), &key.0)
    }
    /// The bucket of all memoised items.
    pub fn memos(&self) -> PathBuf {
        self.root.join("memo-v1")
    }
    /// The record of one memoised item.
    pub fn memo(&self, key: &Digest) -> PathBuf {
        shard(&self.memos(), key)
    }
    /// The folder of all records of what was placed.
    pub fn placements(&self) -> PathBuf {
        self.root.join("placed-v5")
    }
    /// The record of what was placed in a folder of the user, named by the digest of its path.
    pub fn placed(&self, place: &Digest) -> PathBuf {
        self.placements().join(place.to_string())
    }
    /// The empty file that a claim locks: one file where single bytes can be locked, else one of 65,536.
    pub fn claims(&self, claimed: &Digest) -> PathBuf {
        if cfg!(target_os = "linux") {
            return self.root.join("claims");
        }
        self.root.join(format!("claims-{}", &claimed.to_string()[..4]))
    }
    /// The folder of sandboxes of running stages. Left-overs of dead processes are never served.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }
    /// The folder of all checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
    /// The folder that survives a killed run of `key` and is handed to the next one.
    pub fn checkpoint(&self, key: &ActionKey) -> PathBuf {
        self.checkpoints().join(key.to_string())
    }
    /// The folder of run records.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }
    /// The record of one run.
    pub fn run(&self, id: &RunId) -> PathBuf {
        self.runs().join(format!("{id}.json"))
    }
    /// The logs of the stages of one run.
    pub fn logs(&self, run: &RunId) -> PathBuf {
        self.root.join("logs").join(run.to_string())
    }
    /// The folder of tags: a file for each name.
    pub fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }
    /// The folder of what runs leave for the next run of the same kind; all of it can be removed.
    pub fn states(&self) -> PathBuf {
        self.root.join("state-v1")
    }
    /// What a run of the call that `call` names left.
    pub fn state(&self, call: &Digest) -> PathBuf {
        self.states().join(call.to_string())
    }
    /// The stat cache.
    pub fn stat(&self) -> PathBuf {
        self.root.join("stat-v1")
    }
    /// The stats of large objects with several names.
    pub fn linked(&self) -> PathBuf {
        self.root.join("linked-v1")
    }
    /// The paths of lock files whose results were fetched and not made here, a line each.
    pub fn lock_files(&self) -> PathBuf {
        self.root.join("lock-files")
    }
    /// Files that are being written; what a dead process leaves here is never read.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }
    /// Corrupt objects and what the collector moved, out of the way.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }
}

/// `bucket/ab/cdef…`: 256 folders, so that none grows large.
fn shard(bucket: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.to_string();
    bucket.join(&hex[..2]).join(&hex[2..])
}
