//! How choices are written: `adamw` alone, or `{ adamw: { betas: [0.9, 0.99] } }`.

use schemars::Schema;
use serde_json::{Value, json};

/// Lets the schema of an enum of structs take a bare name, which stands for the defaults of that choice.
pub(crate) fn names_alone(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get_mut("oneOf") else { return };
    for choice in choices {
        let names = choice.get("properties").and_then(Value::as_object);
        let Some(name) = names.and_then(|names| names.keys().next()).cloned() else { continue };
        let description = choice.get("description").cloned();
        let inner = std::mem::take(choice);
        *choice = json!({ "anyOf": [{ "const": name }, inner] });
        if let (Some(description), Some(object)) = (description, choice.as_object_mut()) {
            object.insert("description".into(), description);
        }
    }
}
