//! Every stage kind, one file each.

pub mod annotators;
pub mod classify;
pub mod command;
pub mod crop;
pub mod dedup;
pub mod downsample;
pub mod ensemble;
pub mod evaluate;
pub mod evaluate_classes;
pub mod export;
pub mod import;
pub mod import_model;
pub mod inference;
pub mod inspect;
pub(crate) mod listing;
pub(crate) mod open;
pub mod prepare;
pub mod report;
pub mod split;
pub(crate) mod svg;
pub mod train;
