//! Whether two images show the same, whatever grid, intensity scale, noise or side they are stored with.
//!
//! Three steps, from cheap to sure: a [`Thumbnail`] of each image, its [`spectrum`](spectrum::spectrum) to find the
//! few others that may be the same ([`nearest`](spectrum::nearest)), and [`align`](align::align) to tell for one pair.
//! [`intensity_step`](step::intensity_step) tells which images were scaled together.

pub mod align;
pub mod spectrum;
pub mod step;
mod thumbnail;

pub use thumbnail::Thumbnail;
