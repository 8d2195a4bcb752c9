//! Rows put in their places among others, or added to what is there: `y[ids[i]] = x[i]`, or `y[ids[i]] += x[i]`.
//!
//! x: `[rows, h]`. ids: `[rows]`, all different; one that is outside of y is left out. y: `[any, h]`. All in bf16.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
