//! Mirrors of Docker Hub. What is no mirror's cannot be asked for here: Docker Hub is not on this machine, and every
//! question that comes to it goes to a proxy that stands for it.

use std::io::Read;

use vaquita::config::Proxies;
use vaquita::digest::Digest;
use vaquita::error::{Error, Kind};
use vaquita::reference::Reference;
use vaquita::registry::{Client, Credentials, Options};

use super::hostile::line;
use super::server::{Server, answer, descriptor, manifest, manifest_answer, platform, quick};

const CONTENT: &[u8] = b"0123456789";

/// Serves what a registry would, manifests as `body`.
fn registry(body: &[u8]) -> Server {
    let body = body.to_vec();
    Server::start(move |head| match head.contains("/blobs/") {
        true => answer(200, "", CONTENT),
        false => manifest_answer(&body),
    })
}

/// Docker Hub without TLS, behind a proxy: what the origin is asked for.
struct Hub {
    server: Server,
}

impl Hub {
    fn start(body: &[u8]) -> Hub {
        let body = body.to_vec();
        Hub {
            server: Server::start(move |head| match head {
                h if h.starts_with("CONNECT ") => answer(403, "Connection: close\r\n", b""),
                h if !h.starts_with("GET http://registry-1.docker.io/v2/library/x/") => {
                    panic!("{h}")
                }
                h if h.contains("/blobs/") => answer(200, "", CONTENT),
                _ => manifest_answer(&body),
            }),
        }
    }

    fn options(&self, mirrors: &[&Server]) -> Options {
        let http = Some(format!("http://{}", self.server.authority));
        Options {
            mirrors: mirrors.iter().map(|m| format!("http://{}", m.authority)).collect(),
            insecure: vec!["registry-1.docker.io".into()],
            proxies: Proxies { https: http.clone(), http, no_proxy: None },
            ..quick()
        }
    }

    fn gets(&self) -> usize {
        self.server.heads().iter().filter(|head| head.starts_with("GET ")).count()
    }
}

fn pull(client: &Client) -> Result<Vec<u8>, Error> {
    let reference = Reference::parse("x:1").unwrap();
    let resolved = client.resolve(&reference, &platform())?;
    let mut bytes = Vec::new();
    let mut blob = client.blob(&reference, &descriptor(CONTENT), 0)?;
    blob.read_to_end(&mut bytes).map_err(|e| Error::io("copy", e))?;
    assert_eq!(bytes, CONTENT);
    Ok(resolved.manifest_bytes)
}

#[test]
fn mirrors_are_asked_in_order_and_before_docker_hub() {
    let (ours, theirs) = (manifest(b"{}"), manifest(b"{ }"));
    let hub = Hub::start(&theirs);
    let good = registry(&ours);
    let empty = Server::start(|_| answer(404, "", b""));
    let broken = Server::start(|_| answer(500, "", b""));
    let client = Client::new(hub.options(&[&broken, &empty, &good])).unwrap();
    assert_eq!(pull(&client).unwrap(), ours);
    assert_eq!((broken.heads().len(), empty.heads().len(), good.heads().len()), (1, 2, 2));
    assert_eq!(hub.gets(), 0);
    assert!(good.heads()[0].starts_with("GET /v2/library/x/manifests/1 "), "{:?}", good.heads());
    let client = Client::new(hub.options(&[&broken, &empty])).unwrap();
    assert_eq!(pull(&client).unwrap(), theirs);
    assert_eq!(hub.gets(), 2);
}

#[test]
fn what_a_mirror_does_badly_docker_hub_is_asked_for() {
    let theirs = manifest(b"{}");
    let hub = Hub::start(&theirs);
    let cut = |bytes: &str| {
        let head = "HTTP/1.1 200 X\r\nContent-Length: 10\r\nConnection: close\r\n\r\n";
        format!("{head}{bytes}").into_bytes()
    };
    for answers in [answer(200, "Content-Type: text/html\r\n", b"<html>"), cut("0123"), cut("")] {
        let mirror = Server::start(move |_| answers.clone());
        let client = Client::new(hub.options(&[&mirror])).unwrap();
        assert_eq!(pull(&client).unwrap(), theirs);
    }
    // A digest that is asked for is what comes, whatever a mirror has under it.
    let mirror = registry(b"{}");
    let reference = Reference::parse(&format!("x@{}", Digest::of(&theirs))).unwrap();
    let client = Client::new(hub.options(&[&mirror])).unwrap();
    let resolved = client.resolve(&reference, &platform()).unwrap();
    assert_eq!(resolved.manifest_bytes, theirs);
    assert_eq!(mirror.heads().len(), 1);
}

#[test]
fn mirrors_are_for_docker_hub_only() {
    let hub = Hub::start(b"");
    let mirror = registry(&manifest(b"{}"));
    let other = registry(&manifest(b"{ }"));
    let client = Client::new(hub.options(&[&mirror])).unwrap();
    client.resolve(&other.reference("x:1"), &platform()).unwrap();
    assert_eq!((mirror.heads().len(), other.heads().len()), (0, 1));
}

#[test]
fn a_mirror_gets_its_own_credentials_and_never_docker_hubs() {
    let hub = Hub::start(&manifest(b"{}"));
    let mirror = Server::start(|_| answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""));
    let me = |registry: &str, password: &str| Credentials {
        registry: registry.into(),
        user: "me".into(),
        password: password.into(),
        ..Credentials::default()
    };
    let with = |credentials: Vec<Credentials>| {
        Client::new(Options { credentials, ..hub.options(&[&mirror]) }).unwrap()
    };
    pull(&with(vec![me("docker.io", "hub")])).unwrap();
    assert!(mirror.heads().iter().all(|head| line(head, "authorization").is_empty()));
    pull(&with(vec![me("docker.io", "hub"), me(&mirror.authority, "mine")])).unwrap();
    let shown: Vec<String> =
        mirror.heads().iter().map(|head| line(head, "authorization")).collect();
    // "me:mine"
    assert!(shown.iter().any(|shown| shown == "Basic bWU6bWluZQ=="), "{shown:?}");
    assert!(shown.iter().all(|shown| shown.is_empty() || shown == "Basic bWU6bWluZQ=="));
}

#[test]
fn refuses_what_is_no_mirror() {
    let options = Options { mirrors: vec!["mirror.example".into()], ..quick() };
    let error = Client::new(options).err().unwrap();
    let expected = "invalid mirror: not a valid URI: \"mirror.example\"";
    assert_eq!((error.to_string().as_str(), error.kind()), (expected, Kind::Invalid));
}
