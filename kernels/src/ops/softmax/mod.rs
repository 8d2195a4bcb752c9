//! Contract of the op.
