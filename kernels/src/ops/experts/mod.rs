//! Tokens sorted by expert, so that each expert's are neighbours for a grouped product, and the way back: the weighted sum
//! of a token's results.
//!
//! ids, weights: `[tokens, top_k]`. offsets: `[experts + 1]`; rows: `[tokens · top_k]`, the token at each sorted position;
//! places: `[tokens, top_k]`, where each slot went. Sorted by expert, then by slot.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
