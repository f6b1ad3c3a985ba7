//! Joins exported networks into one predictor that averages their probabilities.

use crate::artifact::{InMany, Out, Ports};
use crate::artifacts::predictor::{Member, Predictor, Task};
use crate::context::StageContext;
use crate::error::StageError;
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub struct Ensemble;

pub const MODELS: InMany<Predictor> = InMany::new("models");
pub const PREDICTOR: Out<Predictor> = Out::new("predictor");

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// One number above 0 for each model, in their order: its share in the mean of the probabilities, relative to
    /// the others. All models count the same when it is left out.
    pub weights: Option<Vec<f64>>,
}

impl Stage for Ensemble {
    const KIND: &'static str = "ensemble";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Joins exported networks, across folds and between 2D and 3D, into one that averages their probabilities.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let weights = params.weights.iter().flatten();
        let unusable = weights.filter(|weight| !(weight.is_finite() && **weight > 0.0));
        let problem = |weight: &f64| ParamProblem {
            parameter: "weights",
            message: format!("{weight} is no weight"),
            help: "use numbers above 0; a model that must not count is left out of `models`".into(),
        };
        unusable.map(problem).collect()
    }

    fn declare(_: &Params, ports: &mut Ports) {
        ports.reads_many(&MODELS).writes(&PREDICTOR);
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let predictors = context.read_many(&MODELS)?;
        let weights = weights(params, predictors.len())?;
        let task = common_task(&predictors)?;
        let members: Vec<Member> = predictors
            .into_iter()
            .zip(weights)
            .flat_map(|(predictor, weight)| weighted(predictor, weight))
            .collect();
        warn_of_twins(&members, context);
        context.fact("members", members.len());
        context.write(&PREDICTOR, &Predictor { task, members })
    }
}

/// A weight for each model, 1 for all unless the parameter says otherwise.
fn weights(params: &Params, models: usize) -> Result<Vec<f64>, StageError> {
    match &params.weights {
        None => Ok(vec![1.0; models]),
        Some(weights) if weights.len() == models => Ok(weights.clone()),
        Some(weights) => Err(StageError::Data(format!(
            "`weights` has {} numbers but there are {models} models: give one for each, in the order of `models`",
            weights.len()
        ))),
    }
}

/// What all models do, or which two of them disagree and on what.
fn common_task(predictors: &[(String, Predictor)]) -> Result<Task, StageError> {
    let (first_name, first) = predictors
        .first()
        .ok_or_else(|| StageError::Internal("an ensemble without models was planned".into()))?;
    for (name, predictor) in &predictors[1..] {
        let difference =
            first.task.difference(&format!("`{first_name}`"), &predictor.task, &format!("`{name}`"));
        if let Some(difference) = difference {
            return Err(StageError::Data(format!("the models do not do the same task: {difference}")));
        }
    }
    Ok(first.task.clone())
}

/// The members of a model, which together have its weight. A model of one member gives it its own name.
fn weighted((name, predictor): (String, Predictor), weight: f64) -> Vec<Member> {
    let total: f64 = predictor.members.iter().map(|member| member.card.weight).sum();
    let single = predictor.members.len() == 1;
    let mut members = predictor.members;
    for member in &mut members {
        member.card.weight *= weight / total;
        member.card.name = if single { name.clone() } else { format!("{name}/{}", member.card.name) };
    }
    members
}

fn warn_of_twins(members: &[Member], context: &StageContext) {
    let mut seen = BTreeMap::new();
    for member in members {
        if let Some(first) = seen.insert(member.card.digest, &member.card.name) {
            context
                .warn(format!("`{first}` and `{}` are the same network: it counts twice", member.card.name));
        }
    }
}

#[cfg(test)]
mod tests;
