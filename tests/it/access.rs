//! Who may talk: keys, their limits, and where a server without keys may listen.

use std::path::Path;
use std::sync::Arc;

use causerie_gateway::access::keys::{self, Key, digest};
use causerie_gateway::config::Config;
use causerie_gateway::serve::Server;
use causerie_model_api::Modality;
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{
    Call, OUR_PATH, config, connect, factory, first, get, get_with, setup, start, until_page,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

const ADA: &str = "causerie_ada";
const BOB: &str = "causerie_bob";

fn write_keys(path: &Path, streams: u32) {
    let key = |name: &str, key| Key { name: name.into(), sha256: digest(key), streams, per_minute: 3 };
    keys::write(path, vec![key("ada", ADA), key("bob", BOB)]).unwrap();
}

async fn begin(channel: &Channel, header: Option<(&'static str, &str)>) -> Result<Call, Status> {
    let mut call = Call::open_as(channel, OUR_PATH, first(setup(Modality::Text)), header).await?;
    call.next().await?;
    Ok(call)
}

#[tokio::test]
async fn a_key_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write_keys(&folder.path().join("keys.toml"), 4);
    let server = start(&Config { keys: Some(folder.path().join("keys.toml")), ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    for header in [None, Some(("x-goog-api-key", "causerie_eve")), Some(("authorization", "Basic causerie_ada"))] {
        let status = begin(&channel, header).await.err().expect("nobody known");
        assert_eq!(status.code(), Code::Unauthenticated, "{header:?}: {status}");
        assert!(!status.message().contains("eve"), "{status}");
    }
    let bearer = format!("Bearer {BOB}");
    for header in [("x-goog-api-key", ADA), ("authorization", &bearer)] {
        let mut call = begin(&channel, Some(header)).await.expect("a known key");
        call.say("hello").await;
        assert_eq!(call.turn().await.text, "You said: hello");
    }
    // The pages: probes need no key, figures do.
    let http = server.http_addr;
    for (path, headers, status) in [
        ("/readyz", String::new(), "200"),
        ("/metrics", String::new(), "401"),
        ("/metrics", "Authorization: Bearer causerie_eve\r\n".into(), "401"),
        ("/metrics", format!("Authorization: Bearer {ADA}\r\n"), "200"),
        ("/metrics", format!("x-goog-api-key: {ADA}\r\n"), "200"),
    ] {
        let (answer, _) = get_with(http, path, &headers).await;
        assert!(answer.contains(status), "{path} {headers:?}: {answer}");
    }
    let (answer, _) = get(http, &format!("/metrics?key={ADA}")).await;
    assert!(answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn a_key_over_its_limits_disturbs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    write_keys(&folder.path().join("keys.toml"), 1);
    let server = start(&Config { keys: Some(folder.path().join("keys.toml")), ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    let ada = Some(("x-goog-api-key", ADA));
    let mut first = begin(&channel, ada).await.expect("one is allowed");
    let status = begin(&channel, ada).await.err().expect("two are not");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.metadata().contains_key("retry-after"), "{status:?}");
    let other = begin(&channel, Some(("x-goog-api-key", BOB))).await.expect("another key is not concerned");
    first.say("hello").await;
    assert_eq!(first.turn().await.text, "You said: hello");
    // Two more in this minute, one after the other, and no third.
    drop((first, other));
    for _ in 0..2 {
        let active = |_: &str, page: &str| page.contains("causerie_conversations_active 0\n");
        until_page(server.http_addr, &format!("/metrics?key={BOB}"), active).await;
        begin(&channel, ada).await.expect("the place is free again");
    }
    let status = begin(&channel, ada).await.err().expect("the fourth in a minute");
    assert!(status.message().contains("3 new conversations a minute"), "{status}");
    begin(&channel, Some(("x-goog-api-key", BOB))).await.expect("another key is not concerned");
}

#[tokio::test]
async fn without_keys_only_this_machine_is_listened_on() {
    let elsewhere = || Config { listen: "0.0.0.0:0".into(), ..config() };
    for (field, exposed) in [("listen", elsewhere()), ("http", Config { http: "[::]:0".into(), ..config() })] {
        let error = Server::start(&exposed, factory(), Arc::new(LoudnessDetector)).await.err().expect("it is refused");
        let error = error.to_string();
        for word in [field, "causerie key new", "--allow-anyone"] {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    write_keys(&folder.path().join("keys.toml"), 1);
    for allowed in [
        Config { allow_anyone: true, ..elsewhere() },
        Config { keys: Some(folder.path().join("keys.toml")), ..elsewhere() },
    ] {
        let server = start(&allowed).await;
        assert!(server.grpc_addr.ip().is_unspecified());
        assert!(server.shutdown().await);
    }
}

#[tokio::test]
async fn a_keys_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    for (text, word) in [(None, "No such file"), (Some("[[key]]\nname = \"a\""), "sha256")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let keyed = Config { keys: Some(path.clone()), ..config() };
        let error = Server::start(&keyed, factory(), Arc::new(LoudnessDetector)).await.err().expect("it cannot start");
        let error = error.to_string();
        assert!(error.contains("keys.toml") && error.contains(word), "{error}");
    }
}
