//! Padded copies of a few source planes, small enough for the second-level cache. Owns which source voxel stands at
//! which place; borders along z and y are never copied but left out by the callers.

use super::conv::Correlation;
use crate::backend::workspace::{Buffer, Workspace};

/// A ring of padded planes, `kernel z` of them.
pub(super) struct Planes<'a> {
    shape: &'a Correlation,
    source: &'a [f32],
    values: Buffer,
    /// Which plane (sample, z) each slot holds.
    held: Vec<Option<(usize, usize)>>,
    /// Voxels per padded row.
    width: usize,
}

impl<'a> Planes<'a> {
    pub(super) fn new(workspace: &Workspace, shape: &'a Correlation, source: &'a [f32]) -> Self {
        let reach = (shape.target[2] - 1) * shape.stride[2] + shape.kernel[2];
        let filled = shape.low[2] + (shape.source[2] - 1) * shape.dilation[2] + 1;
        // One stride of zeros more: a pair of outputs reads that far when the target width is odd.
        let width = reach.max(filled) + shape.stride[2];
        let slots = shape.kernel[0];
        let values = slots * shape.source[1] * width * shape.cin;
        Self { shape, source, values: workspace.take_zeroed(values), held: vec![None; slots], width }
    }

    /// The slot that holds source plane `z` of `sample`, copied there if need be.
    pub(super) fn plane(&mut self, sample: usize, z: usize) -> usize {
        let slot = z % self.held.len();
        if self.held[slot] != Some((sample, z)) {
            self.fill(slot, sample, z);
            self.held[slot] = Some((sample, z));
        }
        slot
    }

    fn fill(&mut self, slot: usize, sample: usize, z: usize) {
        let Correlation { source: [depth, height, width], cin, low, dilation, .. } = *self.shape;
        let plane = &self.source[(sample * depth + z) * height * width * cin..][..height * width * cin];
        let padded = &mut self.values[slot * height * self.width * cin..][..height * self.width * cin];
        for (from, to) in plane.chunks_exact(width * cin).zip(padded.chunks_exact_mut(self.width * cin)) {
            let to = &mut to[low[2] * cin..];
            if dilation[2] == 1 {
                to[..width * cin].copy_from_slice(from);
                continue;
            }
            for (from, to) in from.chunks_exact(cin).zip(to.chunks_mut(dilation[2] * cin)) {
                to[..cin].copy_from_slice(from);
            }
        }
    }

    /// The padded row of source row `y` in `slot`: valid from its first value to the end of the target's reach.
    pub(super) fn row(&self, slot: usize, y: usize) -> *const f32 {
        let start = (slot * self.shape.source[1] + y) * self.width * self.shape.cin;
        self.values[start..].as_ptr()
    }
}

/// The source index under kernel position `k` of output `target` on one axis, if there is one.
pub(super) fn source_index(shape: &Correlation, axis: usize, target: usize, k: usize) -> Option<usize> {
    let dilated = (target * shape.stride[axis] + k).checked_sub(shape.low[axis])?;
    let index = dilated / shape.dilation[axis];
    (dilated % shape.dilation[axis] == 0 && index < shape.source[axis]).then_some(index)
}
