use axum::routing::get;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

fn shared(seats: usize, protocol: Protocol) -> (Arc<Shared>, watch::Sender<bool>) {
    let (stopping, stop) = watch::channel(false);
    let router = Router::new().route("/page", get(async || "here")).route("/never", get(pending::<&str>));
    let (idle, connections) = (Room::new(seats), Arc::new(Semaphore::new(1)));
    (Arc::new(Shared { protocol, tls: None, router, idle, connections, stop }), stopping)
}

/// A connection, and the moment at which it was closed.
fn connect(shared: &Arc<Shared>) -> (DuplexStream, tokio::task::JoinHandle<Instant>) {
    let (client, server) = duplex(1 << 16);
    let shared = shared.clone();
    let seat = shared.idle.enter();
    let task = tokio::spawn(async move {
        let _ = shared.carry(server, seat).await;
        Instant::now()
    });
    (client, task)
}

async fn page(client: &mut DuplexStream) -> String {
    client.write_all(b"GET /page HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("here") {
        let mut bytes = [0; 256];
        let n = client.read(&mut bytes).await.unwrap();
        assert!(n > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    answer
}

fn about(time: Duration, expected: Duration) -> bool {
    (expected..expected + Duration::from_secs(1)).contains(&time)
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_a_byte_at_a_time_is_cut_off() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (shared, _stopping) = shared(8, protocol);
        let began = Instant::now();
        let (mut client, closed) = connect(&shared);
        let trickle = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
        });
        let took = closed.await.unwrap() - began;
        let leaving = if protocol == Protocol::Http2 { LEAVING } else { Duration::ZERO };
        assert!(about(took, FIRST_REQUEST + leaving), "{protocol:?}: {took:?}");
        trickle.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (shared, _stopping) = shared(8, protocol);
        let began = Instant::now();
        let (_client, closed) = connect(&shared);
        let took = closed.await.unwrap() - began;
        assert!(
            took >= FIRST_REQUEST && took < FIRST_REQUEST + LEAVING + Duration::from_secs(1),
            "{protocol:?}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_between_requests() {
    let (shared, _stopping) = shared(8, Protocol::Http1);
    let (mut client, closed) = connect(&shared);
    for _ in 0..3 {
        assert!(page(&mut client).await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(IDLE / 2).await;
    }
    let answered = Instant::now() - IDLE / 2;
    assert!(about(closed.await.unwrap() - answered, IDLE));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_not_taken_is_given_up() {
    let (shared, _stopping) = shared(8, Protocol::Http1);
    let began = Instant::now();
    let (mut client, closed) = connect(&shared);
    client.write_all(b"GET /never HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    assert!(about(closed.await.unwrap() - began, PAGE));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_give_way_to_newer_ones() {
    let (shared, _stopping) = shared(2, Protocol::Http1);
    let began = Instant::now();
    let (mut busy, busy_closed) = connect(&shared);
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    // Its request is seen before others come.
    while shared.idle.seated() > 0 {
        tokio::task::yield_now().await;
    }
    let (_first, first_closed) = connect(&shared);
    let (_second, second_closed) = connect(&shared);
    let (mut third, _third_closed) = connect(&shared);
    assert_eq!(first_closed.await.unwrap(), began, "it was idle the longest");
    assert!(page(&mut third).await.starts_with("HTTP/1.1 200"));
    assert!(!busy_closed.is_finished() && !second_closed.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_what_is_idle_and_waits_for_the_rest() {
    let (shared, stopping) = shared(8, Protocol::Http1);
    let (_idle, idle_closed) = connect(&shared);
    let (mut busy, busy_closed) = connect(&shared);
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stopped = Instant::now();
    stopping.send_replace(true);
    assert_eq!(idle_closed.await.unwrap(), stopped);
    assert!(busy_closed.await.unwrap() > stopped);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_is_cut_off() {
    let made = crate::tls::development(&crate::tls::local_names(), std::time::SystemTime::now(), far()).unwrap();
    let (shared, _stopping) = shared(8, Protocol::Http2);
    let chain = vec![CertificateDer::from_pem_slice(made.server.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(made.server.key.as_bytes()).unwrap();
    let tls = crate::tls::server(chain, key, None, b"h2").unwrap();
    let shared = Arc::new(Shared {
        protocol: Protocol::Http2,
        tls: Some(watch::channel(crate::tls::Encryption { grpc: tls.clone(), http: tls }).1),
        router: shared.router.clone(),
        idle: shared.idle.clone(),
        connections: shared.connections.clone(),
        stop: shared.stop.clone(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(&[22, 3, 1]).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let began = Instant::now();
    shared.accepted(stream, peer).await;
    assert!(about(began.elapsed(), FIRST_REQUEST));
    assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0, "it is closed");
}

fn far() -> std::time::SystemTime {
    std::time::SystemTime::now() + Duration::from_secs(24 * 3600)
}
