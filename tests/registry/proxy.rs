//! Proxies: tunnels for HTTPS, whole URLs for plain HTTP, and who sees which secret.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use vaquita::config::Proxies;
use vaquita::error::{Error, Kind};
use vaquita::reference::Reference;
use vaquita::registry::{Client, Options};

use super::hostile::line;
use super::server::{
    Server, answer, descriptor, listen, manifest, manifest_answer, platform, quick, read_head,
};
use super::tls;

/// A proxy that leads every tunnel to `to`, whoever it is asked for; its address, and the heads that it saw.
fn tunnels(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let authority = listen(move |mut client| {
        let Some(head) = read_head(&mut client) else { return };
        seen.lock().unwrap().push(head.clone());
        // "me:se cret"
        if line(&head, "proxy-authorization") != "Basic bWU6c2UgY3JldA==" {
            client.write_all(b"HTTP/1.1 407 X\r\nConnection: close\r\n\r\n").unwrap();
            return;
        }
        let mut server = TcpStream::connect(&to).unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: me\r\n\r\n").unwrap();
        let (mut up, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            // Whoever hangs up ends the other half.
            let _ = std::io::copy(&mut up, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    (authority, heads)
}

fn through(proxy: &str, options: Options) -> Options {
    let proxy = Some(format!("http://{proxy}"));
    Options { proxies: Proxies { https: proxy.clone(), http: proxy, no_proxy: None }, ..options }
}

fn resolve(reference: &str, options: Options) -> Result<(), Error> {
    let reference = Reference::parse(reference).unwrap();
    Client::new(options).unwrap().resolve(&reference, &platform()).map(drop)
}

#[test]
fn https_goes_through_a_tunnel() {
    let server = tls::Server::start("elsewhere", "p-256", "");
    let (proxy, heads) = tunnels(format!("127.0.0.1:{}", server.port));
    let with = |user: &str| through(&format!("{user}@{proxy}"), tls::believe("ca"));
    // The name is looked up by the proxy alone: here it means nothing. The certificate is the server's.
    resolve("elsewhere.example/x:1", with("me:se%20cret")).unwrap();
    let head = heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("CONNECT elsewhere.example:443 HTTP/1.1\r\n"), "{head}");
    assert_eq!(line(&head, "host"), "elsewhere.example:443");
    let error = resolve("other.example:5/x:1", with("me:se%20cret")).unwrap_err().to_string();
    assert!(error.ends_with("its certificate is for another host: elsewhere.example"), "{error}");
    let error = resolve("elsewhere.example/x:1", with("nobody")).unwrap_err();
    let expected = format!(
        "get manifest of elsewhere.example/x:1: connect to elsewhere.example:443 through proxy {proxy}: it wants other credentials, or any"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unauthorized));
}

#[test]
fn plain_http_is_forwarded() {
    let store = Server::start(|_| answer(200, "", b"0123456789"));
    let location = format!("Location: http://{}/blob\r\n", store.authority);
    let proxy = Server::start(move |head| match head {
        h if h.starts_with("CONNECT ") => answer(403, "Connection: close\r\n", b""),
        h if h.contains("/blobs/") => answer(307, &location, b""),
        _ => manifest_answer(&manifest(b"{}")),
    });
    let insecure = vec!["plain.example:5000".into()];
    let options =
        through(&format!("me:secret@{}", proxy.authority), Options { insecure, ..quick() });
    let client = Client::new(options).unwrap();
    let reference = Reference::parse("plain.example:5000/x:1").unwrap();
    for _ in 0..2 {
        client.resolve(&reference, &platform()).unwrap();
    }
    let heads = proxy.heads();
    assert_eq!(heads.len(), 3, "{heads:?}");
    assert!(heads[0].starts_with("CONNECT plain.example:5000 "), "{heads:?}");
    for head in &heads[1..] {
        assert!(head.starts_with("GET http://plain.example:5000/v2/x/manifests/1 "), "{head}");
        assert_eq!(line(head, "host"), "plain.example:5000");
        // "me:secret"
        assert_eq!(line(head, "proxy-authorization"), "Basic bWU6c2VjcmV0");
    }
    // The store is on this machine and reached directly: the proxy's secret is none of its business.
    let mut bytes = Vec::new();
    let mut blob = client.blob(&reference, &descriptor(b"0123456789"), 0).unwrap();
    blob.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"0123456789");
    assert!(line(&store.heads()[0], "proxy-authorization").is_empty());
}

#[test]
fn a_proxy_that_cannot_be_reached_is_named() {
    let proxy = "127.0.0.1:1";
    let error = resolve("r.example/x:1", through(proxy, quick())).unwrap_err();
    let expected = "get manifest of r.example/x:1: connect to proxy 127.0.0.1:1: Connection refused (os error 111)";
    assert_eq!((error.to_string().as_str(), error.kind()), (expected, Kind::Unavailable));
    let proxies = Proxies { https: Some("socks5://p".into()), ..Proxies::default() };
    let error = Client::new(Options { proxies, ..quick() }).err().unwrap();
    let expected = "use the proxy that is set: only proxies at http:// are supported";
    assert_eq!(error.to_string(), expected);
}
