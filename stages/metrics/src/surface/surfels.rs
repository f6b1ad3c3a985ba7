//! The surface as triangles between voxel centres, gathered at the corners where eight voxels meet.
//!
//! Which of the eight are inside is a code of 256. Marching cubes puts triangles through the middles of the edges
//! between inside and outside; their areas follow from the code and the spacing. Turning, mirroring and inverting the
//! eight voxels turns and mirrors the triangles, so [`SHAPES`] names one code of each family.

use super::Sites;
use crate::grid::{Grid, Mask};

/// A triangle, or several in one plane, by the size of its normal along z, y, x in eighths of a voxel face.
type Normal = [u8; 3];

/// One code of each family that has a surface, with its normals. The bit of the voxel (z, y, x) is 4z + 2y + x.
const SHAPES: [(u8, &[Normal]); 13] = [
    (0b0000_0001, &[[1, 1, 1]]),
    (0b0000_0011, &[[2, 2, 0], [2, 2, 0]]),
    (0b0000_0110, &[[1, 1, 1], [1, 1, 1]]),
    (0b0000_0111, &[[1, 1, 1], [2, 2, 2], [4, 0, 0]]),
    (0b0000_1111, &[[4, 0, 0], [4, 0, 0]]),
    (0b0001_0110, &[[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
    (0b0001_0111, &[[1, 1, 1], [1, 1, 1], [2, 2, 2], [2, 2, 2]]),
    (0b0001_1000, &[[1, 1, 1], [1, 1, 1]]),
    (0b0001_1001, &[[0, 2, 2], [0, 2, 2], [1, 1, 1]]),
    (0b0001_1011, &[[0, 2, 2], [1, 1, 1], [2, 0, 2], [3, 3, 3]]),
    (0b0001_1110, &[[1, 1, 1], [1, 1, 1], [2, 2, 2], [4, 0, 0]]),
    (0b0011_1100, &[[2, 2, 0], [2, 2, 0], [2, 2, 0], [2, 2, 0]]),
    (0b0110_1001, &[[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]),
];

const TURNS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The area in mm² of the triangles at a corner, by its code.
fn areas(spacing_mm: [f64; 3]) -> [f64; 256] {
    let [z, y, x] = spacing_mm;
    let face = [y * x, z * x, z * y];
    let mut areas = [0.0; 256];
    for (code, normals) in SHAPES {
        for turn in TURNS {
            let size = |normal: &Normal| {
                let along = |axis: usize| f64::from(normal[turn[axis]]) / 8.0 * face[axis];
                (0..3).map(|axis| along(axis).powi(2)).sum::<f64>().sqrt()
            };
            let area = normals.iter().map(size).sum();
            for mirror in 0..8 {
                let code = turned(code, turn, mirror);
                areas[usize::from(code)] = area;
                areas[usize::from(!code)] = area;
            }
        }
    }
    areas
}

/// The code after its axes are exchanged (axis `a` of the result is axis `turn[a]`) and mirrored (bits z, y, x).
fn turned(code: u8, turn: [usize; 3], mirror: u8) -> u8 {
    let bit = |place: u8, axis: usize| place >> (2 - axis) & 1;
    let inside = (0..8_u8).filter(|place| code >> place & 1 == 1);
    let moved = inside.map(|place| {
        let at = (0..3).fold(0, |at, axis| at << 1 | bit(place, turn[axis]));
        1 << (at ^ mirror)
    });
    moved.fold(0, |code, bit: u8| code | bit)
}

/// The length in mm of the contour at a corner of four voxels, by its code (bit 2y + x).
fn lengths(spacing_mm: [f64; 3]) -> [f64; 16] {
    let [_, y, x] = spacing_mm;
    let corner = y.hypot(x) / 2.0;
    std::array::from_fn(|code| match code {
        0b0000 | 0b1111 => 0.0,
        0b0011 | 0b1100 => x,
        0b0101 | 0b1010 => y,
        0b0110 | 0b1001 => 2.0 * corner,
        _ => corner,
    })
}

pub(super) fn sites(mask: &Mask, grid: &Grid) -> Sites {
    let [nz, ny, nx] = mask.shape;
    let row = |z: usize, y: usize| &mask.voxels[(z * ny + y) * nx..][..nx];
    if grid.shape()[0] == 1 {
        let lengths = lengths(grid.spacing_mm());
        let mut corners = Corners::new([1, ny - 1, nx - 1]);
        for y in 0..ny - 1 {
            let (low, high) = (row(1, y), row(1, y + 1));
            corners.row(0b1111, |x| low[x] | high[x] << 2, &lengths);
        }
        return corners.sites;
    }
    let areas = areas(grid.spacing_mm());
    let mut corners = Corners::new([nz - 1, ny - 1, nx - 1]);
    for z in 0..nz - 1 {
        for y in 0..ny - 1 {
            let rows = [row(z, y), row(z, y + 1), row(z + 1, y), row(z + 1, y + 1)];
            let column = |x: usize| rows[0][x] | rows[1][x] << 2 | rows[2][x] << 4 | rows[3][x] << 6;
            corners.row(0b1111_1111, column, &areas);
        }
    }
    corners.sites
}

/// Goes over the corners of a mask row by row.
struct Corners {
    sites: Sites,
    codes: Vec<u8>,
    rows: usize,
}

impl Corners {
    fn new(shape: [usize; 3]) -> Self {
        let marked = vec![0; shape.iter().product()];
        let sites = Sites { points: Vec::new(), areas: Vec::new(), marked, shape };
        Self { sites, codes: vec![0; shape[2]], rows: 0 }
    }

    /// `column` gives the voxels at x on both sides of the row of corners, one to every second bit.
    fn row(&mut self, full: u8, column: impl Fn(usize) -> u8, sizes: &[f64]) {
        let start = self.rows * self.codes.len();
        self.rows += 1;
        for (x, code) in self.codes.iter_mut().enumerate() {
            *code = column(x) | column(x + 1) << 1;
        }
        for (x, &code) in self.codes.iter().enumerate() {
            if code != 0 && code != full {
                self.sites.points.push(start + x);
                self.sites.areas.push(sizes[usize::from(code)]);
                self.sites.marked[start + x] = 1;
            }
        }
    }
}
