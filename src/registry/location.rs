//! Where a registry is: its name on the wire, how it may be spoken to, and where a redirect leads. Pure text.

use std::net::IpAddr;

/// The registry that people mean by `docker.io`, under the name that its service answers to.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// `host[:port]` to connect to for a registry named `registry` in a reference.
pub(super) fn wire_name(registry: &str) -> &str {
    if registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { registry }
}

/// What is asked of the connection to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// TLS, and a certificate that a known authority vouches for.
    Verified,
    /// TLS or plain HTTP; a certificate counts only where the user gave an authority for it (Docker: loopback).
    Loopback,
    /// TLS with any certificate, or plain HTTP: the user said so (Docker: insecure-registries).
    Insecure,
}

/// The policy for `authority` (`host[:port]`); `insecure` lists what the user excepted, with or without port.
pub(super) fn policy(authority: &str, insecure: &[String]) -> Policy {
    // What a URL says of a user is no part of where it leads.
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let host = host_of(authority);
    let excepted =
        |entry: &String| entry.eq_ignore_ascii_case(authority) || entry.eq_ignore_ascii_case(host);
    if insecure.iter().any(excepted) {
        return Policy::Insecure;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback { Policy::Loopback } else { Policy::Verified }
}

/// The host without its port; an IPv6 address keeps its brackets.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => &authority[..colon],
        _ => authority,
    }
}

/// `scheme://authority` of a URL.
pub(super) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |colon| colon + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |offset| start + offset);
    &url[..end]
}

/// Whether two URLs have one scheme, host and port (RFC 6454, section 5): then they may see the same credentials. Ports
/// that go without saying may be said. A name with a dot at its end is another host: what answers to it may differ.
pub(super) fn is_same_origin(one: &str, other: &str) -> bool {
    let ((scheme, host, port), other) = (origin_parts(one), origin_parts(other));
    (scheme, port) == (other.0, other.2) && host.eq_ignore_ascii_case(other.1)
}

/// Scheme, host and port of a URL.
fn origin_parts(url: &str) -> (&str, &str, &str) {
    let (scheme, authority) = origin(url).split_once("://").unwrap_or_default();
    let host = host_of(authority);
    let port = match (scheme, authority[host.len()..].trim_start_matches(':')) {
        ("https", "") => "443",
        ("http", "") => "80",
        (_, port) => port,
    };
    (scheme, host, port)
}

/// Where `location` leads, seen from `base` (RFC 3986, section 5.2; dots in paths are left to the server).
pub(super) fn follow(base: &str, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let origin = origin(base);
    if location.split(['/', '?']).next().is_some_and(|first| first.ends_with(':')) {
        return location.to_string();
    }
    if location.starts_with("//") {
        let scheme = base.split("//").next().unwrap_or_default();
        return format!("{scheme}{location}");
    }
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    let path = base[origin.len()..].split('?').next().unwrap_or_default();
    if location.starts_with('?') {
        return format!("{origin}{path}{location}");
    }
    let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
    format!("{origin}{directory}{location}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_locations() {
        for (location, expected) in [
            ("https://b/y", "https://b/y"),
            ("ftp://b/y", "ftp://b/y"),
            ("//b:1/y?z", "https://b:1/y?z"),
            ("/y#part", "https://a:5/y"),
            ("y", "https://a:5/v2/y"),
            ("?y", "https://a:5/v2/x?y"),
        ] {
            assert_eq!(follow("https://a:5/v2/x?q=/w", location), expected);
        }
        assert_eq!(follow("http://a", "y"), "http://a/y");
    }

    #[test]
    fn origin_ends_before_the_path() {
        for (url, expected) in [
            ("https://a:5/x", "https://a:5"),
            ("http://a", "http://a"),
            ("http://a?x=/", "http://a"),
            ("http://[::1]:5/x", "http://[::1]:5"),
        ] {
            assert_eq!(origin(url), expected);
        }
    }

    #[test]
    fn credentials_stay_with_one_scheme_host_and_port() {
        for (one, other, expected) in [
            ("https://a", "https://a:443/v2/", true),
            ("https://a:443", "https://a", true),
            ("http://a", "http://a:80/v2/?x", true),
            ("https://Registry.Example", "https://registry.EXAMPLE:443/x", true),
            ("https://a:5000", "https://a:5000/x", true),
            ("https://[::1]", "https://[::1]:443/x", true),
            ("http://[::1]:80", "http://[::1]", true),
            ("https://a", "http://a", false),
            ("https://a", "http://a:443", false),
            ("http://a", "https://a", false),
            ("http://a:443", "https://a", false),
            ("https://a", "https://a:80", false),
            ("http://a", "http://a:443", false),
            ("https://a:5000", "https://a", false),
            ("https://a:5000", "https://a:443", false),
            ("https://a", "https://b", false),
            ("https://a", "https://b:443", false),
            ("https://a", "https://a.b", false),
            ("https://a", "https://a.", false),
            ("https://a.", "https://a:443", false),
            ("https://a", "https://a@b", false),
            ("https://a", "https://a:443@b", false),
            ("https://a", "https://user@a", false),
            ("https://a", "https://a\\b", false),
            ("https://a", "https://a:4430", false),
            ("https://a", "https://a:44", false),
            ("https://[::1]", "https://[::2]", false),
            ("https://[::1]:443", "https://[::1:443]", false),
            ("https://a", "//a", false),
            ("https://a", "", false),
        ] {
            assert_eq!(is_same_origin(one, other), expected, "{one} {other}");
            assert_eq!(is_same_origin(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn only_loopback_and_exceptions_are_let_off() {
        let insecure = ["lan".to_string(), "store:5000".to_string()];
        for (authority, expected) in [
            ("127.0.0.1:5000", Policy::Loopback),
            ("127.9.9.9", Policy::Loopback),
            ("localhost:5000", Policy::Loopback),
            ("[::1]:5000", Policy::Loopback),
            ("[::1]", Policy::Loopback),
            ("128.0.0.1:5000", Policy::Verified),
            ("localhost.example.org", Policy::Verified),
            ("127.0.0.1.example.org", Policy::Verified),
            ("lan", Policy::Insecure),
            ("LAN:8080", Policy::Insecure),
            ("store:5000", Policy::Insecure),
            ("store:5001", Policy::Verified),
            ("registry-1.docker.io", Policy::Verified),
            ("localhost:1@evil.example", Policy::Verified),
            ("user@127.0.0.1:5000", Policy::Loopback),
        ] {
            assert_eq!(policy(authority, &insecure), expected, "{authority}");
        }
        assert_eq!(wire_name("docker.io"), "registry-1.docker.io");
    }
}
