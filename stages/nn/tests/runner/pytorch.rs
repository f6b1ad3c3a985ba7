//! Whole networks and losses against PyTorch in float64: `tests/reference/generate.py` wrote the values (PyTorch 2.15.0,
//! CPU).

use std::sync::Arc;

use dfdx::prelude::*;
use pipe_nn::{
    Activation, Architecture, Backend, Bce, Classifier, CpuBackend, CrossEntropy, Dice, DiceCe, Down,
    Encoder, Focal, Geometry, Io, Isa, Linear, Loss, Model, Mse, Norm, Parameters, Reference, Tversky, UNet,
    Up,
};

use crate::support::assert_close;

/// Of the largest value of each array. Measured: 4e-6 at worst; f32 against f64 over 15 layers.
const TOLERANCE: f32 = 2e-5;

struct Expected {
    arrays: Parameters,
    architecture: Architecture,
    loss: Loss,
}

macro_rules! reference {
    ($name:literal) => {
        Parameters::from_safetensors(include_bytes!(concat!("../reference/", $name, ".safetensors")))
            .expect("readable")
    };
}

impl Expected {
    fn array(&self, name: &str) -> &[f32] {
        self.arrays.get(name).expect("the reference file has the array").1
    }

    /// The arrays below `prefix`.
    fn below(&self, prefix: &str) -> Vec<(&str, &[f32])> {
        let entries =
            self.arrays.iter().filter_map(|entry| Some((entry.name.strip_prefix(prefix)?, &*entry.values)));
        entries.collect()
    }

    #[track_caller]
    fn check<B: Backend>(&self, backend: B, tolerance: f32) {
        let shape = self.arrays.get("input").expect("the reference file has the input").0;
        let mut size = [1; 3];
        size[5 - shape.len()..].copy_from_slice(&shape[2..]);
        let classes = self.arrays.get("logits").expect("the reference file has the logits").0[1];
        let network = self.architecture.network(Io { channels: shape[1], classes, size }).expect("valid");
        let geometry = Geometry { samples: shape[0], size };
        let parameters = self.arrays.renamed(|name| name.strip_prefix("parameter/").map(str::to_owned));
        let model =
            Model::from_parameters(backend, network, &parameters).expect("names and shapes match PyTorch's");
        let labels: Arc<[u8]> = self.array("labels").iter().map(|label| *label as u8).collect();
        let (input, terms) = (self.array("input"), self.loss.terms());
        let found = model.differentiate(input, &labels, geometry, &terms, true).expect("it fits");
        let forward = model.forward(input, geometry).expect("it fits");
        match self.arrays.get("eval/logits") {
            Some((_, logits)) => assert_close("logits of evaluation", &forward, logits, tolerance),
            None => assert_eq!(forward, found.logits, "the tape changes nothing"),
        }
        assert_close("logits", &found.logits, self.array("logits"), tolerance);
        assert_close("loss", &[found.loss], self.array("loss"), tolerance);
        assert_close("gradient of the input", &found.input, self.array("gradient/input"), tolerance);
        let gradients = self.below("gradient/");
        let trained = model.network().parameters.iter().filter(|spec| spec.role.is_trained()).count();
        assert_eq!(gradients.len(), trained + 1);
        for (name, expected) in gradients.into_iter().filter(|(name, _)| *name != "input") {
            let (_, values) = found.parameters.get(name).expect("a gradient for every parameter");
            assert_close(name, values, expected, tolerance);
        }
    }

    #[track_caller]
    fn check_everywhere(&self) {
        for backend in [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(CpuBackend::with_isa) {
            self.check(backend, TOLERANCE);
        }
        self.check(Reference::<Cpu>::default(), TOLERANCE);
        #[cfg(feature = "cuda")]
        self.check(crate::support::cuda(), TOLERANCE);
    }
}

fn dice_ce(batch_dice: bool, background: bool) -> Loss {
    Loss::DiceCe(DiceCe { batch_dice, background, ..DiceCe::default() })
}

#[test]
fn a_2d_unet_equals_pytorch() {
    Expected {
        arrays: reference!("unet2d"),
        architecture: Architecture::Unet2d(UNet { base_features: Some(8), ..UNet::default() }),
        loss: dice_ce(true, false),
    }
    .check_everywhere();
}

#[test]
fn a_3d_unet_equals_pytorch() {
    Expected {
        arrays: reference!("unet3d"),
        architecture: Architecture::Unet3d(UNet { base_features: Some(4), ..UNet::default() }),
        loss: dice_ce(false, true),
    }
    .check_everywhere();
}

#[test]
fn residual_blocks_uneven_strides_and_supervision_at_all_levels_equal_pytorch() {
    let unet = UNet {
        features: Some(vec![4, 6, 8]),
        strides: Some(vec![[1, 2, 2], [2, 2, 2]]),
        kernels: Some(vec![[1, 3, 3], [3, 3, 3], [3, 3, 3]]),
        convolutions: 1,
        encoder: Encoder::Residual,
        down: Down::Stride,
        up: Up::Nearest,
        norm: Norm::Group(2),
        activation: Activation::Gelu,
        deep_supervision: true,
        ..UNet::default()
    };
    let architecture = Architecture::Unet3d(unet);
    Expected { arrays: reference!("residual3d"), architecture, loss: Loss::default() }.check_everywhere();
}

#[test]
fn batch_norm_parametric_relu_and_a_network_without_skips_equal_pytorch() {
    let unet = UNet {
        levels: 2,
        features: Some(vec![4, 8]),
        kernels: Some(vec![[1, 3, 3], [1, 5, 3]]),
        down: Down::AvgPool,
        skips: false,
        norm: Norm::Batch,
        activation: Activation::Prelu,
        ..UNet::default()
    };
    let loss = Loss::Focal(Focal { gamma: 2.0, class_weights: Vec::new() });
    Expected { arrays: reference!("batch2d"), architecture: Architecture::Unet2d(unet), loss }
        .check_everywhere();
}

#[test]
fn a_sigmoid_network_with_a_tversky_loss_equals_pytorch() {
    let unet = UNet {
        levels: 2,
        features: Some(vec![4, 4]),
        convolutions: 1,
        down: Down::Stride,
        activation: Activation::Sigmoid,
        ..UNet::default()
    };
    let loss = Loss::Tversky(Tversky::default());
    Expected { arrays: reference!("sigmoid2d"), architecture: Architecture::Unet2d(unet), loss }
        .check_everywhere();
}

#[test]
fn windows_along_x_alone_equal_the_1d_operations_of_pytorch() {
    let unet = UNet {
        features: Some(vec![4, 6, 8]),
        strides: Some(vec![[1, 1, 2], [1, 1, 3]]),
        kernels: Some(vec![[1, 1, 5], [1, 1, 3], [1, 1, 3]]),
        activation: Activation::Gelu,
        ..UNet::default()
    };
    let architecture = Architecture::Unet2d(unet);
    Expected { arrays: reference!("unet1d"), architecture, loss: Loss::default() }.check_everywhere();
}

#[test]
fn classifiers_equal_pytorch() {
    let small = Classifier { levels: 2, base_features: 4, ..Classifier::default() };
    Expected {
        arrays: reference!("classifier2d"),
        architecture: Architecture::Classifier2d(small.clone()),
        loss: Loss::CrossEntropy(CrossEntropy::default()),
    }
    .check_everywhere();
    let other = Classifier { norm: Norm::Instance, activation: Activation::Tanh, ..small };
    Expected {
        arrays: reference!("classifier3d"),
        architecture: Architecture::Classifier3d(other),
        loss: Loss::Bce(Bce {}),
    }
    .check_everywhere();
    Expected {
        arrays: reference!("linear2d"),
        architecture: Architecture::Linear2d(Linear {}),
        loss: Loss::Mse(Mse {}),
    }
    .check_everywhere();
}

#[track_caller]
fn check_loss(name: &str, loss: &Loss) {
    check_loss_on(&CpuBackend::default(), name, loss);
    #[cfg(feature = "cuda")]
    check_loss_on(&crate::support::cuda(), name, loss);
}

#[track_caller]
fn check_loss_on<B: Backend>(backend: &B, name: &str, loss: &Loss) {
    let arrays = reference!("losses");
    let (shape, logits) = arrays.get("logits").expect("logits");
    let labels: Arc<[u8]> =
        arrays.get("labels").expect("labels").1.iter().map(|label| *label as u8).collect();
    let geometry = Geometry { samples: shape[0], size: [1, shape[2], shape[3]] };
    let (rows, classes) = (geometry.rows(), shape[1]);
    // [n, c, voxels] to [n, voxels, c], and back.
    let place = |row: usize, class: usize| {
        (row / geometry.voxels() * classes + class) * geometry.voxels() + row % geometry.voxels()
    };
    let last: Vec<f32> =
        (0..rows).flat_map(|row| (0..classes).map(move |class| logits[place(row, class)])).collect();
    let x = backend.input(last, geometry, classes, true);
    let value = backend.loss(OwnedTape::default(), &x, &labels, &loss.terms());
    assert_close(name, &value.as_vec(), arrays.get(&format!("{name}/loss")).expect("a loss").1, 2e-6);
    let gradient = backend.gradient(&x, &value.backward());
    let expected = arrays.get(&format!("{name}/gradient")).expect("a gradient").1;
    let expected: Vec<f32> =
        (0..rows).flat_map(|row| (0..classes).map(move |class| expected[place(row, class)])).collect();
    assert_close(name, &gradient, &expected, 5e-6);
}

#[test]
fn every_loss_and_its_gradient_equal_pytorch() {
    let class_weights = vec![0.5, 1.0, 2.5];
    check_loss("cross-entropy", &Loss::CrossEntropy(CrossEntropy::default()));
    let weighted = CrossEntropy { class_weights: class_weights.clone() };
    check_loss("cross-entropy-weighted", &Loss::CrossEntropy(weighted));
    check_loss("dice", &Loss::Dice(Dice { batch_dice: false, background: true, smooth: 1e-2 }));
    let weighted = DiceCe { class_weights: class_weights.clone(), ..DiceCe::default() };
    check_loss("dice-ce", &Loss::DiceCe(weighted));
    check_loss("focal", &Loss::Focal(Focal { gamma: 2.0, class_weights }));
    check_loss("focal-half", &Loss::Focal(Focal { gamma: 0.5, class_weights: Vec::new() }));
    check_loss("tversky", &Loss::Tversky(Tversky::default()));
    let other = Tversky { alpha: 0.8, beta: 0.4, batch_dice: false, background: false, smooth: 1.0 };
    check_loss("tversky-sample", &Loss::Tversky(other));
    check_loss("bce", &Loss::Bce(Bce {}));
    check_loss("mse", &Loss::Mse(Mse {}));
}
