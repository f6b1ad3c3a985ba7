//! Content-addressed objects: bytes under the name of their own hash. Knows no keys and no records.
//!
//! Where an object is checked against its name:
//!
//! | moment | check |
//! |---|---|
//! | [`Store::get_bytes`], [`Store::get_tree`] | the bytes are hashed |
//! | [`Store::check`]: before an object is linked, copied or taken for stored | size and seal; hashed if the seal is broken |
//! | [`Store::verify`] | the bytes are hashed |
//!
//! The seal is an mtime that any write replaces, so it sees a tampered or truncated object but not a
//! disk that returns other bytes than were written. An object that fails is moved to `quarantine/`:
//! from then on it is missing, and the next put repairs it.

use crate::digest::{self, Digest};
use crate::error::{CacheError, Doing};
use crate::files;
use crate::layout::Layout;
use crate::stat::{FileStat, kind_of};
use crate::tree::Tree;
use fs_err::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The object store of one `.pipe` folder. Cheap to clone; safe to share by threads, processes and hosts.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) layout: Arc<Layout>,
}

/// What becomes of the file that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// The file becomes the object and its own name goes. For finished outputs in a sandbox.
    Move,
    /// The file stays as it is. For files of the user.
    Copy,
    /// The file stays under its name and may become the object, so nobody may write to it any more.
    Keep,
}

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
        Self { layout }
    }

    /// The file of an object, whether or not it is there. Read-only; never write to it.
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        self.layout.object(digest)
    }

    /// Whether an object of this name is there. Says nothing of its content: see [`Store::check`].
    pub fn contains(&self, digest: &Digest) -> bool {
        std::fs::symlink_metadata(self.object_path(digest)).is_ok_and(|stat| stat.is_file())
    }

    /// Stores `bytes` durably.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let stored = Stored { digest: Digest::of_bytes(bytes), size: bytes.len() as u64 };
        if self.has(&stored)? {
            return Ok(stored.digest);
        }
        let mut file = files::temporary(&self.layout).doing(STORE)?;
        file.as_file_mut().write_all(bytes).doing(STORE)?;
        self.publish(file.as_file(), &stored)?;
        files::sync_parent(&self.object_path(&stored.digest)).doing(STORE)?;
        Ok(stored.digest)
    }

    /// Stores a regular file durably. A symbolic link is refused.
    pub fn put_file(&self, path: &Path, transfer: Transfer) -> Result<Stored, CacheError> {
        let stored = self.put_file_unsynced(path, transfer)?;
        files::sync_parent(&self.object_path(&stored.digest)).doing(STORE)?;
        Ok(stored)
    }

    /// [`Store::put_file`], but the caller makes the name durable, once for many files.
    pub(crate) fn put_file_unsynced(&self, path: &Path, transfer: Transfer) -> Result<Stored, CacheError> {
        let metadata = fs_err::symlink_metadata(path).doing(STORE)?;
        if !metadata.is_file() {
            let found = kind_of(metadata.file_type());
            return Err(CacheError::UnsupportedFile { path: path.to_owned(), found });
        }
        // A second name of the inode may belong to the user: only a copy is ours to seal.
        let ours = transfer != Transfer::Copy && metadata.nlink() == 1;
        let stored = if ours { self.adopt(path)? } else { self.put_copy(path)? };
        match transfer {
            Transfer::Move => remove_if_there(path).doing(STORE)?,
            Transfer::Copy | Transfer::Keep => {}
        }
        Ok(stored)
    }

    /// Makes the file's own inode the object.
    fn adopt(&self, path: &Path) -> Result<Stored, CacheError> {
        let (digest, stat) = digest::hash_stable(path)?;
        let stored = Stored { digest, size: stat.size };
        if self.has(&stored)? {
            return Ok(stored);
        }
        let file = File::open(path).doing(STORE)?;
        match self.publish(&file, &stored) {
            // Another file system, or a file of another owner.
            Err(CacheError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::CrossesDevices | ErrorKind::PermissionDenied) =>
            {
                self.put_copy(path)
            }
            result => result.map(|()| stored),
        }
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
        self.publish(file.as_file(), &stored)?;
        Ok(stored)
    }

    /// Gives a finished file the name of its digest: seals it, syncs it, links it without replacing.
    fn publish(&self, file: &File, stored: &Stored) -> Result<(), CacheError> {
        let path = self.object_path(&stored.digest);
        files::seal(file, false).doing(STORE)?;
        file.sync_all().doing(STORE)?;
        // Lost to another writer of the same bytes: fine if they are whole, else they are moved away.
        for _ in 0..3 {
            if files::link_new(file.path(), &path).doing(STORE)? || self.has(stored)? {
                return Ok(());
            }
        }
        Err(self.corrupt(&stored.digest, "and it cannot be moved out of the way".to_owned()))
    }

    /// Whether the object is there and passes [`Store::check`].
    fn has(&self, stored: &Stored) -> Result<bool, CacheError> {
        match self.check(&stored.digest, stored.size) {
            Err(error) if error.is_miss() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Checks an object by its size and seal, and by its hash when the seal is broken.
    pub fn check(&self, digest: &Digest, size: u64) -> Result<(), CacheError> {
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
        if files::is_sealed(&metadata) {
            return Ok(());
        }
        self.verify(digest)?;
        // Best effort: on a cache of another user the next check hashes again.
        let _ = File::open(&path).and_then(|file| files::seal(&file, false));
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
        let mut bytes = Vec::new();
        match File::open(self.object_path(digest)).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(digest)),
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
        self.put_bytes(&tree.encode())
    }

    /// Reads one folder of a tree and checks it.
    pub fn get_tree(&self, digest: &Digest) -> Result<Tree, CacheError> {
        let bytes = self.get_bytes(digest).map_err(|error| as_role(error, || "tree".to_owned()))?;
        // The bytes are what the name says, so there is nothing to repair: this never was a tree.
        Tree::decode(&bytes).map_err(|reason| CacheError::CorruptObject {
            digest: *digest,
            reason: format!("as a tree: {reason}"),
        })
    }

    /// [`Store::check`] of a file of a tree, whose error names the file.
    pub(crate) fn check_file(&self, path: &str, digest: &Digest, size: u64) -> Result<(), CacheError> {
        self.check(digest, size).map_err(|error| as_role(error, || format!("file `{path}`")))
    }

    /// Moves an object away that is not what its name says, and makes the error that tells so.
    fn corrupt(&self, digest: &Digest, reason: String) -> CacheError {
        // The place gets the random name of a temporary file, as many may move the same object.
        let unique = files::temporary(&self.layout).ok().and_then(|file| {
            let name = file.path().file_name()?.to_str()?.to_owned();
            Some(self.layout.quarantine().join(format!("{digest}-{name}")))
        });
        if let Some(place) = unique {
            // Best effort: without the right to move it, the object stays refused at each check.
            let _ = fs_err::rename(self.object_path(digest), place);
        }
        CacheError::CorruptObject { digest: *digest, reason }
    }
}

const STORE: &str = "store an object";

fn missing(digest: &Digest) -> CacheError {
    CacheError::MissingObject { digest: *digest, role: "object".to_owned() }
}

fn as_role(error: CacheError, role: impl FnOnce() -> String) -> CacheError {
    match error {
        CacheError::MissingObject { digest, .. } => CacheError::MissingObject { digest, role: role() },
        other => other,
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The stat of a stored object, for callers that compare inodes.
pub(crate) fn object_stat(store: &Store, digest: &Digest) -> Option<FileStat> {
    let metadata = std::fs::symlink_metadata(store.object_path(digest)).ok()?;
    Some(FileStat::of(&metadata))
}
