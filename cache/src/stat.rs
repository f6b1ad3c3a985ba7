//! What the file system says of a file without reading it. Decides nothing.

use crate::files;
use rustix::fs::AtFlags;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A time as a file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileTime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds within the second; coarser file systems leave zeros.
    pub nanoseconds: u32,
}

/// The fields that tell whether a file is the one that was hashed.
///
/// ctime is the one that a program cannot set: it catches an edit whose mtime was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStat {
    /// Device of the file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Time of the last change to the content, as far as it is told.
    pub modified: FileTime,
    /// Time of the last change to content or inode.
    pub changed: FileTime,
    /// Type and permission bits.
    pub mode: u32,
}

impl FileStat {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let time = |seconds, nanoseconds: i64| FileTime { seconds, nanoseconds: nanoseconds as u32 };
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }

    /// The stat of what `path` leads to.
    pub fn following(path: &Path) -> io::Result<Self> {
        fs_err::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// The stat of what `path` is, or with `AtFlags::empty()` leads to, seen from the folder `from`.
    pub(crate) fn at(from: BorrowedFd<'_>, path: &str, flags: AtFlags) -> io::Result<Self> {
        let found = rustix::fs::statat(from, path, flags)?;
        // The widths of these fields differ from system to system.
        let time = |seconds, nanoseconds| FileTime { seconds, nanoseconds };
        Ok(Self {
            device: found.st_dev as u64,
            inode: found.st_ino as u64,
            size: found.st_size as u64,
            modified: time(found.st_mtime as i64, found.st_mtime_nsec as u32),
            changed: time(found.st_ctime as i64, found.st_ctime_nsec as u32),
            mode: found.st_mode as u32,
        })
    }

    /// Whether the file is read-only and nobody wrote to it since the cache sealed it.
    pub fn is_sealed(&self) -> bool {
        self.mode & 0o222 == 0 && files::is_seal(self.modified.nanoseconds)
    }

    /// Whether a file of the cache that had the stat `before` is still what it was. Whoever gives it another name, as
    /// another stage may at any time, changes its ctime; who syncs it seals it anew, which changes its mtime too.
    pub fn is_still(&self, before: &Self) -> bool {
        let modified = if self.is_sealed() { before.modified } else { self.modified };
        Self { changed: before.changed, modified, ..*self } == *before
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & TYPE_BITS == 0o100_000
    }

    /// The kind of entry in words, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.mode & TYPE_BITS {
            0o100_000 => "file",
            0o040_000 => "folder",
            0o120_000 => "symbolic link",
            0o010_000 => "named pipe",
            0o140_000 => "socket",
            0o020_000 | 0o060_000 => "device",
            _ => "special file",
        }
    }
}

const TYPE_BITS: u32 = 0o170_000;

/// The kind of entry in words, for messages.
pub(crate) fn kind_of(file_type: std::fs::FileType) -> &'static str {
    match file_type {
        kind if kind.is_file() => "file",
        kind if kind.is_dir() => "folder",
        kind if kind.is_symlink() => "symbolic link",
        kind if kind.is_fifo() => "named pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn another_name_and_another_seal_leave_a_file_what_it_was_and_a_write_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("object");
        let seal = || files::seal(&fs_err::File::open(&path).unwrap(), false).unwrap();
        fs::write(&path, "voxels").unwrap();
        seal();
        let before = FileStat::following(&path).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::hard_link(&path, dir.path().join("name")).unwrap();
        let linked = FileStat::following(&path).unwrap();
        assert_ne!(linked, before);
        assert!(linked.is_still(&before));
        files::sync_sealed(&fs_err::File::open(&path).unwrap()).unwrap();
        assert!(FileStat::following(&path).unwrap().is_still(&before));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(&path, "vowels").unwrap();
        assert!(!FileStat::following(&path).unwrap().is_still(&before));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        assert!(!FileStat::following(&path).unwrap().is_still(&before), "written to since it was sealed");
    }
}
