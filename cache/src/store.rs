//! Content-addressed objects: bytes under the name of their own hash. Knows no keys and no records.
//!
//! Where an object is checked against its name:
//!
//! | moment | check |
//! |---|---|
//! | [`Store::get_bytes`], [`Store::get_tree`] | the bytes are hashed |
//! | [`Store::check`]: before an object is linked, copied or taken for stored | size and seal; hashed if the seal is broken, or if others may have had to do with it (`linked`) |
//! | [`Store::verify`] | the bytes are hashed |
//!
//! The seal is an mtime that any write replaces, so it sees a tampered or truncated object but not a
//! disk that returns other bytes than were written. An object that fails is moved to `quarantine/`, and its seal is
//! broken for all its names: from then on it is missing, and the next put repairs it.
//!
//! Putting does not sync: a process may be killed at any moment, and nothing is lost. A power cut may
//! tear what was put in the half minute before it; the seal of an object that was not synced does not
//! outlive a restart of the system, so such an object is hashed before it is used. What took long
//! to make is synced by [`Store::sync_tree`] when it is whole.

use crate::digest::{self, Digest};
use crate::error::{CacheError, Doing};
use crate::files::{self, Placer};
use crate::layout::Layout;
use crate::linked::Linked;
use crate::quarantine;
use crate::stat::{FileStat, kind_of};
use crate::tree::Tree;
use crate::walk::Node;
use fs_err::File;
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::NamedTempFile;

/// The object store of one `.pipe` folder. Cheap to clone; safe to share by threads, processes and hosts.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) layout: Arc<Layout>,
    /// For places below `.pipe`.
    pub(crate) inside: Arc<Placer>,
    /// For folders of the user, which may be on another file system.
    pub(crate) outside: Arc<Placer>,
    /// Small trees that were read or put: what a name stands for never changes.
    trees: Arc<Mutex<HashMap<Digest, Remembered>>>,
    pub(crate) linked: Arc<Linked>,
}

/// A tree, and the bytes of its object.
type Remembered = (Arc<Tree>, u64);

/// Trees with more entries are read each time.
const REMEMBERED_ENTRIES: usize = 64;
/// So many trees are remembered.
const REMEMBERED_TREES: usize = 1 << 14;

/// Name and size of an object that is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Store {
    /// The store below `layout`, which must have been created.
    pub fn new(layout: Arc<Layout>) -> Self {
        let linked = Arc::new(Linked::new(layout.clone()));
        Self { layout, inside: Arc::default(), outside: Arc::default(), trees: Arc::default(), linked }
    }

    /// The file of an object, whether or not it is there. Read-only; never write to it.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        self.layout.object(digest)
    }

    /// Whether an object of this name is there. Says nothing of its content: see [`Store::check`].
    pub fn contains(&self, digest: &Digest) -> bool {
        let path = self.object_path(digest);
        std::fs::symlink_metadata(&path)
            .map_or_else(|_| quarantine::recall(&self.layout, &path), |stat| stat.is_file())
    }

    /// Stores `bytes`.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let stored = Stored { digest: Digest::of_bytes(bytes), size: bytes.len() as u64 };
        if self.has(&stored)? {
            return Ok(stored.digest);
        }
        let mut file = files::temporary(&self.layout).doing(STORE)?;
        file.as_file_mut().write_all(bytes).doing(STORE)?;
        self.publish(file, &stored)?;
        Ok(stored.digest)
    }

    /// Stores a regular file. It stays under its name, read-only, and may be the object itself, so
    /// nobody may write to it any more. A symbolic link is refused.
    pub fn put_file(&self, path: &Path) -> Result<Stored, CacheError> {
        self.put_sealed(path, false).map(|(stored, _)| stored)
    }

    /// [`Store::put_file`], and whether the file is sealed now: it is not when it has a second name,
    /// which may belong to the user, or another owner. Then the object is a copy of it.
    pub(crate) fn put_sealed(&self, path: &Path, executable: bool) -> Result<(Stored, bool), CacheError> {
        let metadata = fs_err::symlink_metadata(path).doing(STORE)?;
        if !metadata.is_file() {
            let found = kind_of(metadata.file_type());
            return Err(CacheError::UnsupportedFile { path: path.to_owned(), found });
        }
        let seal = || File::open(path).and_then(|file| files::seal(&file, executable));
        let ours = metadata.nlink() == 1
            && match seal() {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
                result => result.map(|()| true).doing(STORE)?,
            };
        // The mode belongs to the inode, and objects are not executable.
        if !ours || executable {
            let stored = self.put_copy(path)?;
            let is_object = files::same_inode(path, &self.object_path(&stored.digest));
            return Ok((stored, ours || is_object));
        }
        let (digest, stat) = digest::hash_stable(path)?;
        let stored = Stored { digest, size: stat.size };
        for _ in 0..3 {
            if self.has(&stored)? {
                return Ok((stored, true));
            }
            match files::link_new(path, &self.object_path(&digest)) {
                Ok(true) => {
                    self.linked.learn(&digest, &self.object_path(&digest));
                    return Ok((stored, true));
                }
                // Lost to another writer of the same bytes.
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                    return Ok((self.put_copy(path)?, true));
                }
                Err(error) => return Err(error).doing(STORE),
            }
        }
        Err(self.corrupt(&digest, STUCK.to_owned()))
    }

    fn put_copy(&self, path: &Path) -> Result<Stored, CacheError> {
        let (digest, stat) = digest::hash_stable(path)?;
        let stored = Stored { digest, size: stat.size };
        if self.has(&stored)? {
            return Ok(stored);
        }
        let mut file = files::temporary(&self.layout).doing(STORE)?;
        io::copy(&mut File::open(path).doing(STORE)?, file.as_file_mut()).doing(STORE)?;
        // The digest is of the bytes that were written, whatever became of the source.
        let (digest, stat) = digest::hash_stable(file.path())?;
        let stored = Stored { digest, size: stat.size };
        self.publish(file, &stored)?;
        Ok(stored)
    }

    /// Seals a finished file and gives it the name of its digest, without replacing.
    pub(crate) fn publish(&self, file: NamedTempFile<File>, stored: &Stored) -> Result<(), CacheError> {
        files::seal(file.as_file(), false).doing(STORE)?;
        let file = file.into_temp_path();
        // Lost to another writer of the same bytes: fine if they are whole, else `has` moves them away.
        for _ in 0..3 {
            if files::move_new(&file, &self.object_path(&stored.digest)).doing(STORE)? {
                files::moved(file);
                return Ok(());
            }
            if self.has(stored)? {
                return Ok(());
            }
        }
        Err(self.corrupt(&stored.digest, STUCK.to_owned()))
    }

    /// Syncs all objects of a tree, so that they outlive a power cut.
    pub fn sync_tree(&self, tree: &Digest) -> Result<(), CacheError> {
        let mut objects = BTreeSet::new();
        self.walk(tree, &mut |_, node| {
            match node {
                Node::File { digest, .. } => objects.insert(digest),
                Node::Folder(tree) => objects.insert(tree.digest()),
            };
            Ok(())
        })?;
        self.sync_objects(&objects)
    }

    /// Syncs objects, then the folders that hold their names.
    pub(crate) fn sync_objects(&self, objects: &BTreeSet<Digest>) -> Result<(), CacheError> {
        const SYNC: &str = "sync an object";
        let objects: Vec<(&Digest, PathBuf)> =
            objects.iter().map(|digest| (digest, self.object_path(digest))).collect();
        let sync = |(digest, path): &(&Digest, PathBuf)| {
            let file = File::open(path)?;
            let was_whole = self.linked.vouches(digest, &file.metadata()?);
            match files::sync_sealed(&file) {
                // An object of another user is theirs to seal.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
                result => result?,
            }
            if was_whole {
                self.linked.learn(digest, path);
            }
            Ok(())
        };
        objects.par_iter().try_for_each(sync).doing(SYNC)?;
        let folders: BTreeSet<&Path> = objects.iter().filter_map(|(_, path)| path.parent()).collect();
        folders.into_par_iter().try_for_each(|folder| File::open(folder)?.sync_all()).doing(SYNC)
    }

    /// Whether the object is there and passes [`Store::check`].
    pub(crate) fn has(&self, stored: &Stored) -> Result<bool, CacheError> {
        match self.check_here(&stored.digest, stored.size) {
            Err(error) if error.is_miss() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Checks an object by its size and seal, and by its hash when the seal is broken or others may have had to do with it.
    pub fn check(&self, digest: &Digest, size: u64) -> Result<(), CacheError> {
        match self.check_here(digest, size) {
            Err(CacheError::MissingObject { .. })
                if quarantine::recall(&self.layout, &self.object_path(digest)) =>
            {
                self.check_here(digest, size)
            }
            result => result,
        }
    }

    /// [`Store::check`] that does not look for the object in quarantine.
    fn check_here(&self, digest: &Digest, size: u64) -> Result<(), CacheError> {
        let path = self.object_path(digest);
        let metadata = match fs_err::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(digest)),
            result => result.doing("check an object")?,
        };
        if !metadata.is_file() {
            return Err(self.corrupt(digest, format!("it is a {}", kind_of(metadata.file_type()))));
        }
        if metadata.len() != size {
            return Err(self.corrupt(digest, format!("it has {} bytes, not {size}", metadata.len())));
        }
        let is_sealed = files::is_sealed(&metadata);
        if is_sealed && self.linked.vouches(digest, &metadata) {
            return Ok(());
        }
        self.verify(digest)?;
        if !is_sealed {
            // Best effort: on a cache of another user the next check hashes again.
            let _ = File::open(&path).and_then(|file| files::seal(&file, false));
        }
        self.linked.learn(digest, &path);
        Ok(())
    }

    /// Checks an object by hashing it.
    pub fn verify(&self, digest: &Digest) -> Result<(), CacheError> {
        let path = self.object_path(digest);
        match digest::hash_stable(&path) {
            Ok((found, _)) if found == *digest => Ok(()),
            Ok((found, _)) => Err(self.corrupt(digest, format!("its bytes hash to {found}"))),
            Err(CacheError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Err(missing(digest))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a whole object and checks it. For small ones; large ones are opened by [`Store::object_path`].
    pub fn get_bytes(&self, digest: &Digest) -> Result<Vec<u8>, CacheError> {
        let (mut bytes, path) = (Vec::new(), self.object_path(digest));
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !quarantine::recall(&self.layout, &path) {
                    return Err(missing(digest));
                }
                File::open(&path)
            }
            result => result,
        };
        match file.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                return Err(self.corrupt(digest, "it is a folder".to_owned()));
            }
            result => result.doing("read an object")?,
        };
        let found = Digest::of_bytes(&bytes);
        if found != *digest {
            return Err(self.corrupt(digest, format!("its bytes hash to {found}")));
        }
        Ok(bytes)
    }

    /// Stores a tree. The objects that it names should be there first.
    pub fn put_tree(&self, tree: &Tree) -> Result<Digest, CacheError> {
        let bytes = tree.encode();
        let digest = self.put_bytes(&bytes)?;
        self.remember(&digest, &Arc::new(tree.clone()), bytes.len());
        Ok(digest)
    }

    /// Reads one folder of a tree and checks it.
    pub fn get_tree(&self, digest: &Digest) -> Result<Arc<Tree>, CacheError> {
        let known = self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        // That it is remembered does not make it stay as it is: others will read the object.
        if let Some((tree, size)) = known
            && self.check(digest, size).is_ok()
        {
            return Ok(tree);
        }
        let bytes = self.get_bytes(digest).map_err(|error| as_role(error, || "tree".to_owned()))?;
        let size = bytes.len();
        // The bytes are what the name says, so there is nothing to repair: this never was a tree.
        let tree = Tree::decode(&bytes).map_err(|reason| CacheError::CorruptObject {
            digest: *digest,
            reason: format!("as a tree: {reason}"),
        })?;
        let tree = Arc::new(tree);
        self.remember(digest, &tree, size);
        Ok(tree)
    }

    fn remember(&self, digest: &Digest, tree: &Arc<Tree>, size: usize) {
        if tree.entries().len() <= REMEMBERED_ENTRIES {
            let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
            if trees.len() >= REMEMBERED_TREES {
                trees.clear();
            }
            trees.insert(*digest, (tree.clone(), size as u64));
        }
    }

    /// [`Store::check`] of a file of a tree, whose error names the file.
    pub(crate) fn check_file(&self, path: &str, digest: &Digest, size: u64) -> Result<(), CacheError> {
        self.check(digest, size).map_err(|error| as_role(error, || format!("file `{path}`")))
    }

    /// Writes what was learnt of the objects, so that the next process need not hash them. Done for a store that is dropped.
    pub fn save(&self) {
        self.linked.save();
    }

    pub(crate) fn forget_states(&self) {
        // Without the right to remove them there is none to write new ones.
        let _ = std::fs::remove_dir_all(self.layout.states());
    }

    /// Checks a file of a tree and has it placed. If the collector takes it in between, it is brought back.
    pub(crate) fn place_checked(
        &self,
        path: &str,
        digest: &Digest,
        size: u64,
        place: impl Fn(&Path) -> io::Result<()>,
    ) -> Result<io::Result<()>, CacheError> {
        let object = self.object_path(digest);
        self.check_file(path, digest, size)?;
        let placed = match place(&object) {
            Err(error) if error.kind() == ErrorKind::NotFound && !object.exists() => {
                self.check_file(path, digest, size)?;
                place(&object)
            }
            result => result,
        };
        self.linked.learn(digest, &object);
        Ok(placed)
    }

    /// Moves an object away that is not what its name says, and makes the error that tells so.
    fn corrupt(&self, digest: &Digest, reason: String) -> CacheError {
        self.forget_states();
        // The place gets the random name of a temporary file, as many may move the same object.
        let unique = files::temporary(&self.layout).ok().and_then(|file| {
            let name = file.path().file_name()?.to_str()?.to_owned();
            Some(self.layout.quarantine().join(format!("{digest}-{name}")))
        });
        if let Some(place) = unique {
            // Best effort: without the right to move it, the object stays refused at each check.
            if fs_err::rename(self.object_path(digest), &place).is_ok() {
                if digest::hash_file(&place).is_ok_and(|found| found == *digest) {
                    // Another writer has repaired it since it was found corrupt.
                    let _ = files::move_new(&place, &self.object_path(digest));
                } else {
                    // Materialisations and results that are the same file are made again.
                    let _ = File::open(&place).and_then(|file| files::break_seal(&file));
                }
            }
        }
        CacheError::CorruptObject { digest: *digest, reason }
    }
}

const STORE: &str = "store an object";
const STUCK: &str = "and it cannot be moved out of the way";

fn missing(digest: &Digest) -> CacheError {
    CacheError::MissingObject { digest: *digest, role: "object".to_owned() }
}

fn as_role(error: CacheError, role: impl FnOnce() -> String) -> CacheError {
    match error {
        CacheError::MissingObject { digest, .. } => CacheError::MissingObject { digest, role: role() },
        other => other,
    }
}

/// The stat of a stored object, for callers that compare inodes.
pub(crate) fn object_stat(store: &Store, digest: &Digest) -> Option<FileStat> {
    let metadata = std::fs::symlink_metadata(store.object_path(digest)).ok()?;
    Some(FileStat::of(&metadata))
}
