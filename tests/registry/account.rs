//! Who a client is at a registry: tokens that end, identity tokens, credentials from Docker's configuration, login.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;

use vaquita::config::ClientConfig;
use vaquita::error::Kind;
use vaquita::registry::{Client, Credentials, Options};

use super::debian::{Registry, noise};
use super::hostile::line;
use super::server::{Server, answer, descriptor, manifest, manifest_answer, platform, quick};

/// A 401 that sends to `/token` of the same server.
fn challenge(head: &str) -> Vec<u8> {
    let realm = format!(r#"Bearer realm="http://{}/token",service="reg""#, line(head, "host"));
    answer(401, &format!("WWW-Authenticate: {realm}\r\n"), b"{}")
}

fn me(registry: &str) -> Credentials {
    Credentials {
        registry: registry.into(),
        user: "me".into(),
        password: "secret".into(),
        ..Credentials::default()
    }
}

#[test]
fn takes_a_new_token_in_the_middle_of_a_blob() {
    // Each token serves once, and each answer breaks off after 20,000 bytes.
    let content = noise(100_000);
    let (served, tokens) = (content.clone(), Mutex::new((0, true)));
    let server = Server::start(move |head| {
        let (number, is_used) = &mut *tokens.lock().unwrap();
        if head.starts_with("GET /token") {
            (*number, *is_used) = (*number + 1, false);
            return answer(
                200,
                "",
                format!(r#"{{"token":"t{number}","expires_in":9}}"#).as_bytes(),
            );
        }
        if *is_used || line(head, "authorization") != format!("Bearer t{number}") {
            return challenge(head);
        }
        *is_used = true;
        super::link::cut_answer(head, &served, 20_000)
    });
    let client = Client::new(Options { max_attempts: 2, ..quick() }).unwrap();
    let mut bytes = Vec::new();
    let reference = server.reference("x");
    client.blob(&reference, &descriptor(&content), 0).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == content);
    let tokens = server.heads().iter().filter(|head| head.starts_with("GET /token")).count();
    assert_eq!(tokens, 5);
}

#[test]
fn shows_an_identity_token_to_the_service_only() {
    let server = Server::start(|head| match head {
        h if h.starts_with("POST /token ") => {
            answer(200, "", br#"{"access_token":"access","expires_in":300}"#)
        }
        h if line(h, "authorization") == "Bearer access" => manifest_answer(&manifest(b"{}")),
        h => challenge(h),
    });
    let identity_token = "re/fresh+=".to_string();
    let credentials = vec![Credentials { identity_token, ..me(&server.authority) }];
    let client = Client::new(Options { credentials, ..quick() }).unwrap();
    client.resolve(&server.reference("a/x:1"), &platform()).unwrap();
    let heads = server.heads();
    assert_eq!(heads.len(), 3, "{heads:?}");
    let (head, form) = heads[1].split_once("\r\n\r\n").unwrap();
    let expected = "service=reg&scope=repository:a/x:pull&client_id=vaquita&\
        grant_type=refresh_token&refresh_token=re/fresh%2B%3D";
    assert_eq!(form, expected);
    assert_eq!(line(head, "content-type"), "application/x-www-form-urlencoded");
    assert!(line(head, "authorization").is_empty(), "{head}");
}

#[test]
fn an_identity_token_follows_no_redirect() {
    let other = Server::start(|_| answer(200, "", br#"{"token":"t"}"#));
    let location = format!("Location: http://{}/token\r\n", other.authority);
    let server = Server::start(move |head| match head.starts_with("POST ") {
        true => answer(307, &location, b""),
        false => challenge(head),
    });
    let identity_token = "refresh".to_string();
    let credentials = vec![Credentials { identity_token, ..me(&server.authority) }];
    let client = Client::new(Options { credentials, ..quick() }).unwrap();
    let error = client.resolve(&server.reference("x:1"), &platform()).unwrap_err();
    assert!(error.to_string().ends_with("answers 307 unexpected status"), "{error}");
    assert!(other.heads().is_empty(), "{:?}", other.heads());
}

#[test]
fn shows_a_registry_token_as_it_is() {
    let server = Server::start(|head| match line(head, "authorization").as_str() {
        "Bearer own" => manifest_answer(&manifest(b"{}")),
        _ => challenge(head),
    });
    let resolve = |token: &str| {
        let registry_token = token.to_string();
        let registry = server.authority.clone();
        let credentials = vec![Credentials { registry, registry_token, ..Credentials::default() }];
        let client = Client::new(Options { credentials, ..quick() }).unwrap();
        client.resolve(&server.reference("x:1"), &platform()).map(drop).map_err(|e| e.kind())
    };
    assert_eq!(resolve("own"), Ok(()));
    assert_eq!(resolve("other"), Err(Kind::Unauthorized));
    assert!(server.heads().iter().all(|head| !head.contains("/token")));
}

/// A configuration file of its own for each test.
fn config(name: &str, text: &str) -> (ClientConfig, PathBuf) {
    let path = std::env::temp_dir().join(format!("vaquita-{name}-{}.json", std::process::id()));
    fs::write(&path, text).unwrap();
    (ClientConfig::at(path.clone()), path)
}

#[test]
fn finds_credentials_in_the_configuration_of_docker() {
    let server = Server::start(|head| match line(head, "authorization").as_str() {
        // "me:se:cret"
        "Basic bWU6c2U6Y3JldA==" => manifest_answer(&manifest(b"{}")),
        _ => answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
    });
    let name = &server.authority;
    for (key, expected) in [
        (name.to_string(), Ok(())),
        (format!("https://{name}/v1/"), Ok(())),
        ("https://index.docker.io/v1/".to_string(), Err(Kind::Unauthorized)),
    ] {
        let text = format!(r#"{{"auths":{{"{key}":{{"auth":"bWU6c2U6Y3JldA=="}}}}}}"#);
        let (config, path) = config("find", &text);
        let client = Client::new(Options { client_config: Some(config), ..quick() }).unwrap();
        let found = client.resolve(&server.reference("x:1"), &platform());
        assert_eq!(found.map(drop).map_err(|e| e.kind()), expected, "{key}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn logs_in() {
    let server = Server::start(|head| {
        let authorization = line(head, "authorization");
        match head.split(' ').nth(1).unwrap() {
            "/token?service=reg&account=me&client_id=vaquita&offline_token=true" => {
                match authorization.as_str() {
                    "Basic bWU6c2VjcmV0" => {
                        answer(200, "", br#"{"token":"t","refresh_token":"refresh"}"#)
                    }
                    _ => {
                        let words = r#"{"errors":[{"message":"incorrect username or password"}]}"#;
                        answer(401, "", words.as_bytes())
                    }
                }
            }
            "/v2/" if authorization == "Bearer t" => answer(200, "", b"{}"),
            "/v2/" => challenge(head),
            other => panic!("{other}"),
        }
    });
    let login = |password: &str| {
        let credentials = vec![Credentials { password: password.into(), ..me(&server.authority) }];
        Client::new(Options { credentials, ..quick() }).unwrap().login(&server.authority)
    };
    assert_eq!(login("secret").unwrap().as_deref(), Some("refresh"));
    let error = login("wrong").unwrap_err();
    let expected = "unauthorized: incorrect username or password".to_string();
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unauthorized));
}

#[test]
fn logs_in_with_basic_credentials_and_where_none_are_asked_for() {
    let open = Registry::start("login-open", "");
    let client = Client::new(quick()).unwrap();
    assert_eq!(client.login(&open.authority).unwrap(), None);
    let server = Server::start(|head| match line(head, "authorization").as_str() {
        "Basic bWU6c2VjcmV0" => answer(200, "", b"{}"),
        _ => answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
    });
    let login = |password: &str| {
        let credentials = vec![Credentials { password: password.into(), ..me(&server.authority) }];
        Client::new(Options { credentials, ..quick() }).unwrap().login(&server.authority)
    };
    assert_eq!(login("secret").unwrap(), None);
    let error = login("wrong").unwrap_err();
    let expected = format!(
        "login attempt to http://{}/v2/ failed with status: 401 Unauthorized",
        server.authority
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unauthorized));
}
