//! Image references: `[domain/]path[:tag][@digest]` (grammar: distribution's reference package; limits: OCI distribution
//! spec, "Pulling manifests"). Pure text; what a name means on this machine is the store's business.
//!
//! Docker's short names are kept: `busybox` is `docker.io/library/busybox:latest`. The first component is a registry
//! if it holds a dot or a colon, or is `localhost`, or has an upper-case letter.

use std::fmt;

use crate::digest::Digest;
use crate::error::{Error, Kind, Result};

/// The registry of names that give none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The longest repository name in bytes, registry included.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A parsed reference. `Display` gives the full form, `familiar` the one people type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses a name to be given: one with a digest would say of the content what only a registry can.
    pub fn parse_name(text: &str) -> Result<Reference> {
        match Reference::parse(text)? {
            name if name.digest().is_none() => Ok(name),
            _ => {
                let message = format!("refusing to create a tag with a digest reference: {text:?}");
                Err(Error::new(Kind::Invalid, message))
            }
        }
    }

    /// Parses what a user typed. Without tag and digest the tag is `latest`.
    pub fn parse(text: &str) -> Result<Reference> {
        let refuse = |why: &str| {
            Error::new(Kind::Invalid, format!("invalid reference format: {text:?}: {why}"))
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|e| refuse("").caused_by(e))?))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        let (registry, path) = split_registry(name);
        let repository = match registry {
            DEFAULT_REGISTRY if !path.contains('/') => format!("library/{path}"),
            _ => path.to_string(),
        };
        if !valid_registry(registry) {
            return Err(refuse("the registry is not a host name with an optional port"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse("repository name must be lowercase"));
        }
        if !repository.split('/').all(valid_component) {
            return Err(refuse("the repository may hold a-z, 0-9 and single separators . _ __ -"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(refuse("the repository name is longer than 255 bytes"));
        }
        if !tag.is_none_or(valid_tag) {
            return Err(refuse("the tag may hold letters, digits, _ . - and at most 128 of them"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_string()),
            (tag, _) => tag.map(str::to_string),
        };
        Ok(Reference { registry: registry.into(), repository, tag, digest })
    }

    /// `host[:port]` of the registry, as written; `docker.io` where none was.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, absent when only a digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest behind `@`.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository at one digest, without a tag.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository at one tag, without a digest.
    pub fn tagged(&self, tag: &str) -> Reference {
        Reference { tag: Some(tag.to_string()), digest: None, ..self.clone() }
    }

    /// The same on another registry (`host[:port]`).
    pub fn on(&self, registry: &str) -> Reference {
        Reference { registry: registry.to_string(), ..self.clone() }
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn manifest_key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_string(),
        }
    }

    /// The name without tag and digest, as Docker prints it: `busybox`, `127.0.0.1:5000/app`.
    pub fn familiar_name(&self) -> String {
        match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DEFAULT_REGISTRY, Some(short)) if !short.contains('/') => short.to_string(),
            (DEFAULT_REGISTRY, _) => self.repository.clone(),
            _ => format!("{}/{}", self.registry, self.repository),
        }
    }

    /// The whole as Docker prints it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push_str(&format!("@{digest}"));
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(format!("{}/{}", self.registry, self.repository)))
    }
}

/// A colon behind the last slash starts the tag; one before it belongs to the registry's port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let path_start = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[path_start..].find(':') {
        Some(colon) => (&text[..path_start + colon], Some(&text[path_start + colon + 1..])),
        None => (text, None),
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// A host name or IPv4 address, or an IPv6 address in brackets, and an optional port.
fn valid_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            let valid = host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
            (
                if valid { "v6" } else { "" },
                rest.strip_prefix(':').or((!rest.is_empty()).then_some("")),
            )
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let valid_label = |label: &str| {
        let edges_ok = !label.starts_with('-') && !label.ends_with('-');
        !label.is_empty()
            && edges_ok
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(valid_label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Runs of a-z and 0-9, joined by one of: `.`, `_`, `__`, any number of `-`.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    let separators_ok = component
        .split(|c: char| alphanumeric(c as u8) && c.is_ascii())
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'));
    alphanumeric(first) && alphanumeric(last) && separators_ok
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= MAX_TAG_BYTES
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_docker_does() {
        let hex = "a".repeat(64);
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("127.0.0.1:5000/x/y:v-1", "127.0.0.1:5000/x/y:v-1", "127.0.0.1:5000/x/y:v-1"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
            (
                &format!("x@sha256:{hex}"),
                &format!("docker.io/library/x@sha256:{hex}"),
                &format!("x@sha256:{hex}"),
            ),
            (
                &format!("x:1@sha256:{hex}"),
                &format!("docker.io/library/x:1@sha256:{hex}"),
                &format!("x:1@sha256:{hex}"),
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(
                (reference.to_string().as_str(), reference.familiar().as_str()),
                (full, familiar)
            );
            assert_eq!(Reference::parse(full).unwrap(), reference);
        }
    }

    #[test]
    fn refuses_what_docker_refuses() {
        let long = "a/".repeat(127) + "aaaa";
        for text in [
            "",
            ":",
            "x:",
            "x:-a",
            "X",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a_",
            "x@sha256:00",
            "x@",
            "é",
            "host:99999/x",
            "ho st.x/y",
            "-h.x/y",
            ".x/y",
            &long,
            &format!("x:{}", "t".repeat(129)),
        ] {
            let error = Reference::parse(text).expect_err(text);
            assert!(error.to_string().starts_with("invalid reference format"), "{error}");
        }
    }
}
