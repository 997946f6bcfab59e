//! What a store's refusals mean, and whose move it is. Stores answer with an XML document (S3's API reference, *Error responses*; Google's XML
//! API has the same) inside the crate's own words.

use anyhow::anyhow;
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use reqwest::Url;

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub enum Doing {
    /// Whether there is an object.
    Look,
    /// To read it.
    Read,
    /// To write it.
    Write,
}

/// The store's own word for what is wrong, where it gave one.
pub fn code(error: &Error) -> Option<String> {
    element(&error.to_string(), "Code")
}

/// There are no credentials, or settings that make no sense.
pub fn no_credentials(url: &Url, error: &Error) -> anyhow::Error {
    let help = match url.scheme() {
        "gs" => "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT names a file with a key",
        _ => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; elsewhere than at Amazon AWS_ENDPOINT too",
    };
    let (text, root) = (error.to_string(), root(error));
    let why = if text.contains(&root) { text } else { format!("{text}: {root}") };
    anyhow!("{url}: there are no credentials to be had: {why}\nhelp: {help}")
}

/// In words: what was tried on what, why not, and what would mend it.
pub fn refusal(url: &str, doing: Doing, error: &Error) -> anyhow::Error {
    let google = url.starts_with("gs:");
    let text = chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let (what, help) = match (code(error).as_deref().unwrap_or(""), error) {
        ("NoSuchBucket", _) => ("there is no such bucket", "make it, or name another one"),
        ("SignatureDoesNotMatch", _) => ("the secret does not fit the key", "look at AWS_SECRET_ACCESS_KEY"),
        ("InvalidAccessKeyId" | "NotSignedUp", _) => ("the store does not know the key", "look at AWS_ACCESS_KEY_ID"),
        ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) => {
            ("the session's token is no longer good", "get a new AWS_SESSION_TOKEN")
        }
        ("RequestTimeTooSkewed", _) => ("the store's clock says otherwise", "set this machine's clock"),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => elsewhere(),
        ("NotImplemented", _) if !google => (
            "the store cannot do it",
            "where it knows no condition for a write, set AWS_CONDITIONAL_PUT=disabled: then the name is only looked at before",
        ),
        (_, Error::Precondition { .. } | Error::AlreadyExists { .. } | Error::NotModified { .. }) => {
            ("it is there already: another was faster", "a backup goes under a name of its own")
        }
        ("NoSuchUpload", _) => ("the store has forgotten the parts", "write it again"),
        (_, Error::NotFound { .. }) => ("there is no such object", "look at its name, and at AWS_ENDPOINT where the store is not Amazon's"),
        (_, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => ("who asks may not", may(doing)),
        _ if text.contains("without LOCATION") => elsewhere(),
        _ if text.contains("scheme is not allowed") => {
            ("the store's address is not HTTPS", "AWS_ALLOW_HTTP=true allows it; anybody on the way can then read the keys")
        }
        _ if google => (unreached(error), "look at the network, and at GOOGLE_BASE_URL"),
        _ => (unreached(error), "look at the network, and at AWS_ENDPOINT and AWS_REGION"),
    };
    let verb = match doing {
        Doing::Look => "looked at",
        Doing::Read => "read",
        Doing::Write => "written",
    };
    anyhow!("{url} cannot be {verb}: {what} ({})\nhelp: {help}", said(error))
}

fn elsewhere() -> (&'static str, &'static str) {
    ("the bucket is in another region", "set AWS_REGION")
}

fn may(doing: Doing) -> &'static str {
    match doing {
        Doing::Look => "for this name it takes the right to read (s3:GetObject, storage.objects.get)",
        Doing::Read => "it takes the right to read (s3:GetObject, storage.objects.get)",
        Doing::Write => {
            "it takes the right to write and to give up writing (s3:PutObject and s3:AbortMultipartUpload, storage.objects.create)"
        }
    }
}

fn unreached(error: &Error) -> &'static str {
    let found = chain(error).find_map(|cause| cause.downcast_ref::<HttpError>());
    match found.map(HttpError::kind) {
        Some(HttpErrorKind::Connect) => "the store cannot be reached",
        Some(HttpErrorKind::Timeout) => "the store does not answer",
        Some(HttpErrorKind::Interrupted | HttpErrorKind::Request) => "the store broke off",
        Some(_) | None => "the store refuses",
    }
}

/// The store's words, or those of the system.
fn said(error: &Error) -> String {
    let text = error.to_string();
    match (element(&text, "Code"), element(&text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {}", message.trim_end_matches('.')),
        (Some(code), None) => code,
        _ => root(error),
    }
}

fn root(error: &Error) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

fn chain(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

/// The text of the first element of this name that has one.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (found, _) = rest.split_once(&format!("</{name}>"))?;
    (!found.is_empty()).then(|| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!(
            "Server returned non-2xx status code: <?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Its words.</Message></Error>"
        )
        .into()
    }

    #[test]
    fn each_refusal_says_what_it_is_and_whose_move_it_is() {
        let path = || "path".to_owned();
        let check = |doing, error: Error, expected: &[&str]| {
            let said = refusal("s3://bucket/path", doing, &error).to_string();
            for word in ["s3://bucket/path cannot be", "\nhelp: "].iter().chain(expected) {
                assert!(said.contains(word), "{word:?} is not in {said:?}");
            }
        };
        let denied = |code| Error::PermissionDenied { path: path(), source: answer(code) };
        check(Doing::Look, Error::NotFound { path: path(), source: answer("NoSuchBucket") }, &["no such bucket", "make it"]);
        check(Doing::Read, Error::NotFound { path: path(), source: answer("NoSuchKey") }, &["no such object", "NoSuchKey: Its words)"]);
        check(Doing::Write, Error::NotFound { path: path(), source: answer("NoSuchUpload") }, &["written", "forgotten"]);
        check(Doing::Look, denied("SignatureDoesNotMatch"), &["secret", "AWS_SECRET_ACCESS_KEY"]);
        check(Doing::Look, denied("InvalidAccessKeyId"), &["AWS_ACCESS_KEY_ID"]);
        check(Doing::Write, denied("AccessDenied"), &["who asks may not", "s3:PutObject"]);
        check(Doing::Read, denied("AccessDenied"), &["who asks may not", "s3:GetObject"]);
        check(Doing::Read, denied("RequestTimeTooSkewed"), &["clock"]);
        check(Doing::Write, Error::Precondition { path: path(), source: answer("PreconditionFailed") }, &["there already"]);
        check(Doing::Write, Error::AlreadyExists { path: path(), source: answer("ConditionalRequestConflict") }, &["there already"]);
        check(Doing::Read, Error::Generic { store: "S3", source: answer("PermanentRedirect") }, &["region", "AWS_REGION"]);
        check(Doing::Write, Error::Generic { store: "S3", source: answer("NotImplemented") }, &["AWS_CONDITIONAL_PUT=disabled"]);
        check(Doing::Read, Error::Generic { store: "S3", source: "URL scheme is not allowed".into() }, &["AWS_ALLOW_HTTP=true"]);
        check(Doing::Read, Error::Generic { store: "S3", source: "something else".into() }, &["refuses (something else)"]);
    }
}
