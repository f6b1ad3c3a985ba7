//! The JSON Schema of pipeline files, for editors: made from the parameters of the registered kinds.

use pipe_stages::registry::STAGES;
use serde_json::{Map, Value, json};

/// The schema of a pipeline file. Scalars may also be text with `${…}`.
pub fn pipeline_schema() -> Value {
    let mut definitions = Map::new();
    let mut kinds = Vec::new();
    for stage in STAGES {
        let mut params = stage.params_schema().to_value();
        if let Some(object) = params.as_object_mut() {
            object.remove("$schema");
            if let Some(Value::Object(inner)) = object.remove("$defs") {
                definitions.extend(inner);
            }
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
                    "gpu": { "type": ["integer", "string"] } } }
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
        "$defs": definitions
    })
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
