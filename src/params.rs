//! Values for `${…}`: the `params:` of the file, overrides, environment variables and matrix axes.

use crate::problem::{Problem, suggest};
use crate::yaml::{Node, Scalar, Value, resolve};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The names that `${…}` may use at one place.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub params: BTreeMap<String, Node>,
    /// Params whose value is not that of the file, each with where it came from.
    pub origins: BTreeMap<String, String>,
    /// `${matrix.NAME}`, inside a stage with a matrix only.
    pub matrix: BTreeMap<String, Node>,
    pub environment: Rc<Environment>,
}

/// The variables of the process, and which of them were asked for: on those the plan depends.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    asked: RefCell<BTreeMap<String, Option<String>>>,
}

impl Environment {
    pub fn new(variables: BTreeMap<String, String>) -> Self {
        Self { variables, asked: RefCell::default() }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name);
        self.asked.borrow_mut().insert(name.to_owned(), value.cloned());
        value.map(String::as_str)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Each variable that was asked for, and its value if it is set.
    pub fn asked(&self) -> BTreeMap<String, Option<String>> {
        self.asked.borrow().clone()
    }
}

impl Scope {
    /// Replaces every `${…}` below `node`; what cannot be replaced is a problem at its place.
    pub fn fill(&self, node: &Node, problems: &mut Vec<Problem>) -> Node {
        let value = match &node.value {
            Value::Null => Value::Null,
            Value::Scalar(scalar) => self.fill_scalar(node, scalar, problems),
            Value::List(items) => Value::List(items.iter().map(|item| self.fill(item, problems)).collect()),
            Value::Map(pairs) => Value::Map(
                pairs.iter().map(|(key, value)| (key.clone(), self.fill(value, problems))).collect(),
            ),
        };
        Node { id: node.id, value }
    }

    /// Where the values that `node` names with `${…}` came from, for messages about the value as a whole.
    pub fn origin(&self, node: &Node) -> Option<String> {
        let parts = split(node.text()?).ok()?;
        let told = parts.iter().filter_map(|part| {
            let Part::Name(name) = part else { return None };
            if let Some(variable) = name.strip_prefix("env.") {
                let variable = variable.split(":-").next().unwrap_or_default();
                // A default stands at the place itself.
                self.environment.get(variable).filter(|value| !value.is_empty())?;
                return Some(format!("environment variable `{variable}`"));
            }
            let param = name.split('.').next().unwrap_or_default();
            let known = self.params.contains_key(param).then(|| format!("`{param}` under `params:`"));
            self.origins.get(param).cloned().or(known)
        });
        let told: Vec<_> = told.collect();
        (!told.is_empty()).then(|| told.join(" and "))
    }

    fn fill_scalar(&self, node: &Node, scalar: &Scalar, problems: &mut Vec<Problem>) -> Value {
        if !scalar.text.contains("${") {
            return Value::Scalar(scalar.clone());
        }
        let parts = match split(&scalar.text) {
            Ok(parts) => parts,
            Err(message) => {
                problems
                    .push(Problem::new(node.id, message).help("write `${name}`, or `$${` for a plain `${`"));
                return Value::Scalar(scalar.clone());
            }
        };
        // A value that is one `${…}` keeps its shape: a list stays a list.
        if let [Part::Name(name)] = parts.as_slice() {
            return match self.look_up(name) {
                Ok(value) => value,
                Err((message, help)) => {
                    problems.push(Problem::new(node.id, message).help(help));
                    Value::Scalar(scalar.clone())
                }
            };
        }
        let before = problems.len();
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(&part),
                Part::Name(name) => match self.look_up(&name) {
                    Ok(Value::Scalar(value)) => text.push_str(&value.text),
                    Ok(Value::Null) => {}
                    Ok(_) => problems.push(
                        Problem::new(
                            node.id,
                            format!("`${{{name}}}` is a list or mapping and cannot be part of a text"),
                        )
                        .help("use it as the whole value"),
                    ),
                    Err((message, help)) => problems.push(Problem::new(node.id, message).help(help)),
                },
            }
        }
        // Half a text would only be told again, as something that the user did not write.
        if problems.len() > before { Value::Scalar(scalar.clone()) } else { resolve(&text) }
    }

    fn look_up(&self, name: &str) -> Result<Value, (String, String)> {
        if let Some(variable) = name.strip_prefix("env.") {
            let (variable, default) = match variable.split_once(":-") {
                Some((variable, default)) => (variable, Some(default)),
                None => (variable, None),
            };
            return match (self.environment.get(variable), default) {
                (Some(text), _) if !text.is_empty() || default.is_none() => Ok(resolve(text)),
                (_, Some(default)) => Ok(resolve(default)),
                _ => Err((
                    format!("environment variable `{variable}` is not set"),
                    format!("set it, or give a default: `${{env.{variable}:-value}}`"),
                )),
            };
        }
        let (known, path, what) = match name.strip_prefix("matrix.") {
            Some(axis) => (&self.matrix, axis, "matrix axes"),
            None => (&self.params, name, "params"),
        };
        let mut steps = path.split('.');
        let first = steps.next().unwrap_or_default();
        let mut node = known.get(first).ok_or_else(|| {
            (format!("`${{{name}}}` is not known"), suggest(first, known.keys().map(String::as_str), what))
        })?;
        for step in steps {
            let Value::Map(pairs) = &node.value else {
                let message = format!("`{name}` goes into `{step}`, but that level is {}", node.describe());
                return Err((message, "name a value that is there".into()));
            };
            node =
                pairs.iter().find(|(key, _)| key.text == step).map(|(_, value)| value).ok_or_else(|| {
                    let keys = pairs.iter().map(|(key, _)| key.text.as_str());
                    (format!("`${{{name}}}` is not known"), suggest(step, keys, "keys"))
                })?;
        }
        Ok(node.value.clone())
    }
}

enum Part {
    Text(String),
    Name(String),
}

/// Splits `a${b}c` into text and names. `$${` stands for a plain `${`.
fn split(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            plain.push_str(&rest[..at - 1]);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        let end = rest[at..].find('}').ok_or_else(|| format!("`{text}` has a `${{` without its `}}`"))?;
        let name = rest[at + 2..at + end].trim();
        if name.is_empty() {
            return Err(format!("`{text}` has a `${{}}` without a name"));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Name(name.to_owned()));
        rest = &rest[at + end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let param = |name: &str, text: &str| (name.to_owned(), crate::yaml::parse(text).unwrap());
        Scope {
            params: BTreeMap::from([
                param("folds", "5"),
                param("list", "[1, 2]"),
                param("net", "{ base: 8 }"),
            ]),
            matrix: BTreeMap::from([param("fold", "0")]),
            origins: BTreeMap::from([("list".to_owned(), "`--set list=…`".to_owned())]),
            environment: Rc::new(Environment::new(BTreeMap::from([
                ("ROOT".to_owned(), "/data".to_owned()),
                ("EMPTY".to_owned(), String::new()),
            ]))),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut problems = Vec::new();
        let filled = scope().fill(&Node::scalar(text), &mut problems);
        assert_eq!(problems, []);
        assert_eq!(filled.text(), Some(expected));
    }

    #[track_caller]
    fn check_problem(text: &str, message: &str, help: &str) {
        let mut problems = Vec::new();
        scope().fill(&Node::scalar(text), &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].message.contains(message) && problems[0].help.contains(help),
            "got: {problems:?}"
        );
    }

    #[test]
    fn names_are_replaced_wherever_they_stand() {
        check("${folds}", "5");
        check("a${folds}b${matrix.fold}", "a5b0");
        check("${net.base}", "8");
        check("${env.ROOT}/x", "/data/x");
        check("${env.NONE:-phantom}", "phantom");
        check("${env.EMPTY:-phantom}", "phantom");
        check("cost $${folds}", "cost ${folds}");
    }

    #[test]
    fn a_whole_value_keeps_its_shape() {
        let filled = scope().fill(&Node::scalar("${list}"), &mut Vec::new());
        assert!(matches!(filled.value, Value::List(items) if items.len() == 2));
    }

    #[test]
    fn the_origin_of_a_value_is_told() {
        let check = |text: &str, origin: Option<&str>| {
            assert_eq!(scope().origin(&Node::scalar(text)).as_deref(), origin);
        };
        check("${folds}", Some("`folds` under `params:`"));
        check("${list}", Some("`--set list=…`"));
        check("${net.base}x${env.ROOT:-/}", Some("`net` under `params:` and environment variable `ROOT`"));
        check("${matrix.fold}", None);
        check("${env.EMPTY:-default}", None);
        check("plain", None);
    }

    #[test]
    fn what_cannot_be_replaced_is_a_problem() {
        check_problem("${fold}", "`${fold}` is not known", "did you mean `folds`?");
        check_problem("${matrix.model}", "is not known", "known matrix axes: fold");
        check_problem("${env.NONE}", "`NONE` is not set", "${env.NONE:-value}");
        check_problem("x${list}", "cannot be part of a text", "whole value");
        check_problem("${folds", "without its `}`", "write");
        check_problem("${}", "without a name", "write");
        check_problem("${folds.x}", "that level is `5`", "a value that is there");
    }
}
