//! One picture of many cases: a slice each, with the contours of its labels.

use crate::error::StageError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipe_imaging::{Image, LabelMap};
use std::fmt::Write as _;

/// Side of the square that a case gets, in pixels.
pub(crate) const TILE: usize = 128;
const COLUMNS: usize = 6;
const LEGEND: usize = 22;
/// Contour colours of the label values, in turn.
const PALETTE: [[u8; 3]; 6] =
    [[255, 82, 82], [64, 196, 255], [255, 214, 0], [105, 240, 174], [224, 64, 251], [255, 145, 0]];

pub(super) const TILE_FILE: &str = "tile.rgb";

/// A case in the picture.
pub(super) struct Caption<'a> {
    pub(super) case: &'a str,
    pub(super) outlier: bool,
}

/// Draws the axial slice with the most foreground (the middle one without): anterior up, the patient's right on
/// the left, lengths in proportion to millimetres, `window` from black to white. RGB, row by row.
pub(crate) fn tile(image: &Image, label: Option<&LabelMap>, window: [f64; 2]) -> Vec<u8> {
    let upright = image.geometry().orientation().to_ras();
    let image = upright.apply(image);
    let label = label.map(|label| upright.apply(label));
    let [depth, height, width] = image.shape().0;
    let [_, row_mm, column_mm] = image.geometry().spacing_mm();
    let slice = label.as_ref().and_then(fullest_slice).unwrap_or(depth / 2);
    let pixels_per_mm = TILE as f64 / (height as f64 * row_mm).max(width as f64 * column_mm);
    let plane = slice * height * width;
    // The voxel under a pixel; both axes run against the picture's.
    let at = |row: usize, column: usize| {
        let voxel = |pixel: usize, mm: f64, size: usize| {
            let shown = size as f64 * mm * pixels_per_mm;
            let place = (pixel as f64 + 0.5 - (TILE as f64 - shown) / 2.0) / (mm * pixels_per_mm);
            (0.0..size as f64).contains(&place).then(|| size - 1 - (place as usize).min(size - 1))
        };
        Some(plane + voxel(row, row_mm, height)? * width + voxel(column, column_mm, width)?)
    };
    let value =
        |row, column| at(row, column).zip(label.as_ref()).map_or(0, |(voxel, label)| label.as_slice()[voxel]);
    let mut pixels = Vec::with_capacity(TILE * TILE * 3);
    for row in 0..TILE {
        for column in 0..TILE {
            let here = value(row, column);
            let neighbours = [value((row + 1).min(TILE - 1), column), value(row, (column + 1).min(TILE - 1))];
            let edge = neighbours.into_iter().find(|other| *other != here).map(|other| here.max(other));
            pixels.extend(match (edge, at(row, column)) {
                (Some(label), _) => colour(label),
                (None, Some(voxel)) => [grey(f64::from(image.channel(0)[voxel]), window); 3],
                (None, None) => [0; 3],
            });
        }
    }
    pixels
}

fn fullest_slice(label: &LabelMap) -> Option<usize> {
    let [_, height, width] = label.shape().0;
    let counts = label
        .as_slice()
        .chunks(height * width)
        .map(|plane| plane.iter().filter(|value| **value != 0).count());
    let (slice, count) =
        counts.enumerate().max_by_key(|(slice, count)| (*count, std::cmp::Reverse(*slice)))?;
    (count > 0).then_some(slice)
}

fn grey(value: f64, [black, white]: [f64; 2]) -> u8 {
    if white <= black {
        return 128;
    }
    ((value - black) / (white - black) * 255.0).clamp(0.0, 255.0) as u8
}

fn colour(label: u8) -> [u8; 3] {
    PALETTE[usize::from(label).wrapping_sub(1) % PALETTE.len()]
}

/// Joins tiles into one SVG file with captions and a legend of the labels. `tiles` belong to `captions`.
pub(super) fn draw(
    captions: &[Caption<'_>],
    tiles: &[Vec<u8>],
    labels: &[(u8, &str)],
) -> Result<String, StageError> {
    let rows = tiles.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS * TILE, rows * TILE);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{0}\" viewBox=\"0 0 {width} {0}\" \
         font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"black\"/>\n",
        height + LEGEND
    );
    if rows > 0 {
        let picture = STANDARD.encode(png(&mosaic(tiles, rows), width, height)?);
        let _ = writeln!(
            svg,
            "<image width=\"{width}\" height=\"{height}\" href=\"data:image/png;base64,{picture}\"/>"
        );
    }
    for (index, caption) in captions.iter().enumerate() {
        let (x, y) = (index % COLUMNS * TILE + 4, index / COLUMNS * TILE + 12);
        let fill = if caption.outlier { "orange" } else { "white" };
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"10\" fill=\"{fill}\">{}</text>",
            short(caption.case)
        );
    }
    for (index, (value, name)) in labels.iter().enumerate() {
        let [r, g, b] = colour(*value);
        let (x, y) = (4 + index * TILE, height + LEGEND - 7);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"12\" fill=\"rgb({r},{g},{b})\">{value} {}</text>",
            short(name)
        );
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn mosaic(tiles: &[Vec<u8>], rows: usize) -> Vec<u8> {
    let mut pixels = vec![0; rows * TILE * COLUMNS * TILE * 3];
    for (index, tile) in tiles.iter().enumerate() {
        let (top, left) = (index / COLUMNS * TILE, index % COLUMNS * TILE);
        for (row, line) in tile.chunks_exact(TILE * 3).enumerate() {
            let start = ((top + row) * COLUMNS * TILE + left) * 3;
            pixels[start..start + line.len()].copy_from_slice(line);
        }
    }
    pixels
}

/// A PNG file of RGB pixels.
pub(crate) fn png(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>, StageError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.map_err(StageError::inner("drawing the lightbox"))?;
    Ok(bytes)
}

/// At most 20 characters, safe inside XML.
fn short(text: &str) -> String {
    let mut safe = String::new();
    for (index, character) in text.chars().enumerate() {
        match character {
            _ if index == 20 => {
                safe.push('…');
                break;
            }
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            character if character.is_control() => safe.push(' '),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_imaging::{Affine, Geometry};

    fn pixel(tile: &[u8], row: usize, column: usize) -> [u8; 3] {
        let start = (row * TILE + column) * 3;
        [tile[start], tile[start + 1], tile[start + 2]]
    }

    /// Left-to-right and back-to-front brightness of one plane of 2×2 voxels.
    fn plane(affine: Affine) -> Vec<u8> {
        let image = Image::from_vec(vec![0.0, 1.0, 2.0, 3.0], 1, Geometry::new([1, 2, 2], affine));
        tile(&image.expect("four voxels"), None, [0.0, 3.0])
    }

    #[test]
    fn anterior_is_up_and_the_patients_right_on_the_left() {
        let tile = plane(Affine::IDENTITY);
        // RAS: the second row is anterior, the second column is right.
        assert_eq!(pixel(&tile, 10, 10), [255; 3]);
        assert_eq!(pixel(&tile, 10, 100), [170; 3]);
        assert_eq!(pixel(&tile, 100, 10), [85; 3]);
        assert_eq!(pixel(&tile, 100, 100), [0; 3]);
    }

    #[test]
    fn a_picture_is_drawn_as_it_is_stored() {
        // Red falls from left to right and from top to bottom.
        let stored: Vec<u8> = [250, 200, 100, 0].into_iter().flat_map(|red| [red, 7, 7]).collect();
        let file = png(&stored, 2, 2).expect("a PNG file");
        let (_, image) = pipe_imaging::raster::decode_image(&file, 100).expect("a picture");
        let tile = tile(&image, None, [0.0, 255.0]);
        let corners = [(10, 10), (10, 100), (100, 10), (100, 100)].map(|(y, x)| pixel(&tile, y, x)[0]);
        assert_eq!(corners, [250, 200, 100, 0]);
    }

    #[test]
    fn a_flipped_file_looks_the_same() {
        let mut flipped = Affine::IDENTITY;
        (flipped.0[0][0], flipped.0[1][1]) = (-1.0, -1.0);
        let tile = plane(flipped);
        assert_eq!(pixel(&tile, 10, 10), [0; 3]);
        assert_eq!(pixel(&tile, 100, 100), [255; 3]);
    }

    #[test]
    fn lengths_are_in_proportion_to_millimetres() {
        let tile = plane(Affine::from_spacing([1.0, 1.0, 2.0]));
        // Twice as wide as high: rows above a quarter of the tile are empty.
        assert_eq!(pixel(&tile, 20, 10), [0; 3]);
        assert_eq!(pixel(&tile, 40, 10), [255; 3]);
    }

    #[test]
    fn contours_lie_on_the_border_of_a_label() {
        let geometry = Geometry::with_spacing([1, 4, 4], [1.0; 3]);
        let image = Image::from_vec(vec![0.0; 16], 1, geometry).expect("16 voxels");
        let mut voxels = vec![0; 16];
        voxels[5] = 2;
        let label = LabelMap::from_vec(voxels, geometry).expect("16 voxels");
        let tile = tile(&image, Some(&label), [0.0, 1.0]);
        // Voxel (y 1, x 1) covers rows 64 to 95 and columns 64 to 95.
        assert_eq!(pixel(&tile, 95, 70), colour(2));
        assert_eq!(pixel(&tile, 63, 70), colour(2));
        assert_eq!(pixel(&tile, 80, 80), [0; 3]);
        assert_eq!(pixel(&tile, 20, 20), [0; 3]);
    }

    #[test]
    fn names_cannot_break_the_picture() {
        assert_eq!(short("<a&b>\n"), "&lt;a&amp;b&gt; ");
        assert_eq!(short(&"x".repeat(30)).chars().count(), 21);
    }
}
