//! The client: how one question becomes one answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ureq::http::{Method, Request, Response};
use ureq::{Body, SendBody};

use super::authorize::Grants;
use super::connect::{Connect, Lookup, SpeaksPlain};
use super::location::{self, Policy};
use super::mirror::Mirrors;
use super::options::Options;
use super::policy::Policies;
use super::proxy::Rules;
use super::retry::Retry;
use super::{failure, transport};
use crate::error::{Error, Kind, Result};
use crate::reference::Reference;
use crate::stream::{Stream, read_at_most};
use crate::time;

/// Redirects followed for one question.
const MAX_REDIRECTS: usize = 10;
/// The largest head of an answer, in bytes. It has to be seen whole in the input buffer; signed URLs in redirects are
/// the longest that registries send, some 4 KiB.
const MAX_HEADER_BYTES: usize = 24 << 10;
const _: () = assert!(MAX_HEADER_BYTES < transport::INPUT_BUFFER_BYTES);
/// The body of a redirect or refusal is read up to this many bytes, so that its connection serves again.
const MAX_DRAINED_BYTES: u64 = 64 << 10;
/// Connections kept open between questions: six blobs at a time and what is asked beside them.
const MAX_IDLE_CONNECTIONS: usize = 8;

/// A client that keeps connections and tokens for as long as it lives. It may be shared between threads; a clone is
/// another handle on the same one.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    pub(super) options: Arc<Options>,
    pub(super) grants: Arc<Mutex<Grants>>,
    /// Hosts that were found to speak plain HTTP, and may.
    plain_hosts: Arc<Mutex<Vec<String>>>,
    policies: Arc<Policies>,
    pub(super) mirrors: Arc<Mirrors>,
    /// Whether anybody was ever connected to.
    pub(super) has_connected: Arc<AtomicBool>,
}

/// One thing to ask a registry for.
pub(super) struct Question<'a> {
    pub(super) reference: &'a Reference,
    /// All but GET and HEAD change something: only who knows what may ask them twice.
    pub(super) method: Method,
    pub(super) place: Place,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content: Content<'a>,
    pub(super) access: Access<'a>,
    /// The statuses that answer it; any other is an error.
    pub(super) accepts: &'static [u16],
    /// The question in words: `get manifest of busybox:latest`.
    pub(super) doing: String,
}

/// Where a question goes.
pub(super) enum Place {
    /// `/v2/`, where a registry says what it is.
    Base,
    /// What follows `/v2/<repository>/` on the registry.
    Path(String),
    /// Where an answer of the registry at `home` (`scheme://host[:port]`) sent us: the session of an upload.
    Url { url: String, home: String },
}

/// What a question carries.
pub(super) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// As many bytes of a stream that is opened anew each time that the question is asked.
    Stream(u64, &'a (dyn Fn() -> Result<Box<dyn Stream + 'a>> + 'a)),
}

/// What must be granted to whoever asks (distribution spec, "Token Scope").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access<'a> {
    /// Nothing but to be who one is.
    Login,
    Pull,
    /// To pull and push; and to pull from another repository too, if one is named.
    Push(Option<&'a str>),
}

impl<'a> Question<'a> {
    /// GET what follows `/v2/<repository>/`.
    pub(super) fn get(
        reference: &'a Reference,
        path: String,
        headers: Vec<(&'static str, String)>,
        doing: String,
    ) -> Question<'a> {
        Question {
            reference,
            method: Method::GET,
            place: Place::Path(path),
            headers,
            content: Content::None,
            access: Access::Pull,
            accepts: &[200, 206],
            doing,
        }
    }

    /// Whether it asks for a manifest.
    pub(super) fn is_for_manifest(&self) -> bool {
        let is_manifest =
            matches!(&self.place, Place::Path(path) if path.starts_with("manifests/"));
        is_manifest && self.method == Method::GET
    }
}

/// An answer before its status is judged.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// The URL that it answers, redirects followed.
    pub(super) url: String,
    /// `scheme://host[:port]` of who gave it: the registry, or where it redirected to.
    pub(super) origin: String,
    /// The registry itself gave it. Another host's 401 is answered with nothing.
    pub(super) is_home: bool,
}

impl Answer {
    /// The status as a number.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Tells `retry` of a `Retry-After`, which comes with 429 and 503.
    pub(super) fn tell(&self, retry: &mut Retry) {
        if let (429 | 503, Some(value)) = (self.status(), self.header("retry-after")) {
            retry.told(value, time::unix_now().0);
        }
    }

    /// Reads what is left of a small body, so that the connection can be used again.
    pub(super) fn drain(self) {
        let mut body = self.response.into_body().into_reader();
        // A failure only means that the connection is not kept.
        let _ = read_at_most(&mut body, MAX_DRAINED_BYTES, &mut Vec::new());
    }
}

impl Client {
    /// A client; nothing is read or connected until it is asked something.
    pub fn new(options: Options) -> Result<Client> {
        if !options.user_agent.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            let message = format!(
                "user agent `{}` is not printable ASCII",
                options.user_agent.escape_debug()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(options.user_agent.as_str())
            .max_response_header_size(MAX_HEADER_BYTES)
            .input_buffer_size(transport::INPUT_BUFFER_BYTES)
            .output_buffer_size(transport::OUTPUT_BUFFER_BYTES)
            .max_idle_connections(MAX_IDLE_CONNECTIONS)
            .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.read_timeout))
            .timeout_per_read(Some(options.read_timeout))
            .timeout_per_write(Some(options.read_timeout))
            .build();
        let has_connected = Arc::default();
        let mirrors = Mirrors::parse(&options.mirrors)?;
        let plain_hosts: Vec<String> = mirrors.plain().map(str::to_string).collect();
        let excepted = [options.insecure.clone(), plain_hosts.clone()].concat();
        let policies = Arc::new(Policies::new(excepted));
        let variable = |name: &str| std::env::var(name).ok();
        let rules = Arc::new(Rules::new(&options.proxies, &variable)?);
        let connect = Connect::new(&options, &policies, &rules, &has_connected);
        Ok(Client {
            agent: ureq::Agent::with_parts(config, connect, Lookup { rules }),
            options: Arc::new(options),
            grants: Arc::default(),
            plain_hosts: Arc::new(Mutex::new(plain_hosts)),
            policies,
            mirrors: Arc::new(mirrors),
            has_connected,
        })
    }

    /// Asks until there is an answer of a status that the question accepts, or no hope. What is neither GET nor HEAD is
    /// asked once.
    pub(super) fn ask(&self, question: &Question) -> Result<Answer> {
        match question.method {
            Method::GET | Method::HEAD => {
                self.persist(None, &mut |retry| self.ask_once(question, retry))
            }
            _ => self.ask_once(question, &mut self.retry()),
        }
    }

    /// The same, once: mirrors first, where there are any. `retry` learns for how long the server wants to be left alone.
    pub(super) fn ask_once(&self, question: &Question, retry: &mut Retry) -> Result<Answer> {
        match self.ask_mirrors(question, retry)? {
            Some(answer) => Ok(answer),
            None => self.ask_there(question, retry),
        }
    }

    /// The same of the registry that the question names; authorizes if that wants it.
    pub(super) fn ask_there(&self, question: &Question, retry: &mut Retry) -> Result<Answer> {
        let held = locked(&self.grants).find(question.reference, Instant::now());
        let mut answer = self.ask_with(question, held.as_deref())?;
        if answer.status() == 401 && answer.is_home {
            let fresh = self.authorize(question, answer, retry)?;
            answer = self.ask_with(question, Some(&fresh))?;
        }
        answer.tell(retry);
        match question.accepts.contains(&answer.status()) {
            true => Ok(answer),
            false => Err(failure::of_status(answer, question)),
        }
    }

    /// TLS first; plain HTTP only if the host shows that it speaks that, and may.
    pub(super) fn ask_with(
        &self,
        question: &Question,
        authorization: Option<&str>,
    ) -> Result<Answer> {
        let path = match &question.place {
            Place::Base => String::new(),
            Place::Path(path) => format!("{}/{path}", question.reference.repository()),
            Place::Url { url, home } => {
                let answer = self.send(url, home, question, authorization);
                return answer.map_err(|e| failure::of_transport(e, &question.doing));
            }
        };
        let host = location::wire_name(question.reference.registry());
        let send = |scheme: &str| {
            let home = format!("{scheme}://{host}");
            self.send(&format!("{home}/v2/{path}"), &home, question, authorization)
        };
        if !locked(&self.plain_hosts).iter().any(|plain| plain == host) {
            let result = send("https");
            let may_be_plain = self.policy(host) != Policy::Verified;
            match result {
                Err(ureq::Error::Other(cause)) if may_be_plain && cause.is::<SpeaksPlain>() => {}
                result => return result.map_err(|e| failure::of_transport(e, &question.doing)),
            }
        }
        let answer = send("http").map_err(|e| failure::of_transport(e, &question.doing))?;
        let mut plain_hosts = locked(&self.plain_hosts);
        if !plain_hosts.iter().any(|plain| plain == host) {
            plain_hosts.push(host.to_string());
        }
        Ok(answer)
    }

    /// One question to `url` and the redirects that it meets. `authorization` goes to the origin `home` only: what a
    /// registry redirects to is a blob store of someone else.
    pub(super) fn send(
        &self,
        url: &str,
        home: &str,
        question: &Question,
        authorization: Option<&str>,
    ) -> Result<Answer, ureq::Error> {
        let mut url = url.to_string();
        for _ in 0..=MAX_REDIRECTS {
            let origin = location::origin(&url).to_string();
            let is_home = location::is_same_origin(&origin, home);
            let response = self.exchange(&url, question, authorization.filter(|_| is_home))?;
            let answer = Answer { response, url, origin, is_home };
            let Some(next) =
                redirect(&answer, question).map(|to| location::follow(&answer.url, to))
            else {
                return Ok(answer);
            };
            self.check_hop(home, &next)?;
            answer.drain();
            url = next;
        }
        Err(ureq::Error::TooManyRedirects)
    }

    /// One request and its response.
    pub(super) fn exchange(
        &self,
        url: &str,
        question: &Question,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(question.method.clone()).uri(url);
        for (name, value) in &question.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let (size_bytes, mut content): (u64, Box<dyn Stream>) = match question.content {
            Content::None => return self.agent.run(request.body(SendBody::none())?),
            Content::Bytes(bytes) => (bytes.len() as u64, Box::new(bytes)),
            Content::Stream(size_bytes, open) => {
                (size_bytes, open().map_err(|e| ureq::Error::Other(Box::new(e)))?)
            }
        };
        let request = request.header("content-length", size_bytes);
        self.agent.run(request.body(SendBody::from_reader(&mut content))?)
    }

    /// Refuses a way from TLS to plain HTTP, unless it leads to a host that is let off, and any to another protocol.
    pub(super) fn check_hop(&self, home: &str, next: &str) -> Result<(), ureq::Error> {
        let refuse = |why: &str| {
            let message = format!("redirected to {next}: {why}");
            Err(ureq::Error::Other(Box::new(Error::new(Kind::Invalid, message))))
        };
        let plain_host = location::origin(next).strip_prefix("http://");
        match plain_host.map(|host| self.policy(host)) {
            Some(Policy::Verified) if home.starts_with("https:") => refuse("away from https"),
            None if !next.starts_with("https://") => refuse("not http or https"),
            _ => Ok(()),
        }
    }

    fn policy(&self, authority: &str) -> Policy {
        self.policies.of(authority)
    }
}

/// Where a redirect leads. One that would turn another method into GET (RFC 9110, section 15.4) is none.
fn redirect<'a>(answer: &'a Answer, question: &Question) -> Option<&'a str> {
    let keeps_method = matches!(answer.status(), 307 | 308);
    let may_be_get = matches!(answer.status(), 301..=303)
        && matches!(question.method, Method::GET | Method::HEAD);
    answer.header("location").filter(|_| keeps_method || may_be_get)
}

/// The value behind `mutex`. A thread that panicked while it held the lock left a list that is still a list.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error if the caller no longer wants what it asked for.
pub(super) fn check_stop(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::new(Kind::Cancelled, "stopped")),
        false => Ok(()),
    }
}
