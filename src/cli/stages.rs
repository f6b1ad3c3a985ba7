//! `pipe stages`: every kind, or the parameters of one.

use super::{CliError, OK};
use crate::console;
use crate::problem::suggest;
use clap::Args;
use pipe_stages::registry::{self, STAGES};
use pipe_stages::stage::AnyStage;
use serde_json::Value;
use std::fmt::Write as _;

/// List the stage kinds, or describe the parameters of one
#[derive(Debug, Args)]
pub(crate) struct StagesArgs {
    /// Stage kind to describe
    kind: Option<String>,
}

pub(crate) fn run(args: &StagesArgs) -> Result<u8, CliError> {
    let Some(kind) = &args.kind else {
        let width = STAGES.iter().map(|stage| stage.kind().len()).max().unwrap_or_default();
        for stage in STAGES {
            console::data_line(format!("{:<width$}  {}", stage.kind(), stage.summary()));
        }
        console::hint("\n`pipe stages KIND` describes the parameters of one.");
        return Ok(OK);
    };
    let stage = registry::find(kind).ok_or_else(|| {
        let known: Vec<_> = STAGES.iter().map(|stage| stage.kind()).collect();
        CliError::usage(format!("there is no stage kind `{kind}`"), suggest(kind, known, "kinds"))
    })?;
    console::data(describe(stage));
    Ok(OK)
}

fn describe(stage: &dyn AnyStage) -> String {
    let mut text = format!("{}: {}\n\nparameters (under `with:`):\n", stage.kind(), stage.summary());
    let schema = stage.params_schema().to_value();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object();
    if properties.is_none_or(serde_json::Map::is_empty) {
        text.push_str("  none\n");
    }
    for (name, property) in properties.into_iter().flatten() {
        let default = match &property["default"] {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => "optional".to_owned(),
            // A choice with all of its parameters: its name stands for them.
            Value::Object(choice) if choice.len() == 1 && choice.values().all(Value::is_object) => {
                format!("default {}", choice.keys().next().map_or("none", String::as_str))
            }
            value => format!("default {value}"),
        };
        let _ = writeln!(text, "  {name}: {} ({default})", type_of(property, &schema));
        for line in property["description"].as_str().unwrap_or_default().lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    text
}

/// The type of a property in a few words.
fn type_of(property: &Value, schema: &Value) -> String {
    if let Some(name) = property["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        return type_of(&schema["$defs"][name], schema);
    }
    if let Some(values) = property["enum"].as_array() {
        return values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    if let Some(value) = property.get("const") {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = property[key].as_array() {
            let words: Vec<_> = choices
                .iter()
                .filter(|choice| choice["type"] != "null")
                .map(|choice| type_of(choice, schema))
                .collect();
            return words.join(" | ");
        }
    }
    let name = |name: &str| match name {
        "integer" => "whole number".to_owned(),
        "array" => {
            let items = type_of(&property["items"], schema);
            let count = property["maxItems"].as_u64().map(|count| format!("{count} × ")).unwrap_or_default();
            format!("list of {count}{items}")
        }
        "object" => match property["properties"].as_object() {
            Some(fields) => format!("{{ {} }}", fields.keys().cloned().collect::<Vec<_>>().join(", ")),
            None => "mapping".to_owned(),
        },
        "string" => "text".to_owned(),
        "boolean" => "true | false".to_owned(),
        other => other.to_owned(),
    };
    match &property["type"] {
        Value::String(kind) => name(kind),
        Value::Array(kinds) => {
            let words: Vec<_> =
                kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").map(name).collect();
            words.join(" | ")
        }
        _ => "any value".to_owned(),
    }
}
