//! TLS against openssl's server, in every combination that the client offers, and what it must refuse.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use vaquita::error::{Error, Kind};
use vaquita::reference::Reference;
use vaquita::registry::{Client, Options};

use super::debian::{Registry, noise, pull};
use super::server::{manifest, manifest_answer, platform, quick};

/// Runs openssl in `directory`, arguments separated by spaces.
fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split(' '))
        .output()
        .expect("openssl is not installed: run targets/setup");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {why}");
}

/// A directory with authorities and servers' keys and certificates, made once, and `v2/x/manifests/1` to serve.
fn keys() -> &'static Path {
    static KEYS: OnceLock<PathBuf> = OnceLock::new();
    KEYS.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("vaquita-tls-{}", std::process::id()));
        fs::create_dir_all(directory.join("v2/x/manifests")).unwrap();
        let answer = manifest_answer(&manifest(b"{}"));
        fs::write(directory.join("v2/x/manifests/1"), answer).unwrap();
        make_keys(&directory);
        directory
    })
}

fn make_keys(at: &Path) {
    let here = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";
    fs::write(at.join("here.ext"), here).unwrap();
    fs::write(at.join("elsewhere.ext"), "subjectAltName=DNS:elsewhere.example\n").unwrap();
    fs::write(at.join("client.ext"), format!("{here}extendedKeyUsage=clientAuth\n")).unwrap();
    let ec = |curve: &str| format!("-algorithm EC -pkeyopt ec_paramgen_curve:{curve}");
    let rsa = |bits: u32| format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}");
    for (name, algorithm) in [
        ("rsa-2048", rsa(2048)),
        ("rsa-4096", rsa(4096)),
        ("rsa-1024", rsa(1024)),
        ("p-256", ec("P-256")),
        ("p-384", ec("P-384")),
    ] {
        openssl(at, &format!("genpkey {algorithm} -out {name}.key"));
    }
    for (ca, key, hash) in [
        ("ca", "p-384", "-sha384"),
        ("ca-rsa", "rsa-4096", "-sha512"),
        ("ca-other", "p-256", "-sha256"),
    ] {
        openssl(
            at,
            &format!("req -x509 -new -key {key}.key {hash} -subj /CN={ca} -days 9 -out {ca}.pem"),
        );
    }
    for (name, key, ca, more) in [
        ("rsa-2048", "rsa-2048", "ca", "-days 9 -sha256 -extfile here.ext"),
        ("rsa-4096", "rsa-4096", "ca-rsa", "-days 9 -sha384 -extfile here.ext"),
        ("p-256", "p-256", "ca-rsa", "-days 9 -sha512 -extfile here.ext"),
        ("p-384", "p-384", "ca", "-days 9 -sha256 -extfile here.ext"),
        (
            "pss",
            "p-256",
            "ca-rsa",
            "-days 9 -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1 -extfile here.ext",
        ),
        ("weak", "rsa-1024", "ca", "-days 9 -sha256 -extfile here.ext"),
        ("elsewhere", "p-256", "ca", "-days 9 -sha256 -extfile elsewhere.ext"),
        ("client", "p-256", "ca", "-days 9 -sha256 -extfile client.ext"),
        ("client-p-384", "p-384", "ca", "-days 9 -sha256 -extfile client.ext"),
        ("client-rsa", "rsa-2048", "ca", "-days 9 -sha256 -extfile client.ext"),
        ("expired", "p-256", "ca", "-days -1 -sha256 -extfile here.ext"),
    ] {
        let ca_key = if ca == "ca" { "p-384" } else { "rsa-4096" };
        openssl(at, &format!("req -new -key {key}.key -subj /CN={name} -out {name}.csr"));
        let signer = format!("-CA {ca}.pem -CAkey {ca_key}.key -set_serial 7");
        openssl(at, &format!("x509 -req -in {name}.csr {signer} {more} -out {name}.pem"));
    }
    openssl(at, "ec -in p-256.key -out p-256-sec1.key");
    openssl(at, "rsa -in rsa-2048.key -traditional -out rsa-2048-pkcs1.key");
    // What Docker's guide tells people to make: the server's certificate and its authority in one.
    let own =
        "req -x509 -new -key p-256.key -sha256 -subj /CN=own -addext subjectAltName=DNS:localhost";
    openssl(at, &format!("{own} -days 9 -out own.pem"));
    fs::write(at.join("own.ext"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:TRUE\n")
        .unwrap();
    openssl(at, "req -new -key p-256.key -subj /CN=own -out own.csr");
    let expired = "-signkey p-256.key -sha256 -days -1 -extfile own.ext";
    openssl(at, &format!("x509 -req -in own.csr {expired} -out own-expired.pem"));
    // The last byte of a certificate is its signature's.
    openssl(at, "x509 -in p-384.pem -outform DER -out p-384.der");
    let mut der = fs::read(at.join("p-384.der")).unwrap();
    *der.last_mut().unwrap() ^= 1;
    fs::write(at.join("tampered.der"), der).unwrap();
    openssl(at, "x509 -inform DER -in tampered.der -out tampered.pem");
}

/// `openssl s_server` in the directory of keys; it goes when this is dropped.
pub struct Server {
    child: Child,
    pub port: String,
}

impl Server {
    pub fn start(certificate: &str, key: &str, more: &str) -> Server {
        let files = format!("-cert {certificate}.pem -key {key}.key");
        let mut child = Command::new("openssl")
            .current_dir(keys())
            .args(
                format!("s_server -accept 127.0.0.1:0 -HTTP {files} {more}").trim_end().split(' '),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is not installed: run targets/setup");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let accepts =
            lines.find_map(|line| Some(line.unwrap().strip_prefix("ACCEPT ")?.to_string()));
        let port = accepts
            .expect("openssl s_server does not start")
            .rsplit(':')
            .next()
            .unwrap()
            .to_string();
        // Whoever writes to a closed pipe ends.
        thread::spawn(move || lines.for_each(drop));
        Server { child, port }
    }

    fn resolve(&self, host: &str, options: Options) -> Result<(), Error> {
        resolve(&format!("{host}:{}", self.port), options)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is left to be done about a process that will not go.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resolve(authority: &str, options: Options) -> Result<(), Error> {
    let reference = Reference::parse(&format!("{authority}/x:1")).unwrap();
    let resolved = Client::new(options).unwrap().resolve(&reference, &platform())?;
    assert_eq!(resolved.manifest_bytes, manifest(b"{}"));
    Ok(())
}

pub fn believe(ca: &str) -> Options {
    Options { ca_files: vec![keys().join(format!("{ca}.pem"))], ..quick() }
}

#[test]
fn shakes_hands_in_every_combination() {
    let versions = [
        (
            "-tls1_3 -ciphersuites",
            ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
        ),
        ("-tls1_2 -cipher", ["AES128-GCM", "AES256-GCM", "CHACHA20"]),
    ];
    for (certificate, ca, kind) in [
        ("rsa-2048", "ca", "RSA"),
        ("rsa-4096", "ca-rsa", "RSA"),
        ("p-256", "ca-rsa", "ECDSA"),
        ("p-384", "ca", "ECDSA"),
    ] {
        for (version, ciphers) in versions {
            for cipher in ciphers {
                for group in ["X25519", "P-256", "P-384"] {
                    let cipher = match cipher {
                        "CHACHA20" => format!("ECDHE-{kind}-CHACHA20-POLY1305"),
                        "AES128-GCM" => format!("ECDHE-{kind}-AES128-GCM-SHA256"),
                        "AES256-GCM" => format!("ECDHE-{kind}-AES256-GCM-SHA384"),
                        of_13 => of_13.to_string(),
                    };
                    let more = format!("{version} {cipher} -groups {group}");
                    let server = Server::start(certificate, certificate, &more);
                    let result =
                        server.resolve("localhost", believe(ca)).map_err(|e| e.to_string());
                    assert_eq!(result, Ok(()), "{certificate} {more}");
                }
            }
        }
    }
}

#[test]
fn takes_every_signature_of_the_handshake() {
    for (certificate, ca, version, schemes) in [
        ("p-256", "ca-rsa", "-tls1_3", &["ecdsa_secp256r1_sha256"][..]),
        ("p-384", "ca", "-tls1_3", &["ecdsa_secp384r1_sha384"]),
        ("p-256", "ca-rsa", "-tls1_2", &["ECDSA+SHA256", "ECDSA+SHA384"]),
        ("p-384", "ca", "-tls1_2", &["ECDSA+SHA256", "ECDSA+SHA384"]),
        ("rsa-2048", "ca", "-tls1_3", &["RSA-PSS+SHA256", "RSA-PSS+SHA384", "RSA-PSS+SHA512"]),
        (
            "rsa-2048",
            "ca",
            "-tls1_2",
            &[
                "RSA+SHA256",
                "RSA+SHA384",
                "RSA+SHA512",
                "RSA-PSS+SHA256",
                "RSA-PSS+SHA384",
                "RSA-PSS+SHA512",
            ],
        ),
        ("pss", "ca-rsa", "-tls1_3", &["ecdsa_secp256r1_sha256"]),
    ] {
        for scheme in schemes {
            let key = if certificate == "pss" { "p-256" } else { certificate };
            let server = Server::start(certificate, key, &format!("{version} -sigalgs {scheme}"));
            let result = server.resolve("127.0.0.1", believe(ca)).map_err(|e| e.to_string());
            assert_eq!(result, Ok(()), "{certificate} {version} {scheme}");
        }
    }
}

#[test]
fn refuses_what_does_not_hold() {
    for (certificate, key, more, ca, why) in [
        ("elsewhere", "p-256", "", "ca", "its certificate is for another host: elsewhere.example"),
        ("expired", "p-256", "", "ca", "its certificate has expired"),
        ("own-expired", "p-256", "", "own-expired", "its certificate has expired"),
        ("client", "p-256", "", "ca", "its certificate is not for servers"),
        (
            "tampered",
            "p-384",
            "",
            "ca",
            "its certificate has a bad signature or a key that is too weak",
        ),
        (
            "p-256",
            "p-256",
            "",
            "ca-other",
            "its certificate is not signed by an authority known here",
        ),
        (
            "own",
            "p-256",
            "",
            "ca",
            "its certificate is an authority's own, and that authority is not known here",
        ),
        (
            "weak",
            "rsa-1024",
            "-cipher DEFAULT@SECLEVEL=0",
            "ca",
            "its certificate has a bad signature or a key that is too weak",
        ),
        (
            "p-256",
            "p-256",
            "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
            "ca-rsa",
            "the server refuses with TLS alert 70",
        ),
        (
            "rsa-2048",
            "rsa-2048",
            "-tls1_2 -cipher AES128-SHA",
            "ca",
            "the server refuses with TLS alert 40",
        ),
        ("p-256", "p-256", "-groups X448", "ca-rsa", "the server refuses with TLS alert 40"),
    ] {
        let server = Server::start(certificate, key, more);
        let error = server.resolve("localhost", believe(ca)).unwrap_err();
        let at = format!("localhost:{}", server.port);
        let expected = format!("get manifest of {at}/x:1: open TLS connection to {at}: {why}");
        assert_eq!((error.to_string(), error.kind()), (expected, Kind::Invalid));
    }
}

#[test]
fn believes_as_docker_does() {
    let own = Server::start("own", "p-256", "");
    assert_eq!(own.resolve("localhost", believe("own")).map_err(|e| e.to_string()), Ok(()));
    let error = own.resolve("127.0.0.1", believe("own")).unwrap_err().to_string();
    assert!(error.ends_with("its certificate is for another host: localhost"), "{error}");
    // Loopback without an authority, and what the user excepted, is encrypted and not verified.
    assert_eq!(own.resolve("127.0.0.1", Options::default()).map_err(|e| e.to_string()), Ok(()));
    let insecure = Options { insecure: vec!["127.0.0.1".into()], ..believe("ca") };
    assert_eq!(own.resolve("127.0.0.1", insecure).map_err(|e| e.to_string()), Ok(()));
}

/// `certs.d` with `files` (name, and which of the keys' directory it is) for `authority`.
fn certificates(name: &str, authority: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = keys().join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join(authority)).unwrap();
    for (file, from) in files {
        fs::copy(keys().join(from), directory.join(authority).join(file)).unwrap();
    }
    directory
}

#[test]
fn shows_a_client_certificate_where_one_is_wanted() {
    for version in ["-tls1_3", "-tls1_2"] {
        let wants = format!("{version} -Verify 1 -verify_return_error -CAfile ca.pem");
        let server = Server::start("p-384", "p-384", &wants);
        let authority = format!("localhost:{}", server.port);
        let with = |files: &[(&str, &str)]| {
            let name = format!("certs.d{version}");
            let certificate_directories =
                vec!["/nowhere".into(), certificates(&name, &authority, files)];
            server.resolve("localhost", Options { certificate_directories, ..quick() })
        };
        let ca = ("ca.crt", "ca.pem");
        for (certificate, key) in [
            ("client.pem", "p-256.key"),
            ("client.pem", "p-256-sec1.key"),
            ("client-p-384.pem", "p-384.key"),
            ("client-rsa.pem", "rsa-2048.key"),
            ("client-rsa.pem", "rsa-2048-pkcs1.key"),
        ] {
            let shown = with(&[ca, ("me.cert", certificate), ("me.key", key)]);
            assert_eq!(shown.map_err(|e| e.to_string()), Ok(()), "{version} {certificate} {key}");
        }
        // Another's key, no certificate, one that the server does not know: refused, and not asked again.
        let own = with(&[ca, ("me.cert", "own.pem"), ("me.key", "p-256.key")]);
        for refused in [own, with(&[ca])] {
            let error = refused.unwrap_err();
            let why = error.to_string();
            assert!(why.contains("the server refuses with TLS alert"), "{version} {why}");
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    }
}

#[test]
fn takes_signatures_of_every_scheme_from_a_client() {
    for (version, schemes) in [
        ("-tls1_3", &["RSA-PSS+SHA256", "RSA-PSS+SHA384", "RSA-PSS+SHA512"][..]),
        ("-tls1_2", &["RSA+SHA256", "RSA+SHA384", "RSA+SHA512", "RSA-PSS+SHA384"]),
    ] {
        for scheme in schemes {
            let wants = format!(
                "{version} -Verify 1 -verify_return_error -CAfile ca.pem -client_sigalgs {scheme}"
            );
            let server = Server::start("p-384", "p-384", &wants);
            let files = [("me.cert", "client-rsa.pem"), ("me.key", "rsa-2048.key")];
            let authority = format!("localhost:{}", server.port);
            let directory = certificates("certs.d-schemes", &authority, &files);
            let options = Options { certificate_directories: vec![directory], ..believe("ca") };
            let result = server.resolve("localhost", options);
            assert_eq!(result.map_err(|e| e.to_string()), Ok(()), "{version} {scheme}");
        }
    }
}

#[test]
fn refuses_halves_of_client_certificates() {
    let server = Server::start("p-384", "p-384", "");
    let authority = format!("localhost:{}", server.port);
    for (files, why) in [
        (
            &[("me.cert", "client.pem")][..],
            "missing key DIR/me.key for client certificate DIR/me.cert. CA certificates must use the extension .crt",
        ),
        (&[("me.key", "p-256.key")], "missing client certificate DIR/me.cert for key DIR/me.key"),
        (
            &[("me.cert", "client.pem"), ("me.key", "client.pem")],
            "read client certificate DIR/me.key: no PEM private key in it",
        ),
        (
            &[("me.cert", "p-256.key"), ("me.key", "p-256.key")],
            "read client certificate DIR/me.cert: no PEM certificate in it",
        ),
    ] {
        let directory = certificates("certs.d-halves", &authority, files);
        let options = Options { certificate_directories: vec![directory.clone()], ..believe("ca") };
        let error = server.resolve("localhost", options).unwrap_err().to_string();
        let why = why.replace("DIR", &directory.join(&authority).display().to_string());
        assert!(error.ends_with(&why), "{error}");
    }
}

#[test]
fn refuses_bad_ca_files() {
    let server = Server::start("p-256", "p-256", "");
    for (name, content, why) in [
        ("empty.pem", "", "no PEM certificate in it"),
        (
            "odd.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "BadEncoding",
        ),
    ] {
        fs::write(keys().join(name), content).unwrap();
        let options = Options { ca_files: vec![keys().join(name)], ..Options::default() };
        let error = server.resolve("localhost", options).unwrap_err().to_string();
        assert!(error.contains(name) && error.ends_with(why), "{error}");
    }
    let options = Options { ca_files: vec!["/nowhere/ca.pem".into()], ..Options::default() };
    let error = server.resolve("localhost", options).unwrap_err();
    assert!(error.to_string().contains("`/nowhere/ca.pem`"), "{error}");
    assert_eq!(error.kind(), Kind::NotFound);
}

/// Passes one connection after another on to `port`, with one bit changed at `at` of what the server says.
fn meddle(port: String, at: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
            let (mut up, mut to_server) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up, &mut to_server));
            let (mut passed, mut buffer) = (0, [0; 4096]);
            while let Ok(count @ 1..) = server.read(&mut buffer) {
                if (passed..passed + count).contains(&at) {
                    buffer[at - passed] ^= 1;
                }
                passed += count;
                if client.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    });
    authority
}

#[test]
fn notices_a_bit_that_was_changed_on_the_way() {
    for version in ["-tls1_3 -num_tickets 0", "-tls1_2 -no_ticket"] {
        let server = Server::start("p-256", "p-256", version);
        let through = |at, wait_ms| {
            let wait = Duration::from_millis(wait_ms);
            let options = Options {
                connect_timeout: wait,
                read_timeout: wait,
                max_attempts: 1,
                ..believe("ca-rsa")
            };
            resolve(&meddle(server.port.clone(), at), options)
        };
        assert!(through(usize::MAX, 20_000).is_ok());
        // A changed length makes the client wait for bytes that never come; it need not wait long here.
        for at in (5..1500).step_by(53) {
            let error = through(at, 300).expect_err("a changed bit went through").to_string();
            assert!(error.starts_with("get manifest of 127.0.0.1:"), "{error}");
        }
    }
}

#[test]
fn pulls_over_https_from_docker_registry() {
    let plain = Registry::start("https", "");
    let layer = noise(3 << 20);
    let manifest = plain.push("team/app", &layer);
    for certificate in ["rsa-2048", "p-384"] {
        let files = |name: &str| keys().join(name).display().to_string();
        let (file, key) =
            (files(&format!("{certificate}.pem")), files(&format!("{certificate}.key")));
        let secure = plain.again(&format!("  tls:\n    certificate: {file}\n    key: {key}\n"));
        let client = Client::new(believe("ca")).unwrap();
        pull(&client, &secure.reference("team/app:1"), &layer, &manifest);
    }
}
