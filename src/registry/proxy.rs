//! Which proxy a URL goes through, as Go programs decide it: HTTPS_PROXY and HTTP_PROXY by the URL's scheme, NO_PROXY for
//! exceptions, and what `daemon.json` says in front of each of them. This machine itself is always reached directly.

use super::location;
use super::network::{Network, address_of};
use crate::base64;
use crate::config::Proxies;
use crate::error::{Error, Kind, Result};

/// The most exceptions looked at.
const MAX_EXCEPTIONS: usize = 1000;

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Name or address, an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

/// What decides.
#[derive(Debug, Default)]
pub(super) struct Rules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

#[derive(Debug)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug)]
enum Hosts {
    All,
    Network(Network),
    Address(std::net::IpAddr),
    /// A domain with a dot in front: what is below it; without it in `Domain` itself, too.
    Below(String),
    Domain(String),
}

impl Rules {
    /// `configured` goes before the environment, whose variables `variable` gives.
    pub(super) fn new(
        configured: &Proxies,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Rules> {
        let named = |names: &[&str]| {
            names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty())
        };
        let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        // To a CGI program HTTP_PROXY is what a request's `Proxy` header says.
        let is_cgi = named(&["REQUEST_METHOD"]).is_some();
        let http_names: &[&str] =
            if is_cgi { &["http_proxy"] } else { &["HTTP_PROXY", "http_proxy"] };
        let http = set(&configured.http).or_else(|| named(http_names));
        let https = set(&configured.https).or_else(|| named(&["HTTPS_PROXY", "https_proxy"]));
        let except = set(&configured.no_proxy).or_else(|| named(&["NO_PROXY", "no_proxy"]));
        let entries = except.as_deref().unwrap_or_default().split(',');
        Ok(Rules {
            http: http.as_deref().map(parse).transpose()?,
            https: https.as_deref().map(parse).transpose()?,
            exceptions: entries.take(MAX_EXCEPTIONS).filter_map(Exception::parse).collect(),
        })
    }

    /// The proxy on the way to `host` (IPv6 addresses in brackets) and `port`.
    pub(super) fn find(&self, is_https: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if is_https { &self.https } else { &self.http }.as_ref()?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = address_of(&host);
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let excepted = |exception: &Exception| {
            let matches = match &exception.hosts {
                Hosts::All => true,
                Hosts::Network(network) => address.is_some_and(|a| network.contains(&a)),
                Hosts::Address(own) => address == Some(*own),
                Hosts::Below(suffix) => host.ends_with(suffix),
                Hosts::Domain(domain) => host
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            };
            matches && exception.port.is_none_or(|own| own == port)
        };
        (!is_here && !self.exceptions.iter().any(excepted)).then_some(proxy)
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Exception> {
        let entry = entry.trim().to_ascii_lowercase();
        let exception = |hosts| Some(Exception { hosts, port: None });
        if entry.is_empty() {
            return None;
        } else if entry == "*" {
            return exception(Hosts::All);
        } else if let Some(network) = Network::parse(&entry) {
            return exception(Hosts::Network(network));
        } else if let Some(address) = address_of(&entry) {
            return exception(Hosts::Address(address));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry.as_str(), None),
        };
        let below = host.strip_prefix('*').unwrap_or(host);
        let hosts = match address_of(host) {
            Some(address) => Hosts::Address(address),
            None if host.is_empty() => return None,
            None if below.starts_with('.') => Hosts::Below(below.to_string()),
            None => Hosts::Domain(host.to_string()),
        };
        Some(Exception { hosts, port })
    }
}

/// `[http://][user:password@]host[:port]`.
fn parse(text: &str) -> Result<Proxy> {
    // What is refused may hold a password, and is not shown.
    let refuse = |why: &str| Error::new(Kind::Invalid, format!("use the proxy that is set: {why}"));
    let url = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let Some(authority) = location::origin(&url).strip_prefix("http://") else {
        return Err(refuse("only proxies at http:// are supported"));
    };
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let host = location::host_of(place);
    let port = match place.get(host.len()..).unwrap_or_default().strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| refuse("its port is no number"))?,
        None => 80,
    };
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(refuse("it has no host"));
    }
    let authorization = user.map(|user| {
        let pair = if user.contains(':') { user.to_string() } else { format!("{user}:") };
        format!("Basic {}", base64::encode(&percent_decode(&pair)))
    });
    Ok(Proxy { host: host.to_string(), port, authorization })
}

/// RFC 3986, section 2.1; a `%` that starts nothing is itself.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        rest = byte.and_then(|_| after.get(2..)).unwrap_or(after);
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(set: &[(&str, &str)], configured: &Proxies) -> Result<Rules> {
        let variable = |name: &str| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        Rules::new(configured, &variable)
    }

    /// `host:port` of the proxy to `url`.
    fn proxy_of(rules: &Rules, url: &str) -> String {
        let (scheme, authority) = url.split_once("://").unwrap();
        let host = location::host_of(authority);
        let port = authority[host.len()..].strip_prefix(':').map(|port| port.parse().unwrap());
        let is_https = scheme == "https";
        let proxy = rules.find(is_https, host, port.unwrap_or(if is_https { 443 } else { 80 }));
        proxy.map_or("none".into(), |proxy| format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn takes_variables_as_go_does() {
        let none = Proxies::default();
        let set = Proxies { https: Some("http://configured".into()), ..Proxies::default() };
        for (variables, configured, http, https) in [
            (&[][..], &none, "none", "none"),
            (&[("HTTP_PROXY", "a:1"), ("https_proxy", "http://b:2/")], &none, "a:1", "b:2"),
            (&[("http_proxy", "a"), ("HTTPS_PROXY", "[::1]:3")], &none, "a:80", "[::1]:3"),
            (
                &[("HTTP_PROXY", "a"), ("http_proxy", "b"), ("HTTPS_PROXY", "")],
                &none,
                "a:80",
                "none",
            ),
            (
                &[("HTTP_PROXY", "a"), ("http_proxy", "b"), ("REQUEST_METHOD", "GET")],
                &none,
                "b:80",
                "none",
            ),
            (&[("HTTP_PROXY", "a"), ("REQUEST_METHOD", "GET")], &none, "none", "none"),
            (&[("HTTP_PROXY", "a"), ("HTTPS_PROXY", "b")], &set, "a:80", "configured:80"),
            (
                &[("HTTP_PROXY", "a"), ("HTTPS_PROXY", "b"), ("NO_PROXY", "*")],
                &none,
                "none",
                "none",
            ),
        ] {
            let rules = rules(variables, configured).unwrap();
            let found =
                (proxy_of(&rules, "http://r.example"), proxy_of(&rules, "https://r.example"));
            assert_eq!(found, (http.into(), https.into()), "{variables:?}");
        }
    }

    #[test]
    fn leaves_out_what_no_proxy_names() {
        for (except, direct, proxied) in [
            (
                "",
                &["localhost", "127.0.0.1:5000", "[::1]:5", "127.9.9.9"][..],
                &["r", "128.0.0.1"][..],
            ),
            (
                "example.com",
                &["example.com", "A.Example.com:5", "example.com."],
                &["xexample.com", "com"],
            ),
            (".example.com", &["a.example.com"], &["example.com", "aexample.com"]),
            ("*.example.com , b", &["a.example.com", "b", "c.b"], &["example.com"]),
            ("example.com:5000", &["example.com:5000", "a.example.com:5000"], &["example.com"]),
            ("10.0.0.0/8,fd00::/8", &["10.1.2.3:5", "[fd01::1]"], &["11.1.2.3", "ten.example"]),
            (
                "10.0.0.1,10.0.0.2:5",
                &["10.0.0.1", "10.0.0.1:9", "10.0.0.2:5"],
                &["10.0.0.2", "10.0.0.3"],
            ),
            ("::2,[::3]:5", &["[::2]:7", "[::3]:5"], &["[::3]:6"]),
            (",, :5,x:y", &[], &["r", "x", "x:5"]),
        ] {
            let rules = rules(&[("HTTP_PROXY", "p"), ("NO_PROXY", except)], &Proxies::default());
            let rules = rules.unwrap();
            for (hosts, expected) in [(direct, "none"), (proxied, "p:80")] {
                for host in hosts {
                    assert_eq!(
                        proxy_of(&rules, &format!("http://{host}")),
                        expected,
                        "{host} {except}"
                    );
                }
            }
        }
    }

    #[test]
    fn parses_proxies() {
        for (text, expected) in [
            ("http://me:se%20cret%@p:8080", Ok(("p", 8080, Some("Basic bWU6c2UgY3JldCU=")))),
            ("me@p", Ok(("p", 80, Some("Basic bWU6")))),
            ("https://p", Err("only proxies at http:// are supported")),
            ("socks5://p", Err("only proxies at http:// are supported")),
            ("http://secret@p:x", Err("its port is no number")),
            ("http://", Err("it has no host")),
        ] {
            let found = parse(text).map_err(|e| e.to_string());
            let expected = expected
                .map(|(host, port, authorization): (&str, u16, Option<&str>)| Proxy {
                    host: host.into(),
                    port,
                    authorization: authorization.map(str::to_string),
                })
                .map_err(|why: &str| format!("use the proxy that is set: {why}"));
            assert_eq!(found, expected, "{text}");
        }
    }
}
