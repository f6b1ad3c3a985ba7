//! The stage contract, the registry and every stage kind.
//!
//! Knows nothing of YAML, plans or scheduling: a stage is typed parameters, typed ports and one function from
//! inputs to outputs. The engine hands it a [`StageContext`](context::StageContext) and stores what it wrote.

pub mod artifact;
pub mod artifacts;
pub mod context;
pub mod error;
pub mod kinds;
pub mod machine;
pub mod registry;
pub mod stage;
#[cfg(test)]
mod testing;
pub mod text;
