//! The networks that `tests/reference/make.py` has in PyTorch, through the graph builder. Weights are a formula.

use pipe_onnx::{BuildError, Dims, GraphBuilder, Value, Weights, Window};

/// Returns the numbers that `values` in `make.py` gives.
pub(crate) fn values(seed: i64, count: usize, scale: f64, offset: f64) -> Vec<f32> {
    let raw = |i: i64| ((i * i * 31 + i * 7919 + seed * 104_729 + 17) % 2003) as f64 / 2003.0 - 0.5;
    (0..count as i64).map(|i| (raw(i) * scale + offset) as f32).collect()
}

struct Network {
    graph: GraphBuilder,
}

type Made = Result<Value, BuildError>;

impl Network {
    fn new(name: &str, channels: usize, dims: Dims) -> Self {
        Self { graph: GraphBuilder::new(name, channels, dims).expect("a graph") }
    }

    fn weight(seed: i64, shape: &[usize]) -> Vec<f32> {
        let fan_in: usize = shape[1..].iter().product();
        values(seed, shape.iter().product(), (12.0 / fan_in as f64).sqrt(), 0.0)
    }

    fn conv(&mut self, x: &Value, seed: i64, shape: &[usize], window: &Window) -> Made {
        let (weight, bias) = (Self::weight(seed, shape), values(seed + 1, shape[0], 0.2, 0.0));
        let weight = Weights { shape, values: &weight };
        self.graph.conv(&format!("conv{seed}"), x, weight, Some(&bias), window)
    }

    fn up(&mut self, x: &Value, seed: i64, shape: &[usize], stride: &[usize]) -> Made {
        let (weight, bias) = (Self::weight(seed, shape), values(seed + 1, shape[1], 0.2, 0.0));
        let weight = Weights { shape, values: &weight };
        self.graph.conv_transpose(&format!("up{seed}"), x, weight, Some(&bias), &Window::tight(stride))
    }

    fn norm(&mut self, x: &Value, seed: i64) -> Made {
        let (weight, bias) = (values(seed, x.channels(), 0.4, 1.0), values(seed + 1, x.channels(), 0.4, 0.0));
        self.graph.instance_norm(&format!("norm{seed}"), x, &weight, &bias, 1e-5)
    }
}

pub(crate) fn unet2d() -> Result<Vec<u8>, BuildError> {
    let mut net = Network::new("unet2d", 2, Dims::Two);
    let x = net.graph.input();
    let a = net.conv(&x, 1, &[4, 2, 3, 3], &Window::same(&[3, 3], &[1, 1]))?;
    let a = net.norm(&a, 3)?;
    let a = net.graph.leaky_relu(&a, 0.01)?;
    let b = net.conv(&a, 5, &[8, 4, 3, 3], &Window::same(&[3, 3], &[2, 2]))?;
    let b = net.norm(&b, 7)?;
    let b = net.graph.leaky_relu(&b, 0.01)?;
    let u = net.up(&b, 9, &[8, 4, 2, 2], &[2, 2])?;
    let d = net.graph.concat(&[&a, &u])?;
    let weight = Network::weight(11, &[4, 8, 3, 3]);
    let weight = Weights { shape: &[4, 8, 3, 3], values: &weight };
    let d = net.graph.conv("conv11", &d, weight, None, &Window::same(&[3, 3], &[1, 1]))?;
    let (weight, bias) = (values(14, 4, 0.4, 1.0), values(15, 4, 0.4, 0.0));
    let (mean, variance) = (values(12, 4, 0.2, 0.0), values(13, 4, 0.5, 1.0));
    let d = net.graph.batch_norm("norm14", &d, [&weight, &bias, &mean, &variance], 1e-3)?;
    let d = net.graph.relu(&d)?;
    let head = net.conv(&d, 16, &[3, 4, 1, 1], &Window::same(&[1, 1], &[1, 1]))?;
    net.graph.metadata("labels", "background,anterior,posterior")?;
    net.graph.build(&head)
}

pub(crate) fn unet3d() -> Result<Vec<u8>, BuildError> {
    let mut net = Network::new("unet3d", 1, Dims::Three);
    let x = net.graph.input();
    let same = Window::same(&[3, 3, 3], &[1, 1, 1]);
    let a = net.conv(&x, 21, &[4, 1, 3, 3, 3], &same)?;
    let a = net.graph.leaky_relu(&a, 0.1)?;
    let b = net.graph.max_pool(&a, &[1, 2, 2], &Window::tight(&[1, 2, 2]))?;
    let b = net.conv(&b, 23, &[6, 4, 1, 3, 3], &Window::same(&[1, 3, 3], &[1, 1, 1]))?;
    let b = net.norm(&b, 25)?;
    let b = net.graph.relu(&b)?;
    let c = net.graph.max_pool(&b, &[2, 2, 2], &Window::tight(&[2, 2, 2]))?;
    let dilated = Window { padding: vec![2; 3], dilation: vec![2; 3], groups: 2, ..same.clone() };
    let r = net.conv(&c, 27, &[6, 3, 3, 3, 3], &dilated)?;
    let r = net.graph.relu(&r)?;
    let c = net.graph.add(&c, &r)?;
    let u = net.graph.resize_nearest(&c, &[2, 2, 2])?;
    let u = net.graph.concat(&[&b, &u])?;
    let u = net.conv(&u, 29, &[4, 12, 3, 3, 3], &same)?;
    let u = net.graph.relu(&u)?;
    let u = net.up(&u, 31, &[4, 4, 1, 2, 2], &[1, 2, 2])?;
    let u = net.graph.concat(&[&a, &u])?;
    let head = net.conv(&u, 33, &[2, 8, 1, 1, 1], &Window::same(&[1, 1, 1], &[1, 1, 1]))?;
    net.graph.build(&head)
}

pub(crate) fn classifier2d() -> Result<Vec<u8>, BuildError> {
    let mut net = Network::new("classifier2d", 1, Dims::Two);
    let x = net.graph.input();
    let a = net.conv(&x, 41, &[6, 1, 7, 7], &Window::same(&[7, 7], &[2, 2]))?;
    let a = net.graph.relu(&a)?;
    let a = net.graph.max_pool(&a, &[3, 3], &Window::same(&[3, 3], &[2, 2]))?;
    let a = net.graph.global_average_pool(&a)?;
    let mut heads = Vec::new();
    for seed in [43, 45] {
        net.graph.scope(&format!("member{seed}"));
        let (weight, bias) = (Network::weight(seed, &[3, 6]), values(seed + 1, 3, 0.2, 0.0));
        let weight = Weights { shape: &[3, 6], values: &weight };
        let head = net.graph.dense("head", &a, weight, Some(&bias))?;
        heads.push(net.graph.softmax(&head)?);
    }
    net.graph.scope("");
    let mean = net.graph.mean(&heads.iter().collect::<Vec<_>>())?;
    let log = net.graph.log(&mean)?;
    net.graph.build(&log)
}

/// One 3×3 convolution from 1 channel to 2 classes.
pub(crate) fn shallow2d() -> Result<Vec<u8>, BuildError> {
    let mut net = Network::new("shallow2d", 1, Dims::Two);
    let x = net.graph.input();
    let head = net.conv(&x, 51, &[2, 1, 3, 3], &Window::same(&[3, 3], &[1, 1]))?;
    net.graph.build(&head)
}

/// A model without neighbourhood: a 1×1×1 convolution from 2 channels to 3 classes and a leaky rectifier.
pub(crate) fn elementwise3d() -> Result<Vec<u8>, BuildError> {
    let mut net = Network::new("elementwise3d", 2, Dims::Three);
    let x = net.graph.input();
    let head = net.conv(&x, 61, &[3, 2, 1, 1, 1], &Window::same(&[1, 1, 1], &[1, 1, 1]))?;
    let head = net.graph.leaky_relu(&head, 0.2)?;
    net.graph.build(&head)
}
