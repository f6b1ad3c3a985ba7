//! Tests of the crate's public face: hand-worked cases, a slow reference, and values computed by nnU-Net and MONAI.

mod golden;
mod overlap;
mod summary;
