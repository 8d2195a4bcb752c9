mod bad_input;
mod blocks;
mod golden;
mod streaming;

pub(super) use golden::tiny;
