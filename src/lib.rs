//! The engine of `pipe`: YAML text to plan, plan to run, run to trace, and the command line.

pub mod cli;
pub mod compare;
pub mod console;
pub mod decode;
pub mod event;
pub mod explain;
pub mod external;
pub mod graph;
pub mod history;
pub mod interrupt;
pub mod key;
pub mod lockfile;
pub mod matrix;
pub mod params;
pub mod pipeline;
pub mod plan;
pub mod problem;
pub mod reference;
pub mod run;
pub mod sandbox;
pub mod schedule;
pub mod schema;
pub mod stage_log;
pub mod when;
pub mod worker;
pub mod yaml;
