//! `matrix:` expansion: one stage per combination of axis values.

use crate::params::Scope;
use crate::problem::Problem;
use crate::yaml::{Key, Node, NodeId, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Name of a stage after expansion: `split`, or `train[fold=0,model=unet3d]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageId {
    /// The name in the file.
    pub base: String,
    /// Axis and value, in the order of the file; empty without a matrix.
    pub axes: Vec<(String, String)>,
}

impl StageId {
    /// The folder of the stage's results: `train/fold=0,model=unet3d`.
    pub fn folder(&self) -> String {
        let axes: Vec<_> =
            self.axes.iter().map(|(axis, value)| format!("{axis}={}", file_name(value))).collect();
        if axes.is_empty() { self.base.clone() } else { format!("{}/{}", self.base, axes.join(",")) }
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.base)?;
        if !self.axes.is_empty() {
            let axes: Vec<_> = self.axes.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
            write!(formatter, "[{}]", axes.join(","))?;
        }
        Ok(())
    }
}

/// A value as a part of a file name: other characters as `%` and their bytes in hex, so that no two values meet.
fn file_name(value: &str) -> String {
    let mut name = String::new();
    for c in value.chars() {
        if c.is_alphanumeric() || "._-+".contains(c) {
            name.push(c);
        } else {
            let mut bytes = [0; 4];
            name.extend(c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    name
}

/// More stages than this are taken for a mistake.
const MAX_COMBINATIONS: usize = 100_000;

/// Every combination of the matrix's values, the last axis fastest; one empty combination without a matrix.
pub fn expand(matrix: Option<&Node>, scope: &Scope, problems: &mut Vec<Problem>) -> Vec<Vec<(String, Node)>> {
    let Some(matrix) = matrix else { return vec![Vec::new()] };
    let Value::Map(pairs) = &matrix.value else {
        let message = format!("`matrix` must map axis names to lists, not {}", matrix.describe());
        problems.push(
            Problem::new(matrix.id, message)
                .help("write `matrix: { fold: { range: 5 }, model: [unet2d, unet3d] }`"),
        );
        return Vec::new();
    };
    if pairs.is_empty() {
        problems
            .push(Problem::new(matrix.id, "`matrix` has no axis").help("add an axis, or remove `matrix`"));
    }
    let before = problems.len();
    let axes: Vec<(&Key, Vec<Node>)> = pairs
        .iter()
        .enumerate()
        .map(|(at, (key, node))| {
            if pairs[..at].iter().any(|(other, _)| other.text == key.text) {
                let message = format!("`matrix` has the axis `{}` twice", key.text);
                problems
                    .push(Problem::new(key.id, message).label("this one again").help("remove one of them"));
            }
            (key, axis(key, &scope.fill(node, problems), problems))
        })
        .collect();
    if problems.len() > before {
        return Vec::new();
    }
    let count = axes.iter().try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
    if count.is_none_or(|count| count > MAX_COMBINATIONS) {
        problems.push(
            Problem::new(matrix.id, format!("`matrix` makes more than {MAX_COMBINATIONS} stages"))
                .help("use fewer or shorter axes"),
        );
        return Vec::new();
    }
    let mut combinations = vec![Vec::new()];
    for (key, values) in axes {
        combinations = combinations
            .into_iter()
            .flat_map(|combination: Vec<(String, Node)>| {
                values.iter().map(move |value| {
                    let mut next = combination.clone();
                    next.push((key.text.clone(), value.clone()));
                    next
                })
            })
            .collect();
    }
    combinations
}

/// The scope of one combination, and the stage it makes.
pub fn instance(base: &Key, combination: &[(String, Node)], scope: &Scope) -> (StageId, Scope) {
    let text = |node: &Node| node.text().unwrap_or_default().to_owned();
    let axes = combination.iter().map(|(axis, value)| (axis.clone(), text(value))).collect();
    let matrix: BTreeMap<_, _> = combination.iter().cloned().collect();
    (StageId { base: base.text.clone(), axes }, Scope { matrix, ..scope.clone() })
}

fn axis(key: &Key, node: &Node, problems: &mut Vec<Problem>) -> Vec<Node> {
    let before = problems.len();
    let values = match &node.value {
        Value::List(items) => items.clone(),
        Value::Map(pairs) => match pairs.as_slice() {
            [(word, bounds)] if word.text == "range" => range(bounds, problems),
            _ => {
                problems.push(bad_axis(key, node));
                return Vec::new();
            }
        },
        _ => {
            problems.push(bad_axis(key, node));
            return Vec::new();
        }
    };
    let mut seen = BTreeSet::new();
    for value in &values {
        match value.text() {
            None => problems.push(
                Problem::new(
                    value.id,
                    format!("a matrix value must be a word or a number, not {}", value.describe()),
                )
                .help("give lists and mappings a name under `params:` and use the name as the value"),
            ),
            Some(text)
                if text.is_empty()
                    || text.len() > 100
                    || text.contains([',', ']', '[', '=', '*'])
                    || text.contains(char::is_control) =>
            {
                let message = format!("`{}` cannot be a matrix value", text.escape_debug());
                problems.push(Problem::new(value.id, message).help(
                    "it becomes part of the stage's name: up to 100 characters, none of , = * [ ] and no line breaks",
                ));
            }
            Some(text) if !seen.insert(text) => {
                let message = format!("axis `{}` has the value `{text}` twice", key.text);
                problems
                    .push(Problem::new(value.id, message).label("this one again").help("remove one of them"));
            }
            Some(_) => {}
        }
    }
    if values.is_empty() && problems.len() == before {
        let message = format!("axis `{}` has no values", key.text);
        problems.push(Problem::new(node.id, message).help("give it at least one, or remove the axis"));
    }
    values
}

fn bad_axis(key: &Key, node: &Node) -> Problem {
    let at = if node.id == NodeId::NOWHERE { key.id } else { node.id };
    Problem::new(at, format!("axis `{}` must be a list or a range, not {}", key.text, node.describe()))
        .help("write `[a, b]`, `{ range: 5 }` for 0 to 4, or `{ range: [2, 5] }` for 2 to 4")
}

fn range(bounds: &Node, problems: &mut Vec<Problem>) -> Vec<Node> {
    let number = |node: &Node| node.text().and_then(|text| text.parse::<u32>().ok());
    let pair = match &bounds.value {
        Value::Scalar(_) => number(bounds).map(|end| (0, end)),
        Value::List(items) if items.len() == 2 => number(&items[0]).zip(number(&items[1])),
        _ => None,
    };
    match pair {
        Some((start, end)) if start < end && (end - start) as usize <= MAX_COMBINATIONS => {
            (start..end).map(|number| Node { id: bounds.id, ..Node::scalar(number.to_string()) }).collect()
        }
        Some((start, end)) => {
            let message =
                format!("the range from {start} to {end} is empty or longer than {MAX_COMBINATIONS}");
            problems.push(Problem::new(bounds.id, message).help("`{ range: 5 }` means 0 to 4"));
            Vec::new()
        }
        None => {
            problems.push(
                Problem::new(
                    bounds.id,
                    format!("`range` takes a whole number or two, not {}", bounds.describe()),
                )
                .help("write `{ range: 5 }` for 0 to 4, or `{ range: [2, 5] }` for 2 to 4"),
            );
            Vec::new()
        }
    }
}
