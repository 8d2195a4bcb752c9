mod bad_input;
mod blocks;
mod golden;
mod placement;
mod plan;
mod streaming;

pub(super) use golden::tiny;
