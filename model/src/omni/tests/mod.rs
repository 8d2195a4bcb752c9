mod golden;

pub(super) use golden::tiny;
