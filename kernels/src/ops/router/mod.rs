//! Which experts a token goes to: softmax over all, the likeliest few, and what each of them weighs.
//!
//! logits: `[tokens, experts]`. ids, weights: `[tokens, top_k]`, likeliest first; of equals the lower number first.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
