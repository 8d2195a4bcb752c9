//! Rows of a table by number, and the sum or mean of a row of each of several tables:
//! `y[i] = scale · Σ_g table_g[ids[i, g]] + addend[i]`.
//!
//! ids: `[tokens, tables]`. The tables are `[rows, h]` and lie behind each other. addend, y: `[tokens, h]`. An id outside of
//! its table gives zeros.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
