//! The bytes of a file, inflated when they are gzip, with a bound on how many there can be.

use std::io::{BufRead, Read};

use flate2::bufread::GzDecoder;

use super::fault::Fault;
use super::header::Header;
use super::raw;
use crate::bounded::{MAX_INFLATION, Short, read_declared};

/// How many bytes of zero padding may follow the last voxel.
const MAX_PADDING: usize = 1 << 20;

/// A NIfTI file being read from its start.
pub(super) struct Source<R> {
    bytes: Bytes<R>,
    /// Bytes on disk.
    stored: u64,
    /// Bytes handed out so far.
    consumed: u64,
}

/// Plain bytes, or the members of a gzip file one after the other.
enum Bytes<R> {
    Plain(R),
    Gzip(Box<GzDecoder<R>>),
    End,
}

impl<R: BufRead> Source<R> {
    /// Tells gzip from plain by the first two bytes, not by the file's name.
    pub(super) fn new(mut reader: R, stored: u64) -> Result<Self, Fault> {
        let gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let bytes = if gzip { Bytes::Gzip(Box::new(GzDecoder::new(reader))) } else { Bytes::Plain(reader) };
        Ok(Self { bytes, stored, consumed: 0 })
    }

    /// Reads and checks the header, including that the file can hold what it declares.
    pub(super) fn header(&mut self, max_voxels: usize) -> Result<Header, Fault> {
        let mut bytes = [0_u8; 540];
        let found = self.fill(&mut bytes[..4])?;
        let version = if found == 4 { raw::version([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { None };
        let size = version.map_or(348, |(version, _)| version.header_bytes());
        let found = found + self.fill(&mut bytes[found..size])?;
        if found < size {
            return Err(Fault::NoHeader { found, size });
        }
        let header = Header::parse(&bytes[..size], version, max_voxels)?;
        let declared = header.data_offset + header.data_bytes as u64;
        let possible = match self.bytes {
            Bytes::Plain(_) => self.stored,
            Bytes::Gzip(_) | Bytes::End => self.stored.saturating_mul(MAX_INFLATION),
        };
        if declared > possible {
            return Err(Fault::Implausible { declared, stored: self.stored });
        }
        Ok(header)
    }

    /// Reads the voxels that `header` declares and makes sure that nothing but padding follows.
    pub(super) fn voxel_bytes(&mut self, header: &Header) -> Result<Vec<u8>, Fault> {
        let declared = header.data_bytes;
        self.skip_to(header.data_offset, declared)?;
        let voxels = read_declared(&mut Ahead(self), declared).map_err(|short| match short {
            Short::End { found } => Fault::Truncated { declared, found },
            Short::Memory => Fault::Memory { bytes: declared },
            Short::Io(error) => unwrapped(error),
        })?;
        // Reading on to the end also verifies the checksum of the last gzip member.
        let mut padding = 0;
        let mut chunk = [0_u8; 512];
        loop {
            let n = self.fill(&mut chunk)?;
            padding += n;
            if chunk[..n].iter().any(|&b| b != 0) || padding > MAX_PADDING {
                return Err(Fault::Trailing { declared });
            }
            if n < chunk.len() {
                return Ok(voxels);
            }
        }
    }

    fn skip_to(&mut self, offset: u64, declared: usize) -> Result<(), Fault> {
        let mut chunk = [0_u8; 512];
        while self.consumed < offset {
            let want = chunk.len().min((offset - self.consumed) as usize);
            if self.fill(&mut chunk[..want])? < want {
                return Err(Fault::Truncated { declared, found: 0 });
            }
        }
        Ok(())
    }

    /// Fills `buffer` as far as the data go and returns how many bytes there were.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            let n = match &mut self.bytes {
                Bytes::Plain(reader) => retry(|| reader.read(&mut buffer[filled..])).map_err(Fault::Io)?,
                Bytes::Gzip(member) => retry(|| member.read(&mut buffer[filled..])).map_err(Fault::Gzip)?,
                Bytes::End => break,
            };
            if n == 0 && !self.next_member()? {
                break;
            }
            filled += n;
        }
        self.consumed += filled as u64;
        Ok(filled)
    }

    /// Moves on to the next gzip member, or ends: at the end of the file, or at zero padding behind a member.
    fn next_member(&mut self) -> Result<bool, Fault> {
        let Bytes::Gzip(member) = std::mem::replace(&mut self.bytes, Bytes::End) else {
            return Ok(false);
        };
        let mut reader = member.into_inner();
        let ahead = reader.fill_buf()?;
        match ahead.first() {
            None | Some(0) => Ok(false),
            Some(_) => {
                self.bytes = Bytes::Gzip(Box::new(GzDecoder::new(reader)));
                Ok(true)
            }
        }
    }
}

/// A source as a reader; the fault travels inside of the error.
struct Ahead<'a, R>(&'a mut Source<R>);

impl<R: BufRead> Read for Ahead<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.fill(buffer).map_err(std::io::Error::other)
    }
}

/// The fault that [`Ahead`] wrapped.
fn unwrapped(error: std::io::Error) -> Fault {
    error.downcast::<Fault>().unwrap_or_else(Fault::Io)
}

fn retry(mut read: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
