//! The server: transports, the driver that owns clocks and sockets, and the command line.
//!
//! A transport ([`grpc`]) turns its own wire words into the [`driver`]'s and back. The driver runs one conversation:
//! decoding and voice activity on the [`media`] thread, the state machine of `causerie_session`, and the engine, which
//! lives on a thread of its own behind [`engine_host`]. [`serve`] puts a server together from a [`config::Config`];
//! [`http`] is its page for probes and [`metrics`].
#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod driver;
mod echo;
pub mod engine_host;
pub mod engines;
pub mod grpc;
pub mod http;
pub mod lag;
pub mod live;
pub mod logging;
pub mod media;
pub mod metrics;
pub mod models;
mod page;
pub mod port;
mod recent;
pub mod reload;
pub mod resumption;
mod room;
pub mod serve;
pub mod status;
pub mod tls;
pub mod tools;
pub mod ws;
