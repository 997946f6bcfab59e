//! The web page: files of `master/ui` as they were when this was built, sent as they are or as gzip. They hold nothing of the cluster, so no token is
//! asked for; all that the page shows it asks the API for, with the token that its reader gave it.

use super::Api;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use protocol::Digest;
use std::io::Write as _;
use std::sync::{Arc, LazyLock};

/// What a browser may do with the page: load its own files, talk to this master, and make no markup out of texts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// One file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    gzip: Bytes,
    tag: HeaderValue,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal as $kind:expr),* $(,)?) => {
        [$(($name, $kind, include_bytes!(concat!("../../ui/", $name)).as_slice())),*]
    };
}

/// All of them, compressed once.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = files![
        "index.html" as "text/html; charset=utf-8",
        "icon.svg" as "image/svg+xml",
        "style.css" as "text/css; charset=utf-8",
        "agents.js" as SCRIPT,
        "api.js" as SCRIPT,
        "app.js" as SCRIPT,
        "chart.js" as SCRIPT,
        "deploy.js" as SCRIPT,
        "dom.js" as SCRIPT,
        "edit.js" as SCRIPT,
        "events.js" as SCRIPT,
        "format.js" as SCRIPT,
        "frameworks.js" as SCRIPT,
        "job.js" as SCRIPT,
        "jobfile.js" as SCRIPT,
        "jobs.js" as SCRIPT,
        "live.js" as SCRIPT,
        "logs.js" as SCRIPT,
        "map.js" as SCRIPT,
        "overview.js" as SCRIPT,
        "parts.js" as SCRIPT,
        "roles.js" as SCRIPT,
        "task.js" as SCRIPT,
    ];
    let asset = |(name, kind, bytes): (&'static str, &'static str, &'static [u8])| {
        let tag = format!("\"{}\"", &Digest::of(bytes).to_string()[..16]);
        Asset { name, kind, bytes, gzip: gzip(bytes), tag: HeaderValue::from_str(&tag).expect("hexadecimal digits stand in headers") }
    };
    files.into_iter().map(asset).collect()
});

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(vec![], Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not fail to be written").into()
}

/// The routes of the page.
pub fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| answer("index.html", &headers)))
        .route("/ui/{name}", get(async |Path(name): Path<String>, headers: HeaderMap| answer(&name, &headers)))
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return super::ApiError::not_found("file of the page").into_response();
    };
    let has = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = has.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.tag));
    let zipped = takes_gzip(headers);
    let mut response = match (is_known, zipped) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => asset.gzip.clone().into_response(),
        (false, false) => Bytes::from_static(asset.bytes).into_response(),
    };
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, asset.kind),
        // Asked for anew each time, and answered with nothing where it is the same: a master that was upgraded brings its own page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert(header::ETAG, asset.tag.clone());
    if zipped && !is_known {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// True where who asks reads gzip (RFC 9110 section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT_ENCODING).and_then(|text| text.to_str().ok()).unwrap_or("");
    text.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0_f32)));
        is_gzip && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of all that a first visit loads, compressed; the cluster's own answers come on top of it.
    const FIRST_LOAD_BYTES_MAX: usize = 100 * 1024;

    #[test]
    fn the_first_load_is_small() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.gzip.len()).sum();
        assert!(bytes < FIRST_LOAD_BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn every_file_of_the_page_is_served_and_every_served_file_is_there() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let is_file = |path: &std::path::Path| path.is_file();
        let found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_file(path));
        let mut found: Vec<String> = found.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        found.sort();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        served.sort_unstable();
        assert_eq!(found, served);
    }

    #[test]
    fn nothing_of_another_host_is_loaded_and_no_markup_is_made_of_text() {
        for asset in ASSETS.iter() {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", " style=", " onclick="]
            {
                assert!(!text.contains(word), "{}: {word}", asset.name);
            }
            let links = text.match_indices("://").map(|(at, _)| &text[at..(at + 24).min(text.len())]);
            let strange: Vec<&str> = links.filter(|link| !link.starts_with("://www.w3.org/")).collect();
            assert!(strange.is_empty(), "{}: {strange:?}", asset.name);
        }
    }

    #[test]
    fn who_reads_gzip_is_sent_it_and_who_has_the_file_is_sent_nothing() {
        let with = |name, value: &str| HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        for (text, zipped) in [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)] {
            let response = answer("app.js", &with(header::ACCEPT_ENCODING, text));
            assert_eq!(response.headers().contains_key(header::CONTENT_ENCODING), zipped, "{text}");
        }
        let tag = answer("app.js", &HeaderMap::new()).headers()[header::ETAG].clone();
        let again = answer("app.js", &with(header::IF_NONE_MATCH, tag.to_str().unwrap()));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("../mod.rs", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
