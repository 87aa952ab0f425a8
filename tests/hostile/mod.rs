//! A registry that lies: it serves, on loopback, exactly the answers that a test puts up, and forged images.
//!
//! Only as much of HTTP as a client's GET and HEAD need; each answer ends its connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::sandbox::sha256;

pub const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// What is sent after the head of an answer.
#[derive(Clone)]
pub enum Body {
    Whole(Vec<u8>),
    /// The head promises `promised` bytes; the connection ends after these.
    Short {
        bytes: Vec<u8>,
        promised: usize,
    },
    /// `opening`, then `piece` as often as said, with no length told in the head.
    Repeated {
        opening: Vec<u8>,
        piece: Vec<u8>,
        times: usize,
    },
}

/// One answer.
#[derive(Clone)]
pub struct Answer {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

impl Answer {
    /// 200 with these bytes as what `media_type` says.
    pub fn ok(media_type: &str, bytes: Vec<u8>) -> Answer {
        Answer {
            status: "200 OK",
            headers: vec![("Content-Type", media_type.into())],
            body: Body::Whole(bytes),
        }
    }

    /// A refusal with an error document of the distribution protocol.
    pub fn error(status: &'static str, code: &str, message: &str) -> Answer {
        let document = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Answer {
            status,
            headers: vec![("Content-Type", "application/json".into())],
            body: Body::Whole(document.into()),
        }
    }
}

/// The registry; its threads end with the test program.
pub struct Hostile {
    pub address: String,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Hostile {
    /// Listens on a free port of loopback; every path is 404 until it is put up.
    pub fn start() -> Hostile {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("its address").to_string();
        let answers: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let shared = answers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A client that hangs up on a lie is what the tests want: its broken pipe is no error here.
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        let hostile = Hostile { address, answers };
        hostile.put("/v2/", Answer::ok("application/json", b"{}".to_vec()));
        hostile
    }

    /// Serves `answer` under `path` from now on.
    pub fn put(&self, path: &str, answer: Answer) {
        self.answers.lock().expect("no thread panics with it").insert(path.into(), answer);
    }

    /// Serves `bytes` as the blob that has their digest; gives the digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        let answer = Answer::ok("application/octet-stream", bytes.to_vec());
        self.put(&format!("/v2/{repository}/blobs/{digest}"), answer);
        digest
    }

    /// Serves `image` as `repository:latest`, with all its blobs, and gives the reference.
    pub fn put_image(&self, repository: &str, image: &Forged) -> String {
        let config = image.config();
        let config_digest = self.put_blob(repository, &config);
        for layer in &image.layers {
            self.put_blob(repository, &layer.blob);
        }
        let layers: Vec<String> = image.layers.iter().map(Layer::descriptor).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{config_digest}"}},"layers":[{}]}}"#,
            config.len(),
            layers.join(",")
        );
        self.put_manifest(repository, manifest.into())
    }

    /// Serves these bytes as the manifest of `repository:latest`, and gives the reference.
    pub fn put_manifest(&self, repository: &str, manifest: Vec<u8>) -> String {
        self.put(
            &format!("/v2/{repository}/manifests/latest"),
            Answer::ok(MANIFEST_TYPE, manifest),
        );
        format!("{}/{repository}:latest", self.address)
    }
}

fn serve(stream: TcpStream, answers: &Mutex<HashMap<String, Answer>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = path.split('?').next().unwrap_or("");
    let known = answers.lock().expect("no thread panics with it").get(path).cloned();
    let answer = known
        .unwrap_or_else(|| Answer::error("404 Not Found", "NOT_FOUND", "nothing is put up here"));
    send(stream, &answer, method == "HEAD")
}

fn send(mut stream: TcpStream, answer: &Answer, head_only: bool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &answer.body {
        Body::Whole(bytes) => head.push_str(&format!("Content-Length: {}\r\n", bytes.len())),
        Body::Short { promised, .. } => head.push_str(&format!("Content-Length: {promised}\r\n")),
        Body::Repeated { .. } => {}
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    match &answer.body {
        _ if head_only => Ok(()),
        Body::Whole(bytes) | Body::Short { bytes, .. } => stream.write_all(bytes),
        Body::Repeated { opening, piece, times } => {
            stream.write_all(opening)?;
            (0..*times).try_for_each(|_| stream.write_all(piece))
        }
    }
}

/// A layer as it is served, and the diff ID that the configuration claims for it.
#[derive(Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub diff_id: String,
}

impl Layer {
    /// An honest one.
    pub fn of(tar: &[u8]) -> Layer {
        Layer { blob: gzip(tar), diff_id: format!("sha256:{}", sha256(tar)) }
    }

    fn descriptor(&self) -> String {
        format!(
            r#"{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{},"digest":"sha256:{}"}}"#,
            self.blob.len(),
            sha256(&self.blob)
        )
    }
}

/// An image to be served.
pub struct Forged {
    pub layers: Vec<Layer>,
}

impl Forged {
    /// Its configuration.
    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| format!("{:?}", layer.diff_id)).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        format!(
            r#"{{"os":"linux","architecture":"{architecture}","config":{{"Cmd":["x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        )
        .into()
    }
}

/// The room of a name in an ustar header.
const USTAR_NAME_BYTES: usize = 100;

/// A tar written field by field, so that it can hold what no archiver would write.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// A member of type `kind` (POSIX ustar: 0 file, 1 hard link, 2 symbolic link, 3 and 4 devices, 5 directory).
    pub fn member(mut self, kind: u8, name: &str, link: &str, content: &[u8]) -> Tar {
        self.header(kind, name, link, content.len() as u64);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A device node: `kind` 3 for character, 4 for block.
    pub fn device(mut self, kind: u8, name: &str, (major, minor): (u32, u32)) -> Tar {
        self.header(kind, name, "", 0);
        let start = self.0.len() - 512;
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&self.0[start..]);
        header.set_device_major(major).expect("an ustar header");
        header.set_device_minor(minor).expect("an ustar header");
        header.set_cksum();
        self.0[start..].copy_from_slice(header.as_bytes());
        self
    }

    /// A header alone, for contents that come from elsewhere or not at all. What is too long for its fields goes before
    /// it in records of the POSIX extension (type x).
    pub fn header(&mut self, kind: u8, name: &str, link: &str, size: u64) {
        let records = pax_record("path", name) + &pax_record("linkpath", link);
        if !records.is_empty() {
            self.plain_header(b'x', "pax", "", records.len() as u64);
            self.0.extend_from_slice(records.as_bytes());
            self.0.resize(self.0.len().next_multiple_of(512), 0);
        }
        let short = |text: &str| text.chars().take(USTAR_NAME_BYTES).collect::<String>();
        self.plain_header(kind, &short(name), &short(link), size);
    }

    fn plain_header(&mut self, kind: u8, name: &str, link: &str, size: u64) {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_entry_type(tar::EntryType::new(kind));
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    /// The archive with its end: two blocks of zeros.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    /// What was written so far, without an end.
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// `length key=value`, where the length counts itself; nothing where an ustar header has room for the value.
fn pax_record(key: &str, value: &str) -> String {
    if value.len() <= USTAR_NAME_BYTES {
        return String::new();
    }
    let rest = format!(" {key}={value}\n");
    let length = (1..=4)
        .map(|digits| rest.len() + digits)
        .find(|length| length.to_string().len() + rest.len() == *length);
    format!("{}{rest}", length.expect("a name of less than 9,999 bytes"))
}

/// One gzip member (RFC 1952) around deflated `bytes`.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    member.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    member.extend(crc32(bytes).to_le_bytes());
    member.extend((bytes.len() as u32).to_le_bytes());
    member
}

fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|n| (0..8).fold(n, |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg())))
        .collect();
    !bytes
        .iter()
        .fold(u32::MAX, |crc, &byte| (crc >> 8) ^ table[((crc ^ u32::from(byte)) & 255) as usize])
}

/// `times` gzip members of `mebibytes` MiB of zeros each, behind `opening`: one stream to whoever inflates it.
pub fn bomb(opening: &[u8], mebibytes: usize, times: usize) -> Vec<u8> {
    let zeros = gzip(&vec![0; mebibytes << 20]);
    let mut stream = gzip(opening);
    (0..times).for_each(|_| stream.extend_from_slice(&zeros));
    stream
}
