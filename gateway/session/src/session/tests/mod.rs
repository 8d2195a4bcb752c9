//! Whole conversations in virtual time: a scripted user, a scripted engine, and everything that is said as text.

mod conversations;
mod endpoints;
mod order;
mod properties;
mod requests;
mod snapshots;
mod stage;
mod window;
