//! The surface as voxels: those of the mask that have a face outside of it.

use super::Sites;
use crate::grid::{Grid, Mask};

pub(super) fn sites(mask: &Mask, grid: &Grid) -> Sites {
    let [nz, ny, nx] = mask.shape;
    let plane = ny * nx;
    // A single slice has no neighbours above and below, not empty ones.
    let above_and_below = if grid.shape()[0] == 1 { 0 } else { plane };
    let (mut points, mut marked) = (Vec::new(), vec![0; mask.voxels.len()]);
    let voxels = &mask.voxels;
    for z in 1..nz - 1 {
        for y in 1..ny - 1 {
            let start = (z * ny + y) * nx;
            for at in start + 1..start + nx - 1 {
                if voxels[at] == 0 {
                    continue;
                }
                let inner = voxels[at - 1]
                    & voxels[at + 1]
                    & voxels[at - nx]
                    & voxels[at + nx]
                    & voxels[at - above_and_below]
                    & voxels[at + above_and_below];
                if inner == 0 {
                    points.push(at);
                    marked[at] = 1;
                }
            }
        }
    }
    Sites { areas: vec![1.0; points.len()], points, marked, shape: mask.shape }
}
