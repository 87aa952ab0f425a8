//! How the client answers a 401: a bearer token from the service that the registry names (distribution spec, "Token
//! Authentication"), or Basic credentials. What was granted is kept for the client's life and asked for anew when the
//! registry no longer takes it.

use std::time::{Duration, Instant};

use miniserde::Deserialize;
use ureq::http::Method;

use super::challenge::{self, Challenge};
use super::client::{Access, Answer, Client, Content, Question, locked};
use super::retry::Retry;
use super::{failure, location};
use crate::base64;
use crate::config::Credentials;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::reference::Reference;

/// The largest answer of a token service, in bytes.
const MAX_TOKEN_ANSWER_BYTES: u64 = 256 << 10;

/// How long a token serves whose answer does not say so, or says less (distribution spec, "Token Authentication").
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// Who asks, for token services (RFC 6749, section 2.2).
const CLIENT_ID: &str = "vaquita";

/// `Authorization` values, one for each repository asked.
#[derive(Default)]
pub(super) struct Grants(Vec<Grant>);

struct Grant {
    registry: String,
    repository: String,
    authorization: String,
    ends: Option<Instant>,
}

impl Grants {
    /// What the registry took last for this repository, unless it has ended by `now`.
    pub(super) fn find(&self, reference: &Reference, now: Instant) -> Option<String> {
        let mut all = self.0.iter();
        let found = all.find(|grant| grant.is_for(reference))?;
        found.ends.is_none_or(|ends| now < ends).then(|| found.authorization.clone())
    }

    fn keep(&mut self, reference: &Reference, granted: &Granted) {
        self.0.retain(|grant| !grant.is_for(reference));
        self.0.push(Grant {
            registry: reference.registry().to_string(),
            repository: reference.repository().to_string(),
            authorization: granted.authorization.clone(),
            ends: granted.ends,
        });
    }
}

impl Grant {
    fn is_for(&self, reference: &Reference) -> bool {
        self.registry == reference.registry() && self.repository == reference.repository()
    }
}

/// What answers a refusal.
pub(super) struct Granted {
    /// The value of `Authorization`.
    pub(super) authorization: String,
    /// When it no longer serves.
    ends: Option<Instant>,
    /// What a token service takes from now on in place of the password.
    pub(super) identity_token: Option<String>,
}

impl Granted {
    fn for_good(authorization: String) -> Granted {
        Granted { authorization, ends: None, identity_token: None }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

impl Client {
    /// The `Authorization` value that answers `refusal`, kept for the next question about the same repository.
    pub(super) fn authorize(
        &self,
        question: &Question,
        refusal: Answer,
        retry: &mut Retry,
    ) -> Result<String> {
        let granted = self.grant(question, refusal, retry)?;
        locked(&self.grants).keep(question.reference, &granted);
        Ok(granted.authorization)
    }

    /// What answers `refusal`, by its challenges and whom we may be.
    pub(super) fn grant(
        &self,
        question: &Question,
        refusal: Answer,
        retry: &mut Retry,
    ) -> Result<Granted> {
        let headers = refusal.response.headers().get_all("www-authenticate");
        let challenges: Vec<Challenge> = headers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let credentials = self.credentials(question.reference)?;
        let own_token = credentials.as_ref().filter(|c| !c.registry_token.is_empty());
        let bearer = challenges.iter().find(|c| c.scheme == "bearer");
        let realm = bearer.and_then(|c| c.parameter("realm"));
        if let (Some(own), Some(_)) = (own_token, bearer) {
            refusal.drain();
            return Ok(Granted::for_good(format!("Bearer {}", own.registry_token)));
        }
        if let (Some(challenge), Some(realm)) = (bearer, realm) {
            let home = refusal.origin.clone();
            refusal.drain();
            let service = Service { challenge, realm, home: &home };
            return self.token(question, &service, credentials.as_ref(), retry);
        }
        match credentials.filter(|c| !c.user.is_empty()) {
            Some(credentials) if challenges.iter().any(|c| c.scheme == "basic") => {
                refusal.drain();
                Ok(Granted::for_good(basic(&credentials)))
            }
            _ => Err(failure::of_status(refusal, question)),
        }
    }

    /// A token for what `question` needs, from the service that a registry names.
    fn token(
        &self,
        question: &Question,
        service: &Service,
        credentials: Option<&Credentials>,
        retry: &mut Retry,
    ) -> Result<Granted> {
        let doing =
            format!("{}: get token from {}", question.doing, location::origin(service.realm));
        let before = Instant::now();
        let answer = self.ask_service(question, service, credentials, &doing)?;
        answer.tell(retry);
        if answer.status() != 200 {
            let asked = Question::get(question.reference, String::new(), Vec::new(), doing);
            return Err(failure::of_status(answer, &Question { access: question.access, ..asked }));
        }
        let bytes = failure::read_limited(answer, MAX_TOKEN_ANSWER_BYTES, &doing)?;
        let answer: TokenAnswer = json::parse(&bytes, &format!("token of {}", question.doing))?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        let token = token.unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("{doing}: the answer holds no usable token");
            return Err(Error::new(Kind::Unauthorized, message));
        }
        let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(0)).max(MIN_LIFETIME);
        Ok(Granted {
            authorization: format!("Bearer {token}"),
            ends: before.checked_add(lifetime),
            identity_token: answer.refresh_token.filter(|token| !token.is_empty()),
        })
    }

    /// GET with Basic credentials or none; with an identity token a form, as OAuth2 has it (RFC 6749, section 6).
    fn ask_service(
        &self,
        question: &Question,
        service: &Service,
        credentials: Option<&Credentials>,
        doing: &str,
    ) -> Result<Answer> {
        let (reference, failed) = (question.reference, |e| failure::of_transport(e, doing));
        let asked = service.challenge.parameter("scope");
        let scopes = scopes(reference.repository(), question.access, asked);
        let name = service.challenge.parameter("service");
        let mut parameters: Vec<(&str, &str)> =
            name.map(|name| ("service", name)).into_iter().collect();
        let mut asking = Question::get(reference, String::new(), Vec::new(), doing.to_string());
        self.check_hop(service.home, service.realm).map_err(failed)?;
        let identity = credentials.filter(|c| !c.identity_token.is_empty());
        let Some(identity) = identity else {
            let user = credentials.filter(|c| !c.user.is_empty());
            parameters.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            if let Some(user) = user {
                parameters.push(("account", &user.user));
            }
            if question.access == Access::Login {
                parameters.extend([("client_id", CLIENT_ID), ("offline_token", "true")]);
            }
            let url = with_query(service.realm, &parameters);
            let basic = user.map(basic);
            return self
                .send(&url, location::origin(&url), &asking, basic.as_deref())
                .map_err(failed);
        };
        let scope = scopes.join(" ");
        parameters.extend([
            ("scope", scope.as_str()),
            ("client_id", CLIENT_ID),
            ("grant_type", "refresh_token"),
            ("refresh_token", &identity.identity_token),
        ]);
        let form = form(&parameters);
        asking.method = Method::POST;
        asking.headers = vec![("content-type", "application/x-www-form-urlencoded".into())];
        asking.content = Content::Bytes(form.as_bytes());
        let origin = location::origin(service.realm).to_string();
        // Not where a redirect leads: the secret is for this service.
        let response = self.exchange(service.realm, &asking, None).map_err(failed)?;
        Ok(Answer { response, url: service.realm.to_string(), origin, is_home: true })
    }

    /// Whom to be at the registry of `reference`.
    fn credentials(&self, reference: &Reference) -> Result<Option<Credentials>> {
        let registry = reference.registry();
        let mut given = self.options.credentials.iter();
        match given.find(|c| c.registry.eq_ignore_ascii_case(registry)) {
            Some(given) => Ok(Some(given.clone())),
            None => {
                self.options.client_config.as_ref().map_or(Ok(None), |file| file.find(registry))
            }
        }
    }
}

/// Whom a registry sends us to for a token.
struct Service<'a> {
    challenge: &'a Challenge,
    realm: &'a str,
    /// `scheme://host[:port]` of the registry.
    home: &'a str,
}

/// Basic credentials (RFC 7617).
fn basic(credentials: &Credentials) -> String {
    let pair = format!("{}:{}", credentials.user, credentials.password);
    format!("Basic {}", base64::encode(pair.as_bytes()))
}

/// The scopes to ask a token for: the registry's, and those that the question needs anyway where it is to push, for a
/// registry asks for one at a time and a token takes the place of the one before.
fn scopes(repository: &str, access: Access, asked_for: Option<&str>) -> Vec<String> {
    let mut scopes: Vec<String> =
        asked_for.unwrap_or_default().split_whitespace().map(str::to_string).collect();
    let mut needs = Vec::new();
    match access {
        Access::Login => {}
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

/// `url` with more parameters.
fn with_query(url: &str, parameters: &[(&str, &str)]) -> String {
    let query = form(parameters);
    let separator = match (query.as_str(), url.contains('?')) {
        ("", _) => "",
        (_, true) => "&",
        (_, false) => "?",
    };
    format!("{url}{separator}{query}")
}

fn form(parameters: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        percent_encode(value, &mut text);
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_token_urls() {
        let scope = ("scope", "r:x/y:p,q");
        for (realm, parameters, expected) in [
            (
                "https://a/t",
                &[("service", "my registry"), scope][..],
                "https://a/t?service=my%20registry&scope=r:x/y:p,q",
            ),
            ("https://a/t?k=v", &[scope], "https://a/t?k=v&scope=r:x/y:p,q"),
            ("https://a/t", &[("service", "a&b=c")], "https://a/t?service=a%26b%3Dc"),
            ("https://a/t", &[], "https://a/t"),
        ] {
            assert_eq!(with_query(realm, parameters), expected);
        }
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
    fn keeps_one_grant_for_each_repository_while_it_serves() {
        let (x, y) = (Reference::parse("a.b/x:1").unwrap(), Reference::parse("a.b/y").unwrap());
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let granted = |authorization: &str, ends| Granted {
            authorization: authorization.into(),
            ends,
            identity_token: None,
        };
        let mut grants = Grants::default();
        grants.keep(&x, &granted("one", None));
        assert_eq!(grants.find(&x, later).as_deref(), Some("one"));
        grants.keep(&x, &granted("two", Some(later)));
        let x = Reference::parse("a.b/x:2").unwrap();
        assert_eq!(grants.find(&x, now).as_deref(), Some("two"));
        assert_eq!(grants.find(&x, later), None);
        assert_eq!((grants.find(&y, now), grants.0.len()), (None, 1));
    }
}
