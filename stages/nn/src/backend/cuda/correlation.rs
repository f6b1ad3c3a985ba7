//! Sizes of convolutions as the kernels take them, and how their work is cut: by the sizes alone, so that results do not
//! depend on the device.
#![expect(unsafe_code, reason = "a plain struct goes to the kernels by value")]

use std::rc::Rc;

use cudarc::driver::DeviceRepr;

use super::gpu::{Address, Buffer, DeviceFailure, Gpu, int};
use crate::geometry::{Geometry, Window};

/// Terms that a block adds per round; `DEPTH` of the kernels.
const DEPTH: usize = 16;
/// Blocks that keep a large device busy; sums are split until there are as many.
const BLOCKS: usize = 512;
/// Rounds that a split has at least, so that adding the splits stays small beside them.
const ROUNDS: usize = 8;
const MAX_SPLITS: usize = 256;
/// Taps that fit the shared memory of a block beside its tiles.
const MAX_TAPS: usize = 1600;

/// `Correlation` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Sizes {
    samples: i32,
    source: [i32; 3],
    target: [i32; 3],
    kernel: [i32; 3],
    stride: [i32; 3],
    padding: [i32; 3],
    scatters: i32,
    channels: i32,
    columns: i32,
    inner: i32,
    outer_step: i32,
    inner_step: i32,
    channel_step: i32,
    column_step: i32,
    splits: i32,
}

// SAFETY: plain integers in the order of the kernels' struct.
unsafe impl DeviceRepr for Sizes {}

/// Where the weights of a layer lie: that of `tap`, input `i` and output `o` at
/// `tap / inner · outer + tap % inner · step + i · input + o · output`.
#[derive(Clone, Copy, Debug)]
struct Layout {
    inner: usize,
    outer: usize,
    step: usize,
    input: usize,
    output: usize,
}

/// A convolution, or a transposed one: a window that slides over the fine side, one place for each voxel of the coarse one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolution {
    window: Window,
    fine: Geometry,
    coarse: Geometry,
    /// Channels of the input and of the output of the layer.
    inputs: usize,
    outputs: usize,
    layout: Layout,
    /// Whether the input is the coarse side.
    transposed: bool,
}

/// What reads and writes a kernel: `scatters` where the target is the fine side.
struct Roles {
    scatters: bool,
    /// Channels of the source and of the target, and how far their weights stand apart.
    channels: (usize, usize),
    columns: (usize, usize),
}

impl Convolution {
    /// Weights are `[kz, ky, kx, cin, cout]`.
    pub(super) fn plain(
        window: Window,
        input: Geometry,
        output: Geometry,
        inputs: usize,
        outputs: usize,
    ) -> Self {
        let layout = Layout { inner: 1, outer: inputs * outputs, step: 0, input: outputs, output: 1 };
        Self { window, fine: input, coarse: output, inputs, outputs, layout, transposed: false }
    }

    /// Kernel and stride are `factor`; weights are `[kz, ky, cin, kx, cout]`.
    pub(super) fn transposed(
        factor: [usize; 3],
        input: Geometry,
        output: Geometry,
        inputs: usize,
        outputs: usize,
    ) -> Self {
        let window = Window { kernel: factor, stride: factor, padding: [0; 3] };
        let wide = factor[2] * outputs;
        let layout = Layout { inner: factor[2], outer: inputs * wide, step: outputs, input: wide, output: 1 };
        Self { window, fine: output, coarse: input, inputs, outputs, layout, transposed: true }
    }

    fn inputs(&self) -> (usize, usize) {
        (self.inputs, self.layout.input)
    }

    fn outputs(&self) -> (usize, usize) {
        (self.outputs, self.layout.output)
    }

    fn sizes(&self, roles: &Roles, splits: usize) -> Sizes {
        let [source, target] =
            if roles.scatters { [self.coarse, self.fine] } else { [self.fine, self.coarse] };
        let Layout { inner, outer, step, .. } = self.layout;
        Sizes {
            samples: int(source.samples),
            source: source.size.map(int),
            target: target.size.map(int),
            kernel: self.window.kernel.map(int),
            stride: self.window.stride.map(int),
            padding: self.window.padding.map(int),
            scatters: i32::from(roles.scatters),
            channels: int(roles.channels.0),
            columns: int(roles.columns.0),
            inner: int(inner),
            outer_step: int(outer),
            inner_step: int(step),
            channel_step: int(roles.channels.1),
            column_step: int(roles.columns.1),
            splits: int(splits),
        }
    }

    /// The output of the layer.
    pub(super) fn forward(
        &self,
        gpu: &Rc<Gpu>,
        x: Address<'_>,
        weight: Address<'_>,
        bias: Address<'_>,
    ) -> Buffer {
        let roles = Roles { scatters: self.transposed, channels: self.inputs(), columns: self.outputs() };
        self.correlate(gpu, &roles, x, weight, bias)
    }

    /// The slope of the input of the layer.
    pub(super) fn data_slope(&self, gpu: &Rc<Gpu>, dy: Address<'_>, weight: Address<'_>) -> Buffer {
        let roles = Roles { scatters: !self.transposed, channels: self.outputs(), columns: self.inputs() };
        self.correlate(gpu, &roles, dy, weight, Address::NONE)
    }

    fn correlate(
        &self,
        gpu: &Rc<Gpu>,
        roles: &Roles,
        source: Address<'_>,
        weight: Address<'_>,
        bias: Address<'_>,
    ) -> Buffer {
        let target = if roles.scatters { self.fine } else { self.coarse };
        let columns = roles.columns.0;
        let count = target.rows() * columns;
        // The largest phase, and the most taps that fall under one.
        let pitch = if roles.scatters { self.window.stride } else { [1; 3] };
        let phases: usize = pitch.iter().product();
        let along = |length: [usize; 3]| -> usize { (0..3).map(|a| length[a].div_ceil(pitch[a])).product() };
        let (rows, taps) = (target.samples * along(target.size), along(self.window.kernel));
        let tile = Tile::of(columns);
        let blocks = [rows.div_ceil(tile.rows), columns.div_ceil(tile.columns)];
        let rounds = (taps * roles.channels.0).div_ceil(DEPTH);
        let splits = splits(blocks[0] * blocks[1] * phases, rounds);
        let sizes = self.sizes(roles, splits);
        let parts = gpu.take::<f32>(splits * count);
        int(count);
        if taps > MAX_TAPS {
            DeviceFailure::unwind(format!(
                "a convolution window of {:?} voxels; on CUDA it may cover {MAX_TAPS} at most",
                self.window.kernel
            ));
        }
        let shared = taps * size_of::<[i32; 4]>();
        let grid = [blocks[0], blocks[1], phases * splits];
        gpu.launch(tile.correlate, grid, shared, (sizes, source, weight, bias, parts.at()));
        if splits == 1 {
            return parts;
        }
        let joined = gpu.take::<f32>(count);
        let counts = (int(count), int(splits), int(columns));
        gpu.each("join_splits", count, (counts.0, counts.1, counts.2, parts.at(), bias, joined.at()));
        joined
    }

    /// Adds the slope of the weights to `gradient`.
    pub(super) fn add_weight_slope(
        &self,
        gpu: &Rc<Gpu>,
        x: Address<'_>,
        dy: Address<'_>,
        gradient: Address<'_>,
    ) {
        // The kernel gathers from the fine side, whichever that is.
        let (source, target) = if self.transposed { (dy, x) } else { (x, dy) };
        let (channels, columns) =
            if self.transposed { (self.outputs(), self.inputs()) } else { (self.inputs(), self.outputs()) };
        let terms = self.window.taps() * channels.0;
        let tile = Tile::of(columns.0);
        let blocks = [terms.div_ceil(tile.rows), columns.0.div_ceil(tile.columns)];
        let splits = splits(blocks[0] * blocks[1], self.coarse.rows().div_ceil(DEPTH));
        let count = terms * columns.0;
        let sizes = self.sizes(&Roles { scatters: false, channels, columns }, splits);
        let parts = gpu.take::<f32>(splits * count);
        gpu.launch(
            tile.correlate_weight,
            [blocks[0], blocks[1], splits],
            0,
            (sizes, source, target, parts.at()),
        );
        gpu.each("add_weight_splits", count, (sizes, parts.at(), gradient));
    }
}

/// Parts of a sum of `rounds`, where `blocks` blocks would compute it whole.
fn splits(blocks: usize, rounds: usize) -> usize {
    (BLOCKS / blocks.max(1)).min(rounds / ROUNDS).clamp(1, MAX_SPLITS)
}

/// The part of a result that one block computes, by its columns: few of them still fill a block.
struct Tile {
    rows: usize,
    columns: usize,
    correlate: &'static str,
    correlate_weight: &'static str,
}

impl Tile {
    fn of(columns: usize) -> Self {
        let tile =
            |columns, rows, correlate, correlate_weight| Self { rows, columns, correlate, correlate_weight };
        match columns {
            0..=8 => tile(8, 256, "correlate_8", "correlate_weight_8"),
            9..=16 => tile(16, 256, "correlate_16", "correlate_weight_16"),
            17..=32 => tile(32, 256, "correlate_32", "correlate_weight_32"),
            _ => tile(64, 128, "correlate_64", "correlate_weight_64"),
        }
    }
}
