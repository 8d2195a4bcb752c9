//! Which pages may open a WebSocket from a browser.
//!
//! Browsers let every page open a socket to every server, loopback addresses included, and say in `Origin` where the
//! page is from. Programs send none, and nothing is asked of them here. A page of this server may, and those that the
//! operator allows.
//!
//! A page whose own name was made to point to this machine (DNS rebinding) passes for one of this server. Without keys
//! the server is therefore to be called by its address or as localhost, which no foreign page can be called.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// The pages that may.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Beside those of this server: `https://example.org`, with the port where it is not the usual one.
    pub allowed: Vec<String>,
    /// Whether this server may be called by any name.
    pub any_name: bool,
}

impl Origins {
    /// Whether a request with these headers may open a WebSocket.
    ///
    /// # Errors
    /// It may not; the words are for whoever wrote the page.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        if self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return Ok(());
        }
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match (authority, host) {
            (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => {
                if self.any_name || cannot_be_made_up(host) {
                    Ok(())
                } else {
                    Err("without keys this server is called by its address or as localhost")
                }
            }
            _ => Err("the page is from elsewhere; the operator allows pages by `origins` in the configuration"),
        }
    }
}

/// Whether the host is one that no DNS server can answer for.
fn cannot_be_made_up(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_server_and_allowed_ones_may() {
        let strict = Origins { allowed: vec!["https://app.example".into()], any_name: false };
        let named = Origins { any_name: true, ..strict.clone() };
        for (origin, host, may, may_with_keys) in [
            (None, Some("evil.example"), true, true),
            (Some("http://127.0.0.1:8080"), Some("127.0.0.1:8080"), true, true),
            (Some("http://localhost:8080"), Some("localhost:8080"), true, true),
            (Some("http://LOCALHOST:8080"), Some("localhost:8080"), true, true),
            (Some("http://[::1]:8080"), Some("[::1]:8080"), true, true),
            (Some("http://192.168.1.5:8080"), Some("192.168.1.5:8080"), true, true),
            (Some("https://app.example"), Some("127.0.0.1:8080"), true, true),
            (Some("null"), Some("127.0.0.1:8080"), false, false),
            // Pages from elsewhere.
            (Some("http://evil.example"), Some("127.0.0.1:8080"), false, false),
            (Some("http://127.0.0.1:9090"), Some("127.0.0.1:8080"), false, false),
            (Some("http://127.0.0.1"), Some("127.0.0.1:8080"), false, false),
            (Some("http://app.example"), Some("127.0.0.1:8080"), false, false),
            (Some("https://app.example.evil.example"), Some("127.0.0.1:8080"), false, false),
            (Some("file://"), Some("127.0.0.1:8080"), false, false),
            (Some(""), Some("127.0.0.1:8080"), false, false),
            (Some("\u{e4}"), Some("127.0.0.1:8080"), false, false),
            (Some("http://127.0.0.1:8080"), None, false, false),
            // A name that was made to point here.
            (Some("http://evil.example:8080"), Some("evil.example:8080"), false, true),
            (Some("http://localhost.evil.example"), Some("localhost.evil.example"), false, true),
            (Some("http://127.0.0.1.evil.example"), Some("127.0.0.1.evil.example"), false, true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::ORIGIN, origin), (header::HOST, host)] {
                if let Some(value) = value {
                    headers.insert(name, value.as_bytes().try_into().expect("a value of a header"));
                }
            }
            assert_eq!(strict.check(&headers).is_ok(), may, "{origin:?} {host:?}");
            assert_eq!(named.check(&headers).is_ok(), may_with_keys, "{origin:?} {host:?}, named");
        }
    }
}
