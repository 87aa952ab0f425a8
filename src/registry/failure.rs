//! What went wrong, in one line: statuses and the error documents of registries (distribution spec, "Error Codes"),
//! and what ureq reports.

use std::io;

use miniserde::Deserialize;

use super::client::{Access, Answer, Question};
use super::trust::{self, Cause};
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::stream::read_at_most;

/// An error document is read up to this many bytes.
const MAX_ERROR_DOCUMENT_BYTES: u64 = 64 << 10;
/// A registry's own words are shown up to this many characters.
const MAX_SHOWN_CHARS: usize = 300;

/// The code of a rate limit (distribution spec, "Error Codes"), and how Docker shows it: supervisors look for the word.
const TOO_MANY_REQUESTS: &str = "toomanyrequests";
const LIMIT_WORDS: &str = ": toomanyrequests: ";

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Option<Vec<ErrorEntry>>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: Option<String>,
    message: Option<String>,
}

/// The error for an answer that is not what was asked for.
pub(super) fn of_status(answer: Answer, question: &Question) -> Error {
    let (status, origin, is_home) = (answer.status(), answer.origin.clone(), answer.is_home);
    let (code, words) = its_words(answer).unzip();
    let is_limit = code.as_ref().is_some_and(|code| code.eq_ignore_ascii_case(TOO_MANY_REQUESTS));
    let reference = question.reference;
    if status == 404 && question.is_for_manifest() {
        let words = words.as_deref().unwrap_or("manifest unknown");
        let message = format!("manifest for {} not found: {words}", reference.familiar());
        return Error::new(Kind::NotFound, message);
    }
    let (kind, meaning) = meaning(status);
    if kind == Kind::Unauthorized && is_home && question.access != Access::Pull {
        return Error::new(kind, refusal(status, code, words));
    }
    let mut message = format!("{}: {origin} answers {status} {meaning}", question.doing);
    if kind == Kind::Unauthorized && is_home {
        message.push_str(&format!(" to repository {}", reference.repository()));
    }
    if let Some(words) = words {
        message.push_str(if is_limit { LIMIT_WORDS } else { ": " });
        message.push_str(&words);
    }
    Error::new(kind, message)
}

/// RFC 9110, section 15; what a registry means by it is in the distribution spec.
fn meaning(status: u16) -> (Kind, &'static str) {
    match status {
        401 => (Kind::Unauthorized, "unauthorized"),
        403 => (Kind::Unauthorized, "forbidden"),
        404 | 410 => (Kind::NotFound, "not found"),
        408 | 425 => (Kind::Unavailable, "try again"),
        416 => (Kind::Invalid, "range not satisfiable"),
        429 => (Kind::Unavailable, "too many requests"),
        500..=599 => (Kind::Unavailable, "server error"),
        _ => (Kind::Invalid, "unexpected status"),
    }
}

/// What docker says when a push is not allowed: the registry's code and message, or what the code would have been.
fn refusal(status: u16, code: Option<String>, words: Option<String>) -> String {
    let (default_code, default_words) = match status {
        401 => ("unauthorized", "authentication required"),
        _ => ("denied", "requested access to the resource is denied"),
    };
    let code = code.filter(|code| !code.is_empty()).map(|code| code.to_ascii_lowercase());
    let code = code.map_or(default_code.to_string(), |code| code.replace('_', " "));
    format!("{code}: {}", words.unwrap_or(default_words.to_string()))
}

/// The first code and message of an error document; nothing if the body is anything else.
fn its_words(answer: Answer) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut body = answer.response.into_body().into_reader();
    read_at_most(&mut body, MAX_ERROR_DOCUMENT_BYTES, &mut bytes).ok()?;
    let document: ErrorDocument = json::parse(&bytes, "error").ok()?;
    let first = document.errors?.into_iter().next()?;
    let code = printable(&first.code.unwrap_or_default());
    let words = first.message.map(|words| printable(&words)).filter(|words| !words.is_empty());
    let words = words.or((!code.is_empty()).then(|| code.clone()))?;
    Some((code, words))
}

/// A remote's words on one line, without control characters and not too many of them.
fn printable(words: &str) -> String {
    let shown = words.chars().take(MAX_SHOWN_CHARS);
    shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The error for a question that got no answer.
pub(super) fn of_transport(error: ureq::Error, doing: &str) -> Error {
    let of_kind = |kind: Kind, why: String| Error::new(kind, format!("{doing}: {why}"));
    match error {
        ureq::Error::Other(cause) => match cause.downcast::<Error>() {
            Ok(ours) => Error::new(ours.kind(), doing).caused_by(ours),
            Err(other) => Error::new(Kind::Unavailable, doing).caused_by(other),
        },
        ureq::Error::Io(cause) => of_io(cause, doing),
        ureq::Error::Timeout(_) => {
            of_kind(Kind::Unavailable, "the server does not answer in time".into())
        }
        ureq::Error::TooManyRedirects => of_kind(Kind::Invalid, "redirected too many times".into()),
        ureq::Error::LargeResponseHeader(_, limit) => {
            of_kind(Kind::Invalid, format!("the head of the answer is over {limit} bytes"))
        }
        ureq::Error::Protocol(cause) => {
            of_kind(Kind::Invalid, format!("the answer is not proper HTTP: {cause}"))
        }
        ureq::Error::Http(cause) => of_kind(Kind::Invalid, cause.to_string()),
        ureq::Error::BadUri(uri) => of_kind(Kind::Invalid, format!("bad URL {uri}")),
        other => of_kind(Kind::Internal, other.to_string()),
    }
}

/// The error for a connection that broke in the middle; trying again may help.
pub(super) fn of_io(error: io::Error, doing: &str) -> Error {
    let carries_ureq = error.get_ref().is_some_and(|inner| inner.is::<ureq::Error>());
    if carries_ureq {
        return of_transport(ureq::Error::from(error), doing);
    }
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        return match trust::cause(error) {
            Cause::Is(cause) => Error::new(cause.kind(), doing).caused_by(cause),
            Cause::SpeaksPlain => Error::new(Kind::Invalid, format!("{doing}: not TLS any more")),
        };
    }
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return Error::io(doing, error);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Error::new(Kind::Unavailable, format!("{doing}: the server ended the connection"));
    }
    Error::new(Kind::Unavailable, doing).caused_by(error)
}

/// The whole body, which may have `limit` bytes.
pub(super) fn read_limited(answer: Answer, limit: u64, doing: &str) -> Result<Vec<u8>> {
    let refuse = |size: String| {
        Err(Error::new(Kind::Invalid, format!("{doing}: {size} bytes, the limit is {limit}")))
    };
    let body = answer.response.into_body();
    if let Some(size) = body.content_length().filter(|size| *size > limit) {
        return refuse(size.to_string());
    }
    let mut bytes = Vec::new();
    let mut body = body.into_reader();
    read_at_most(&mut body, limit + 1, &mut bytes).map_err(|e| of_io(e, doing))?;
    if bytes.len() as u64 > limit {
        return refuse(format!("more than {limit}"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_words_on_one_line() {
        assert_eq!(printable("a\n\u{1b}[31mb"), "a  [31mb");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), MAX_SHOWN_CHARS);
    }

    #[test]
    fn refuses_pushes_in_dockers_words() {
        let text = |text: &str| Some(text.to_string());
        for (status, code, words, expected) in [
            (401, None, None, "unauthorized: authentication required"),
            (403, None, None, "denied: requested access to the resource is denied"),
            (401, text("DENIED"), text("no"), "denied: no"),
            (403, text("NAME_INVALID"), text("bad"), "name invalid: bad"),
        ] {
            assert_eq!(refusal(status, code, words), expected);
        }
    }

    #[test]
    fn tells_what_trying_again_may_cure() {
        let eof = io::Error::from(io::ErrorKind::UnexpectedEof);
        let error = of_io(eof, "get x");
        assert_eq!(error.to_string(), "get x: the server ended the connection");
        assert_eq!(error.kind(), Kind::Unavailable);
        let wrapped = io::Error::other(ureq::Error::Timeout(ureq::Timeout::PerRead));
        let error = of_io(wrapped, "get x");
        assert_eq!(error.to_string(), "get x: the server does not answer in time");
        assert_eq!(error.kind(), Kind::Unavailable);
    }
}
