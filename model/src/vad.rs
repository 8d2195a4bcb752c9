//! Voice activity.
