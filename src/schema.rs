//! The JSON Schema of pipeline files, for editors: made from the parameters of the registered kinds.

use pipe_stages::registry::STAGES;
use serde_json::{Map, Value, json};

/// The schema of a pipeline file. Scalars may also be text with `${…}`.
pub fn pipeline_schema() -> Value {
    let mut definitions = Map::new();
    let mut kinds = Vec::new();
    for stage in STAGES {
        let mut params = stage.params_schema().to_value();
        share_definitions(stage.kind(), &mut params, &mut definitions);
        if let Some(object) = params.as_object_mut() {
            object.remove("$schema");
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                for property in properties.values_mut() {
                    allow_text(property);
                }
            }
        }
        definitions.insert(format!("with-{}", stage.kind()), params);
        kinds.push(json!({
            "if": { "properties": { "uses": { "const": stage.kind() } } },
            "then": { "properties": { "with": { "$ref": format!("#/$defs/with-{}", stage.kind()) } } }
        }));
    }
    let uses: Vec<_> =
        STAGES.iter().map(|stage| json!({ "const": stage.kind(), "description": stage.summary() })).collect();
    let reference = json!({ "type": "string", "description": "stage, stage.output or stage[axis=value]" });
    let time = json!({ "type": "string", "pattern": "^[0-9]+[smhd]$|\\$\\{",
        "description": "a whole number and a unit: 90s, 15m, 2h, 1d" });
    definitions.insert(
        "stage".into(),
        json!({
            "type": "object",
            "required": ["uses"],
            "additionalProperties": false,
            "properties": {
                "uses": { "oneOf": uses },
                "description": { "type": "string" },
                "in": { "type": "object", "additionalProperties": {
                    "oneOf": [reference, { "type": "array", "items": reference }] } },
                "with": { "type": ["object", "null"] },
                "matrix": { "type": "object", "additionalProperties": { "oneOf": [
                    { "type": "array" },
                    { "type": "object", "required": ["range"], "additionalProperties": false,
                      "properties": { "range": {} } },
                    { "type": "string" } ] } },
                "seed": { "type": ["integer", "string"] },
                "resources": { "type": "object", "additionalProperties": false, "properties": {
                    "cpu": { "type": ["integer", "string"] },
                    "memory": { "type": ["integer", "string"] },
                    "gpu": { "type": ["integer", "string"] } } },
                "retries": {
                    "description": "further tries after one that failed; the wait doubles each time",
                    "oneOf": [{ "type": ["integer", "string"] },
                    { "type": "object", "required": ["times"], "additionalProperties": false, "properties": {
                        "times": { "type": ["integer", "string"] },
                        "wait": time } }] },
                "timeout": time
            },
            "allOf": kinds
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipe pipeline",
        "type": "object",
        "required": ["stages"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string" },
            "description": { "type": "string" },
            "params": { "type": "object" },
            "seed": { "type": ["integer", "string"] },
            "stages": { "type": "object", "additionalProperties": { "$ref": "#/$defs/stage" } }
        },
        "patternProperties": { "^x-": { "description": "anything, such as anchors" } },
        "$defs": definitions
    })
}

/// Moves the definitions of one kind's parameters to those of all kinds. If another kind has one of the names for
/// something else, all of them get the name of their kind in front, as they may refer to each other.
fn share_definitions(kind: &str, params: &mut Value, definitions: &mut Map<String, Value>) {
    let own = params.as_object_mut().and_then(|object| object.remove("$defs"));
    let Some(Value::Object(own)) = own else { return };
    let clash = own.iter().any(|(name, value)| definitions.get(name).is_some_and(|other| other != value));
    let renamed = |name: &str| if clash { format!("{kind}-{name}") } else { name.to_owned() };
    rename_references(params, &renamed);
    for (name, mut value) in own {
        rename_references(&mut value, &renamed);
        definitions.insert(renamed(&name), value);
    }
}

fn rename_references(value: &mut Value, renamed: &impl Fn(&str) -> String) {
    const DEFINITIONS: &str = "#/$defs/";
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(path) if key == "$ref" => {
                        if let Some(name) = path.strip_prefix(DEFINITIONS) {
                            *path = format!("{DEFINITIONS}{}", renamed(name));
                        }
                    }
                    value => rename_references(value, renamed),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, renamed)),
        _ => {}
    }
}

/// A value may be written as `${param}` whatever its type.
fn allow_text(property: &mut Value) {
    let description = property.get("description").cloned();
    let inner = std::mem::take(property);
    *property = json!({ "anyOf": [inner, { "type": "string", "pattern": "\\$\\{" }] });
    if let (Some(description), Some(object)) = (description, property.as_object_mut()) {
        object.insert("description".into(), description);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(mode: &str) -> Value {
        json!({ "properties": { "mode": { "$ref": "#/$defs/Mode" }, "list": { "items": { "$ref": "#/$defs/Size" } } },
            "$defs": { "Mode": { "enum": [mode] }, "Size": { "properties": { "mode": { "$ref": "#/$defs/Mode" } } } } })
    }

    #[test]
    fn definitions_of_one_name_are_shared_if_they_are_equal_and_told_apart_if_not() {
        let mut definitions = Map::new();
        for (kind, mode) in [("one", "fast"), ("same", "fast"), ("other", "slow")] {
            let mut params = params(mode);
            share_definitions(kind, &mut params, &mut definitions);
            assert!(params.get("$defs").is_none());
            let mode = if kind == "other" { "#/$defs/other-Mode" } else { "#/$defs/Mode" };
            assert_eq!(params["properties"]["mode"]["$ref"], mode, "{kind}");
        }
        let names: Vec<_> = definitions.keys().map(String::as_str).collect();
        assert_eq!(names, ["Mode", "Size", "other-Mode", "other-Size"]);
        assert_eq!(definitions["other-Mode"], json!({ "enum": ["slow"] }));
        assert_eq!(definitions["Size"]["properties"]["mode"]["$ref"], "#/$defs/Mode");
    }
}
