//! Writing files so that a reader, a second writer or a crash never sees half of one.
//!
//! Many processes and hosts may write the same name: each writes its own temporary file with a
//! random name and moves it to the name without replacing. Nothing here takes a lock.
//!
//! Nothing is synced as it is written: what a power cut takes or tears is seen by its checksum, its
//! size or its seal, and is made again. Work that took long is synced once, when it is whole.

use crate::layout::Layout;
use fs_err::File;
use fs_err::os::unix::fs::OpenOptionsExt;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::{NamedTempFile, TempPath};

/// A new empty file in `tmp/`, removed when dropped. 22 random letters and digits are 130 bits:
/// hosts that share the folder may not even have different names.
pub(crate) fn temporary(layout: &Layout) -> io::Result<NamedTempFile<File>> {
    tempfile::Builder::new().prefix("").rand_bytes(22).make_in(layout.temporary(), |path| {
        fs_err::OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(path)
    })
}

/// Writes a whole file under a name that must not exist; `false` when somebody else was first.
pub(crate) fn write_new(layout: &Layout, path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let file = written(layout, bytes)?.into_temp_path();
    let won = move_new(&file, path)?;
    if won {
        moved(file);
    }
    Ok(won)
}

/// Writes a whole file in place of what is there.
pub(crate) fn replace(layout: &Layout, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = written(layout, bytes)?.into_temp_path();
    match fs_err::rename(&file, path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_parent(path)?;
            fs_err::rename(&file, path)?;
        }
        result => result?,
    }
    moved(file);
    Ok(())
}

fn written(layout: &Layout, bytes: &[u8]) -> io::Result<NamedTempFile<File>> {
    let mut file = temporary(layout)?;
    file.as_file_mut().write_all(bytes)?;
    Ok(file)
}

/// The file has another name now: there is nothing left to remove.
pub(crate) fn moved(file: TempPath) {
    // Only Windows can fail to keep a file.
    let _ = file.keep();
}

/// Moves a file to the name `path` without replacing; `false`, and it stays, when the name is taken.
pub(crate) fn move_new(source: &Path, path: &Path) -> io::Result<bool> {
    let renamed = match rename_new(source, path) {
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => {
            create_parent(path)?;
            rename_new(source, path)
        }
        result => result,
    };
    match renamed {
        Some(Ok(())) => Ok(true),
        Some(Err(error)) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Some(Err(error)) => Err(error),
        None => {
            let linked = link_new(source, path)?;
            if linked {
                remove_if_there(source)?;
            }
            Ok(linked)
        }
    }
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// One call that renames without replacing; `None` where the system or the file system has none.
#[cfg(target_os = "linux")]
fn rename_new(source: &Path, path: &Path) -> Option<io::Result<()>> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, source, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => None,
        result => Some(result.map_err(io::Error::from)),
    }
}

/// One call that renames without replacing; `None` where the system or the file system has none.
#[cfg(not(target_os = "linux"))]
fn rename_new(_source: &Path, _path: &Path) -> Option<io::Result<()>> {
    None
}

/// Links `source` to the name `path` without replacing; `false` when the name is taken.
///
/// Over NFS the answer to a link that worked may be lost and its repetition refused, so an error
/// counts only if the name does not lead to our own inode. Where the file system has no hard
/// links, the file is renamed, which can replace an equal file written at the same moment.
pub(crate) fn link_new(source: &Path, path: &Path) -> io::Result<bool> {
    let link = || fs_err::hard_link(source, path);
    let result = match link() {
        Err(error) if error.kind() == ErrorKind::NotFound => create_parent(path).and_then(|()| link()),
        result => result,
    };
    let Err(error) = result else { return Ok(true) };
    if same_inode(source, path) {
        return Ok(true);
    }
    match error.kind() {
        ErrorKind::AlreadyExists => Ok(false),
        ErrorKind::PermissionDenied | ErrorKind::Unsupported | ErrorKind::TooManyLinks => {
            if fs_err::symlink_metadata(path).is_ok() {
                return Ok(false);
            }
            fs_err::rename(source, path).map(|()| true)
        }
        _ => Err(error),
    }
}

/// Whether both names lead to one inode.
pub(crate) fn same_inode(one: &Path, other: &Path) -> bool {
    let inode = |path| fs_err::symlink_metadata(path).map(|stat| (stat.dev(), stat.ino())).ok();
    inode(one).is_some_and(|one| inode(other) == Some(one))
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs_err::create_dir_all)
}

/// The nanoseconds in the mtime of a sealed file that was synced. Any write replaces them.
const DURABLE_NANOSECONDS: u32 = 271_828_000;
/// Those of a sealed file that was not: worth nothing after the system has started again, as a power
/// cut may have torn it.
const WRITTEN_NANOSECONDS: u32 = 314_159_000;

/// Makes a file read-only and marks it untouched, by an mtime with a fixed fraction of a second.
///
/// Hard links to one object stand in several places, and whoever may write through one of them
/// (root, or the owner after `chmod`) changes all. The write changes the mtime, so one stat tells:
/// see [`is_sealed`]. On a file system with coarser times no file is ever sealed, and what is
/// checked by the seal is hashed instead.
pub(crate) fn seal(file: &File, executable: bool) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
    set_seal(file, WRITTEN_NANOSECONDS)
}

/// Syncs a sealed file, and seals it so that it counts after a restart of the system too.
pub(crate) fn sync_sealed(file: &File) -> io::Result<()> {
    file.sync_all()?;
    set_seal(file, DURABLE_NANOSECONDS)
}

/// Breaks the seal of a file that is not what it was taken for, under all its names.
pub(crate) fn break_seal(file: &File) -> io::Result<()> {
    set_seal(file, 0)
}

fn set_seal(file: &File, nanoseconds: u32) -> io::Result<()> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    file.set_times(FileTimes::new().set_modified(time))
}

/// Whether the nanoseconds of an mtime are those of a seal.
pub(crate) fn is_seal(nanoseconds: u32) -> bool {
    [DURABLE_NANOSECONDS, WRITTEN_NANOSECONDS].contains(&nanoseconds)
}

/// Whether a file is read-only, has not been written since it was sealed, and cannot have been torn
/// by a power cut since.
pub(crate) fn is_sealed(metadata: &Metadata) -> bool {
    let seal = u32::try_from(metadata.mtime_nsec()).unwrap_or_default();
    metadata.mode() & 0o222 == 0
        && (seal == DURABLE_NANOSECONDS || seal == WRITTEN_NANOSECONDS && metadata.mtime() >= system_start())
}

/// When the system started, in seconds since 1970; the far future where it does not tell.
fn system_start() -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    *START.get_or_init(|| {
        let up = std::fs::read_to_string("/proc/uptime").ok();
        let up = up.as_deref().and_then(|text| text.split(['.', ' ']).next()?.parse::<i64>().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        up.map_or(i64::MAX, |up| now as i64 - up)
    })
}

/// Files below this size are copied rather than linked where a user will see them: a copy costs
/// nothing, and an edit of it cannot reach the object.
pub(crate) const LINK_SIZE: u64 = 64 * 1024;

/// Gives a file a second place, as cheaply as the file systems at hand allow.
///
/// Remembers what did not work, so that it is tried once.
#[derive(Debug, Default)]
pub(crate) struct Placer {
    no_reflink: AtomicBool,
    no_link: AtomicBool,
}

impl Placer {
    /// Creates `path`, which must not exist, with the content of the sealed file `source`:
    /// reflink, else hard link, else copy. Read-only in any case. An executable file is never a
    /// hard link, for the mode belongs to the inode.
    pub(crate) fn place(&self, source: &Path, path: &Path, executable: bool) -> io::Result<()> {
        if !self.no_reflink.load(Ordering::Relaxed) {
            if reflink(source, path)? {
                return seal(&File::open(path)?, executable);
            }
            self.no_reflink.store(true, Ordering::Relaxed);
        }
        if !executable && !self.no_link.load(Ordering::Relaxed) {
            match fs_err::hard_link(source, path) {
                Ok(()) => return Ok(()),
                Err(error) => match error.kind() {
                    // This object alone has all the links that the file system allows.
                    ErrorKind::TooManyLinks => {}
                    ErrorKind::CrossesDevices | ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
                        self.no_link.store(true, Ordering::Relaxed);
                    }
                    _ => return Err(error),
                },
            }
        }
        Self::copy(source, path, executable)
    }

    /// Creates `path` as a sealed copy of `source`.
    pub(crate) fn copy(source: &Path, path: &Path, executable: bool) -> io::Result<()> {
        fs_err::copy(source, path)?;
        seal(&File::open(path)?, executable)
    }
}

/// Creates `path` as a clone that shares the blocks of `source` until one of them is written;
/// `false` where the file systems cannot.
#[cfg(target_os = "linux")]
fn reflink(source: &Path, path: &Path) -> io::Result<bool> {
    let (source, clone) = (File::open(source)?, File::create_new(path)?);
    if rustix::fs::ioctl_ficlone(clone.file(), source.file()).is_ok() {
        return Ok(true);
    }
    fs_err::remove_file(path).map(|()| false)
}

/// Creates `path` as a clone that shares the blocks of `source` until one of them is written;
/// `false` where the file systems cannot.
#[cfg(target_vendor = "apple")]
fn reflink(source: &Path, path: &Path) -> io::Result<bool> {
    let source = File::open(source)?;
    let flags = rustix::fs::CloneFlags::empty();
    Ok(rustix::fs::fclonefileat(source.file(), rustix::fs::CWD, path, flags).is_ok())
}

/// No clone is known on this system.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn reflink(_source: &Path, _path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Removes a folder that may hold read-only folders. Absent is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => return result,
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs_err::set_permissions(&folder, Permissions::from_mode(0o755))?;
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs_err::remove_dir_all(path)
}
