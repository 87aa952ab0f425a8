//! A registry on 127.0.0.1 that takes uploads, gives back what it took, and does wrong what it is told to.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use vaquita::digest::Digest;
use vaquita::oci::artifact::DELTA_TYPE;
use vaquita::oci::manifest::{Document, OCI_INDEX, OCI_MANIFEST};
use vaquita::reference::Reference;

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// So many bytes of the body arrive and are kept; then the connection ends.
    CutAfter(usize),
    /// The request is carried out and its answer is lost.
    LoseAnswer,
    /// This status instead, with these headers, each ended by CRLF, and this body.
    Answer(u16, &'static str, &'static str),
    /// The session is gone.
    Forget,
    /// The session keeps only so many bytes; it says so by a 416.
    ShrinkTo(usize),
    /// The chunk is kept, but for its last byte.
    KeepShort,
    /// The answer is as if it had been carried out.
    Discard,
}

#[derive(Default)]
pub struct State {
    sessions: BTreeMap<u64, Vec<u8>>,
    /// What was uploaded or mounted, by repository and digest.
    pub blobs: BTreeMap<(String, String), Vec<u8>>,
    /// Media type and document of each manifest, by repository and by digest or tag.
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// It answers with the whole blob to whoever asks for a part.
    pub ignores_ranges: bool,
    /// What was sent of blobs, in bytes.
    pub sent_bytes: u64,
    /// It keeps lists of what refers to a manifest.
    pub keeps_lists: bool,
    /// Method and what there is to say of each request, in order.
    pub log: Vec<String>,
    /// Method and target of each request, in order.
    pub requests: Vec<String>,
    /// What goes wrong with so many requests whose method and target hold this.
    pub broken: Vec<(String, usize, Fault)>,
    /// The `Authorization` header of each request that had one.
    pub authorizations: Vec<String>,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    /// These headers of every session's beginning, each ended by CRLF.
    pub begin_headers: String,
    pub mounts: bool,
    /// `Bearer` challenges are answered with this scope; a token is the scopes that it was asked for.
    pub wants_token: bool,
    count: u64,
}

pub struct Fake {
    pub authority: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    head: String,
    length: usize,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        let mut pairs = lines.filter_map(|line| line.split_once(": "));
        pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":"))
    }
}

type Answer = (u16, String, Vec<u8>);

impl Fake {
    pub fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Fake { authority, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next requests with `method` go wrong in these ways, one after the other.
    pub fn fails(&self, method: &'static str, faults: &[Fault]) {
        self.state().faults.entry(method).or_default().extend(faults.iter().cloned());
    }

    /// The log so far, which begins anew.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    pub fn reference(&self, repository: &str) -> Reference {
        Reference::parse(&format!("{}/{repository}", self.authority)).unwrap()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    while let Some(request) = read_request(&mut stream) {
        let fault = {
            let mut state = state.lock().unwrap();
            let method = request.method.as_str();
            let place = request.path.rsplit('/').next().unwrap_or_default();
            let range = request.header("content-range").unwrap_or_default();
            let key = request.parameter("digest").map(|_| "closing").unwrap_or_default();
            let words = [method, if place.len() < 8 { "session" } else { "" }, range, key];
            let what = if request.path.contains("/uploads/") { &words[..] } else { &words[..1] };
            let line: Vec<&str> = what.iter().copied().filter(|word| !word.is_empty()).collect();
            if request.path != "/token" {
                state.log.push(line.join(" ").replace("POST session", "POST"));
            }
            state.authorizations.extend(request.header("authorization").map(str::to_string));
            let target = format!("{method} {}?{}", request.path, request.query);
            let fault = state.fault_at(&target);
            state.requests.push(target);
            fault.or(state.faults.get_mut(method).and_then(VecDeque::pop_front))
        };
        let wanted = match fault {
            Some(Fault::CutAfter(count)) => count,
            _ => request.length,
        };
        let mut body = vec![0; wanted];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let (status, headers, text) = {
            let mut state = state.lock().unwrap();
            match &fault {
                Some(Fault::Answer(status, headers, text)) => {
                    (*status, headers.to_string(), text.as_bytes().to_vec())
                }
                Some(Fault::Discard) => (201, String::new(), Vec::new()),
                Some(Fault::Forget) => {
                    state.sessions.clear();
                    unknown()
                }
                Some(Fault::ShrinkTo(count)) => {
                    state.sessions.values_mut().for_each(|session| session.truncate(*count));
                    (416, String::new(), Vec::new())
                }
                Some(Fault::KeepShort) => {
                    body.pop();
                    state.answer(&request, body)
                }
                _ => state.answer(&request, body),
            }
        };
        if matches!(fault, Some(Fault::CutAfter(_) | Fault::LoseAnswer)) {
            return;
        }
        let length = if request.method == "HEAD" { 0 } else { text.len() };
        let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n");
        let body = text.get(..length).unwrap_or_default();
        if stream.write_all(&[head.as_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

fn unknown() -> Answer {
    let text = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown"}]}"#;
    (404, String::new(), text.into())
}

fn part_of(bytes: &[u8], range: &str) -> Answer {
    let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(bytes.len(), |last: usize| bytes.len().min(last + 1));
    if start >= end {
        return (416, String::new(), Vec::new());
    }
    let header = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
    (206, header, bytes[start..end].to_vec())
}

impl State {
    fn answer(&mut self, request: &Request, body: Vec<u8>) -> Answer {
        if request.path == "/token" {
            let scopes = request.query.replace("scope=", "").replace('&', "+");
            return (200, String::new(), format!(r#"{{"token":"{scopes}"}}"#).into_bytes());
        }
        let token = request.header("authorization").unwrap_or_default();
        let from = request.parameter("from");
        if self.wants_token {
            let host = request.header("host").unwrap();
            let needs = match (&from, request.method.as_str()) {
                (Some(from), _) => vec![":pull,push".into(), format!("repository:{from}:pull")],
                (None, "GET" | "HEAD") => vec![":pull".into()],
                _ => vec![":pull,push".to_string()],
            };
            if !needs.iter().all(|need| token.contains(need)) {
                let realm = format!(r#"Bearer realm="http://{host}/token""#);
                let headers = format!("WWW-Authenticate: {realm},scope=\"repository:x:pull\"\r\n");
                return (401, headers, Vec::new());
            }
        }
        let path = request.path.trim_start_matches("/v2/").to_string();
        if let Some((repository, digest)) = path.split_once("/blobs/sha256:") {
            let key = (repository.to_string(), format!("sha256:{digest}"));
            let Some(bytes) = self.blobs.get(&key) else { return (404, String::new(), Vec::new()) };
            let range = request.header("range").filter(|_| !self.ignores_ranges);
            let answer = match range {
                None => (200, String::new(), bytes.clone()),
                Some(range) => part_of(bytes, range),
            };
            self.sent_bytes += if request.method == "GET" { answer.2.len() as u64 } else { 0 };
            return answer;
        }
        if let Some((repository, key)) = path.split_once("/manifests/") {
            return self.manifest(request, (repository.to_string(), key.to_string()), body);
        }
        if let Some((repository, subject)) = path.split_once("/referrers/") {
            return match self.keeps_lists {
                true => {
                    (200, format!("Content-Type: {OCI_INDEX}\r\n"), self.list(repository, subject))
                }
                false => (404, String::new(), Vec::new()),
            };
        }
        let Some((repository, session)) = path.split_once("/blobs/uploads/") else {
            return (201, String::new(), Vec::new());
        };
        match request.method.as_str() {
            "POST" => self.begin(request, repository),
            _ => self.go_on(request, repository, session.parse().unwrap_or(0), body),
        }
    }

    fn fault_at(&mut self, target: &str) -> Option<Fault> {
        let broken = self.broken.iter_mut();
        let mut found = broken.filter(|(part, left, _)| *left > 0 && target.contains(&**part));
        found.next().map(|(_, left, fault)| {
            *left -= 1;
            fault.clone()
        })
    }

    fn manifest(&mut self, request: &Request, key: (String, String), body: Vec<u8>) -> Answer {
        if request.method != "PUT" {
            return match self.manifests.get(&key) {
                Some((kind, bytes)) => (200, format!("Content-Type: {kind}\r\n"), bytes.clone()),
                None => (404, String::new(), Vec::new()),
            };
        }
        let kind = request.header("content-type").unwrap_or_default().to_string();
        let headers = match subject_of(&body).filter(|_| self.keeps_lists) {
            Some(subject) => format!("OCI-Subject: {subject}\r\n"),
            None => String::new(),
        };
        let digest = Digest::of(&body).to_string();
        self.manifests.insert((key.0.clone(), digest), (kind.clone(), body.clone()));
        self.manifests.insert(key, (kind, body));
        (201, headers, Vec::new())
    }

    /// What refers to `subject`, all of it deltas.
    fn list(&self, repository: &str, subject: &str) -> Vec<u8> {
        let mut entries = Vec::new();
        for ((place, key), (_, bytes)) in &self.manifests {
            if place != repository
                || !key.contains(':')
                || subject_of(bytes).as_deref() != Some(subject)
            {
                continue;
            }
            let text = std::str::from_utf8(bytes).unwrap();
            let (_, annotations) = text.rsplit_once(r#","annotations":"#).unwrap();
            let (kind, size) = (OCI_MANIFEST, bytes.len());
            entries.push(format!(
                r#"{{"mediaType":"{kind}","digest":"{key}","size":{size},"artifactType":"{DELTA_TYPE}","annotations":{annotations}"#
            ));
        }
        let entries = entries.join(",");
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#)
            .into_bytes()
    }

    fn begin(&mut self, request: &Request, repository: &str) -> Answer {
        if let (Some(digest), Some(from), true) =
            (request.parameter("mount"), request.parameter("from"), self.mounts)
            && let Some(bytes) = self.blobs.get(&(from, digest.clone())).cloned()
        {
            self.blobs.insert((repository.to_string(), digest), bytes);
            return (201, String::new(), Vec::new());
        }
        self.count += 1;
        self.sessions.insert(self.count, Vec::new());
        let headers = self.place(repository, self.count) + &self.begin_headers;
        (202, headers, Vec::new())
    }

    /// Each answer gives another URL, and only that may be used next.
    fn place(&self, repository: &str, id: u64) -> String {
        let held = self.sessions.get(&id).map_or(0, Vec::len);
        let last = held.saturating_sub(1);
        let url = format!("/v2/{repository}/blobs/uploads/{id}?state={held}");
        format!("Location: {url}\r\nRange: 0-{last}\r\n")
    }

    fn go_on(&mut self, request: &Request, repository: &str, id: u64, body: Vec<u8>) -> Answer {
        let Some(session) = self.sessions.get_mut(&id) else { return unknown() };
        let held = session.len();
        let range = request.header("content-range").and_then(|range| range.split_once('-'));
        if request.method == "PATCH" {
            assert!(request.parameter("state").is_some(), "{}", request.head);
            if range.is_none_or(|(start, _)| start.parse() != Ok(held)) {
                return (416, self.place(repository, id), Vec::new());
            }
        }
        session.extend_from_slice(&body);
        let bytes = session.clone();
        match (request.method.as_str(), request.parameter("digest")) {
            ("PATCH", _) => (202, self.place(repository, id), Vec::new()),
            ("GET", _) => (204, self.place(repository, id), Vec::new()),
            ("DELETE", _) => {
                self.sessions.remove(&id);
                (204, String::new(), Vec::new())
            }
            ("PUT", Some(digest)) if Digest::of(&bytes).to_string() == digest => {
                self.sessions.remove(&id);
                self.blobs.insert((repository.to_string(), digest), bytes);
                (201, String::new(), Vec::new())
            }
            ("PUT", _) => {
                let text = r#"{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}"#;
                (400, String::new(), text.into())
            }
            _ => (405, String::new(), Vec::new()),
        }
    }
}

fn subject_of(document: &[u8]) -> Option<String> {
    match Document::parse(document, "", "x") {
        Ok(Document::Manifest(manifest)) => Some(manifest.subject?.digest),
        _ => None,
    }
}

/// One head. What is no HTTP, an attempt at TLS, is told so.
fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
        if !head[0].is_ascii_uppercase() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            return None;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_string(), words.next()?.to_string());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.to_string(), query.to_string());
    let mut request = Request { method, path, query, head, length: 0 };
    request.length = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    Some(request)
}
