//! The contract of a stage. To add one: write `kinds/<kind>.rs`, add one line to `registry.rs`.

use crate::{artifact::Ports, context::StageContext, error::StageError};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// A kind of work: typed parameters, typed ports, one function from inputs to outputs.
///
/// `run` may depend only on its parameters, its declared inputs and what [`StageContext`] hands out. Anything else
/// that it reads makes the cache lie.
///
/// Ports are typed constants, so reading the wrong artifact type does not compile:
///
/// ```compile_fail,E0308
/// use pipe_stages::{artifact::In, artifacts::{CaseTable, FoldTable}, context::StageContext};
/// const CASES: In<CaseTable> = In::new("cases");
/// fn run(context: &StageContext) {
///     let folds: FoldTable = context.read(&CASES).unwrap();
/// }
/// ```
pub trait Stage: 'static {
    /// Name under `uses:`, kebab-case.
    const KIND: &'static str;
    /// Bump when `run` would write different bytes for the same inputs.
    const VERSION: u32;
    /// One sentence for `pipe stages`.
    const SUMMARY: &'static str;
    /// Written with `#[serde(deny_unknown_fields)]`, so a typo is an error with a place.
    type Params: DeserializeOwned + Serialize + JsonSchema + Send + Sync;

    /// Finds what is wrong with the values beyond their types; all of it at once.
    fn check(_params: &Self::Params) -> Vec<ParamProblem> {
        Vec::new()
    }
    /// Finds what works but is seldom meant; `pipe check` tells it, and nothing stops for it.
    fn advise(_params: &Self::Params) -> Vec<ParamProblem> {
        Vec::new()
    }
    fn declare(params: &Self::Params, ports: &mut Ports);
    fn run(params: &Self::Params, context: &StageContext) -> Result<(), StageError>;
}

/// A parameter whose value has the right type but cannot be used, or is seldom meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamProblem {
    /// Name of the top-level parameter.
    pub parameter: &'static str,
    pub message: String,
    pub help: String,
}

/// A [`Stage`] without its type, as the registry holds it.
pub trait AnyStage: Sync {
    fn kind(&self) -> &'static str;
    fn version(&self) -> u32;
    fn summary(&self) -> &'static str;
    fn params_schema(&self) -> schemars::Schema;
    fn configure(
        &self,
        params: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<Box<dyn ConfiguredStage>, erased_serde::Error>;
}

/// A stage with its parameters filled in: ready to be planned, keyed and run.
pub trait ConfiguredStage: Send + Sync {
    fn kind(&self) -> &'static str;
    fn version(&self) -> u32;
    /// Parameters after defaults, so writing a default out does not change the key.
    fn params(&self) -> serde_json::Value;
    fn check(&self) -> Vec<ParamProblem>;
    fn advise(&self) -> Vec<ParamProblem>;
    fn ports(&self) -> Ports;
    fn run(&self, context: &StageContext) -> Result<(), StageError>;
}

struct Erased<S>(PhantomData<fn() -> S>);
struct Configured<S: Stage>(S::Params);

/// The registry entry of `S`.
pub const fn stage<S: Stage>() -> &'static dyn AnyStage {
    const { &Erased::<S>(PhantomData) }
}

impl<S: Stage> AnyStage for Erased<S> {
    fn kind(&self) -> &'static str {
        S::KIND
    }
    fn version(&self) -> u32 {
        S::VERSION
    }
    fn summary(&self) -> &'static str {
        S::SUMMARY
    }
    fn params_schema(&self) -> schemars::Schema {
        schemars::schema_for!(S::Params)
    }
    fn configure(
        &self,
        params: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<Box<dyn ConfiguredStage>, erased_serde::Error> {
        Ok(Box::new(Configured::<S>(erased_serde::deserialize(params)?)))
    }
}

impl<S: Stage> ConfiguredStage for Configured<S> {
    fn kind(&self) -> &'static str {
        S::KIND
    }
    fn version(&self) -> u32 {
        S::VERSION
    }
    fn params(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).expect("parameters are plain data")
    }
    fn check(&self) -> Vec<ParamProblem> {
        S::check(&self.0)
    }
    fn advise(&self) -> Vec<ParamProblem> {
        S::advise(&self.0)
    }
    fn ports(&self) -> Ports {
        let mut ports = Ports::default();
        S::declare(&self.0, &mut ports);
        ports
    }
    fn run(&self, context: &StageContext) -> Result<(), StageError> {
        S::run(&self.0, context)
    }
}
