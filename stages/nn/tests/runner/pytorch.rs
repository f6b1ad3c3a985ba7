//! Whole networks against PyTorch in float64: `tests/reference/generate.py` wrote the values (PyTorch 2.15.0, CPU).

use std::sync::Arc;

use dfdx::prelude::Cpu;
use pipe_nn::{
    Backend, CpuBackend, Dims, Geometry, Isa, LossConfig, Model, Parameters, Reference, UNetConfig,
};

use crate::support::assert_close;

/// Of the largest value of each array. Measured: 4e-6 at worst; f32 against f64 over 15 layers.
const TOLERANCE: f32 = 2e-5;

struct Expected {
    arrays: Parameters,
    config: UNetConfig,
    loss: LossConfig,
}

impl Expected {
    fn array(&self, name: &str) -> &[f32] {
        self.arrays.get(name).expect("the reference file has the array").1
    }

    /// The arrays below `prefix`, as the bytes of a file of their own.
    fn below(&self, prefix: &str) -> Vec<(&str, &[f32])> {
        let entries =
            self.arrays.iter().filter_map(|entry| Some((entry.name.strip_prefix(prefix)?, &*entry.values)));
        entries.collect()
    }

    #[track_caller]
    fn check<B: Backend>(&self, backend: B) {
        let network = self.config.network().expect("a valid configuration");
        let shape = self.arrays.get("input").expect("the reference file has the input").0;
        let mut size = [1; 3];
        size[5 - shape.len()..].copy_from_slice(&shape[2..]);
        let geometry = Geometry { samples: shape[0], size };
        let parameters = self.arrays.renamed(|name| name.strip_prefix("parameter/").map(str::to_owned));
        let model =
            Model::from_parameters(backend, network, &parameters).expect("names and shapes match PyTorch's");
        let labels: Arc<[u8]> = self.array("labels").iter().map(|label| *label as u8).collect();
        let found = model.differentiate(self.array("input"), &labels, geometry, &self.loss).expect("it fits");
        let forward = model.forward(self.array("input"), geometry).expect("it fits");
        assert_eq!(forward, found.logits, "the tape changes nothing");
        assert_close("logits", &found.logits, self.array("logits"), TOLERANCE);
        assert_close("loss", &[found.loss], self.array("loss"), TOLERANCE);
        assert_close("gradient of the input", &found.input, self.array("gradient/input"), TOLERANCE);
        let gradients = self.below("gradient/");
        assert_eq!(gradients.len(), found.parameters.iter().count() + 1);
        for (name, expected) in gradients.into_iter().filter(|(name, _)| *name != "input") {
            let (_, values) = found.parameters.get(name).expect("a gradient for every parameter");
            assert_close(name, values, expected, TOLERANCE);
        }
    }

    #[track_caller]
    fn check_everywhere(&self) {
        for backend in [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(CpuBackend::with_isa) {
            self.check(backend);
        }
        self.check(Reference::<Cpu>::default());
    }
}

#[test]
fn a_2d_unet_equals_pytorch() {
    Expected {
        arrays: Parameters::from_safetensors(include_bytes!("../reference/unet2d.safetensors"))
            .expect("readable"),
        config: UNetConfig { dims: Dims::Two, in_channels: 2, classes: 3, base_features: 8, levels: 3 },
        loss: LossConfig { batch_dice: true, dice_includes_background: false, smooth: 1e-5 },
    }
    .check_everywhere();
}

#[test]
fn a_3d_unet_equals_pytorch() {
    Expected {
        arrays: Parameters::from_safetensors(include_bytes!("../reference/unet3d.safetensors"))
            .expect("readable"),
        config: UNetConfig { dims: Dims::Three, in_channels: 1, classes: 3, base_features: 4, levels: 3 },
        loss: LossConfig { batch_dice: false, dice_includes_background: true, smooth: 1e-5 },
    }
    .check_everywhere();
}
