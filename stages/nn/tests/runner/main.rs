//! The crate's one integration-test binary; a module per subject.

mod operations;
mod pytorch;
mod support;
mod training;
mod transfer;
