//! The service as its clients see it, and the rules of the workspace.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod access;
mod bad_input;
mod clients;
mod conversations;
mod gpu;
mod hostile;
mod lifecycle;
mod logs;
mod omni;
mod omni_script;
mod page;
mod real_models;
mod real_tools;
mod resumption;
mod termination;
mod tls;
mod websocket;
mod workspace;
