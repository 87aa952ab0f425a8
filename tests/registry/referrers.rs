//! Lists of what refers to a manifest, as registries give them.

use vaquita::digest::Digest;
use vaquita::oci::artifact::DELTA_TYPE;

use super::server::{Server, answer, client};

fn entry(name: &str, artifact_type: &str) -> String {
    let digest = Digest::of(name.as_bytes());
    format!(r#"{{"mediaType":"m","digest":"{digest}","size":1,"artifactType":"{artifact_type}"}}"#)
}

fn list(entries: &[String]) -> Vec<u8> {
    let entries = entries.join(",");
    format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#).into_bytes()
}

/// The digests of the deltas that a server gives which answers `/referrers/` so, or the error.
fn referrers(server: &Server) -> Result<Vec<String>, String> {
    let found = client().referrers(&server.reference("app:1"), &Digest::of(b"subject"), DELTA_TYPE);
    let digests = |found: Vec<_>| {
        found.into_iter().map(|entry: vaquita::oci::manifest::Descriptor| entry.digest).collect()
    };
    found.map(digests).map_err(|e| e.to_string())
}

#[test]
fn follows_pages_and_filters() {
    let server = Server::start(|head| {
        let next =
            |page: u32| format!("Link: </v2/app/referrers/next?page={page}>; rel=\"next\"\r\n");
        match head {
            head if head.contains("artifactType=") => {
                answer(200, &next(2), &list(&[entry("a", DELTA_TYPE), entry("b", "signature")]))
            }
            head if head.contains("page=2") => answer(200, &next(3), &list(&[])),
            _ => answer(200, "", &list(&[entry("c", DELTA_TYPE)])),
        }
    });
    let expected = [b"a", b"c"].map(|name| Digest::of(name).to_string());
    assert_eq!(referrers(&server).unwrap(), expected);
    assert_eq!(server.heads().len(), 3);
}

#[test]
fn endless_pages_end() {
    let next = "Link: </v2/app/referrers/next>; rel=\"next\"\r\n";
    let server = Server::start(move |_| answer(200, next, &list(&[])));
    assert_eq!(referrers(&server).unwrap(), [""; 0]);
    assert_eq!(server.heads().len(), 20);
}

#[test]
fn asks_for_the_tag_where_no_list_is_kept() {
    for status in [404, 400, 405] {
        let server = Server::start(move |head| match head {
            head if head.contains("/referrers/") => answer(status, "", b"no"),
            _ => answer(200, "", &list(&[entry("a", DELTA_TYPE)])),
        });
        assert_eq!(referrers(&server).unwrap().len(), 1, "{status}");
        let tag = format!("GET /v2/app/manifests/sha256-{} ", Digest::of(b"subject").hex());
        assert!(server.heads()[1].starts_with(&tag), "{}", server.heads()[1]);
    }
    let server = Server::start(|_| answer(404, "", b"no"));
    assert_eq!(referrers(&server).unwrap(), [""; 0]);
}

#[test]
fn what_is_no_list_is_an_error() {
    for (body, expected) in [
        (&b"<html>"[..], "not valid JSON"),
        (b"{}", "a field is missing"),
        (br#"{"manifests":[{"digest":1}]}"#, "has the wrong type"),
    ] {
        let server = Server::start(move |_| answer(200, "", body));
        let error = referrers(&server).unwrap_err();
        assert!(
            error.contains("list what refers to sha256:") && error.contains(expected),
            "{error}"
        );
    }
    let server = Server::start(|_| answer(500, "", b""));
    assert!(referrers(&server).unwrap_err().contains("answers 500"));
}
