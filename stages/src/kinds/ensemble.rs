//! Joins exported networks into one predictor: all of them, or those that cross-validation finds best.

mod choice;
mod graph;

use crate::artifact::{In, InMany, Out, Ports, Resources};
use crate::artifacts::predictor::{Combine, Member, Predictor, Task};
use crate::artifacts::{Choice, Files, FoldTable, Volumes};
use crate::context::StageContext;
use crate::error::StageError;
use crate::kinds::inference::{DeviceName, Method, load_runtime, take};
use crate::stage::{ParamProblem, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub struct Ensemble;

pub const MODELS: InMany<Predictor> = InMany::new("models");
/// With `choose: best`: what to compare on.
pub const VOLUMES: In<Volumes> = In::new("volumes");
pub const SPLIT: In<FoldTable> = In::new("split");
pub const PREDICTOR: Out<Predictor> = Out::new("predictor");
/// With `choose: best`.
pub const CHOICE: Out<Choice> = Out::new("choice");
/// With `graph: true`: `model.onnx`.
pub const GRAPH: Out<Files> = Out::new("graph");

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// How the networks' predictions become one.
    pub combine: Combine,
    /// One number above 0 for each model, in their order: its share, relative to the others. All models count the same
    /// when it is left out.
    pub weights: Option<Vec<f64>>,
    /// Which of the models are joined.
    pub choose: Choose,
    /// What networks run on while the best are found.
    pub device: DeviceName,
    /// Also write the ensemble as one ONNX model for other programs, and check that it computes the same as its members.
    /// Only means of networks with the same kind of input can be one model.
    pub graph: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Choose {
    /// All of them.
    #[default]
    All,
    /// The single model or ensemble with the highest mean Dice over the validation cases of all folds. Every model, every
    /// pair and all together are tried; networks that differ in their fold alone are one model. Needs `volumes` and
    /// `split`; never looks at test cases.
    Best,
}

impl Stage for Ensemble {
    const KIND: &'static str = "ensemble";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Joins exported networks, across folds and between 2D and 3D, into one predictor: all of them, or the best by cross-validation.";
    type Params = Params;

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems: Vec<ParamProblem> = params
            .weights
            .iter()
            .flatten()
            .filter(|weight| !(weight.is_finite() && **weight > 0.0))
            .map(|weight| ParamProblem {
                parameter: "weights",
                message: format!("{weight} is no weight"),
                help: "use numbers above 0; a model that must not count is left out of `models`".into(),
            })
            .collect();
        let voxelwise = matches!(params.combine, Combine::MeanProbabilities | Combine::MeanLogits);
        if params.combine == Combine::Staple && params.weights.is_some() {
            problems.push(ParamProblem {
                parameter: "weights",
                message: "STAPLE finds its own weights".into(),
                help: "leave `weights` out, or use another `combine`".into(),
            });
        }
        if params.graph && !voxelwise {
            problems.push(ParamProblem {
                parameter: "graph",
                message: "votes are no part of an ONNX model of logits".into(),
                help: "use `combine: mean-probabilities` or `combine: mean-logits`, or leave `graph` out"
                    .into(),
            });
        }
        problems
    }

    fn declare(params: &Params, ports: &mut Ports) {
        ports.reads_many(&MODELS).writes(&PREDICTOR);
        if params.choose == Choose::Best {
            ports.reads(&VOLUMES).reads(&SPLIT).writes(&CHOICE).needs(Resources::PARALLEL);
        }
        if params.graph {
            ports.writes(&GRAPH);
        }
    }

    fn run(params: &Params, context: &StageContext) -> Result<(), StageError> {
        let predictors = context.read_many(&MODELS)?;
        let weights = weights(params, predictors.len())?;
        let task = common_task(&predictors)?;
        check_nested(&predictors, params.combine)?;
        let members: Vec<Member> = predictors
            .into_iter()
            .zip(weights)
            .flat_map(|(predictor, weight)| weighted(predictor, weight))
            .collect();
        warn_of_twins(&members, context);
        let mut predictor = Predictor { task, combine: params.combine, members };
        if params.choose == Choose::Best {
            load_runtime(context)?;
            let method = Method { provider: take(params.device, context)?, ..Method::default() };
            let (volumes, split) = (context.read(&VOLUMES)?, context.read(&SPLIT)?);
            let (table, chosen) = choice::best(&predictor, method, &volumes, &split, context)?;
            if let Some(best) = table.rows.first() {
                context.fact("chosen", best.candidate.as_str());
                context.fact("validation_dice", best.mean_dice);
            }
            predictor.members = chosen.into_iter().map(|member| predictor.members[member].clone()).collect();
            context.write(&CHOICE, &table)?;
        }
        context.fact("members", predictor.members.len());
        if params.graph {
            load_runtime(context)?;
            let (onnx, difference) = graph::one_graph(&predictor)?;
            context.fact("graph_difference", difference);
            context.write(&GRAPH, &graph::stored(&onnx, context)?)?;
        }
        context.write(&PREDICTOR, &predictor)
    }
}

/// Fails where an ensemble among the models combines its members in another way: its members are taken as they are.
fn check_nested(predictors: &[(String, Predictor)], combine: Combine) -> Result<(), StageError> {
    let other = predictors.iter().find(|(_, own)| own.members.len() > 1 && own.combine != combine);
    let Some((name, own)) = other else { return Ok(()) };
    let word = |combine: Combine| serde_json::to_string(&combine).unwrap_or_default();
    Err(StageError::Data(format!(
        "`{name}` is an ensemble that combines by {} but this one by {}: give both the same `combine`",
        word(own.combine),
        word(combine)
    )))
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
