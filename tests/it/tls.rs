//! Encryption of both ports: certificates that count, certificates that do not, and clients that must show one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use causerie_gateway::access::keys::{self, Key, digest};
use causerie_gateway::config::Config;
use causerie_gateway::serve::Server;
use causerie_gateway::tls::{TlsConfig, development, local_names};
use causerie_model_api::Modality;
use causerie_tests::python;
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{Call, config, factory, setup, start};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates in a folder: `ca.pem`, `cert.pem` and `key.pem` of a server, and those of two clients, one of which has
/// expired.
struct Certificates {
    folder: TempDir,
    ca: String,
    client: (String, String),
    late_client: (String, String),
}

impl Certificates {
    fn new() -> Self {
        let now = SystemTime::now();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let sign = |names: Vec<String>, until: SystemTime| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            (params.not_before, params.not_after) = ((now - 30 * DAY).into(), until.into());
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let server = sign(local_names(), now + 20 * DAY);
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("ca.pem", &ca), ("cert.pem", &server.0), ("key.pem", &server.1)] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        Self { folder, client: sign(Vec::new(), now + DAY), late_client: sign(Vec::new(), now - DAY), ca }
    }

    fn config(&self, client_ca: bool) -> Config {
        let path = |name: &str| Some(self.folder.path().join(name));
        let client_ca: Option<PathBuf> = path("ca.pem").filter(|_| client_ca);
        Config { tls: TlsConfig { cert: path("cert.pem"), key: path("key.pem"), client_ca }, ..config() }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        client: Option<&(String, String)>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca));
        if let Some((cert, key)) = client {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Endpoint::from_shared(format!("https://localhost:{}", address.port()))?.tls_config(tls)?.connect().await
    }
}

async fn is_served(channel: &Channel) {
    let (mut call, _) = Call::begin(channel, setup(Modality::Text)).await;
    call.say("hello").await;
    assert_eq!(call.turn().await.text, "You said: hello");
}

/// A page, asked for over TLS by a client whose clock is this far ahead.
async fn page(address: SocketAddr, ca: &str, ahead: Duration) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_details(provider, Arc::new(Ahead(ahead)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[derive(Debug)]
struct Ahead(Duration);

impl TimeProvider for Ahead {
    fn current_time(&self) -> Option<UnixTime> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since + self.0))
    }
}

#[tokio::test]
async fn both_ports_are_encrypted() {
    let certificates = Certificates::new();
    let server = start(&certificates.config(false)).await;
    let channel = certificates.connect(server.grpc_addr, None).await.expect("the certificate counts");
    is_served(&channel).await;
    let answer = page(server.http_addr, &certificates.ca, Duration::ZERO).await.expect("the certificate counts");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Who speaks plainly, or trusts somebody else, gets no further, and the others notice nothing.
    let plain = Endpoint::from_shared(format!("http://{}", server.grpc_addr)).expect("an address");
    if let Ok(channel) = plain.connect().await {
        let refused = Call::open(&channel, causerie_tests::service::OUR_PATH, Default::default()).await;
        assert!(refused.is_err(), "nothing is served in the clear");
    }
    let other = Certificates::new();
    other.connect(server.grpc_addr, None).await.expect_err("another authority");
    is_served(&channel).await;
}

#[tokio::test]
async fn a_client_whose_clock_is_past_the_certificate_says_so() {
    let certificates = Certificates::new();
    let server = start(&certificates.config(false)).await;
    let error = page(server.http_addr, &certificates.ca, 30 * DAY).await.expect_err("it has expired").to_string();
    assert!(error.contains("certificate expired"), "{error}");
    let answer = page(server.http_addr, &certificates.ca, Duration::ZERO).await.expect("others are served");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn certificates_that_do_not_count_are_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let made = development(&local_names(), now - 20 * DAY, now - 10 * DAY).expect("it is made all the same");
    std::fs::write(folder.path().join("cert.pem"), made.server.cert).unwrap();
    std::fs::write(folder.path().join("key.pem"), made.server.key).unwrap();
    let path = |name: &str| Some(folder.path().join(name));
    for (cert, key, words) in [
        ("cert.pem", "key.pem", "cert.pem has expired 10 days ago"),
        ("absent.pem", "key.pem", "absent.pem: No such file"),
        ("key.pem", "key.pem", "key.pem: there is no certificate"),
    ] {
        let tls = TlsConfig { cert: path(cert), key: path(key), client_ca: None };
        let config = Config { tls, ..config() };
        let error = Server::start(&config, factory(), Arc::new(LoudnessDetector)).await.err().expect("it cannot start");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn certificates_are_renewed_while_the_server_runs() {
    let certificates = Certificates::new();
    let server = start(&certificates.config(false)).await;
    let before = certificates.connect(server.grpc_addr, None).await.expect("the certificate counts");
    is_served(&before).await;
    let renewed = Certificates::new();
    for file in ["cert.pem", "key.pem"] {
        std::fs::copy(renewed.folder.path().join(file), certificates.folder.path().join(file)).unwrap();
    }
    // The files are looked at once a second.
    while page(server.http_addr, &renewed.ca, Duration::ZERO).await.is_err() {
        tokio::task::yield_now().await;
    }
    is_served(&renewed.connect(server.grpc_addr, None).await.expect("both ports have the new one")).await;
    certificates.connect(server.grpc_addr, None).await.expect_err("the old one is gone");
    is_served(&before).await;
}

#[tokio::test]
async fn clients_may_have_to_show_a_certificate() {
    let certificates = Certificates::new();
    // Who is known by a certificate needs no key, so gRPC may be reached from elsewhere.
    let server = start(&Config { listen: "0.0.0.0:0".into(), ..certificates.config(true) }).await;
    let known = certificates.connect(server.grpc_addr, Some(&certificates.client)).await.expect("it counts");
    is_served(&known).await;
    for (who, client) in [("nobody", None), ("somebody late", Some(&certificates.late_client))] {
        // With TLS 1.3 a client has finished its side of the handshake before it is refused.
        if let Ok(channel) = certificates.connect(server.grpc_addr, client).await {
            let refused = Call::open(&channel, causerie_tests::service::OUR_PATH, Default::default()).await;
            assert!(refused.is_err(), "{who} was let in");
        }
    }
    is_served(&known).await;
    // Pages ask for none.
    let answer = page(server.http_addr, &certificates.ca, Duration::ZERO).await.expect("the certificate counts");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn googles_sdk_is_answered_over_tls_without_a_change() {
    const KEY: &str = "causerie_ada";
    let Some(python) = python::interpreter("google-genai") else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = development(&local_names(), SystemTime::now(), SystemTime::now() + DAY).unwrap();
    let path = |name: &str| folder.path().join(name);
    for (file, text) in [("ca.pem", made.authority), ("cert.pem", made.server.cert), ("key.pem", made.server.key)] {
        std::fs::write(path(file), text).unwrap();
    }
    keys::write(&path("keys.toml"), vec![Key { name: "ada".into(), sha256: digest(KEY), streams: 1, per_minute: 60 }])
        .unwrap();
    let tls = TlsConfig { cert: Some(path("cert.pem")), key: Some(path("key.pem")), client_ca: None };
    let server = start(&Config { tls, keys: Some(path("keys.toml")), ..config() }).await;
    let address = format!("https://localhost:{}", server.http_addr.port());
    let arguments = [address.into(), path("ca.pem").into_os_string(), KEY.into()];
    let seen = python::run(&python, "google_genai_tls.py", arguments).await;
    for version in ["default", "v1", "v1beta", "v1alpha"] {
        assert_eq!(seen[version], "You said: hello there", "{version}: {seen}");
    }
    assert_eq!(seen["another at once"], json!(["InvalidStatus", 429]), "{seen}");
    assert_eq!(seen["wrong key"], json!(["InvalidStatus", 401]), "{seen}");
    assert_eq!(seen["unknown model"], json!(["APIError", 1008]), "{seen}");
    assert_eq!(seen["unknown voice"], json!(["APIError", 1007]), "{seen}");
    assert_eq!(seen["unknown authority"], json!(["SSLCertVerificationError", null]), "{seen}");
}
