//! Remembers the digest of a file for as long as its stat proves that nobody wrote to it.
//!
//! An entry is *settled*, and stands for the file without reading it, when any later write must
//! change the stat. A write sets ctime to the file system's clock, which ticks every few
//! milliseconds (2 s on FAT), so an entry is settled if
//!
//! - mtime and ctime were before the file system's clock when the hashing began. The clock is read
//!   off a file made in `.pipe`, not from `time()`: a file server has its own. On another device than
//!   that of `.pipe` both must be a day earlier, as the two clocks may differ; or
//! - the same stat was seen at least three seconds before the hashing began.
//!
//! Else the file is hashed again on the next run, once.

use crate::digest::{self, Digest};
use crate::error::{CacheError, Doing, Warning};
use crate::files;
use crate::layout::Layout;
use crate::stat::{FileStat, FileTime};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const ACTION: &str = "use the stat cache";

/// How much of a stat can be believed on the file systems at hand.
///
/// A weaker mode hashes more; none takes an unhashed file for unchanged with less proof. There is no
/// mode without ctime: mtime alone is what a user's program can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatMode {
    /// Device, inode, size, mtime, ctime and mode must be the same.
    #[default]
    Strict,
    /// All but device and inode, which some network file systems make up anew at each mount. ctime
    /// still tells a file put in another's place.
    NoInode,
    /// Nothing is believed: every file is hashed every time.
    Content,
}

/// A hashed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashedFile {
    /// Digest of the content.
    pub digest: Digest,
    /// The stat that it belongs to.
    pub stat: FileStat,
    /// Whether the same stat will prove that the content is the same.
    pub settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    stat: FileStat,
    digest: Digest,
    /// The clock of `.pipe` when this stat was first seen.
    seen: FileTime,
    settled: bool,
}

/// The stat cache of one `.pipe` folder. Shared by threads; processes overwrite each other's whole file,
/// which costs hashing and nothing else.
#[derive(Debug)]
pub struct StatCache {
    layout: Arc<Layout>,
    mode: StatMode,
    entries: Mutex<HashMap<PathBuf, Entry>>,
    changed: AtomicBool,
    clock: Mutex<Option<(Clock, Instant)>>,
}

/// A clock difference between two machines that nobody leaves standing.
const FOREIGN_CLOCK_SECONDS: i64 = 24 * 60 * 60;
/// Longer than the coarsest tick of a file system, 2 s.
const TICK_SECONDS: i64 = 3;

/// The clock of the file system of `.pipe`.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: FileTime,
    device: u64,
}

impl StatCache {
    /// Reads the cache; a damaged file is an empty cache and a warning.
    pub fn load(layout: Arc<Layout>, mode: StatMode) -> (Self, Option<Warning>) {
        let path = layout.stat();
        let (entries, warning) = match std::fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Some(entries) => (entries, None),
                None => (HashMap::new(), Some("its checksum does not fit its content".to_owned())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (HashMap::new(), None),
            Err(error) => (HashMap::new(), Some(error.to_string())),
        };
        let warning = warning.map(|reason| Warning { path, reason });
        let stats = Self {
            layout,
            mode,
            entries: Mutex::new(entries),
            changed: AtomicBool::new(false),
            clock: Mutex::default(),
        };
        (stats, warning)
    }

    /// Writes the cache if a digest was learnt since it was read or saved.
    pub fn save(&self) -> Result<(), CacheError> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = encode(&self.lock());
        files::replace(&self.layout, &self.layout.stat(), &bytes).doing("save the stat cache")
    }

    /// The digest of one file. Follows symbolic links.
    pub fn digest_file(&self, path: &Path) -> Result<HashedFile, CacheError> {
        self.digest_files(std::slice::from_ref(&path)).pop().expect("one path gives one result")
    }

    /// The digests of many files, in their order; those not settled are hashed in parallel.
    pub fn digest_files<P: AsRef<Path> + Sync>(&self, paths: &[P]) -> Vec<Result<HashedFile, CacheError>> {
        let results: Vec<_> = paths
            .par_iter()
            .with_min_len(64)
            .map(|path| {
                let path = std::path::absolute(path.as_ref()).doing(ACTION)?;
                let known = self.lock().get(&path).copied();
                let stat = FileStat::following(&path).doing(ACTION)?;
                match known {
                    Some(entry) if entry.settled && self.same(&entry.stat, &stat) => {
                        Ok((HashedFile { digest: entry.digest, stat, settled: true }, None))
                    }
                    _ => Ok((
                        HashedFile { digest: Digest([0; 32]), stat, settled: false },
                        Some((path, known)),
                    )),
                }
            })
            .collect();
        results
            .into_par_iter()
            .map(|result: Result<_, CacheError>| {
                let (settled, unsettled) = result?;
                let Some((path, known)) = unsettled else { return Ok(settled) };
                self.hash(path, known)
            })
            .collect()
    }

    fn hash(&self, path: PathBuf, known: Option<Entry>) -> Result<HashedFile, CacheError> {
        let clock = self.clock();
        let (digest, stat) = digest::hash_stable(&path)?;
        // Without a clock, as in a read-only folder, nothing is ever settled.
        let Some(clock) = clock else { return Ok(HashedFile { digest, stat, settled: false }) };
        let before = known.filter(|entry| self.same(&entry.stat, &stat));
        let seen = before.map_or(clock.now, |entry| entry.seen);
        let settled = clock.is_past(&stat) || seen.seconds + TICK_SECONDS < clock.now.seconds;
        self.insert(path, Entry { stat, digest, seen, settled });
        Ok(HashedFile { digest, stat, settled: settled && self.mode != StatMode::Content })
    }

    /// The stat of a folder, taken before its names are read, and whether the same stat will prove that
    /// the names are the same.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<(FileStat, bool)> {
        let clock = self.clock();
        let stat = FileStat::following(path)?;
        let settled = clock.is_some_and(|clock| clock.is_past(&stat));
        Ok((stat, settled && self.mode != StatMode::Content))
    }

    /// A clock that was read before what is looked at now, at most a second ago: an earlier one settles less.
    fn clock(&self) -> Option<Clock> {
        let mut read = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        match *read {
            Some((clock, when)) if when.elapsed() < Duration::from_secs(1) => Some(clock),
            _ => {
                let clock = self.read_clock().ok()?;
                *read = Some((clock, Instant::now()));
                Some(clock)
            }
        }
    }

    /// [`StatCache::digest_file`] of a file that may just have been written: waits for the moment in which another write
    /// could leave the same stat, so that the file is settled.
    pub fn digest_written(&self, path: &Path) -> Result<HashedFile, CacheError> {
        let stat = FileStat::following(path).doing(ACTION)?;
        // Where the clock cannot be read the file is not settled, and hashed again.
        let _ = self.wait_past(stat.changed);
        self.digest_file(path)
    }

    /// Waits until the file system's clock has passed the given time, and at most a few seconds.
    pub fn wait_past(&self, time: FileTime) -> bool {
        let since = Instant::now();
        loop {
            match self.read_clock() {
                Ok(clock) if time < clock.now => {
                    *self.clock.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some((clock, Instant::now()));
                    return true;
                }
                Ok(_) if since.elapsed() < Duration::from_secs(TICK_SECONDS as u64) => {}
                _ => return false,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn insert(&self, path: PathBuf, entry: Entry) {
        if self.lock().insert(path, entry) != Some(entry) {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    fn same(&self, known: &FileStat, now: &FileStat) -> bool {
        match self.mode {
            StatMode::Strict => known == now,
            StatMode::NoInode => *known == FileStat { device: known.device, inode: known.inode, ..*now },
            StatMode::Content => false,
        }
    }

    /// The file system's own clock: the time that it gives to a file made now.
    fn read_clock(&self) -> std::io::Result<Clock> {
        let file = files::temporary(&self.layout)?;
        let stat = FileStat::of(&file.as_file().metadata()?);
        Ok(Clock { now: stat.modified, device: stat.device })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        // Each change is one insertion, so a panic elsewhere leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// Whether a write from now on must give the file a later ctime than it has.
    fn is_past(&self, stat: &FileStat) -> bool {
        let latest = stat.modified.max(stat.changed);
        if stat.device == self.device {
            return latest < self.now;
        }
        latest.seconds < self.now.seconds - FOREIGN_CLOCK_SECONDS
    }
}

/// `pipe-stat` version, then per entry the fixed fields and the path, then the BLAKE3 hash of it all.
const MAGIC: &[u8] = b"pipe-stat\x01";

fn encode(entries: &HashMap<PathBuf, Entry>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (path, entry) in entries {
        let FileStat { device, inode, size, modified, changed, mode } = entry.stat;
        for field in [device, inode, size] {
            bytes.extend(field.to_le_bytes());
        }
        for time in [modified, changed, entry.seen] {
            bytes.extend(time.seconds.to_le_bytes());
            bytes.extend(time.nanoseconds.to_le_bytes());
        }
        bytes.extend(mode.to_le_bytes());
        bytes.push(entry.settled.into());
        bytes.extend(entry.digest.0);
        let path = path.as_os_str().as_bytes();
        bytes.extend((path.len() as u32).to_le_bytes());
        bytes.extend(path);
    }
    let checksum = Digest::of_bytes(&bytes);
    bytes.extend(checksum.0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<PathBuf, Entry>> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if Digest::of_bytes(body) != Digest(*checksum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut entries = HashMap::new();
    while !rest.is_empty() {
        let [device, inode, size] = [u64_of(&mut rest)?, u64_of(&mut rest)?, u64_of(&mut rest)?];
        let [modified, changed, seen] = [time_of(&mut rest)?, time_of(&mut rest)?, time_of(&mut rest)?];
        let mode = u32::from_le_bytes(take(&mut rest)?);
        let [settled] = take(&mut rest)?;
        let digest = Digest(take(&mut rest)?);
        let path_size = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (path, tail) = rest.split_at_checked(path_size)?;
        rest = tail;
        let stat = FileStat { device, inode, size, modified, changed, mode };
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        entries.insert(path, Entry { stat, digest, seen, settled: settled != 0 });
    }
    Some(entries)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn u64_of(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn time_of(rest: &mut &[u8]) -> Option<FileTime> {
    let seconds = i64::from_le_bytes(take(rest)?);
    Some(FileTime { seconds, nanoseconds: u32::from_le_bytes(take(rest)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_past_only_when_a_later_write_must_differ_from_it() {
        let time = |seconds, nanoseconds| FileTime { seconds, nanoseconds };
        let clock = Clock { now: time(1_000_000, 500), device: 1 };
        let check = |device, modified, changed, expected| {
            let stat = FileStat { device, inode: 1, size: 1, modified, changed, mode: 0o100_644 };
            assert_eq!(clock.is_past(&stat), expected, "{stat:?}");
        };
        let old = time(5, 0);
        check(1, old, time(1_000_000, 499), true);
        check(1, old, time(1_000_000, 500), false);
        check(1, old, time(1_000_000, 501), false);
        // An mtime in the future, as some unpackers leave it.
        check(1, time(2_000_000, 0), old, false);
        check(1, time(-5, 0), old, true);
        // Another device may have another clock.
        check(2, old, time(1_000_000 - 3_600, 0), false);
        check(2, old, time(1_000_000 - 86_400, 0), false);
        check(2, old, time(1_000_000 - 86_401, 0), true);
        check(2, time(1_000_000, 0), old, false);
    }
}
