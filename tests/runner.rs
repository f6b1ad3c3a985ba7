//! The one test binary of the engine: every module of this folder, each about one theme, against the built `pipe`.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod annotators;
mod architecture;
mod classes;
mod cli;
mod collect;
mod crash;
mod data;
mod errors;
mod evaluate;
mod faults;
mod foreign;
mod golden;
mod hermetic;
mod history;
mod large;
mod limits;
mod lock;
mod output;
mod overrides;
mod predict;
mod python;
mod results;
mod running;
mod safety;
mod select;
mod share;
mod space;
mod together;
mod training;
mod volume;
mod why;
