//! Reads as many bytes as a file declares, and takes memory only for those that are really there.

use std::io::{ErrorKind, Read};

/// Bytes allocated before the first has been read; doubled from there.
const FIRST_ALLOCATION: usize = 1 << 24;

/// DEFLATE cannot expand a byte to more than 1032 (RFC 1951: a 258-byte match in two bits); its wrappers add a few.
pub(crate) const MAX_INFLATION: u64 = 1040;

/// Why the declared bytes did not come.
#[derive(Debug)]
pub(crate) enum Short {
    /// The data end after this many bytes.
    End { found: usize },
    /// The allocator refused.
    Memory,
    /// The reader failed.
    Io(std::io::Error),
}

/// Reads exactly `declared` bytes.
pub(crate) fn read_declared(reader: &mut impl Read, declared: usize) -> Result<Vec<u8>, Short> {
    let mut bytes = Vec::new();
    while bytes.len() < declared {
        let start = bytes.len();
        let step = (declared - start).min(start.max(FIRST_ALLOCATION));
        bytes.try_reserve_exact(step).map_err(|_| Short::Memory)?;
        bytes.resize(start + step, 0);
        let found = start + fill(reader, &mut bytes[start..]).map_err(Short::Io)?;
        if found < bytes.len() {
            return Err(Short::End { found });
        }
    }
    Ok(bytes)
}

/// Fills `buffer` as far as the data go and returns how many bytes there were.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
