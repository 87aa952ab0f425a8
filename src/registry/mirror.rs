//! Mirrors of Docker Hub: asked in order for what is pulled from it, before it. To everything but the name that people see
//! a mirror is a registry of its own: it gets its own credentials or none, never Docker Hub's.

use std::sync::Mutex;

use ureq::http::Method;

use super::client::{Access, Answer, Client, Place, Question, locked};
use super::location;
use super::retry::Retry;
use crate::error::{Error, Kind, Result};
use crate::reference::DEFAULT_REGISTRY;

/// Mirrors, and which of them were found not to serve.
#[derive(Default)]
pub(super) struct Mirrors {
    all: Vec<Mirror>,
    failed: Mutex<Vec<String>>,
}

/// A mirror's `host[:port]`, and whether it is spoken to over plain HTTP.
pub(super) struct Mirror {
    pub(super) authority: String,
    pub(super) is_plain: bool,
}

impl Mirrors {
    /// From URLs as `registry-mirrors` has them.
    pub(super) fn parse(urls: &[String]) -> Result<Mirrors> {
        let all = urls.iter().map(|url| parse(url)).collect::<Result<_>>()?;
        Ok(Mirrors { all, failed: Mutex::default() })
    }

    /// Those to be spoken to over plain HTTP.
    pub(super) fn plain(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter(|mirror| mirror.is_plain).map(|mirror| mirror.authority.as_str())
    }
}

fn parse(url: &str) -> Result<Mirror> {
    let refuse = |why: &str| Error::new(Kind::Invalid, format!("invalid mirror: {why} {url:?}"));
    let origin = location::origin(url);
    let (scheme, authority) = origin.split_once("://").ok_or_else(|| refuse("not a valid URI:"))?;
    let is_plain = match scheme {
        "https" => false,
        "http" => true,
        _ => return Err(refuse("unsupported scheme in")),
    };
    if !matches!(url.get(origin.len()..), Some("" | "/")) {
        return Err(refuse("path, query, or fragment at end of the URI"));
    }
    if authority.is_empty() || authority.contains('@') {
        return Err(refuse("not a host with an optional port in"));
    }
    Ok(Mirror { authority: authority.to_string(), is_plain })
}

impl Client {
    /// The answer of the first mirror that has one; `None` if none is to be asked, or none has.
    pub(super) fn ask_mirrors(
        &self,
        question: &Question,
        retry: &mut Retry,
    ) -> Result<Option<Answer>> {
        let is_for_hub = question.reference.registry() == DEFAULT_REGISTRY
            && question.access == Access::Pull
            && matches!(question.method, Method::GET | Method::HEAD);
        let Place::Path(path) = &question.place else { return Ok(None) };
        if !is_for_hub || retry.asks_origin() {
            return Ok(None);
        }
        for Mirror { authority, .. } in &self.mirrors.all {
            if locked(&self.mirrors.failed).contains(authority) {
                continue;
            }
            let reference = question.reference.on(authority);
            let mirrored = Question {
                method: question.method.clone(),
                accepts: question.accepts,
                ..Question::get(
                    &reference,
                    path.clone(),
                    question.headers.clone(),
                    question.doing.clone(),
                )
            };
            match self.ask_there(&mirrored, &mut self.retry()) {
                Ok(answer) => {
                    retry.answered_by_mirror();
                    return Ok(Some(answer));
                }
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(error) => self.leave(authority, &error),
            }
        }
        Ok(None)
    }

    /// One that does not have what was asked for may have the next; one that does not answer is not waited for again.
    fn leave(&self, authority: &str, error: &Error) {
        log::debug!("mirror {authority}: {error}");
        if !matches!(error.kind(), Kind::NotFound | Kind::Unauthorized) {
            locked(&self.mirrors.failed).push(authority.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_mirrors() {
        for (url, expected) in [
            ("https://m.example/", Ok(("m.example", false))),
            ("http://10.0.0.1:5000", Ok(("10.0.0.1:5000", true))),
            ("https://[::1]:5", Ok(("[::1]:5", false))),
            ("m.example", Err("not a valid URI: \"m.example\"")),
            ("ftp://m.example", Err("unsupported scheme in \"ftp://m.example\"")),
            (
                "https://m.example/v2/",
                Err("path, query, or fragment at end of the URI \"https://m.example/v2/\""),
            ),
            (
                "https://me@m.example",
                Err("not a host with an optional port in \"https://me@m.example\""),
            ),
        ] {
            let found = parse(url).map_err(|e| e.to_string());
            let found = found.as_ref().map(|mirror| (mirror.authority.as_str(), mirror.is_plain));
            let expected = expected.map_err(|why| format!("invalid mirror: {why}"));
            assert_eq!(found, expected.as_ref().copied(), "{url}");
        }
    }
}
