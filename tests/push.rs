//! Uploads to a registry that fails in every way it can, and whole pushes to Debian's docker-registry.

#[path = "push/fake.rs"]
mod fake;
#[path = "push/images.rs"]
mod images;
mod sandbox;

use std::cell::Cell;
use std::io::{self, Read};
use std::time::Duration;

use fake::{Fake, Fault};
use vaquita::digest::Digest;
use vaquita::error::{Error, Kind, Result};
use vaquita::reference::Reference;
use vaquita::registry::{Client, Options, Push, Uploaded};
use vaquita::stream::Stream;

/// What one PATCH carries.
const CHUNK: usize = 5 << 20;
const FIRST: &str = "PATCH session 0-5242879";
const REST: &str = "PATCH session 5242880-6291455";
const CLOSING: &str = "PUT session closing";

/// A chunk and a fifth.
fn sample() -> Vec<u8> {
    noise(CHUNK + (1 << 20))
}

/// Bytes that do not repeat, the same in each run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn client() -> Client {
    let first_wait = Duration::from_millis(20);
    Client::new(Options { first_wait, ..Options::default() }).unwrap()
}

fn upload(reference: &Reference, bytes: &[u8]) -> Result<Uploaded> {
    let client = client();
    let open = || -> Result<Box<dyn Stream>> { Ok(Box::new(bytes)) };
    Push::new(&client, reference).blob("a layer", &open)
}

/// Uploads the sample through these faults and compares what the registry was asked for and what it has then.
fn uploads_through(method: &'static str, faults: &[Fault], expected: &[&str]) {
    let fake = Fake::start();
    let bytes = sample();
    fake.fails(method, faults);
    let uploaded = upload(&fake.reference("team/app:1"), &bytes);
    let uploaded = uploaded.unwrap_or_else(|e| panic!("{faults:?}: {e}"));
    let digest = Digest::of(&bytes);
    assert_eq!(uploaded, Uploaded { digest, size_bytes: bytes.len() as u64 });
    assert_eq!(fake.take_log(), expected, "{method} {faults:?}");
    let key = ("team/app".to_string(), digest.to_string());
    assert!(fake.state().blobs[&key] == bytes, "{faults:?}");
}

#[test]
fn a_chunk_whose_link_broke_goes_on_where_it_stood() {
    use Fault::*;
    uploads_through("PATCH", &[], &["POST", FIRST, REST, CLOSING]);
    uploads_through(
        "PATCH",
        &[CutAfter(1_000_000), CutAfter(0), CutAfter(2_000_000)],
        &[
            "POST",
            FIRST,
            "GET session",
            "PATCH session 1000000-5242879",
            "GET session",
            "PATCH session 1000000-5242879",
            "GET session",
            "PATCH session 3000000-5242879",
            REST,
            CLOSING,
        ],
    );
    uploads_through("PATCH", &[LoseAnswer], &["POST", FIRST, "GET session", REST, CLOSING]);
    uploads_through(
        "PATCH",
        &[Answer(500, "", ""), Answer(429, "", "")],
        &["POST", FIRST, "GET session", FIRST, "GET session", FIRST, REST, CLOSING],
    );
    uploads_through(
        "PATCH",
        &[KeepShort],
        &["POST", FIRST, "PATCH session 5242879-5242879", REST, CLOSING],
    );
}

#[test]
fn a_session_that_is_gone_or_forgot_is_replaced() {
    use Fault::*;
    let whole = ["POST", FIRST, REST, CLOSING];
    let after = |first: &[&'static str]| [first, &whole].concat();
    uploads_through("PATCH", &[Forget], &after(&["POST", FIRST]));
    uploads_through(
        "PATCH",
        &[CutAfter(9), Forget],
        &after(&["POST", FIRST, "GET session", "PATCH session 9-5242879"]),
    );
    let refused = ["POST", FIRST, "GET session"];
    uploads_through("PATCH", &[Answer(416, "", "")], &after(&refused));
    let fake = Fake::start();
    let bytes = sample();
    fake.fails("PATCH", &[CutAfter(CHUNK), ShrinkTo(7)]);
    upload(&fake.reference("x:1"), &bytes).unwrap();
    let lost = ["POST", FIRST, "GET session", REST, "GET session"];
    assert_eq!(fake.take_log(), after(&lost));
    fake.fails("PATCH", &[CutAfter(9)]);
    fake.fails("GET", &[Forget]);
    upload(&fake.reference("y:1"), &bytes).unwrap();
    assert_eq!(fake.take_log(), after(&refused));
}

#[test]
fn what_never_works_ends() {
    let fake = Fake::start();
    let (bytes, reference) = (sample(), fake.reference("x:1"));
    fake.fails("PATCH", &vec![Fault::Forget; 10]);
    fake.fails("PUT", &vec![Fault::Forget; 10]);
    let error = upload(&reference, &bytes).unwrap_err();
    let begin = "upload a layer: session 4 of 4 is lost: upload a layer in ";
    assert!(error.to_string().starts_with(begin), "{error}");
    let three = ["POST", FIRST, "POST", FIRST, "POST", FIRST];
    assert_eq!(fake.take_log(), [&three[..], &["HEAD", "POST", CLOSING]].concat());

    let fake = Fake::start();
    let reference = fake.reference("x:1");
    fake.fails("PATCH", &vec![Fault::Answer(500, "", ""); 10]);
    let error = upload(&reference, &bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().ends_with("answers 500 server error"), "{error}");
    assert_eq!(fake.take_log().iter().filter(|line| line.starts_with("PATCH")).count(), 5);
}

#[test]
fn an_answer_that_was_lost_at_the_end_is_no_failure() {
    let end = ["POST", FIRST, REST, CLOSING, "HEAD"];
    uploads_through("PUT", &[Fault::LoseAnswer], &end);
    let again = ["POST", FIRST, REST, CLOSING];
    uploads_through("PUT", &[Fault::Answer(502, "", "")], &[&end[..], &again].concat());
}

#[test]
fn where_chunks_are_refused_one_put_carries_all() {
    let fake = Fake::start();
    let (bytes, reference) = (sample(), fake.reference("x:1"));
    fake.fails("PATCH", &[Fault::Answer(405, "", "")]);
    let client = client();
    let push = Push::new(&client, &reference);
    let opened = Cell::new(0);
    let open = || -> Result<Box<dyn Stream>> {
        opened.set(opened.get() + 1);
        Ok(Box::new(&bytes[..]))
    };
    let uploaded = push.blob("a layer", &open).unwrap();
    assert_eq!((uploaded.digest, opened.get()), (Digest::of(&bytes), 3));
    assert_eq!(fake.take_log(), ["POST", FIRST, "HEAD", "POST", CLOSING]);
    // It is known from then on; and what is there is not sent.
    let reopen = || -> Result<Box<dyn Stream>> { Ok(Box::new(&bytes[1..])) };
    push.blob("another", &reopen).unwrap();
    push.blob("a layer", &open).unwrap();
    assert_eq!(fake.take_log(), ["HEAD", "POST", CLOSING, "HEAD"]);

    // The stream of a PUT is opened again where the first half of it met a cut.
    fake.fails("PUT", &[Fault::CutAfter(CHUNK)]);
    let other = || -> Result<Box<dyn Stream>> { Ok(Box::new(&bytes[2..])) };
    push.blob("a third", &other).unwrap();
    assert_eq!(fake.take_log(), ["HEAD", "POST", CLOSING, "HEAD", "HEAD", "POST", CLOSING]);
    assert_eq!(fake.state().blobs.len(), 3);
}

#[test]
fn chunks_are_as_large_as_the_registry_wants() {
    let bytes = noise(11 << 20);
    let (second, last) = ("PATCH session 5242880-10485759", "PATCH session 10485760-11534335");
    let (half, rest) = ("PATCH session 0-9999999", "PATCH session 10000000-11534335");
    for (least, expected) in [
        ("1000", vec!["POST", FIRST, second, last, CLOSING]),
        ("10000000", vec!["POST", half, rest, CLOSING]),
        ("16777216", vec!["POST", CLOSING]),
        ("16777217", vec!["POST", "HEAD", "POST", CLOSING]),
    ] {
        let fake = Fake::start();
        fake.state().begin_headers = format!("OCI-Chunk-Min-Length: {least}\r\n");
        upload(&fake.reference("x:1"), &bytes).unwrap();
        assert_eq!(fake.take_log(), expected, "{least}");
    }
}

#[test]
fn what_is_small_goes_at_once() {
    let fake = Fake::start();
    for (bytes, expected) in [
        (&b""[..], &["POST", CLOSING][..]),
        (b"small", &["POST", CLOSING]),
        (&sample()[..CHUNK], &["POST", FIRST, CLOSING]),
    ] {
        upload(&fake.reference("x:1"), bytes).unwrap();
        assert_eq!(fake.take_log(), expected);
    }
    fake.fails("PUT", &[Fault::CutAfter(2)]);
    upload(&fake.reference("x:1"), b"other").unwrap();
    assert_eq!(fake.take_log(), ["POST", CLOSING, "HEAD", "POST", CLOSING]);
}

#[test]
fn a_stream_that_fails_is_not_closed() {
    let fake = Fake::start();
    let reference = fake.reference("x:1");
    let client = client();
    let bytes = sample();
    let open = || -> Result<Box<dyn Stream>> {
        struct Damaged;
        impl Read for Damaged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(Error::new(Kind::Corrupt, "file x is damaged").into())
            }
        }
        Ok(Box::new(bytes.chain(Damaged)))
    };
    let error = Push::new(&client, &reference).blob("layer y", &open).unwrap_err();
    assert_eq!(error.to_string(), "upload layer y: file x is damaged");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(fake.take_log(), ["POST", FIRST]);
    assert!(fake.state().blobs.is_empty());
}

#[test]
fn mounts_or_closes_what_was_opened_instead() {
    let fake = Fake::start();
    let (reference, there) = (fake.reference("x:1"), Digest::of(b"blob"));
    let key = ("lib/y".to_string(), there.to_string());
    fake.state().blobs.insert(key, b"blob".to_vec());
    let client = client();
    let push = Push::new(&client, &reference);
    let expect = |mounted: bool, log: &[&str]| {
        assert_eq!(push.mount_blob(&there, "lib/y").unwrap(), mounted);
        assert_eq!(fake.take_log(), log);
    };
    expect(false, &["POST", "DELETE session"]);
    fake.fails("POST", &[Fault::Answer(404, "", ""), Fault::Answer(403, "", "")]);
    expect(false, &["POST"]);
    expect(false, &["POST"]);
    fake.fails("POST", &[Fault::Answer(503, "", "")]);
    fake.fails("DELETE", &[Fault::Answer(405, "", "")]);
    expect(false, &["POST", "POST", "DELETE session"]);
    fake.state().mounts = true;
    expect(true, &["POST"]);
    assert!(push.has_blob(&there).unwrap());
}

#[test]
fn asks_for_a_token_that_may_push() {
    let fake = Fake::start();
    fake.state().wants_token = true;
    fake.state().mounts = true;
    let blob = Digest::of(b"blob");
    fake.state().blobs.insert(("lib/y".into(), blob.to_string()), b"blob".to_vec());
    let reference = fake.reference("x:1");
    let client = client();
    let push = Push::new(&client, &reference);
    let open = || -> Result<Box<dyn Stream>> { Ok(Box::new(&b"small"[..])) };
    push.blob("a layer", &open).unwrap();
    assert!(push.mount_blob(&blob, "lib/y").unwrap());
    push.manifest("text/plain", b"{}").unwrap();
    // The first token served until the mount asked for more; both may push.
    let first = "Bearer repository:x:pull+repository:x:pull,push";
    let second = format!("{first}+repository:lib/y:pull");
    let seen = fake.state().authorizations.clone();
    assert_eq!(seen, [first, first, first, &second, &second]);
}

#[test]
fn refusals_are_dockers() {
    let denied =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    for (status, text, expected) in [
        (403, "", "denied: requested access to the resource is denied"),
        (401, denied, "denied: requested access to the resource is denied"),
        (401, "", "unauthorized: authentication required"),
    ] {
        let fake = Fake::start();
        fake.fails("POST", &[Fault::Answer(status, "", text)]);
        let error = upload(&fake.reference("x:1"), b"small").unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (expected, Kind::Unauthorized));
        assert_eq!(fake.take_log(), ["POST"]);
    }
}

#[test]
fn sessions_elsewhere_see_no_token() {
    let (fake, elsewhere) = (Fake::start(), Fake::start());
    fake.state().wants_token = true;
    let to = format!("Location: http://{}/v2/x/blobs/uploads/1?state=0\r\n", elsewhere.authority);
    let to: &'static str = to.leak();
    // The first POST is refused for want of a token, the second one leads away.
    let bearer = format!("WWW-Authenticate: Bearer realm=\"http://{}/token\"\r\n", fake.authority);
    fake.fails("POST", &[Fault::Answer(401, bearer.leak(), ""), Fault::Answer(202, to, "")]);
    elsewhere.fails("PUT", &[Fault::Answer(201, "", "")]);
    upload(&fake.reference("x:1"), b"small").unwrap();
    assert_eq!(fake.state().authorizations, ["Bearer repository:x:pull,push"]);
    assert_eq!(elsewhere.take_log(), [CLOSING]);
    assert!(elsewhere.state().authorizations.is_empty());
}
