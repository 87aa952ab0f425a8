//! How the client answers a 401: a bearer token from the service that the registry names (distribution spec, "Token
//! Authentication"), or Basic credentials. What was granted is kept for the client's life and asked for anew when the
//! registry no longer takes it.

use miniserde::Deserialize;

use super::challenge::{self, Challenge};
use super::client::{Access, Answer, Client, Question, locked};
use super::retry::Retry;
use super::{failure, location};
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::reference::Reference;

/// The largest answer of a token service, in bytes.
const MAX_TOKEN_ANSWER_BYTES: u64 = 256 << 10;

/// `Authorization` values, one for each repository asked.
#[derive(Default)]
pub(super) struct Grants(Vec<Grant>);

struct Grant {
    registry: String,
    repository: String,
    authorization: String,
}

impl Grants {
    /// What the registry took last for this repository.
    pub(super) fn find(&self, reference: &Reference) -> Option<String> {
        self.0.iter().find(|grant| grant.is_for(reference)).map(|grant| grant.authorization.clone())
    }

    fn keep(&mut self, reference: &Reference, authorization: &str) {
        self.0.retain(|grant| !grant.is_for(reference));
        self.0.push(Grant {
            registry: reference.registry().to_string(),
            repository: reference.repository().to_string(),
            authorization: authorization.to_string(),
        });
    }
}

impl Grant {
    fn is_for(&self, reference: &Reference) -> bool {
        self.registry == reference.registry() && self.repository == reference.repository()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// The `Authorization` value that answers `refusal`, kept for the next question about the same repository.
    pub(super) fn authorize(
        &self,
        question: &Question,
        refusal: Answer,
        retry: &mut Retry,
    ) -> Result<String> {
        let headers = refusal.response.headers().get_all("www-authenticate");
        let challenges: Vec<Challenge> = headers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let bearer = challenges.iter().find(|c| c.scheme == "bearer");
        let realm = bearer.and_then(|c| c.parameter("realm"));
        let authorization = match (bearer, realm, self.basic(question.reference)) {
            (Some(challenge), Some(realm), _) => {
                let home = refusal.origin.clone();
                refusal.drain();
                format!("Bearer {}", self.token(question, challenge, realm, &home, retry)?)
            }
            (_, _, Some(basic)) if challenges.iter().any(|c| c.scheme == "basic") => {
                refusal.drain();
                basic
            }
            _ => return Err(failure::of_status(refusal, question)),
        };
        locked(&self.grants).keep(question.reference, &authorization);
        Ok(authorization)
    }

    fn token(
        &self,
        question: &Question,
        challenge: &Challenge,
        realm: &str,
        home: &str,
        retry: &mut Retry,
    ) -> Result<String> {
        let reference = question.reference;
        let doing = format!("{}: get token from {}", question.doing, location::origin(realm));
        let scopes = scopes(reference.repository(), question.access, challenge.parameter("scope"));
        let url = token_url(realm, challenge.parameter("service"), &scopes);
        self.check_hop(home, &url).map_err(|e| failure::of_transport(e, &doing))?;
        let mut asking = Question::get(reference, String::new(), Vec::new(), doing.clone());
        asking.access = question.access;
        let answer = self
            .send(&url, location::origin(&url), &asking, self.basic(reference).as_deref())
            .map_err(|e| failure::of_transport(e, &doing))?;
        answer.tell(retry);
        if answer.status() != 200 {
            return Err(failure::of_status(answer, &asking));
        }
        let bytes = failure::read_limited(answer, MAX_TOKEN_ANSWER_BYTES, &doing)?;
        let answer: TokenAnswer = json::parse(&bytes, &format!("token of {}", question.doing))?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("{doing}: the answer holds no usable token");
            return Err(Error::new(Kind::Unauthorized, message));
        }
        Ok(token)
    }

    /// The Basic credentials (RFC 7617) for the registry of `reference`, if there are any.
    fn basic(&self, reference: &Reference) -> Option<String> {
        let mut all = self.options.credentials.iter();
        let found = all.find(|c| c.registry.eq_ignore_ascii_case(reference.registry()))?;
        Some(format!("Basic {}", base64(format!("{}:{}", found.user, found.password).as_bytes())))
    }
}

/// The scopes to ask a token for: the registry's, and those that the question needs anyway where it is to push, for a
/// registry asks for one at a time and a token takes the place of the one before.
fn scopes(repository: &str, access: Access, asked_for: Option<&str>) -> Vec<String> {
    let mut scopes: Vec<String> =
        asked_for.unwrap_or_default().split_whitespace().map(str::to_string).collect();
    let mut needs = Vec::new();
    match access {
        Access::Pull if !scopes.is_empty() => {}
        Access::Pull => needs.push(format!("repository:{repository}:pull")),
        Access::Push(from) => {
            needs.push(format!("repository:{repository}:pull,push"));
            needs.extend(from.map(|from| format!("repository:{from}:pull")));
        }
    }
    needs.retain(|need| !scopes.contains(need));
    scopes.extend(needs);
    scopes
}

fn token_url(realm: &str, service: Option<&str>, scopes: &[String]) -> String {
    let mut url = realm.to_string();
    let service = service.map(|service| ("service", service));
    let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
    for (name, value) in service.into_iter().chain(scopes) {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(name);
        url.push('=');
        percent_encode(value, &mut url);
    }
    url
}

/// RFC 3986, section 2.1; `:` `/` `,` mean themselves in a query and keep scopes readable in a server's log.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into());
            }
            b':' | b'/' | b',' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = (group >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { ALPHABET[digit].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_rfc_4648_section_10() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{3fb}\u{ff}", "z7vDvw=="),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn builds_token_urls() {
        for (realm, service, expected) in [
            ("https://a/t", Some("my registry"), "https://a/t?service=my%20registry&scope=r:x/y:p"),
            ("https://a/t?k=v", None, "https://a/t?k=v&scope=r:x/y:p"),
            ("https://a/t", Some("a&b=c"), "https://a/t?service=a%26b%3Dc&scope=r:x/y:p"),
        ] {
            assert_eq!(token_url(realm, service, &["r:x/y:p".to_string()]), expected);
        }
        let two = ["a:b:c,d".to_string(), "e".to_string()];
        assert_eq!(token_url("https://a/t", None, &two), "https://a/t?scope=a:b:c,d&scope=e");
    }

    #[test]
    fn asks_for_what_a_push_needs() {
        for (access, asked_for, expected) in [
            (Access::Pull, None, "repository:x:pull"),
            (Access::Pull, Some("registry:catalog:*"), "registry:catalog:*"),
            (Access::Push(None), None, "repository:x:pull,push"),
            (Access::Push(None), Some("repository:x:pull,push"), "repository:x:pull,push"),
            (
                Access::Push(Some("y")),
                Some("repository:x:pull"),
                "repository:x:pull repository:x:pull,push repository:y:pull",
            ),
        ] {
            assert_eq!(scopes("x", access, asked_for).join(" "), expected);
        }
    }

    #[test]
    fn keeps_one_grant_for_each_repository() {
        let (x, y) = (Reference::parse("a.b/x:1").unwrap(), Reference::parse("a.b/y").unwrap());
        let mut grants = Grants::default();
        grants.keep(&x, "one");
        grants.keep(&x, "two");
        assert_eq!(grants.find(&Reference::parse("a.b/x:2").unwrap()).as_deref(), Some("two"));
        assert_eq!((grants.find(&y), grants.0.len()), (None, 1));
    }
}
