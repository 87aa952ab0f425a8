//! Pulls from Debian's docker-registry, which the test starts and fills.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vaquita::digest::Digest;
use vaquita::error::Kind;
use vaquita::oci::manifest::OCI_MANIFEST;
use vaquita::reference::Reference;
use vaquita::registry::{Client, Credentials, Options};

use super::server::{client, descriptor, manifest, platform};

/// A running docker-registry with its files; both go when the first on them is dropped.
pub struct Registry {
    pub authority: String,
    pub directory: PathBuf,
    child: Child,
    owns_directory: bool,
}

impl Registry {
    /// Starts one on a free port. `more` goes into the `http:` section and after it.
    pub fn start(name: &str, more: &str) -> Registry {
        let directory = std::env::temp_dir().join(format!("vaquita-{name}-{}", std::process::id()));
        Registry::on(directory, more, true)
    }

    /// Another one on the same files.
    pub fn again(&self, more: &str) -> Registry {
        Registry::on(self.directory.clone(), more, false)
    }

    fn on(directory: PathBuf, more: &str, owns_directory: bool) -> Registry {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        fs::create_dir_all(&directory).unwrap();
        let storage =
            format!("storage:\n  filesystem:\n    rootdirectory: {}/data\n", directory.display());
        let config = format!("version: 0.1\n{storage}http:\n  addr: 127.0.0.1:0\n{more}");
        let file = |kind: &str| directory.join(format!("{number}.{kind}"));
        fs::write(file("yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .args([Path::new("serve"), &file("yml")])
            .stdout(Stdio::null())
            .stderr(fs::File::create(file("log")).unwrap())
            .spawn()
            .expect("docker-registry is not installed: run targets/setup");
        let log = file("log");
        let mut registry = Registry { authority: String::new(), directory, child, owns_directory };
        registry.wait(&log);
        registry
    }

    /// The kernel chooses the port; the log tells which.
    fn wait(&mut self, log: &Path) {
        let start = Instant::now();
        loop {
            let text = fs::read_to_string(log).unwrap();
            let said = text.split_once("listening on ").map(|(_, rest)| rest);
            if let Some((authority, _)) = said.and_then(|rest| rest.split_once([',', '"', ' '])) {
                self.authority = authority.to_string();
                return;
            }
            let has_ended = self.child.try_wait().unwrap().is_some();
            let is_late = start.elapsed() > Duration::from_secs(60);
            assert!(!has_ended && !is_late, "docker-registry does not start: {text}");
            sleep(Duration::from_millis(20));
        }
    }

    /// One request; the status, the head and the body of its answer.
    fn request(&self, line: &str, content_type: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.authority).unwrap();
        let (host, length) = (&self.authority, body.len());
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        let head =
            format!("{head}Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let (status, answer) =
            self.request(&format!("POST /v2/{repository}/blobs/uploads/"), "text/plain", b"");
        assert_eq!(status, 202, "{answer}");
        let location = answer.lines().find_map(|l| l.strip_prefix("Location: ")).unwrap().trim();
        let path = location.split_once(&self.authority).map_or(location, |(_, path)| path);
        let separator = if path.contains('?') { '&' } else { '?' };
        let line = format!("PUT {path}{separator}digest={}", Digest::of(bytes));
        let (status, answer) = self.request(&line, "application/octet-stream", bytes);
        assert_eq!(status, 201, "{answer}");
    }

    /// Pushes an image of one layer and returns its manifest.
    pub fn push(&self, repository: &str, layer: &[u8]) -> Vec<u8> {
        let config =
            br#"{"os":"linux","architecture":"arm","rootfs":{"type":"layers","diff_ids":[]}}"#;
        self.push_blob(repository, config);
        self.push_blob(repository, layer);
        let entry = descriptor(layer);
        let layers = format!(
            r#""layers":[{{"mediaType":"m","digest":"{}","size":{}}}]"#,
            entry.digest, entry.size
        );
        let text = String::from_utf8(manifest(config)).unwrap().replace(r#""layers":[]"#, &layers);
        let (status, answer) = self.request(
            &format!("PUT /v2/{repository}/manifests/1"),
            OCI_MANIFEST,
            text.as_bytes(),
        );
        assert_eq!(status, 201, "{answer}");
        text.into_bytes()
    }

    /// `repository` on this registry.
    pub fn reference(&self, repository: &str) -> Reference {
        Reference::parse(&format!("{}/{repository}", self.authority)).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Nothing is left to be done about a process or a directory that will not go.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.owns_directory {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Bytes that do not repeat, the same in each run.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Everything that a pull asks for.
pub fn pull(client: &Client, reference: &Reference, layer: &[u8], manifest: &[u8]) {
    let resolved = client.resolve(reference, &platform()).unwrap();
    assert_eq!(resolved.manifest_bytes, manifest);
    assert_eq!(resolved.digest, Digest::of(manifest));
    let config = client.small_blob(reference, &resolved.manifest.config).unwrap();
    assert!(config.starts_with(br#"{"os":"linux""#));
    for offset in [0, 1, layer.len() / 2, layer.len() - 1, layer.len()] {
        let blob = &resolved.manifest.layers[0];
        let mut bytes = Vec::new();
        client.blob(reference, blob, offset as u64).unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == layer[offset..], "{} bytes from {offset}", bytes.len());
    }
}

#[test]
fn pulls_over_http() {
    let registry = Registry::start("http", "");
    let layer = noise(3 << 20);
    let manifest = registry.push("team/app", &layer);
    let client = client();
    pull(&client, &registry.reference("team/app:1"), &layer, &manifest);
    let error = client.resolve(&registry.reference("team/app:2"), &platform()).unwrap_err();
    let name = &registry.authority;
    let expected = format!("manifest for {name}/team/app:2 not found: manifest unknown");
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::NotFound));
    let Err(error) = client.blob(&registry.reference("team/app"), &descriptor(b"none"), 0) else {
        panic!("a blob that is not there was opened")
    };
    let expected = format!(
        "get blob {} of {name}/team/app: http://{name} answers 404 not found: blob unknown to registry",
        descriptor(b"none").digest
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::NotFound));
}

#[test]
fn logs_in_with_basic_credentials() {
    let directory = std::env::temp_dir().join(format!("vaquita-htpasswd-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    // User "me", password "secret", bcrypt of cost 4.
    let line = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    fs::write(directory.join("htpasswd"), line).unwrap();
    let more = format!(
        "auth:\n  htpasswd:\n    realm: here\n    path: {}/htpasswd\n",
        directory.display()
    );
    let registry = Registry::start("basic", &more);
    let resolve = |password: &str| {
        let credentials = Credentials {
            registry: registry.authority.clone(),
            user: "me".into(),
            password: password.into(),
            ..Credentials::default()
        };
        let client = Client::new(Options { credentials: vec![credentials], ..Options::default() });
        client.unwrap().resolve(&registry.reference("x:1"), &platform()).unwrap_err()
    };
    let name = &registry.authority;
    let error = resolve("wrong");
    let expected = format!(
        "get manifest of {name}/x:1: http://{name} answers 401 unauthorized to repository x: authentication required"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::Unauthorized));
    let error = resolve("secret");
    let expected = format!("manifest for {name}/x:1 not found: manifest unknown");
    assert_eq!((error.to_string(), error.kind()), (expected, Kind::NotFound));
    fs::remove_dir_all(directory).unwrap();
}
