//! Answers that a registry should not give, and what is made of them.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use vaquita::digest::Digest;
use vaquita::error::{Error, Kind};
use vaquita::oci::manifest::{OCI_INDEX, OCI_MANIFEST};
use vaquita::reference::Reference;
use vaquita::registry::{Client, Credentials, Options};

use super::server::{
    Server, answer, client, descriptor, manifest, manifest_answer, platform, quick,
};

/// Resolves `x:1` on a server that gives `bytes` to every request.
fn resolve_error(bytes: Vec<u8>) -> (Error, String) {
    let server = Server::start(move |_| bytes.clone());
    let error = client().resolve(&server.reference("x:1"), &platform()).unwrap_err();
    (error, server.authority)
}

#[test]
fn names_object_and_cause_of_each_refusal() {
    let deep = "[".repeat(10_000);
    let errors = |code: &str, message: &str| {
        format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#)
    };
    let unknown = errors("MANIFEST_UNKNOWN", "manifest unknown");
    let no_repository = errors("NAME_UNKNOWN", "repository name not known to registry");
    let many = errors("TOOMANYREQUESTS", "slow\\ndown");
    let get = "get manifest of HOST/x:1";
    for (bytes, kind, expected) in [
        (
            answer(404, "", unknown.as_bytes()),
            Kind::NotFound,
            "manifest for HOST/x:1 not found: manifest unknown".to_string(),
        ),
        (
            answer(404, "", b"<html>"),
            Kind::NotFound,
            "manifest for HOST/x:1 not found: manifest unknown".into(),
        ),
        (
            answer(404, "", no_repository.as_bytes()),
            Kind::NotFound,
            "manifest for HOST/x:1 not found: repository name not known to registry".into(),
        ),
        (
            answer(401, "", b""),
            Kind::Unauthorized,
            format!("{get}: http://HOST answers 401 unauthorized to repository x"),
        ),
        (
            answer(401, "WWW-Authenticate: Digest realm=\"x\"\r\n", b""),
            Kind::Unauthorized,
            format!("{get}: http://HOST answers 401 unauthorized to repository x"),
        ),
        (
            answer(403, "", b"no"),
            Kind::Unauthorized,
            format!("{get}: http://HOST answers 403 forbidden to repository x"),
        ),
        (
            answer(429, "", many.as_bytes()),
            Kind::Unavailable,
            format!("{get}: http://HOST answers 429 too many requests: toomanyrequests: slow down"),
        ),
        (
            answer(500, "", b"oops"),
            Kind::Unavailable,
            format!("{get}: http://HOST answers 500 server error"),
        ),
        (
            answer(302, "", b""),
            Kind::Invalid,
            format!("{get}: http://HOST answers 302 unexpected status"),
        ),
        (
            answer(302, "Location: /v2/\r\n", b""),
            Kind::Invalid,
            format!("{get}: redirected too many times"),
        ),
        (
            answer(302, "Location: ftp://x/\r\n", b""),
            Kind::Invalid,
            format!("{get}: redirected to ftp://x/: not http or https"),
        ),
        (
            answer(200, "Content-Type: text/html; charset=utf-8\r\n", b"<html>"),
            Kind::Invalid,
            format!("{get}: http://HOST answers with a web page: no registry"),
        ),
        (
            manifest_answer(b"<html>"),
            Kind::Invalid,
            "parse manifest of HOST/x:1: not valid JSON".into(),
        ),
        (
            manifest_answer(deep.as_bytes()),
            Kind::Invalid,
            "parse manifest of HOST/x:1: nested more than 64 deep at byte 64".into(),
        ),
        (
            manifest_answer(&vec![b' '; 5 << 20]),
            Kind::Invalid,
            format!("{get}: 5242880 bytes, the limit is 4194304"),
        ),
        (
            b"HTTP/1.1 200 X\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{}".to_vec(),
            Kind::Unavailable,
            format!("{get}: the server ended the connection"),
        ),
        (Vec::new(), Kind::Unavailable, format!("{get}: the server ended the connection")),
        (
            b"SSH-2.0-x\r\n\r\nConnection: close".to_vec(),
            Kind::Invalid,
            format!("{get}: the answer is not proper HTTP: http parse fail: invalid HTTP version"),
        ),
        (
            answer(200, &format!("X: {}\r\n", "x".repeat(100_000)), b""),
            Kind::Invalid,
            format!("{get}: the head of the answer is over 24576 bytes"),
        ),
    ] {
        let (error, authority) = resolve_error(bytes);
        assert_eq!(error.to_string(), expected.replace("HOST", &authority));
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn bounds_an_index_of_ten_million_entries() {
    // Sent in chunks, so that no length tells in advance. The client has hung up long before the end.
    let entry = r#"{"mediaType":"m","digest":"d","size":1},"#;
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}"#, entry.repeat(10_000_000 / 64));
    let mut bytes = format!(
        "HTTP/1.1 200 X\r\nContent-Type: {OCI_INDEX}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    bytes.push_str(&format!("{:x}\r\n{index}\r\n", index.len()));
    let (error, authority) = resolve_error(bytes.into_bytes());
    let expected =
        format!("get manifest of {authority}/x:1: more than 4194304 bytes, the limit is 4194304");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn holds_documents_to_their_digests() {
    let (config, other) = (br#"{"os":"linux"}"#, Digest::of(b"other"));
    let body = manifest(config);
    let digest = Digest::of(&body);
    let server = Server::start(move |head| match head {
        h if h.contains("/stated/") => {
            let stated =
                format!("Content-Type: {OCI_MANIFEST}\r\nDocker-Content-Digest: {other}\r\n");
            answer(200, &stated, &body)
        }
        h if h.contains("/blobs/") => answer(200, "", b"{\"os\":\"plan9\"}"),
        _ => manifest_answer(&body),
    });
    let resolve = |repository: &str| client().resolve(&server.reference(repository), &platform());
    let good = resolve(&format!("x@{digest}")).unwrap();
    assert_eq!((good.digest, good.manifest_digest), (digest, digest));
    let name = &server.authority;
    for (repository, expected) in [
        (
            format!("x@{other}"),
            format!(
                "get manifest of {name}/x@{other}: its digest is {digest}, {other} is asked for"
            ),
        ),
        (
            "stated/x:1".into(),
            format!(
                "get manifest of {name}/stated/x:1: its digest is {digest}, {other} the registry states"
            ),
        ),
    ] {
        let error = resolve(&repository).unwrap_err();
        assert_eq!((error.to_string(), error.kind()), (expected, Kind::Corrupt));
    }
    let blob = descriptor(config);
    let error = client().small_blob(&server.reference("x"), &blob).unwrap_err();
    let found = Digest::of(b"{\"os\":\"plan9\"}");
    let expected =
        format!("get blob {0} of {name}/x: its digest is {found}, {0} is asked for", blob.digest);
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Corrupt));
    let error =
        client().small_blob(&server.reference("x"), &descriptor(&vec![0; 5 << 20])).unwrap_err();
    assert!(error.to_string().ends_with("5242880 bytes, the limit is 4194304"), "{error}");
}

#[test]
fn chooses_from_an_index() {
    let body = manifest(b"{}");
    let digest = Digest::of(&body);
    let entry = |variant: &str, digest: Digest| {
        let platform = format!(r#"{{"os":"linux","architecture":"arm","variant":"{variant}"}}"#);
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":9,"platform":{platform}}}"#
        )
    };
    let entries = format!("{},{}", entry("v8", Digest::of(b"")), entry("v6", digest));
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
    let index_digest = Digest::of(index.as_bytes());
    let server = Server::start(move |head| match head.contains("/manifests/1 ") {
        true => answer(200, &format!("Content-Type: {OCI_INDEX}\r\n"), index.as_bytes()),
        false => manifest_answer(&body),
    });
    let resolved = client().resolve(&server.reference("x:1"), &platform()).unwrap();
    assert_eq!((resolved.digest, resolved.manifest_digest), (index_digest, digest));
    assert_eq!(Digest::of(&resolved.manifest_bytes), digest);
    let heads = server.heads();
    assert!(
        heads[1].starts_with(&format!("GET /v2/x/manifests/{digest} HTTP/1.1\r\n")),
        "{heads:?}"
    );
}

const CONTENT: &[u8] = b"0123456789";

/// Reads a ten-byte blob from `offset` on a server that gives `bytes`.
fn read_blob(bytes: &[u8], offset: u64) -> Result<Vec<u8>, Error> {
    let bytes = bytes.to_vec();
    let server = Server::start(move |_| bytes.clone());
    let mut body = client().blob(&server.reference("x"), &descriptor(CONTENT), offset)?;
    let mut read = Vec::new();
    body.read_to_end(&mut read).map(|_| read).map_err(|e| Error::io("copy", e))
}

#[test]
fn holds_blobs_to_their_size() {
    let partial =
        |range: &str, body: &[u8]| answer(206, &format!("Content-Range: {range}\r\n"), body);
    let open =
        |body: &str| format!("HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{body}").into_bytes();
    let chunked = |body: &str| {
        let head = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
    };
    let cut = b"HTTP/1.1 200 X\r\nContent-Length: 10\r\nConnection: close\r\n\r\n0123".to_vec();
    for (bytes, offset, expected) in [
        (answer(200, "", CONTENT), 0, Ok("0123456789")),
        (partial("bytes 4-9/10", &CONTENT[4..]), 4, Ok("456789")),
        // A server that ignores ranges sends all again.
        (answer(200, "", CONTENT), 4, Ok("456789")),
        (open("0123456789"), 0, Ok("0123456789")),
        (chunked("0123456789"), 0, Ok("0123456789")),
        (cut.clone(), 0, Err((Kind::Unavailable, "ended early, after 4 of 10 bytes"))),
        (cut, 8, Err((Kind::Unavailable, "ended early, after 4 of 10 bytes"))),
        (open("0123"), 0, Err((Kind::Unavailable, "ended early, after 4 of 10 bytes"))),
        (chunked("0123"), 0, Err((Kind::Unavailable, "ended early, after 4 of 10 bytes"))),
        (answer(200, "", b"0123"), 0, Err((Kind::Unavailable, "ended early, after 4 of 10 bytes"))),
        (
            answer(200, "", b"0123456789a"),
            0,
            Err((Kind::Corrupt, "11 bytes or more, its size is 10")),
        ),
        (chunked("0123456789a"), 0, Err((Kind::Corrupt, "11 bytes or more, its size is 10"))),
        (
            partial("bytes 0-9/10", CONTENT),
            4,
            Err((Kind::Invalid, "asked from byte 4, the answer is for `bytes 0-9/10`")),
        ),
        (
            partial("bytes 4-5/10", b"45"),
            4,
            Err((Kind::Invalid, "asked from byte 6, the answer is for `bytes 4-5/10`")),
        ),
        (answer(416, "", b""), 4, Err((Kind::Invalid, "416 range not satisfiable"))),
        (answer(404, "", b""), 0, Err((Kind::NotFound, "404 not found"))),
        (Vec::new(), 10, Ok("")),
        (Vec::new(), 11, Err((Kind::Invalid, "offset 11 is behind its 10 bytes"))),
    ] {
        match (read_blob(&bytes, offset), expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read, expected.as_bytes()),
            (Err(error), Err((kind, why))) => {
                assert!(error.to_string().ends_with(why), "{error}");
                assert!(error.to_string().contains(&descriptor(CONTENT).digest), "{error}");
                assert_eq!(error.kind(), kind, "{error}");
            }
            (found, expected) => panic!("{found:?}, not {expected:?}, for {bytes:?} from {offset}"),
        }
    }
}

#[test]
fn takes_a_token_and_renews_it_once() {
    // The service grants a new token at each request; the registry takes each for two requests.
    let server = Server::start({
        let taken = std::sync::Mutex::new((0, 0));
        move |head| {
            let mut state = taken.lock().unwrap();
            let host = line(head, "host");
            if head.starts_with("GET /token?service=the%20registry&scope=repository:a/x:pull ") {
                *state = (state.0 + 1, 0);
                return answer(200, "", format!(r#"{{"access_token":"t{}"}}"#, state.0).as_bytes());
            }
            if line(head, "authorization") == format!("Bearer t{}", state.0) && state.1 < 2 {
                state.1 += 1;
                return manifest_answer(&manifest(b"{}"));
            }
            let challenge = format!(
                r#"Bearer realm="http://{host}/token",service="the registry",scope="repository:a/x:pull""#
            );
            answer(401, &format!("WWW-Authenticate: {challenge}\r\n"), b"{}")
        }
    });
    let client = client();
    for _ in 0..5 {
        client.resolve(&server.reference("a/x:1"), &platform()).unwrap();
    }
    let of_token = |h: &&String| h.starts_with("GET /token");
    assert_eq!(server.heads().iter().filter(of_token).count(), 3);
    assert!(server.heads().iter().filter(of_token).all(|h| line(h, "authorization").is_empty()));
    assert_eq!(server.heads().len(), 5 + 3 + 3);
}

#[test]
fn gives_up_when_the_token_does_not_serve() {
    let server = Server::start(|head| match head.starts_with("GET /token") {
        true => answer(200, "", br#"{"token":"t"}"#),
        false => {
            let realm = format!("http://{}/token", line(head, "host"));
            let body = br#"{"errors":[{"code":"DENIED","message":"access denied"}]}"#;
            answer(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), body)
        }
    });
    let error = client().resolve(&server.reference("x:1"), &platform()).unwrap_err();
    let name = &server.authority;
    let expected = format!(
        "get manifest of {name}/x:1: http://{name} answers 401 unauthorized to repository x: access denied"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unauthorized));
    assert_eq!(server.heads().len(), 3);
}

#[test]
fn refuses_useless_tokens() {
    for (token_answer, why) in [
        (answer(200, "", b"{}"), "the answer holds no usable token"),
        (answer(200, "", br#"{"token":"a\r\nX: y"}"#), "the answer holds no usable token"),
        (answer(200, "", b"<html>"), "not valid JSON"),
        (answer(503, "", b""), "answers 503 server error"),
        (answer(401, "", b""), "answers 401 unauthorized to repository x"),
        (answer(200, "", &vec![b' '; 1 << 20]), "1048576 bytes, the limit is 262144"),
    ] {
        let server = Server::start(move |head| match head.starts_with("GET /token") {
            true => token_answer.clone(),
            false => {
                let realm = format!("http://{}/token", line(head, "host"));
                answer(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"")
            }
        });
        let error =
            client().resolve(&server.reference("x:1"), &platform()).unwrap_err().to_string();
        assert!(error.ends_with(why) && error.contains("token"), "{error}");
    }
}

/// The value of a header in the head of a request, or nothing.
pub fn line(head: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    let mut lines = head.lines().filter(|l| l.to_ascii_lowercase().starts_with(&prefix));
    lines.next().map(|l| l[prefix.len()..].to_string()).unwrap_or_default()
}

#[test]
fn authorization_stays_at_home() {
    let store = Server::start(|head| match head.contains("/denied") {
        true => answer(401, "WWW-Authenticate: Basic realm=\"give me\"\r\n", b""),
        false => answer(200, "", CONTENT),
    });
    let store_name = store.authority.clone();
    let server = Server::start(move |head| {
        // "Basic" of "me:secret"
        if line(head, "authorization") != "Basic bWU6c2VjcmV0" {
            return answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        match head {
            h if h.contains("/home/") => answer(307, "Location: /v2/moved/\r\n", b"moved"),
            h if h.contains("/moved/") => answer(200, "", CONTENT),
            h if h.contains("/denied/") => {
                answer(307, &format!("Location: http://{store_name}/denied\r\n"), b"")
            }
            _ => answer(307, &format!("Location: http://{store_name}/blob\r\n"), b"see there"),
        }
    });
    let credentials = |registry: &str| Credentials {
        registry: registry.into(),
        user: "me".into(),
        password: "secret".into(),
        ..Credentials::default()
    };
    // Even with credentials for the store itself: the registry names it, the user does not.
    let credentials = vec![credentials(&server.authority), credentials(&store.authority)];
    let client = Client::new(Options { credentials, ..quick() }).unwrap();
    let read = |repository: &str| {
        let mut bytes = Vec::new();
        let blob = client.blob(&server.reference(repository), &descriptor(CONTENT), 0)?;
        { blob }.read_to_end(&mut bytes).unwrap();
        Ok::<_, Error>(bytes)
    };
    assert_eq!(read("home").unwrap(), CONTENT);
    assert_eq!(read("away").unwrap(), CONTENT);
    let error = read("denied").unwrap_err();
    let expected = format!("http://{} answers 401 unauthorized", store.authority);
    assert!(error.to_string().ends_with(&expected), "{error}");
    assert_eq!(store.heads().len(), 2);
    assert!(store.heads().iter().all(|head| line(head, "authorization").is_empty()));
}

#[test]
fn names_hosts_that_cannot_be_reached() {
    let resolve =
        |text: &str| client().resolve(&Reference::parse(text).unwrap(), &platform()).unwrap_err();
    let error = resolve("no-such-host.invalid/x:1");
    let expected = "get manifest of no-such-host.invalid/x:1: look up host no-such-host.invalid: ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = resolve(&format!("{name}/x:1"));
    let expected =
        format!("get manifest of {name}/x:1: connect to {name}: Connection refused (os error 111)");
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unavailable));
}

#[test]
fn does_not_wait_for_ever() {
    let server = Server::start(|_| b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\n0123".to_vec());
    let read_timeout = Duration::from_millis(1000);
    let client = Client::new(Options { read_timeout, max_attempts: 1, ..quick() }).unwrap();
    let mut body = client.blob(&server.reference("x"), &descriptor(CONTENT), 0).unwrap();
    let error = Error::io("copy", body.read_to_end(&mut Vec::new()).unwrap_err());
    let digest = descriptor(CONTENT).digest;
    let name = format!("{}/x", server.authority);
    let expected = format!(
        "copy: get blob {digest} of {name}: after 4 of 10 bytes: the server does not answer in time"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unavailable));
}

#[test]
fn keeps_its_connection() {
    let server = Server::start(|_| manifest_answer(&manifest(b"{}")));
    let client = client();
    for _ in 0..3 {
        client.resolve(&server.reference("x:1"), &platform()).unwrap();
    }
    assert_eq!(server.connections(), 1 + 1, "the first is the attempt at TLS");
}

#[test]
fn refuses_an_odd_user_agent() {
    let options = Options { user_agent: "a\r\nX: y".into(), ..quick() };
    let error = Client::new(options).err().unwrap();
    assert_eq!(error.to_string(), "user agent `a\\r\\nX: y` is not printable ASCII");
}

#[test]
fn reaches_registries_by_their_ipv6_address() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        println!("this machine has no IPv6: nothing was tested");
        return;
    };
    let server = Server::on(listener, |_| manifest_answer(&manifest(b"{}")));
    assert!(server.authority.starts_with("[::1]:"), "{}", server.authority);
    client().resolve(&server.reference("a/x:1"), &platform()).unwrap();
    assert_eq!(line(&server.heads()[0], "host"), server.authority);
}
