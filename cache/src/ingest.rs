//! From a folder that a stage filled to a tree in the store.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::stat::kind_of;
use crate::store::{Store, Stored};
use crate::tree::{Tree, TreeEntry, check_name};
use rayon::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const ACTION: &str = "store a folder";

/// A folder as found on disk, its files numbered in the order of [`Scan::files`].
#[derive(Default)]
struct Scan {
    files: Vec<(PathBuf, bool)>,
    /// Below the folder, parents first.
    folders: Vec<PathBuf>,
}

enum Found {
    File { name: String, index: usize },
    Folder { name: String, entries: Vec<Found> },
}

impl Store {
    /// Stores all files below `dir` and returns the digest of their tree.
    ///
    /// Files are hashed in parallel; empty folders are kept in the tree. `dir` itself becomes what
    /// [`Store::checkout`] gives, unless that is there: the caller may only remove what is left of it.
    /// A symbolic link, socket, pipe or device anywhere below is refused before the first file is stored.
    pub fn ingest_dir(&self, dir: &Path) -> Result<Digest, CacheError> {
        let mut scan = Scan::default();
        let entries = scan_folder(dir, &mut scan)?;
        let stored = scan
            .files
            .par_iter()
            .map(|(path, executable)| {
                let (stored, sealed) = self.put_sealed(path, *executable)?;
                let Stored { digest, size } = stored;
                Ok((TreeEntry::File { digest, size, executable: *executable }, sealed))
            })
            .collect::<Result<Vec<_>, CacheError>>()?;
        let all_sealed = stored.iter().all(|(_, sealed)| *sealed);
        let stored: Vec<TreeEntry> = stored.into_iter().map(|(entry, _)| entry).collect();
        let tree = self.put_folder(&entries, &stored)?;
        if all_sealed {
            self.adopt_checkout(dir, &scan.folders, &tree)?;
        }
        Ok(tree)
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
            scan.folders.push(entry.path());
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
