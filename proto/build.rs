//! Compiles the contract. Parsed by protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const CONTRACT: &str = "causerie/live/v1/live.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/{CONTRACT}");
    let descriptors = protox::compile([CONTRACT], ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Media is sliced out of the receive buffer, not copied.
    tonic_prost_build::configure()
        .bytes(".causerie.live.v1.Blob.data")
        .bytes(".causerie.live.v1.Ping.payload")
        .bytes(".causerie.live.v1.Pong.payload")
        // What comes once a conversation or once a turn does not make the messages of audio larger.
        .boxed(".causerie.live.v1.ClientMessage.message_type.setup")
        .boxed(".causerie.live.v1.ServerMessage.usage_metadata")
        .boxed(".causerie.live.v1.ServerContent.grounding_metadata")
        .boxed(".causerie.live.v1.ServerContent.url_context_metadata")
        .boxed(".causerie.live.v1.ServerContent.turn_metrics")
        .compile_fds(descriptors)?;
    Ok(())
}
