//! Each operation: fused kernels against the default body of public dfdx operations, gradients against finite
//! differences, and the same bits on every instruction set and thread count.

use std::sync::Arc;

use dfdx::prelude::*;
use pipe_nn::{
    Act, Activation, Backend, Bce, CpuBackend, CrossEntropy, Dice, DiceCe, Flat, Focal, Geometry, Isa, Loss,
    Mse, Norm, Reference, Tversky, Window,
};

use crate::support::{assert_close, bits, geometry, noise, with_threads};

/// Sums of up to a few hundred products in f32, in another order.
const REORDERED: f32 = 2e-5;

/// One operation with its parameters, runnable on any backend.
#[derive(Clone)]
enum Operation {
    Conv {
        window: Window,
        cout: usize,
        bias: bool,
    },
    Transposed {
        factor: [usize; 3],
        cout: usize,
        bias: bool,
    },
    NormAct(Norm, f32),
    /// Normalisation by given moments.
    NormWith,
    Activation(Activation),
    MaxPool {
        factor: [usize; 3],
    },
    AvgPool {
        factor: [usize; 3],
    },
    Upsample {
        factor: [usize; 3],
    },
    Concat {
        channels: usize,
    },
    Add,
    Scale,
    Shift,
    Loss(Loss),
}

struct Case {
    operation: Operation,
    geometry: Geometry,
    channels: usize,
}

/// The output, then the gradient of the input, then those of the parameters.
type Outcome = Vec<Vec<f32>>;

impl Case {
    fn input(&self) -> Vec<f32> {
        noise(1, self.geometry.rows() * self.channels)
    }

    fn parameters(&self) -> Vec<Vec<f32>> {
        let lengths = match &self.operation {
            Operation::Conv { window, cout, bias } => {
                vec![window.taps() * self.channels * cout, if *bias { *cout } else { 0 }]
            }
            Operation::Transposed { factor, cout, bias } => {
                let taps: usize = factor.iter().product();
                vec![taps * self.channels * cout, if *bias { *cout } else { 0 }]
            }
            Operation::NormAct(..) | Operation::NormWith => vec![self.channels, self.channels],
            Operation::Activation(Activation::Prelu) => vec![self.channels],
            Operation::Concat { channels } => vec![self.geometry.rows() * channels],
            Operation::Add => vec![self.geometry.rows() * self.channels],
            _ => vec![],
        };
        lengths.into_iter().filter(|n| *n > 0).enumerate().map(|(k, n)| noise(k as u64 + 2, n)).collect()
    }

    fn labels(&self) -> Arc<[u8]> {
        let classes = self.channels as f32;
        let draws = noise(9, self.geometry.rows());
        // One voxel in sixteen counts nowhere.
        draws
            .iter()
            .enumerate()
            .map(|(i, v)| if i % 16 == 5 { 255 } else { ((v + 1.0) / 2.0 * classes) as u8 })
            .collect()
    }

    /// Runs forward, takes `Σ output · noise` (the loss itself for a loss) and goes back.
    fn run<B: Backend>(&self, backend: &B) -> Outcome {
        self.run_at(backend, &self.input(), &self.parameters()).1
    }

    fn run_at<B: Backend>(&self, backend: &B, input: &[f32], parameters: &[Vec<f32>]) -> (f32, Outcome) {
        let device = backend.device();
        let parameters: Vec<Flat<B::Device>> =
            parameters.iter().map(|values| device.tensor_from_vec(values.clone(), (values.len(),))).collect();
        let x = backend.input(input.to_vec(), self.geometry, self.channels, true);
        let mut tape = OwnedTape::default();
        let mut second = None;
        let y = match &self.operation {
            Operation::Conv { window, .. } => {
                backend.conv(&mut tape, &x, &parameters[0], parameters.get(1), window)
            }
            Operation::Transposed { factor, .. } => {
                backend.transposed_conv(&mut tape, &x, &parameters[0], parameters.get(1), *factor)
            }
            Operation::NormAct(norm, slope) => {
                backend.norm_act(&mut tape, &x, *norm, [&parameters[0], &parameters[1]], 1e-5, *slope)
            }
            Operation::NormWith => {
                let given = |seed, shift: f32| {
                    let values: Vec<f32> = noise(seed, self.channels).iter().map(|v| v + shift).collect();
                    device.tensor_from_vec(values, (self.channels,))
                };
                let (mean, variance) = (given(31, 0.0), given(32, 1.5));
                let affine = [&parameters[0], &parameters[1]];
                backend.norm_act_with(&mut tape, &x, [&mean, &variance], affine, 1e-5, 0.01)
            }
            Operation::Activation(activation) => {
                backend.activation(&mut tape, &x, *activation, parameters.first())
            }
            Operation::MaxPool { factor } => backend.max_pool(&mut tape, &x, *factor),
            Operation::AvgPool { factor } => backend.avg_pool(&mut tape, &x, *factor),
            Operation::Upsample { factor } => backend.upsample(&mut tape, &x, *factor),
            Operation::Scale => backend.scale_by(&mut tape, &x, noise(33, self.input().len())),
            Operation::Shift => backend.shift_by(&mut tape, &x, noise(34, self.input().len())),
            Operation::Add => {
                let other = backend.input(parameters[0].as_vec(), self.geometry, self.channels, true);
                let sum = backend.add(&mut tape, &x, &other);
                second = Some(other);
                sum
            }
            Operation::Concat { channels } => {
                let other = backend.input(parameters[0].as_vec(), self.geometry, *channels, true);
                let joined = backend.concat(&mut tape, &x, &other);
                second = Some(other);
                joined
            }
            Operation::Loss(loss) => {
                let loss = backend.loss(tape, &x, &self.labels(), &loss.terms());
                let value: f32 = loss.as_vec()[0];
                let gradients = loss.backward();
                return (value, vec![vec![value], backend.gradient(&x, &gradients)]);
            }
        };
        let values = backend.read(&y);
        let weights = noise(7, values.len());
        let total = values.iter().zip(&weights).map(|(a, b)| a * b).sum();
        let gradients = weighted_backward(backend, tape, &y, weights);
        let mut outcome = vec![values, backend.gradient(&x, &gradients)];
        match second {
            Some(other) => outcome.push(backend.gradient(&other, &gradients)),
            None => outcome.extend(parameters.iter().map(|p| gradients.get(p).as_vec())),
        }
        (total, outcome)
    }
}

/// Goes back from `Σ y · weights`.
fn weighted_backward<B: Backend>(
    backend: &B,
    mut tape: OwnedTape<f32, B::Device>,
    y: &Act<B::Value>,
    weights: Vec<f32>,
) -> Gradients<f32, B::Device> {
    let rows = backend.lower(&mut tape, y);
    let weights = backend.device().tensor_from_vec(weights, *rows.shape());
    (rows.put_tape(tape) * weights).sum::<(), Axes2<0, 1>>().backward()
}

fn isas() -> impl Iterator<Item = CpuBackend> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(CpuBackend::with_isa)
}

#[track_caller]
fn check(operation: Operation, geometry: Geometry, channels: usize) {
    let case = Case { operation, geometry, channels };
    let expected = case.run(&Reference::<Cpu>::default());
    let found = case.run(&CpuBackend::default());
    assert_eq!(found.len(), expected.len());
    for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_close(&format!("part {part}"), found, expected, REORDERED);
    }
    #[cfg(feature = "cuda")]
    {
        let backend = crate::support::cuda();
        let found = case.run(&backend);
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("part {part} on CUDA"), found, expected, REORDERED);
        }
        for (part, (again, found)) in case.run(&backend).iter().zip(&found).enumerate() {
            assert_eq!(bits(again), bits(found), "part {part} on CUDA, once more");
        }
    }
    for backend in isas() {
        let name = backend.isa();
        for threads in [1, 2, 4] {
            let (case, backend) = (&case, backend.clone());
            let outcome = with_threads(threads, move || case.run(&backend));
            for (part, (a, b)) in outcome.iter().zip(&found).enumerate() {
                assert_eq!(bits(a), bits(b), "part {part} on {name:?} with {threads} threads");
            }
        }
    }
}

fn same(kernel: [usize; 3]) -> Window {
    Window::same(kernel)
}

#[test]
fn a_convolution_equals_its_definition_in_3d() {
    let conv = |cout, bias| Operation::Conv { window: same([3; 3]), cout, bias };
    check(conv(8, false), geometry(2, [4, 5, 6]), 8);
    check(conv(8, false), geometry(1, [3, 4, 7]), 1);
    check(conv(8, true), geometry(1, [5, 3, 9]), 16);
    check(conv(16, false), geometry(2, [6, 4, 12]), 8);
    check(conv(32, true), geometry(1, [3, 4, 10]), 16);
    check(conv(24, true), geometry(1, [2, 3, 13]), 3);
    check(conv(3, true), geometry(2, [2, 2, 2]), 5);
    check(conv(40, false), geometry(1, [1, 1, 1]), 4);
}

#[test]
fn a_convolution_of_many_tiles_equals_its_definition() {
    let conv = |kernel, padding, cout| Operation::Conv {
        window: Window { kernel, stride: [1; 3], padding },
        cout,
        bias: true,
    };
    // Panels of 32, 16 and 8 columns; rows that end within a tile; borders of no, some and all zeros.
    check(conv([3; 3], [0; 3], 56), geometry(2, [4, 9, 17]), 16);
    check(conv([3, 1, 3], [1, 0, 1], 8), geometry(1, [6, 5, 14]), 24);
    check(conv([1, 5, 3], [0, 2, 1], 16), geometry(2, [1, 40, 20]), 8);
    check(conv([3; 3], [2; 3], 8), geometry(1, [3, 4, 5]), 8);
    // Planes of few tiles, which go through the weights together.
    check(conv([3; 3], [1; 3], 32), geometry(2, [5, 3, 4]), 32);
}

#[test]
fn a_convolution_equals_its_definition_in_2d() {
    let conv = |cout, bias| Operation::Conv { window: same([1, 3, 3]), cout, bias };
    check(conv(16, false), geometry(3, [1, 8, 12]), 1);
    check(conv(8, false), geometry(3, [1, 7, 11]), 8);
    check(conv(64, true), geometry(2, [1, 5, 3]), 32);
}

#[test]
fn a_pointwise_convolution_equals_its_definition() {
    let conv = |cout, bias| Operation::Conv { window: same([1; 3]), cout, bias };
    check(conv(3, true), geometry(2, [3, 4, 5]), 8);
    check(conv(8, false), geometry(1, [16, 16, 17]), 3);
    check(conv(16, true), geometry(1, [2, 3, 7]), 20);
}

#[test]
fn windows_with_strides_and_uneven_kernels_equal_their_definition() {
    let conv = |kernel, stride, padding, cout| Operation::Conv {
        window: Window { kernel, stride, padding },
        cout,
        bias: true,
    };
    check(conv([3; 3], [2; 3], [1; 3], 8), geometry(2, [5, 6, 7]), 8);
    check(conv([3; 3], [2, 1, 3], [1; 3], 16), geometry(1, [4, 5, 10]), 4);
    check(conv([1, 5, 2], [1, 2, 1], [0, 2, 0], 8), geometry(1, [3, 9, 8]), 2);
    check(conv([2; 3], [2; 3], [0; 3], 8), geometry(1, [5, 4, 6]), 3);
    check(conv([3, 1, 1], [1; 3], [1, 0, 0], 8), geometry(1, [4, 3, 5]), 8);
    // One place for the window: every voxel weighs by itself.
    check(conv([5, 6, 7], [1; 3], [0; 3], 3), geometry(4, [5, 6, 7]), 3);
    check(conv([1, 48, 48], [1; 3], [0; 3], 2), geometry(3, [1, 48, 48]), 1);
}

#[test]
fn a_transposed_convolution_equals_its_definition() {
    let up = |factor, cout, bias| Operation::Transposed { factor, cout, bias };
    check(up([2; 3], 8, true), geometry(2, [2, 3, 4]), 16);
    check(up([1, 2, 2], 16, true), geometry(3, [1, 4, 5]), 32);
    check(up([2, 1, 3], 3, false), geometry(1, [2, 3, 5]), 4);
}

#[test]
fn norm_and_activation_equal_their_definition() {
    let norm = |norm| Operation::NormAct(norm, 0.01);
    check(norm(Norm::Instance), geometry(2, [4, 5, 6]), 8);
    check(norm(Norm::Instance), geometry(3, [1, 7, 9]), 16);
    check(norm(Norm::Instance), geometry(1, [3, 3, 3]), 5);
    check(norm(Norm::Instance), geometry(2, [13, 15, 21]), 24);
    check(norm(Norm::Batch), geometry(3, [4, 5, 6]), 8);
    check(norm(Norm::Batch), geometry(2, [1, 31, 37]), 5);
    check(norm(Norm::Group(4)), geometry(2, [4, 5, 6]), 8);
    check(norm(Norm::Group(1)), geometry(3, [1, 7, 9]), 6);
    check(norm(Norm::Group(3)), geometry(2, [9, 11, 23]), 12);
    check(Operation::NormAct(Norm::Instance, 1.0), geometry(2, [4, 5, 6]), 8);
    check(Operation::NormWith, geometry(2, [4, 5, 6]), 7);
}

#[test]
fn functions_of_each_value_equal_their_definition() {
    use Activation::{Gelu, LeakyRelu, Prelu, Relu, Sigmoid, Tanh};
    for activation in [Relu, LeakyRelu, Prelu, Gelu, Sigmoid, Tanh] {
        check(Operation::Activation(activation), geometry(2, [3, 5, 7]), 6);
        check(Operation::Activation(activation), geometry(1, [13, 14, 15]), 3);
    }
}

#[test]
fn means_and_repetitions_of_blocks_equal_their_definition() {
    check(Operation::AvgPool { factor: [2; 3] }, geometry(2, [4, 6, 8]), 8);
    check(Operation::AvgPool { factor: [2, 3, 1] }, geometry(2, [5, 7, 3]), 11);
    check(Operation::AvgPool { factor: [5, 4, 6] }, geometry(3, [5, 4, 6]), 3);
    check(Operation::Upsample { factor: [2; 3] }, geometry(2, [2, 3, 4]), 8);
    check(Operation::Upsample { factor: [1, 3, 2] }, geometry(3, [1, 4, 5]), 5);
}

#[test]
fn sums_and_products_equal_their_definition() {
    for operation in [Operation::Add, Operation::Scale, Operation::Shift] {
        check(operation, geometry(2, [3, 4, 5]), 6);
    }
}

#[test]
fn max_pooling_equals_its_definition() {
    check(Operation::MaxPool { factor: [2; 3] }, geometry(2, [4, 6, 8]), 8);
    check(Operation::MaxPool { factor: [1, 2, 2] }, geometry(2, [1, 6, 4]), 16);
    check(Operation::MaxPool { factor: [2, 3, 1] }, geometry(2, [5, 7, 3]), 11);
}

#[test]
fn joining_channels_equals_its_definition() {
    check(Operation::Concat { channels: 8 }, geometry(2, [3, 4, 5]), 8);
    check(Operation::Concat { channels: 3 }, geometry(1, [2, 2, 2]), 5);
}

fn losses() -> Vec<Loss> {
    let class_weights = vec![0.5, 1.0, 2.5];
    let mut losses = vec![
        Loss::CrossEntropy(CrossEntropy::default()),
        Loss::CrossEntropy(CrossEntropy { class_weights: class_weights.clone() }),
        Loss::DiceCe(DiceCe { class_weights: class_weights.clone(), ..DiceCe::default() }),
        Loss::Focal(Focal { gamma: 2.0, class_weights }),
        Loss::Focal(Focal { gamma: 0.5, class_weights: Vec::new() }),
        Loss::Tversky(Tversky::default()),
        Loss::Tversky(Tversky { alpha: 0.8, beta: 0.4, batch_dice: false, background: true, smooth: 1.0 }),
        Loss::Bce(Bce {}),
        Loss::Mse(Mse {}),
    ];
    for batch_dice in [false, true] {
        for background in [false, true] {
            losses.push(Loss::Dice(Dice { batch_dice, background, smooth: 1e-3 }));
            losses.push(Loss::DiceCe(DiceCe {
                batch_dice,
                background,
                smooth: 1e-3,
                class_weights: Vec::new(),
            }));
        }
    }
    losses
}

#[test]
fn every_loss_equals_its_definition() {
    for loss in losses() {
        check(Operation::Loss(loss.clone()), geometry(2, [5, 6, 7]), 3);
        check(Operation::Loss(loss), geometry(7, [1, 1, 1]), 3);
    }
    check(Operation::Loss(Loss::default()), geometry(2, [17, 16, 17]), 2);
}

/// The derivative of `Σ output · noise` along a random direction, by central differences, against the gradients.
#[track_caller]
fn check_derivative(operation: Operation, geometry: Geometry, channels: usize) {
    let case = Case { operation, geometry, channels };
    let backend = CpuBackend::default();
    let (input, parameters) = (case.input(), case.parameters());
    let (_, outcome) = case.run_at(&backend, &input, &parameters);
    let places: Vec<Vec<f32>> = std::iter::once(input).chain(parameters).collect();
    for (place, gradient) in outcome[1..].iter().enumerate() {
        let direction = noise(20 + place as u64, places[place].len());
        let total = |step: f32| {
            let mut moved = places.clone();
            moved[place].iter_mut().zip(&direction).for_each(|(value, d)| *value += step * d);
            f64::from(case.run_at(&backend, &moved[0], &moved[1..]).0)
        };
        let step = 2e-3;
        let measured = (total(step) - total(-step)) / f64::from(2.0 * step);
        let stated: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        let scale: f64 = gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>().max(1e-3);
        // Rounding of a sum of a few hundred f32 over the step, and the curvature times the step squared.
        let error = (measured - stated).abs() / scale;
        assert!(
            error < 2e-3,
            "place {place}: differences give {measured}, the gradient {stated}, scale {scale}"
        );
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let size = geometry(2, [2, 3, 4]);
    check_derivative(Operation::Conv { window: same([3; 3]), cout: 8, bias: true }, size, 4);
    check_derivative(Operation::Conv { window: same([3; 3]), cout: 8, bias: false }, size, 8);
    check_derivative(Operation::Conv { window: same([1; 3]), cout: 3, bias: true }, size, 8);
    check_derivative(Operation::Transposed { factor: [2; 3], cout: 4, bias: true }, size, 4);
    check_derivative(Operation::Concat { channels: 3 }, size, 2);
    for loss in losses() {
        check_derivative(Operation::Loss(loss), size, 3);
    }
    for norm in [Norm::Instance, Norm::Batch, Norm::Group(2)] {
        // Smooth where there is no kink: the identity behind the norm.
        check_derivative(Operation::NormAct(norm, 1.0), size, 4);
    }
    check_derivative(Operation::NormWith, geometry(1, [1, 3, 4]), 4);
    for activation in [Activation::Gelu, Activation::Sigmoid, Activation::Tanh] {
        check_derivative(Operation::Activation(activation), size, 4);
    }
    check_derivative(Operation::AvgPool { factor: [2, 3, 2] }, size, 4);
    check_derivative(Operation::Upsample { factor: [2, 1, 3] }, size, 4);
    for operation in [Operation::Add, Operation::Scale, Operation::Shift] {
        check_derivative(operation, size, 4);
    }
}
