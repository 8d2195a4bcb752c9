//! The gRPC contract: wire types, client and server of `causerie.live.v1.Live`.
//!
//! The comments of `proto/causerie/live/v1/live.proto` are the reference; they are repeated on the types of [`v1`].
//!
//! The wire is compatible with Google's public BidiGenerateContent: field numbers below 1000 are theirs, those from
//! 1000 up are ours. The paths under which the same conversation is served for their clients are in
//! [`COMPATIBLE_SERVICES`] and [`COMPATIBLE_METHOD`].
#![forbid(unsafe_code)]

pub mod json;

/// `causerie.live.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("causerie.live.v1");
}

/// The contract as a serialized `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Full name of our service, as health checks ask for it.
pub const SERVICE: &str = "causerie.live.v1.Live";

/// Foreign names under which the same conversation is served, so that published clients work unmodified.
pub const COMPATIBLE_SERVICES: [&str; 2] =
    ["google.ai.generativelanguage.v1beta.GenerativeService", "google.ai.generativelanguage.v1alpha.GenerativeService"];

/// Method of [`COMPATIBLE_SERVICES`].
pub const COMPATIBLE_METHOD: &str = "BidiGenerateContent";

#[cfg(test)]
mod tests;
