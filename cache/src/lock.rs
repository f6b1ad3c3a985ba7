//! Claims: at most one process at a time does the work of one key.
//!
//! A claim is an advisory lock of the kernel, so it ends with its process, `kill -9` included, and
//! leaves nothing behind. It saves work and is not what makes the cache right: where locks do not
//! reach across hosts (some NFS mounts), two hosts do the same work and the first record wins.

use crate::digest::Digest;
use crate::error::{CacheError, Doing};
use crate::layout::Layout;
use crate::manifest::ActionKey;
use fs_err::File;
use std::io;

const ACTION: &str = "claim a stage";

/// A held claim; dropping it ends it.
#[derive(Debug)]
#[must_use = "dropping a claim ends it"]
pub struct Claim {
    // Locks belong to the open file, so each claim has its own, also within one process.
    _file: File,
}

/// Waits for the claim on `key`.
pub fn claim(layout: &Layout, key: &ActionKey) -> Result<Claim, CacheError> {
    wait_for(layout, &key.0).doing(ACTION)
}

/// Takes the claim on `key`; `None` while another process or thread holds it.
pub fn try_claim(layout: &Layout, key: &ActionKey) -> Result<Option<Claim>, CacheError> {
    let file = open(layout, &key.0).doing(ACTION)?;
    let locked = try_lock(&file, &key.0).doing(ACTION)?;
    Ok(locked.then_some(Claim { _file: file }))
}

/// The other process that holds the claim on `key`, where the system tells it.
pub fn holder(layout: &Layout, key: &ActionKey) -> Option<u32> {
    system::holder(&key.0, &layout.claims(&key.0))
}

/// Waits for the claim on what `digest` names.
pub(crate) fn wait_for(layout: &Layout, digest: &Digest) -> io::Result<Claim> {
    let file = open(layout, digest)?;
    lock(&file, digest)?;
    Ok(Claim { _file: file })
}

fn open(layout: &Layout, digest: &Digest) -> io::Result<File> {
    fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(layout.claims(digest))
}

use system::{lock, try_lock};

/// One byte of an empty file is locked, at the place that the first 62 bits of the digest name. Two
/// keys in 10¹⁸ share one, and would wait for each other.
#[cfg(target_os = "linux")]
mod system {
    use super::{Digest, File};
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc::{F_WRLCK, SEEK_SET, flock};
    use std::fs;
    use std::io;
    use std::path::Path;

    /// Such locks have no owner for `fcntl`, but the descriptors of a process tell theirs:
    /// `lock:  1: OFDLCK ADVISORY  WRITE -1 00:2f:77 START END`.
    pub(super) fn holder(digest: &Digest, path: &Path) -> Option<u32> {
        let name = path.file_name()?;
        let start = byte(digest).l_start.to_string();
        let holds = |text: &str| {
            let mut locks = text.lines().filter(|line| line.starts_with("lock:") && line.contains("OFDLCK"));
            locks.any(|line| line.split_whitespace().nth_back(1) == Some(&start))
        };
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        processes.find(|process| {
            let open = |fd: &fs::DirEntry| {
                fs::read_link(fd.path()).is_ok_and(|file| file.file_name() == Some(name))
                    && fs::read_to_string(format!("/proc/{process}/fdinfo/{}", fd.file_name().display()))
                        .is_ok_and(|text| holds(&text))
            };
            *process != std::process::id()
                && fs::read_dir(format!("/proc/{process}/fd"))
                    .is_ok_and(|descriptors| descriptors.flatten().any(|fd| open(&fd)))
        })
    }

    pub(super) fn lock(file: &File, digest: &Digest) -> io::Result<()> {
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLKW(&byte(digest))) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn try_lock(file: &File, digest: &Digest) -> io::Result<bool> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(digest))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn byte(digest: &Digest) -> flock {
        let (first, _) = digest.0.split_first_chunk::<8>().expect("a digest has 32 bytes");
        flock {
            l_type: F_WRLCK as i16,
            l_whence: SEEK_SET as i16,
            l_start: (u64::from_le_bytes(*first) >> 2) as i64,
            l_len: 1,
            l_pid: 0,
        }
    }
}

/// Without locks of single bytes the whole file is locked: keys whose digests begin alike wait for
/// each other, see [`Layout::claims`].
#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Digest, File};
    use std::fs::TryLockError;
    use std::io;
    use std::path::Path;

    pub(super) fn holder(_digest: &Digest, _path: &Path) -> Option<u32> {
        None
    }

    pub(super) fn lock(file: &File, _digest: &Digest) -> io::Result<()> {
        file.lock()
    }

    pub(super) fn try_lock(file: &File, _digest: &Digest) -> io::Result<bool> {
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
