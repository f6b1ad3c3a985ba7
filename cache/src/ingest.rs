//! From a folder that a stage filled to a tree in the store.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::stat::kind_of;
use crate::store::{Store, Transfer};
use crate::tree::{Tree, TreeEntry, check_name};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const ACTION: &str = "store a folder";

/// A folder as found on disk, its files numbered in the order of [`Scan::files`].
#[derive(Default)]
struct Scan {
    files: Vec<(PathBuf, bool)>,
}

enum Found {
    File { name: String, index: usize },
    Folder { name: String, entries: Vec<Found> },
}

impl Store {
    /// Moves all files below `dir` into the store and returns the digest of their tree.
    ///
    /// Files are hashed and synced in parallel; empty folders are kept in the tree; `dir` and its
    /// folders stay, without files. A symbolic link, socket, pipe or device anywhere below is
    /// refused before the first file is moved. When this returns, every object is durable, so a
    /// record may name the tree.
    pub fn ingest_dir(&self, dir: &Path) -> Result<Digest, CacheError> {
        let mut scan = Scan::default();
        let entries = scan_folder(dir, &mut scan)?;
        let stored = scan
            .files
            .par_iter()
            .map(|(path, executable)| {
                let stored = self.put_file_unsynced(path, Transfer::Move)?;
                Ok(TreeEntry::File { digest: stored.digest, size: stored.size, executable: *executable })
            })
            .collect::<Result<Vec<_>, CacheError>>()?;
        self.sync_names(&stored)?;
        self.put_folder(&entries, &stored)
    }

    /// Makes the names of new objects durable, each folder of objects once.
    fn sync_names(&self, files: &[TreeEntry]) -> Result<(), CacheError> {
        let folders: BTreeSet<PathBuf> = files
            .iter()
            .filter_map(|entry| match entry {
                TreeEntry::File { digest, .. } => Some(self.object_path(digest)),
                TreeEntry::Dir { .. } => None,
            })
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        folders.into_par_iter().try_for_each(|folder| fs_err::File::open(folder)?.sync_all()).doing(ACTION)
    }

    fn put_folder(&self, entries: &[Found], stored: &[TreeEntry]) -> Result<Digest, CacheError> {
        let mut tree = Tree::default();
        for entry in entries {
            match entry {
                Found::File { name, index } => tree.insert(name, stored[*index].clone())?,
                Found::Folder { name, entries } => {
                    let digest = self.put_folder(entries, stored)?;
                    tree.insert(name, TreeEntry::Dir { digest })?;
                }
            }
        }
        self.put_tree(&tree)
    }
}

fn scan_folder(dir: &Path, scan: &mut Scan) -> Result<Vec<Found>, CacheError> {
    let mut entries = Vec::new();
    for entry in fs_err::read_dir(dir).doing(ACTION)? {
        let entry = entry.doing(ACTION)?;
        let name = plain_name(&entry.file_name())?;
        let metadata = entry.metadata().doing(ACTION)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            entries.push(Found::Folder { name, entries: scan_folder(&entry.path(), scan)? });
        } else if kind.is_file() {
            entries.push(Found::File { name, index: scan.files.len() });
            scan.files.push((entry.path(), metadata.permissions().mode() & 0o100 != 0));
        } else {
            return Err(CacheError::UnsupportedFile { path: entry.path(), found: kind_of(kind) });
        }
    }
    Ok(entries)
}

/// The name as text, if it can stand in a tree.
pub(crate) fn plain_name(name: &std::ffi::OsStr) -> Result<String, CacheError> {
    let Some(text) = name.to_str() else {
        let reason = "it is not UTF-8";
        return Err(CacheError::UnsafeName { name: name.to_string_lossy().into_owned(), reason });
    };
    check_name(text)?;
    Ok(text.to_owned())
}
