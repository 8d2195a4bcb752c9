//! The page to talk to the server: `/` and what it loads. The files are those of `gateway/page`, as they are, inside
//! the binary.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

/// Nothing but this server's own files is run, shown or connected to, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      media-src 'self' blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PERMISSIONS: &str = "microphone=(self), camera=(self)";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        file!(concat!("/", $name) => $name, $kind)
    };
    ($path:expr => $name:literal, $kind:expr) => {
        File { path: $path, kind: $kind, bytes: include_bytes!(concat!("../page/", $name)) }
    };
}

/// Every file, by its path.
const FILES: [File; 12] = [
    file!("/" => "index.html", HTML),
    file!("style.css", STYLE),
    file!("icon.svg", IMAGE),
    file!("main.js", SCRIPT),
    file!("live.js", SCRIPT),
    file!("sound.js", SCRIPT),
    file!("capture.js", SCRIPT),
    file!("playback.js", SCRIPT),
    file!("camera.js", SCRIPT),
    file!("settings.js", SCRIPT),
    file!("transcript.js", SCRIPT),
    file!("waterfall.js", SCRIPT),
];

struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

/// A browser asks each time whether a file has changed, as the next version of the server has other files at the same
/// addresses; the tag is of what is inside.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let digest = Sha256::digest(file.bytes);
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::from_str(&format!("\"{hex}\"")).expect("it is hexadecimal")
    };
    FILES.iter().map(tag).collect()
});

/// The page's files.
pub(crate) fn router() -> Router {
    FILES.iter().enumerate().fold(Router::new(), |router, (index, file)| {
        router.route(file.path, get(async move |headers: HeaderMap| serve(index, &headers)))
    })
}

fn serve(index: usize, headers: &HeaderMap) -> Response {
    let (file, tag) = (&FILES[index], &TAGS[index]);
    let common = [
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (ETAG, tag.clone()),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS)),
    ];
    if headers.get(IF_NONE_MATCH) == Some(tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, file.kind)], file.bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file loads: what stands in quotes after `src=`, `href=`, `from` or `addModule(`.
    fn loaded(text: &str) -> Vec<String> {
        ["src=\"", "href=\"", "from \"./", "addModule(\""]
            .iter()
            .flat_map(|before| text.split(before).skip(1))
            .map(|rest| format!("/{}", rest.split('"').next().expect("it is closed")))
            .collect()
    }

    #[test]
    fn everything_that_a_file_loads_is_served() {
        for file in &FILES {
            let text = std::str::from_utf8(file.bytes).expect("text");
            for path in loaded(text) {
                assert!(FILES.iter().any(|file| file.path == path), "{} loads {path}", file.path);
            }
            // The policy would stop them.
            assert!(!text.contains("style=") && !text.contains("onclick="), "{} has code in its markup", file.path);
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        for entry in std::fs::read_dir(folder).expect("the folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            let path = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
            assert!(FILES.iter().any(|file| file.path == path), "{path} is not served");
        }
    }

    #[test]
    fn what_has_not_changed_is_not_sent_again() {
        let first = serve(0, &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[ETAG].clone();
        let again = serve(0, &HeaderMap::from_iter([(IF_NONE_MATCH, tag)]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let old = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("\"0\""))]);
        assert_eq!(serve(0, &old).status(), StatusCode::OK);
    }
}
