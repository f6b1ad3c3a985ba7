//! Tests of the cache through its public face, on a real file system.

#![expect(clippy::unwrap_used, reason = "a panic in a helper fails the test that called it")]

mod actions;
mod concurrency;
mod gc;
mod linked;
mod listing;
mod manifest;
mod memo;
mod model;
mod place;
mod runs;
mod size;
mod space;
mod stat_cache;
mod store;
mod verify;
