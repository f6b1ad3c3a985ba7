//! Read-only materialisations of trees, one a tree, shared by all that read it.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::files;
use crate::store::Store;
use crate::walk::Node;
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::TempDir;

const ACTION: &str = "materialise a tree";

impl Store {
    /// Returns a folder that holds exactly the tree, read-only, made on the first call.
    ///
    /// The folder appears by a rename, so it is never seen half made. A later call compares it with
    /// the tree by names, sizes and seals, and makes it again if it differs. A missing or corrupt
    /// object is an error that [is a miss](CacheError::is_miss).
    pub fn checkout(&self, tree: &Digest) -> Result<PathBuf, CacheError> {
        let folder = self.layout.tree(tree);
        if fs_err::symlink_metadata(&folder).is_ok() {
            if self.is_whole(tree, &folder)? {
                // Tells the collector that it is in use. In a cache of another user it cannot be told.
                let now = FileTimes::new().set_modified(SystemTime::now());
                let _ = File::open(&folder).and_then(|folder| folder.set_times(now));
                return Ok(folder);
            }
            self.move_aside(&folder)?;
        }
        let made = self.make(tree)?;
        // Read-only only now: to rename a folder to another parent needs the right to write to it.
        match fs_err::rename(made.path(), &folder) {
            Ok(()) => {
                // Moved: there is nothing left to remove at the old place.
                let _ = made.keep();
                seal_folder(&folder).doing(ACTION)?;
            }
            // Another process made it meanwhile; ours is removed.
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                discard(made).doing(ACTION)?;
            }
            Err(error) => return Err(error).doing(ACTION),
        }
        Ok(folder)
    }

    /// Makes a folder whose files are all sealed the materialisation of its tree, unless there is one.
    pub(crate) fn adopt_checkout(
        &self,
        made: &Path,
        folders: &[PathBuf],
        tree: &Digest,
    ) -> Result<(), CacheError> {
        folders.iter().rev().try_for_each(|folder| set_mode(folder, 0o555)).doing(ACTION)?;
        let folder = self.layout.tree(tree);
        match std::fs::rename(made, &folder) {
            Ok(()) => seal_folder(&folder).doing(ACTION),
            // There is one already, or the sandbox lies on another file system.
            Err(_) => Ok(()),
        }
    }

    /// Makes the tree in a temporary folder; its subfolders are read-only already.
    fn make(&self, tree: &Digest) -> Result<TempDir, CacheError> {
        let made = self.temporary_folder("tree-")?;
        let mut folders = Vec::new();
        let result = self.walk(tree, &mut |path, node| match node {
            Node::Folder(_) if path.is_empty() => Ok(()),
            Node::Folder(_) => {
                folders.push(made.path().join(path));
                fs_err::create_dir(made.path().join(path)).doing(ACTION)
            }
            Node::File { digest, size, executable } => {
                let place = |object: &Path| self.inside.place(object, &made.path().join(path), executable);
                self.place_checked(path, &digest, size, place)?.doing(ACTION)
            }
        });
        match result
            .and_then(|()| folders.iter().rev().try_for_each(|folder| set_mode(folder, 0o555)).doing(ACTION))
        {
            Ok(()) => Ok(made),
            Err(error) => {
                // The first error is the one to tell.
                let _ = discard(made);
                Err(error)
            }
        }
    }

    /// Whether `folder` holds the names of the tree and no others, each file sealed and of its size.
    fn is_whole(&self, tree: &Digest, folder: &Path) -> Result<bool, CacheError> {
        let mut whole = true;
        self.walk(tree, &mut |path, node| {
            if whole {
                whole = match node {
                    Node::Folder(tree) => fs_err::read_dir(folder.join(path))
                        .is_ok_and(|found| found.count() == tree.entries().len()),
                    Node::File { size, executable, .. } => fs_err::symlink_metadata(folder.join(path))
                        .is_ok_and(|stat| {
                            stat.is_file()
                                && stat.len() == size
                                && files::is_sealed(&stat)
                                && (stat.permissions().mode() & 0o100 != 0) == executable
                        }),
                };
            }
            Ok(())
        })?;
        Ok(whole)
    }

    fn temporary_folder(&self, prefix: &str) -> Result<TempDir, CacheError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix).rand_bytes(22).tempdir_in(self.layout.temporary()).doing(ACTION)
    }

    /// Moves a damaged materialisation away and removes it. Readers of its open files are not disturbed.
    pub(crate) fn move_aside(&self, folder: &Path) -> Result<(), CacheError> {
        let aside = self.temporary_folder("stale-")?;
        // Another process may do the same.
        match set_mode(folder, 0o755).and_then(|()| fs_err::rename(folder, aside.path().join("tree"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).doing(ACTION),
            _ => {}
        }
        discard(aside).doing(ACTION)
    }
}

fn discard(dir: TempDir) -> io::Result<()> {
    files::remove_tree(&dir.keep())
}

/// Makes a folder read-only, unless the collector has just moved it away.
fn seal_folder(folder: &Path) -> io::Result<()> {
    match set_mode(folder, 0o555) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn set_mode(folder: &Path, mode: u32) -> io::Result<()> {
    fs_err::set_permissions(folder, Permissions::from_mode(mode))
}
