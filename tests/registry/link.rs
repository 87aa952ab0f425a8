//! Links that are cut, slow or refused for a while, and what a pull makes of them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vaquita::error::{Error, Kind};
use vaquita::reference::Reference;
use vaquita::registry::{Client, Options};

use super::debian::noise;
use super::hostile::line;
use super::server::{
    Server, answer, descriptor, listen, manifest, manifest_answer, platform, quick, read_head,
};

/// What is done at once is done in this time on a machine that is busy; what must not be waited for takes a minute or more.
const PROMPT: Duration = Duration::from_secs(20);

/// Where a `Range` header starts, 0 without one.
fn start_of_range(head: &str) -> usize {
    let range = line(head, "range");
    range.strip_prefix("bytes=").map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
}

/// An answer to `head` with the rest of `content`, as if the link were cut after `sent` bytes of it.
pub fn cut_answer(head: &str, content: &[u8], sent: usize) -> Vec<u8> {
    let start = start_of_range(head);
    let rest = &content[start..];
    let (end, size) = (content.len() - 1, content.len());
    let range = format!("Content-Range: bytes {start}-{end}/{size}\r\n");
    let (status, range) = if start == 0 { (200, String::new()) } else { (206, range) };
    let whole = format!("HTTP/1.1 {status} X\r\n{range}Content-Length: {}\r\n", rest.len());
    let mut bytes = format!("{whole}Connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(&rest[..sent.min(rest.len())]);
    bytes
}

/// Reads the blob `content` of `server` from `offset`.
fn read(
    server: &Server,
    content: &[u8],
    offset: usize,
    options: Options,
) -> Result<Vec<u8>, Error> {
    let client = Client::new(options).unwrap();
    let mut blob = client.blob(&server.reference("x"), &descriptor(content), offset as u64)?;
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).map_err(|e| Error::io("copy", e))?;
    Ok(bytes)
}

#[test]
fn goes_on_where_the_link_was_cut() {
    let content = noise(300_000);
    let served = content.clone();
    let server = Server::start(move |head| cut_answer(head, &served, 10_000));
    for offset in [0, 100_000] {
        let before = server.heads().len();
        assert!(read(&server, &content, offset, quick()).unwrap() == content[offset..]);
        let heads = server.heads().split_off(before);
        let starts: Vec<usize> = heads.iter().map(|head| start_of_range(head)).collect();
        let expected: Vec<usize> = (offset..content.len()).step_by(10_000).collect();
        assert_eq!(starts, expected, "not a byte is asked for twice");
    }
}

#[test]
fn goes_on_where_the_server_knows_no_ranges() {
    let content = noise(100_000);
    let served = content.clone();
    let count = AtomicUsize::new(0);
    // Each connection gets 20,000 bytes further than the one before.
    let server = Server::start(move |_| {
        let sent = 20_000 * (1 + count.fetch_add(1, Ordering::SeqCst));
        cut_answer("", &served, sent)
    });
    assert!(read(&server, &content, 0, quick()).unwrap() == content);
    assert_eq!(server.heads().len(), 5);
}

#[test]
fn gives_up_when_nothing_comes_any_more() {
    let content = noise(50_000);
    let served = content.clone();
    let server = Server::start(move |head| {
        let left = 30_000_usize.saturating_sub(start_of_range(head));
        cut_answer(head, &served, left)
    });
    let error = read(&server, &content, 0, quick()).unwrap_err();
    assert!(error.to_string().ends_with("ended early, after 30000 of 50000 bytes"), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(server.heads().len(), 5, "the one that came so far, and four for nothing");
    let error = read(&server, &content, 0, Options { max_attempts: 2, ..quick() }).unwrap_err();
    assert_eq!((error.kind(), server.heads().len()), (Kind::Unavailable, 5 + 2));
}

/// Answers the first question for a blob or manifest with each of `refusals` in turn, and the next as it should.
fn refusing(refusals: Vec<Vec<u8>>, content: Vec<u8>) -> Server {
    let refusals = Mutex::new(refusals.into_iter());
    Server::start(move |head| match refusals.lock().unwrap().next() {
        Some(refusal) => refusal,
        None if head.contains("/manifests/") => manifest_answer(&manifest(b"{}")),
        None => answer(200, "", &content),
    })
}

#[test]
fn asks_again_what_may_get_better_and_nothing_else() {
    for (refusal, kind) in [
        (answer(500, "", b""), None),
        (answer(503, "Retry-After: 0\r\n", b""), None),
        (answer(429, "", b"slow down"), None),
        (answer(408, "", b""), None),
        (Vec::new(), None),
        (answer(404, "", b""), Some(Kind::NotFound)),
        (answer(401, "", b""), Some(Kind::Unauthorized)),
        (answer(403, "", b""), Some(Kind::Unauthorized)),
        (answer(416, "", b""), Some(Kind::Invalid)),
        (answer(200, "", b"0123456789a"), Some(Kind::Corrupt)),
        (answer(429, "Retry-After: 86400\r\n", b""), Some(Kind::Unavailable)),
    ] {
        let content = b"0123456789";
        let server = refusing(vec![refusal.clone(), refusal.clone()], content.to_vec());
        let found = read(&server, content, 0, quick()).map_err(|e| e.kind());
        let shown = String::from_utf8_lossy(&refusal);
        match kind {
            None => assert_eq!(found, Ok(content.to_vec()), "{shown}"),
            Some(kind) => assert_eq!(found, Err(kind), "{shown}"),
        }
        let expected = if kind.is_none() { 3 } else { 1 };
        assert_eq!(server.heads().len(), expected, "{shown}");
    }
}

#[test]
fn documents_are_asked_for_again_too() {
    let cut = b"HTTP/1.1 200 X\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{}".to_vec();
    let server = refusing(vec![answer(502, "", b""), cut.clone(), cut], b"{}".to_vec());
    let client = Client::new(quick()).unwrap();
    let resolved = client.resolve(&server.reference("x:1"), &platform()).unwrap();
    assert_eq!(
        client.small_blob(&server.reference("x"), &resolved.manifest.config).unwrap(),
        b"{}"
    );
    assert_eq!(server.heads().len(), 3 + 2);
}

#[test]
fn waits_as_long_as_it_is_told() {
    let server = refusing(vec![answer(429, "Retry-After: 1\r\n", b"")], b"abc".to_vec());
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let on_wait = move |waiting: &vaquita::registry::Waiting| {
        let blob = waiting.blob.map(|blob| blob.to_string());
        telling.lock().unwrap().push((blob, waiting.seconds, waiting.error.kind()));
    };
    let start = Instant::now();
    let options = Options { on_wait: Some(Arc::new(on_wait)), ..quick() };
    assert_eq!(read(&server, b"abc", 0, options).unwrap(), b"abc");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let expected = vec![(Some(descriptor(b"abc").digest), 1, Kind::Unavailable)];
    assert_eq!(*told.lock().unwrap(), expected);
}

/// Sets `stop` after a moment, and gives how long `read` of `server` took after that.
fn stop_after_a_moment(server: &Server, options: Options) -> (Error, Duration) {
    let stop = options.stop.clone();
    let stopper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        Instant::now()
    });
    let error = read(server, b"0123456789", 0, options).unwrap_err();
    let now = Instant::now();
    (error, now.saturating_duration_since(stopper.join().unwrap()))
}

#[test]
fn stops_waiting_and_reading_when_it_is_told() {
    let silent = Server::start(|_| b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\n0123".to_vec());
    let refuses = Server::start(|_| answer(500, "", b""));
    let patient = Options { first_wait: Duration::from_secs(60), ..Options::default() };
    for server in [silent, refuses] {
        let (error, took) = stop_after_a_moment(&server, patient.clone());
        // For the next server.
        patient.stop.store(false, Ordering::Relaxed);
        assert_eq!(error.kind(), Kind::Cancelled, "{error}");
        assert!(error.to_string().ends_with("stopped"), "{error}");
        assert!(took < PROMPT, "{took:?}");
    }
}

#[test]
fn two_hundred_blobs_come_whole_over_a_bad_link() {
    const SEED: u32 = 20_261_122;
    println!("seed {SEED}");
    let content = noise(100_000);
    let served = content.clone();
    let state = Mutex::new(SEED);
    let server = Server::start(move |head| {
        let mut state = state.lock().unwrap();
        let mut random = |below: u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*state >> 8) % below
        };
        match random(16) {
            0 => answer(500, "", b"oops"),
            1 => answer(429, "Retry-After: 0\r\n", b""),
            2 => Vec::new(),
            3 => cut_answer(head, &served, 0),
            4 => answer(200, "", &served),
            _ => cut_answer(head, &served, random(60_000) as usize),
        }
    });
    let client = Client::new(Options { max_attempts: 12, ..quick() }).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let reference = server.reference("x");
                    let mut blob = client.blob(&reference, &descriptor(&content), 0).unwrap();
                    let (mut bytes, mut small) = (Vec::new(), [0; 777]);
                    while let count @ 1.. = blob.read(&mut small).unwrap() {
                        bytes.extend_from_slice(&small[..count]);
                    }
                    assert!(bytes == content);
                    assert_eq!(blob.read(&mut small).map_err(|e: io::Error| e.kind()), Ok(0));
                }
            });
        }
    });
}

/// Sends `bytes` one at a time, and goes on until nobody listens.
fn trickle(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes.iter().chain(std::iter::repeat(&b'x')) {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn leaves_a_server_that_sends_a_byte_now_and_then() {
    let authority = listen(|mut stream| {
        // The first connection is an attempt at TLS.
        let head = read_head(&mut stream).unwrap_or_default();
        if head.starts_with("GET ") {
            stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n").unwrap();
            trickle(&mut stream, b"");
        }
    });
    let stall_timeout = Duration::from_millis(400);
    let options = Options { stall_timeout, max_attempts: 2, ..quick() };
    let client = Client::new(options).unwrap();
    let reference = Reference::parse(&format!("{authority}/x")).unwrap();
    let start = Instant::now();
    let mut blob = client.blob(&reference, &descriptor(&noise(100_000)), 0).unwrap();
    let error = Error::io("copy", blob.read_to_end(&mut Vec::new()).unwrap_err());
    let expected = "of 100000 bytes: the server sends less than 4096 bytes in ";
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

#[test]
fn a_head_and_a_handshake_have_to_be_done_in_time() {
    // The head of a TLS record of 16 KiB: a handshake that would take five minutes.
    let shakes = listen(|mut stream| trickle(&mut stream, &[22, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xfc]));
    let answers = listen(|mut stream| {
        if read_head(&mut stream).unwrap_or_default().starts_with("GET ") {
            trickle(&mut stream, b"HTTP/1.1 200 X\r\nX: ");
        }
    });
    let silent = listen(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    for (authority, why) in [
        (&shakes, "open TLS connection to HOST: the server does not answer in time"),
        (&silent, "open TLS connection to HOST: the server does not answer in time"),
        (&answers, "the server does not answer in time"),
    ] {
        let limit = Duration::from_millis(1500);
        let options =
            Options { connect_timeout: limit, read_timeout: limit, max_attempts: 1, ..quick() };
        let reference = Reference::parse(&format!("{authority}/x:1")).unwrap();
        let start = Instant::now();
        let error = Client::new(options).unwrap().resolve(&reference, &platform()).unwrap_err();
        let expected =
            format!("get manifest of {authority}/x:1: {}", why.replace("HOST", authority));
        assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unavailable));
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    }
}
