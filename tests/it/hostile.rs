//! Connections that mean nothing good: many, slow, and silent. Others notice nothing.

use std::net::SocketAddr;

use causerie_gateway::port::raise_file_limit;
use causerie_model_api::Modality;
use causerie_tests::service::{Call, config, connect, get, setup, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than a port keeps idle.
const MANY: usize = 1_000;

async fn open_many(address: SocketAddr, beginning: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(address).await.expect("connections are accepted");
        // Those that were closed already cannot be written to.
        let _ = stream.write_all(beginning).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn a_thousand_connections_that_do_not_go_on_disturb_nobody() {
    raise_file_limit();
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    for (port, address, beginning) in [
        ("half an upgrade", server.http_addr, &b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upg"[..]),
        ("nothing", server.http_addr, b""),
        ("half a preface", server.grpc_addr, b"PRI * HTTP/2.0\r\n\r\n"),
        ("a preface and no more", server.grpc_addr, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let mut streams = open_many(address, beginning).await;
        // The longest idle has been closed: its end can be read.
        let mut rest = Vec::new();
        let closed = streams[0].read_to_end(&mut rest);
        let _ = tokio::time::timeout(causerie_tests::service::PATIENCE, closed).await.expect(port);
        let (status, _) = get(server.http_addr, "/readyz").await;
        assert!(status.contains("200"), "{port}: {status}");
        call.say(port).await;
        assert_eq!(call.turn().await.text, format!("You said: {port}"));
        let another = connect(server.grpc_addr).await;
        let (mut other, _) = Call::begin(&another, setup(Modality::Text)).await;
        other.say("hello").await;
        assert_eq!(other.turn().await.text, "You said: hello");
    }
}
