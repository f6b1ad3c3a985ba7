//! Every stage kind, in the order `pipe stages` prints them.

use crate::kinds;
use crate::stage::{AnyStage, stage};

pub static STAGES: &[&dyn AnyStage] = &[
    stage::<kinds::import::Import>(),
    stage::<kinds::inspect::Inspect>(),
    stage::<kinds::dedup::Dedup>(),
    stage::<kinds::annotators::Annotators>(),
    stage::<kinds::split::Split>(),
    stage::<kinds::crop::Crop>(),
    stage::<kinds::downsample::Downsample>(),
    stage::<kinds::train::Train>(),
    stage::<kinds::export::Export>(),
    stage::<kinds::import_model::ImportModel>(),
    stage::<kinds::ensemble::Ensemble>(),
    stage::<kinds::evaluate::Evaluate>(),
    stage::<kinds::classify::Classify>(),
    stage::<kinds::evaluate_classes::EvaluateClasses>(),
    stage::<kinds::report::Report>(),
    stage::<kinds::command::Command>(),
];

pub fn find(kind: &str) -> Option<&'static dyn AnyStage> {
    STAGES.iter().copied().find(|stage| stage.kind() == kind)
}
