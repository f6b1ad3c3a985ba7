//! Compressed pixels: run-length (PS3.5, annex G) and JPEG. Writes no more than the image has.

use jpeg_decoder::{Decoder, PixelFormat};

use super::fault::Fault;

/// The size of the image that must come out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) cell_bytes: u16,
}

impl Frame {
    fn pixels(self) -> usize {
        usize::from(self.rows) * usize::from(self.columns)
    }
}

/// Segments of PackBits, one a byte of the cell, the most significant first; gives little-endian cells.
pub(super) fn run_length(packed: &[u8], frame: Frame) -> Result<Vec<u8>, Fault> {
    let damaged = |text: String| Fault::Codec { codec: "run-length", text };
    let word = |index: usize| {
        let bytes = packed.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let cell_bytes = usize::from(frame.cell_bytes);
    let segments = word(0).ok_or_else(|| damaged("the header is cut off".into()))?;
    if segments != cell_bytes {
        return Err(damaged(format!("{segments} segments, expected {cell_bytes}")));
    }
    let mut cells = vec![0; frame.pixels() * cell_bytes];
    for segment in 0..segments {
        let start = word(1 + segment).filter(|&start| start >= 64);
        let end = if segment + 1 < segments { word(2 + segment) } else { Some(packed.len()) };
        let bytes = start.zip(end).and_then(|(start, end)| packed.get(start..end));
        let bytes = bytes.ok_or_else(|| damaged(format!("segment {segment} lies outside of the data")))?;
        let plane = cells.iter_mut().skip(cell_bytes - 1 - segment).step_by(cell_bytes);
        if let Some(missing) = unpack(bytes, plane) {
            return Err(damaged(format!("segment {segment} ends {missing} pixels early")));
        }
    }
    Ok(cells)
}

/// Fills `plane` and tells how many pixels were missing, if any; what follows the last pixel is padding.
fn unpack<'a>(bytes: &[u8], mut plane: impl ExactSizeIterator<Item = &'a mut u8>) -> Option<usize> {
    let mut rest = bytes;
    while plane.len() > 0 {
        let Some((&control, after)) = rest.split_first() else { return Some(plane.len()) };
        rest = after;
        match control {
            0..=127 => {
                let count = usize::from(control) + 1;
                let Some((literal, after)) = rest.split_at_checked(count) else { return Some(plane.len()) };
                rest = after;
                // The literal first: the other order would lose a pixel when it ends.
                literal.iter().zip(plane.by_ref()).for_each(|(&byte, cell)| *cell = byte);
            }
            128 => {}
            129..=255 => {
                let Some((&byte, after)) = rest.split_first() else { return Some(plane.len()) };
                rest = after;
                plane.by_ref().take(257 - usize::from(control)).for_each(|cell| *cell = byte);
            }
        }
    }
    None
}

/// Baseline, extended and lossless JPEG; gives little-endian cells.
pub(super) fn jpeg(packed: &[u8], frame: Frame) -> Result<Vec<u8>, Fault> {
    let damaged = |text: String| Fault::Codec { codec: "JPEG", text };
    let mut decoder = Decoder::new(packed);
    decoder.set_max_decoding_buffer_size(frame.pixels() * 8);
    decoder.read_info().map_err(|error| damaged(error.to_string()))?;
    let info = decoder.info().ok_or_else(|| damaged("it has no frame".into()))?;
    if (info.height, info.width) != (frame.rows, frame.columns) {
        let text = format!("it is {}×{}, expected {}×{}", info.height, info.width, frame.rows, frame.columns);
        return Err(damaged(text));
    }
    let bytes = match info.pixel_format {
        PixelFormat::L8 => 1,
        PixelFormat::L16 => 2,
        other => return Err(damaged(format!("it is {other:?}, expected one grey channel"))),
    };
    let decoded = decoder.decode().map_err(|error| damaged(error.to_string()))?;
    if decoded.len() != frame.pixels() * bytes {
        return Err(damaged(format!(
            "{} bytes came out, expected {}",
            decoded.len(),
            frame.pixels() * bytes
        )));
    }
    let cell_bytes = usize::from(frame.cell_bytes);
    if bytes > cell_bytes {
        return Err(damaged(format!("it has cells of {bytes} bytes, expected {cell_bytes}")));
    }
    // The decoder gives 16-bit cells in the order of the machine.
    let mut cells = vec![0; frame.pixels() * cell_bytes];
    for (cell, pixel) in cells.chunks_exact_mut(cell_bytes).zip(decoded.chunks_exact(bytes)) {
        let value = if bytes == 1 { u16::from(pixel[0]) } else { u16::from_ne_bytes([pixel[0], pixel[1]]) };
        cell[..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
    Ok(cells)
}
