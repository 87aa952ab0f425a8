//! A server on 127.0.0.1 that answers each request with the bytes it is given, well-formed or not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vaquita::digest::Digest;
use vaquita::oci::manifest::{Descriptor, OCI_MANIFEST};
use vaquita::oci::platform::Platform;
use vaquita::reference::Reference;
use vaquita::registry::{Client, Options};

/// The head of a request, as it came, and its body.
pub type Head = String;
type Handler = dyn Fn(&Head) -> Vec<u8> + Send + Sync;

/// A running server; its thread ends with the test process.
pub struct Server {
    /// `127.0.0.1:port`
    pub authority: String,
    heads: Arc<Mutex<Vec<Head>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers every request with what `handler` makes of its head; a body that is empty after its head is complete
    /// ends the connection.
    pub fn start(handler: impl Fn(&Head) -> Vec<u8> + Send + Sync + 'static) -> Server {
        Server::on(TcpListener::bind("127.0.0.1:0").unwrap(), handler)
    }

    /// The same behind `listener`.
    pub fn on(
        listener: TcpListener,
        handler: impl Fn(&Head) -> Vec<u8> + Send + Sync + 'static,
    ) -> Server {
        let authority = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), heads.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (handler, seen) = (handler.clone(), seen.clone());
                thread::spawn(move || serve(stream.unwrap(), &*handler, &seen));
            }
        });
        Server { authority, heads, connections }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }

    /// Connections so far, attempts at TLS included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// `repository` on this server.
    pub fn reference(&self, repository: &str) -> Reference {
        Reference::parse(&format!("{}/{repository}", self.authority)).unwrap()
    }
}

fn serve(mut stream: TcpStream, handler: &Handler, seen: &Mutex<Vec<Head>>) {
    while let Some(head) = read_head(&mut stream) {
        let is_known = METHODS.iter().any(|method| head.starts_with(method));
        let answer = match is_known {
            true => handler(&head),
            false => b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
        };
        let ends = answer.is_empty() || answer.windows(17).any(|w| w == b"Connection: close");
        if is_known {
            seen.lock().unwrap().push(head);
        }
        if stream.write_all(&answer).is_err() || ends {
            return;
        }
    }
}

const METHODS: &[&str] = &["GET ", "POST ", "CONNECT "];

/// Reads to the empty line, and as many bytes behind it as the head says; or one byte of what is no HTTP.
pub fn read_head(stream: &mut TcpStream) -> Option<Head> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut chunk = [0];
        match stream.read(&mut chunk) {
            Ok(1) => bytes.push(chunk[0]),
            _ => return None,
        }
        if !bytes[0].is_ascii_uppercase() {
            return Some("no HTTP".into());
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(head + std::str::from_utf8(&body).unwrap())
}

/// Gives each connection to `handler`; the `127.0.0.1:port` that it listens on.
pub fn listen(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let handler = handler.clone();
            thread::spawn(move || handler(stream.unwrap()));
        }
    });
    authority
}

/// A complete answer; `headers` end in CRLF each.
pub fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// 200 with an OCI manifest.
pub fn manifest_answer(body: &[u8]) -> Vec<u8> {
    answer(200, &format!("Content-Type: {OCI_MANIFEST}\r\n"), body)
}

/// The descriptor of `bytes`.
pub fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}

/// A manifest without layers whose configuration is `config`.
pub fn manifest(config: &[u8]) -> Vec<u8> {
    let (digest, size) = (Digest::of(config), config.len());
    let config = format!(r#"{{"mediaType":"m","digest":"{digest}","size":{size}}}"#);
    let head = format!(r#""schemaVersion":2,"mediaType":"{OCI_MANIFEST}""#);
    format!(r#"{{{head},"config":{config},"layers":[]}}"#).into_bytes()
}

/// The defaults, but for waits that tests have no time for.
pub fn quick() -> Options {
    Options { first_wait: Duration::from_millis(2), ..Options::default() }
}

/// A client with those.
pub fn client() -> Client {
    Client::new(quick()).unwrap()
}

/// The platform that the tests ask for.
pub fn platform() -> Platform {
    Platform::linux("arm", Some("v7"))
}
