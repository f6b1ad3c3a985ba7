//! The default bodies alone: what every override is tested against, and what runs where there are no kernels.

use dfdx::prelude::*;

use super::{Act, Backend, Recorder, Rows};
use crate::geometry::Geometry;

/// A backend of public dfdx operations on any dfdx device.
#[derive(Clone, Debug, Default)]
pub struct Reference<D> {
    device: D,
}

impl<D: Device<f32>> Reference<D> {
    /// The backend of a device.
    pub fn new(device: D) -> Self {
        Self { device }
    }
}

impl<D: Device<f32>> Backend for Reference<D> {
    type Device = D;
    type Value = Rows<D>;

    fn device(&self) -> &D {
        &self.device
    }

    fn lift<T: Recorder<D>>(&self, _: &mut T, rows: Rows<D>) -> Rows<D> {
        rows
    }

    fn lower<T: Recorder<D>>(&self, _: &mut T, x: &Act<Rows<D>>) -> Rows<D> {
        x.value.clone()
    }

    fn input(&self, values: Vec<f32>, geometry: Geometry, channels: usize, _: bool) -> Act<Rows<D>> {
        let value = self.device.tensor_from_vec(values, (geometry.rows(), channels));
        Act { value, geometry, channels }
    }

    fn read(&self, x: &Act<Rows<D>>) -> Vec<f32> {
        x.value.as_vec()
    }

    fn gradient(&self, x: &Act<Rows<D>>, gradients: &Gradients<f32, D>) -> Vec<f32> {
        gradients.get(&x.value).as_vec()
    }
}
