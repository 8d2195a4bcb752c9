//! Encryption: certificates from files, checked before a port is opened, and [`development`], which makes some.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::port::Protocol;
use crate::reload::{Files, Reloading};

/// A certificate that ends within this time is worth a warning.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Where the certificates are.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The server's certificate and those that lead to its authority (PEM); `None` for no encryption.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// Certificates of authorities (PEM): gRPC is served only to clients that have a certificate of theirs.
    pub client_ca: Option<PathBuf>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{what} {}: {message}", path.display())]
    File {
        /// What it should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A certificate does not count any more.
    #[error("certificate {} has expired {days} days ago; a new one is made by whoever made it, or by `causerie cert`", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Since when.
        days: u64,
    },
    /// A certificate does not count yet.
    #[error("certificate {} counts only in {days} days: is the clock of this machine right?", path.display())]
    NotYet {
        /// The file.
        path: PathBuf,
        /// From when.
        days: u64,
    },
    /// Certificate and key are not of one pair, or of a kind that is not known.
    #[error("certificate {} and key {}: {message}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// What the two ports need.
#[derive(Clone, Debug)]
pub struct Encryption {
    /// For gRPC: HTTP/2, and clients with certificates where that is asked for.
    pub grpc: Arc<ServerConfig>,
    /// For HTTP/1.1 and WebSockets.
    pub http: Arc<ServerConfig>,
}

impl Encryption {
    /// For a port on which this is spoken.
    pub(crate) fn of(&self, protocol: Protocol) -> Arc<ServerConfig> {
        match protocol {
            Protocol::Http1 => self.http.clone(),
            Protocol::Http2 => self.grpc.clone(),
        }
    }
}

/// Reads the files; `None` where there are to be none.
///
/// # Errors
/// A file cannot be read or used, or its certificate does not count now.
pub fn load(config: &TlsConfig, now: SystemTime) -> Result<Option<Encryption>, TlsError> {
    let (Some(cert_path), Some(key_path)) = (&config.cert, &config.key) else { return Ok(None) };
    let chain = certificates("certificate", cert_path)?;
    check_dates(cert_path, &chain, now)?;
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|e| TlsError::File {
        what: "key",
        path: key_path.clone(),
        message: pem_message(&e),
    })?;
    let clients = config.client_ca.as_deref().map(|path| client_verifier(path, now)).transpose()?;
    let ready = |clients, protocol: &[u8]| {
        server(chain.clone(), key.clone_key(), clients, protocol).map_err(|e| {
            let (cert, key) = (cert_path.clone(), key_path.clone());
            TlsError::Pair { cert, key, message: e.to_string() }
        })
    };
    Ok(Some(Encryption { grpc: ready(clients, b"h2")?, http: ready(None, b"http/1.1")? }))
}

/// Certificates that are read again when their files have changed: each connection is encrypted by the newest that can be
/// used.
pub(crate) type Certificates = watch::Receiver<Encryption>;

/// As [`load`], and keeps looking at the files. Must be called on tokio's runtime.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_and_watch(config: &TlsConfig) -> Result<Option<(Certificates, Reloading)>, TlsError> {
    let paths = [&config.cert, &config.key, &config.client_ca].into_iter().flatten().cloned().collect();
    let files = Files::new(paths);
    let Some(encryption) = load(config, SystemTime::now())? else { return Ok(None) };
    let (publish, certificates) = watch::channel(encryption);
    let config = config.clone();
    let reloading = files.watch(
        move || load(&config, SystemTime::now()),
        move |read| match read {
            Ok(Some(encryption)) => {
                tracing::info!("the certificates have changed");
                publish.send_replace(encryption);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the certificates have changed and cannot be used; the old ones count")
            }
        },
    );
    Ok(Some((certificates, reloading)))
}

/// One end of encrypted connections.
pub(crate) fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let known = clients.is_some();
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key)?;
    server.alpn_protocols = vec![protocol.to_vec()];
    if known {
        // Who takes up an earlier session shows no certificate, and the one from then may not count any more.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(Arc::new(server))
}

fn client_verifier(path: &Path, now: SystemTime) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let what = "client authority";
    let wrong = |message: String| TlsError::File { what, path: path.to_owned(), message };
    let authorities = certificates(what, path)?;
    check_dates(path, &authorities, now)?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|e| wrong(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| wrong(e.to_string()))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |message| TlsError::File { what, path: path.to_owned(), message };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| wrong(pem_message(&e)))?;
    if found.is_empty() { Err(wrong("there is no certificate in it".into())) } else { Ok(found) }
}

fn pem_message(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "there is none in it (PEM is expected)".into(),
        other => other.to_string(),
    }
}

/// Whether all certificates of a file count now.
fn check_dates(path: &Path, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), TlsError> {
    const DAY: i64 = 24 * 3600;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    for certificate in chain {
        let (_, read) = X509Certificate::from_der(certificate).map_err(|e| TlsError::File {
            what: "certificate",
            path: path.to_owned(),
            message: e.to_string(),
        })?;
        let (from, until) = (read.validity().not_before.timestamp(), read.validity().not_after.timestamp());
        let path = || path.to_owned();
        if now > until {
            return Err(TlsError::Expired { path: path(), days: ((now - until) / DAY) as u64 });
        }
        if now < from {
            return Err(TlsError::NotYet { path: path(), days: ((from - now) / DAY + 1) as u64 });
        }
        if until - now < ENDS_SOON.as_secs() as i64 {
            tracing::warn!(file = %path().display(), days = (until - now) / DAY, "a certificate ends soon");
        }
    }
    Ok(())
}

/// A pair of PEM texts.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// What [`development`] makes.
#[derive(Clone, Debug)]
pub struct Development {
    /// The certificate that clients are to trust. Its key is thrown away, so that nobody can ever make another
    /// certificate that they would believe.
    pub authority: String,
    /// For the server.
    pub server: Pair,
    /// For a client, where the server asks for certificates.
    pub client: Pair,
}

/// Certificates for development: an authority that exists for these two alone, one for a server of these names, and one
/// for a client.
///
/// # Errors
/// A name cannot be in a certificate, or there are no random numbers.
pub fn development(names: &[String], from: SystemTime, until: SystemTime) -> Result<Development, rcgen::Error> {
    let params = |names: Vec<String>, common: &str| {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = from.into();
        params.not_after = until.into();
        params.use_authority_key_identifier_extension = true;
        Ok::<_, rcgen::Error>(params)
    };
    let authority_key = KeyPair::generate()?;
    let mut authority = params(Vec::new(), "Causerie development authority")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_cert = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let sign = |mut params: CertificateParams, purpose| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.is_ca = IsCa::ExplicitNoCa;
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>(Pair { cert: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
    };
    let common = names.first().map_or("localhost", String::as_str).to_owned();
    Ok(Development {
        authority: authority_cert.pem(),
        server: sign(params(names.to_vec(), &common)?, ExtendedKeyUsagePurpose::ServerAuth)?,
        client: sign(params(Vec::new(), "Causerie development client")?, ExtendedKeyUsagePurpose::ClientAuth)?,
    })
}

/// The names by which a machine reaches itself.
pub fn local_names() -> Vec<String> {
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    ["localhost".to_owned()].into_iter().chain(loopback.map(|ip| ip.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection};
    use tempfile::TempDir;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Folder(TempDir);

    impl Folder {
        /// A folder with certificates that count for ten days from now.
        fn new(now: SystemTime) -> Self {
            Self::with(&development(&local_names(), now, now + 10 * DAY).unwrap())
        }

        fn with(made: &Development) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (file, text) in [
                ("ca.pem", &made.authority),
                ("cert.pem", &made.server.cert),
                ("key.pem", &made.server.key),
                ("other.pem", &made.client.key),
            ] {
                std::fs::write(folder.path().join(file), text).unwrap();
            }
            Self(folder)
        }

        fn config(&self, cert: &str, key: &str, client_ca: Option<&str>) -> TlsConfig {
            let path = |name: &str| self.0.path().join(name);
            TlsConfig { cert: Some(path(cert)), key: Some(path(key)), client_ca: client_ca.map(path) }
        }
    }

    #[test]
    fn certificates_that_count_are_taken() {
        assert!(load(&TlsConfig::default(), SystemTime::now()).unwrap().is_none());
        let now = SystemTime::now();
        let folder = Folder::new(now);
        for client_ca in [None, Some("ca.pem")] {
            let loaded = load(&folder.config("cert.pem", "key.pem", client_ca), now + DAY).unwrap().unwrap();
            assert_eq!(loaded.grpc.alpn_protocols, [b"h2".to_vec()]);
            assert_eq!(loaded.http.alpn_protocols, [b"http/1.1".to_vec()]);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let now = SystemTime::now();
        let folder = Folder::new(now);
        std::fs::write(folder.0.path().join("empty.pem"), "").unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(folder.0.path().join("broken.pem"), broken).unwrap();
        for (cert, key, client_ca, at, words) in [
            ("cert.pem", "key.pem", None, now + 13 * DAY, "cert.pem has expired 3 days ago"),
            ("cert.pem", "key.pem", None, now - 3 * DAY, "cert.pem counts only in"),
            ("absent.pem", "key.pem", None, now + DAY, "absent.pem: No such file"),
            ("cert.pem", "absent.pem", None, now + DAY, "absent.pem: No such file"),
            ("empty.pem", "key.pem", None, now + DAY, "empty.pem: there is no"),
            ("cert.pem", "empty.pem", None, now + DAY, "empty.pem: there is none"),
            ("broken.pem", "key.pem", None, now + DAY, "broken.pem: "),
            ("cert.pem", "other.pem", None, now + DAY, "other.pem: "),
            ("cert.pem", "key.pem", Some("absent.pem"), now + DAY, "client authority"),
            ("cert.pem", "key.pem", Some("empty.pem"), now + DAY, "client authority"),
        ] {
            let error = load(&folder.config(cert, key, client_ca), at).unwrap_err().to_string();
            assert!(error.contains(words), "{cert} {key} {client_ca:?}: {error}");
        }
    }

    /// The second of two handshakes of one client.
    fn second_handshake(server: &Arc<ServerConfig>, made: &Development) -> Option<HandshakeKind> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.client.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(made.client.key.as_bytes()).unwrap();
        let client = Arc::new(client.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap());
        let mut kind = None;
        for _ in 0..2 {
            let mut client = ClientConnection::new(client.clone(), "localhost".try_into().unwrap()).unwrap();
            let mut server = ServerConnection::new(server.clone()).unwrap();
            while client.wants_write() || server.wants_write() {
                let mut bytes = Vec::new();
                client.write_tls(&mut bytes).unwrap();
                server.read_tls(&mut &bytes[..]).unwrap();
                server.process_new_packets().unwrap();
                bytes.clear();
                server.write_tls(&mut bytes).unwrap();
                client.read_tls(&mut &bytes[..]).unwrap();
                client.process_new_packets().unwrap();
            }
            kind = server.handshake_kind();
        }
        kind
    }

    #[test]
    fn clients_show_their_certificate_every_time() {
        let now = SystemTime::now();
        let made = development(&local_names(), now, now + DAY).unwrap();
        let folder = Folder::with(&made);
        for (client_ca, kind) in [(None, HandshakeKind::Resumed), (Some("ca.pem"), HandshakeKind::Full)] {
            let loaded = load(&folder.config("cert.pem", "key.pem", client_ca), now + DAY / 2).unwrap().unwrap();
            assert_eq!(second_handshake(&loaded.grpc, &made), Some(kind), "{client_ca:?}");
        }
    }

    #[test]
    fn names_can_be_impossible() {
        development(&["a name\u{fc}".to_owned()], SystemTime::now(), SystemTime::now() + DAY).unwrap_err();
    }
}
