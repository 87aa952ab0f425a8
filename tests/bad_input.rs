//! What must be refused, and how: one line on standard error that names the object and the cause, the right exit
//! status, and a store that is afterwards, file for file, what it was before.
//!
//! Each test starts from a store that holds an image already, so that there is something to damage.

mod hostile;
mod sandbox;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use hostile::{Answer, Body, Forged, Hostile, INDEX_TYPE, Layer, MANIFEST_TYPE, Tar, bomb, gzip};
use sandbox::refusal::{assert_one_line, keep_archive, refuses, stocked};
use sandbox::{Registry, Sandbox, fixture, sha256, succeed};

fn refuses_pull(sandbox: &Sandbox, reference: &str, words: &[&str]) {
    refuses(sandbox, &["pull", "-q", reference], 1, words);
}

/// A small honest layer.
fn plain_layer() -> Layer {
    Layer::of(&Tar::default().member(b'0', "hello", "", b"hello\n").end())
}

/// The proof that the tests below fail for the reason they name: the same forgery without a fault is pulled.
#[test]
fn an_honest_forgery_is_pulled() {
    let (sandbox, hostile) = (stocked("honest"), Hostile::start());
    let reference = hostile.put_image("honest", &Forged { layers: vec![plain_layer()] });
    let outcome = sandbox.vaquita(&["pull", "-q", &reference]);
    assert_eq!(
        (outcome.code, outcome.stdout.trim(), outcome.stderr.as_str()),
        (0, reference.as_str(), "")
    );
}

#[test]
fn registries_that_cannot_be_reached() {
    let sandbox = stocked("unreachable");
    refuses_pull(&sandbox, "no-such-host.invalid/image:1", &["no-such-host.invalid"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    refuses_pull(&sandbox, &format!("{address}/image:1"), &[&address, "refused"]);
}

#[test]
fn a_wrong_authority() {
    let sandbox = stocked("authority");
    let registry = Registry::start(sandbox.path("registry"), true);
    let other = Registry::start(sandbox.path("other"), true);
    let archive = keep_archive(&sandbox);
    let reference = format!("{}/keep:1", registry.address);
    succeed(fixture("push").arg("--ca").arg(registry.authority()).arg(&reference).arg(archive));
    let authority = other.authority().display().to_string();
    let words = [registry.address.as_str(), "certificate"];
    refuses(&sandbox, &["--ca-file", &authority, "pull", "-q", &reference], 1, &words);
    refuses(
        &sandbox,
        &["--ca-file", "/no/such/file", "pull", "-q", &reference],
        1,
        &["/no/such/file"],
    );
    let rubbish = sandbox.path("rubbish").display().to_string();
    fs::write(&rubbish, "no certificate\n").expect("write a file");
    refuses(&sandbox, &["--ca-file", &rubbish, "pull", "-q", &reference], 1, &[&rubbish]);
}

#[test]
fn answers_that_are_no_image() {
    let (sandbox, hostile) = (stocked("answers"), Hostile::start());
    let mut unauthorized =
        Answer::error("401 Unauthorized", "UNAUTHORIZED", "authentication required");
    unauthorized.headers.push(("WWW-Authenticate", r#"Basic realm="here""#.into()));
    hostile.put("/v2/closed/manifests/latest", unauthorized.clone());
    let closed = format!("{}/closed:latest", hostile.address);
    refuses_pull(&sandbox, &closed, &[&closed, "unauthorized"]);

    // A token service that says no as well.
    let realm = format!(
        r#"Bearer realm="http://{}/token",service="s",scope="repository:tokens:pull""#,
        hostile.address
    );
    unauthorized.headers = vec![("WWW-Authenticate", realm)];
    hostile.put("/v2/tokens/manifests/latest", unauthorized);
    hostile.put("/token", Answer::error("401 Unauthorized", "UNAUTHORIZED", "who are you"));
    refuses_pull(&sandbox, &format!("{}/tokens:latest", hostile.address), &["tokens", "401"]);

    let missing = Answer::error("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown");
    hostile.put("/v2/missing/manifests/latest", missing);
    let reference = format!("{}/missing:latest", hostile.address);
    refuses_pull(&sandbox, &reference, &[&reference, "manifest unknown"]);

    let failing = Answer::error("500 Internal Server Error", "UNKNOWN", "disk on fire");
    hostile.put("/v2/failing/manifests/latest", failing);
    refuses_pull(&sandbox, &format!("{}/failing:latest", hostile.address), &["failing", "500"]);

    for (repository, manifest) in [
        ("html", "<html>Sign in to this hotel's network</html>"),
        ("empty", ""),
        ("list", "[]"),
        ("object", "{}"),
        ("nothing", r#"{"schemaVersion":2,"layers":[]}"#),
    ] {
        let reference = hostile.put_manifest(repository, manifest.into());
        refuses_pull(&sandbox, &reference, &[repository, "manifest"]);
    }
    let digest = format!("sha256:{}", sha256(b"another manifest"));
    let answer = Answer::ok(MANIFEST_TYPE, b"{}".to_vec());
    hostile.put(&format!("/v2/bydigest/manifests/{digest}"), answer);
    refuses_pull(&sandbox, &format!("{}/bydigest@{digest}", hostile.address), &[&digest]);
}

#[test]
fn blobs_that_are_not_what_they_should_be() {
    let (sandbox, hostile) = (stocked("blobs"), Hostile::start());
    let layer = plain_layer();
    let digest = format!("sha256:{}", sha256(&layer.blob));
    let serve = |repository: &str, answer: Answer| {
        let reference = hostile.put_image(repository, &Forged { layers: vec![layer.clone()] });
        hostile.put(&format!("/v2/{repository}/blobs/{digest}"), answer);
        reference
    };
    let binary = |bytes: &[u8]| Answer::ok("application/octet-stream", bytes.to_vec());

    let reference =
        serve("gone", Answer::error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry"));
    refuses_pull(&sandbox, &reference, &[&digest, "blob unknown"]);

    let half = layer.blob[..layer.blob.len() / 2].to_vec();
    let body = Body::Short { bytes: half.clone(), promised: layer.blob.len() };
    let reference = serve("truncated", Answer { body, ..binary(b"") });
    refuses_pull(&sandbox, &reference, &[&digest]);
    refuses_pull(&sandbox, &serve("short", binary(&half)), &[&digest]);

    let mut altered = layer.blob.clone();
    altered[9] ^= 1; // the operating system in gzip's header: the contents stay the same
    refuses_pull(&sandbox, &serve("altered", binary(&altered)), &[&digest, &sha256(&altered)]);
    let mut longer = layer.blob.clone();
    longer.push(0);
    refuses_pull(&sandbox, &serve("longer", binary(&longer)), &[&digest]);

    // The second of two layers is bad: the first, which was fine, is taken back.
    let second = Layer::of(&Tar::default().member(b'0', "second", "", b"x").end());
    let bad = format!("sha256:{}", sha256(&second.blob));
    let reference =
        hostile.put_image("second", &Forged { layers: vec![layer.clone(), second.clone()] });
    let path = format!("/v2/second/blobs/{bad}");
    hostile.put(&path, binary(&vec![b'x'; second.blob.len()]));
    refuses_pull(&sandbox, &reference, &[&bad]);

    // The connection breaks in the second: that may heal, so the first stays for the next try, and no image shows.
    let before = sandbox.listing();
    let body = Body::Short { bytes: second.blob[..9].to_vec(), promised: second.blob.len() };
    hostile.put(&path, Answer { body, ..binary(b"") });
    let arguments = ["pull", "-q", &reference];
    assert_one_line(&sandbox.vaquita(&arguments), &arguments, 1, &[&bad]);
    let new_images = |line: &&String| line.starts_with("images/") && !before.contains(line);
    assert_eq!(sandbox.listing().iter().find(new_images), None);
    hostile.put(
        &format!("/v2/second/blobs/{digest}"),
        Answer::error("404 Not Found", "BLOB_UNKNOWN", "asked again"),
    );
    hostile.put(&path, binary(&second.blob));
    assert_eq!(sandbox.vaquita(&arguments).code, 0);
}

#[test]
fn layers_that_are_not_what_the_configuration_says() {
    let (sandbox, hostile) = (stocked("contents"), Hostile::start());
    let honest = plain_layer();
    let claimed = format!("sha256:{}", sha256(b"other contents"));
    let forged = Layer { diff_id: claimed.clone(), ..honest.clone() };
    let reference = hostile.put_image("diffid", &Forged { layers: vec![forged] });
    refuses_pull(&sandbox, &reference, &[&claimed, &honest.diff_id]);

    let garbage: Vec<u8> =
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut damaged = honest.blob.clone();
    damaged[20] ^= 0xff;
    let mut bad_sum = honest.blob.clone();
    let sum_at = bad_sum.len() - 8;
    bad_sum[sum_at] ^= 1;
    let cut = honest.blob[..honest.blob.len() - 12].to_vec();
    let with_head = [&honest.blob[..10], &garbage].concat();
    for (repository, blob) in [
        ("garbage", garbage),
        ("headed", with_head),
        ("damaged", damaged),
        ("badsum", bad_sum),
        ("cut", cut),
        ("nothing", Vec::new()),
        ("notar", gzip(&[b'x'; 2048])),
    ] {
        let digest = format!("sha256:{}", sha256(&blob));
        let layer = Layer { blob, diff_id: honest.diff_id.clone() };
        let reference = hostile.put_image(repository, &Forged { layers: vec![layer] });
        refuses_pull(&sandbox, &reference, &[&digest]);
    }
    let half = Tar::default().member(b'0', "whole", "", &[b'x'; 4096]).unfinished();
    let reference =
        hostile.put_image("halftar", &Forged { layers: vec![Layer::of(&half[..2048])] });
    refuses_pull(&sandbox, &reference, &["layer"]);

    // More layers than the configuration knows, and fewer.
    let mut forged = Forged { layers: vec![honest.clone()] };
    let config = hostile.put_blob("counts", &forged.config());
    let config_size = forged.config().len();
    forged.layers.push(honest.clone());
    let reference = hostile.put_image("counts", &forged);
    let blob = sha256(&honest.blob);
    let entry = format!(
        r#"{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":{},"digest":"sha256:{blob}"}}"#,
        honest.blob.len()
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{config_size},"digest":"{config}"}},"layers":[{entry},{entry}]}}"#
    );
    hostile.put_manifest("counts", manifest.into());
    refuses_pull(&sandbox, &reference, &["counts", "2 layers"]);
}

#[test]
fn layers_that_reach_out_of_their_root() {
    let (sandbox, hostile) = (stocked("escapes"), Hostile::start());
    let outside = sandbox.path("outside");
    fs::create_dir(&outside).expect("create a directory");
    fs::write(outside.join("secret"), "secret\n").expect("write a file");
    let out = outside.display().to_string();
    let secret = format!("{out}/secret");
    let up = "../".repeat(20);
    let below = out.trim_start_matches('/');
    let climbing = format!("{up}{below}/written");
    let climbing_link = format!("{up}{below}/secret");
    let file = |name: &str| Tar::default().member(b'0', name, "", b"x");
    for (name, tar, object) in [
        ("dots", file(&climbing), climbing.as_str()),
        ("inner", file("a/../../../../b"), "a/../../../../b"),
        ("link", Tar::default().member(b'1', "stolen", &climbing_link, b""), "stolen"),
        ("abslink", Tar::default().member(b'1', "stolen", &secret, b""), "stolen"),
        (
            "through",
            Tar::default().member(b'2', "door", &out, b"").member(b'0', "door/written", "", b"x"),
            "door/written",
        ),
        (
            "climb",
            Tar::default().member(b'2', "door", &format!("{up}{below}"), b"").member(
                b'0',
                "door/written",
                "",
                b"x",
            ),
            "door/written",
        ),
        (
            "linked",
            Tar::default().member(b'2', "door", &out, b"").member(
                b'1',
                "stolen",
                "door/secret",
                b"",
            ),
            "stolen",
        ),
        (
            "swap",
            Tar::default().member(b'5', "d", "", b"").member(b'2', "d", &out, b"").member(
                b'0',
                "d/written",
                "",
                b"x",
            ),
            "d/written",
        ),
        (
            "dir",
            Tar::default().member(b'2', "door", &out, b"").member(b'5', "door/made", "", b""),
            "door/made",
        ),
    ] {
        let reference = hostile.put_image(name, &Forged { layers: vec![Layer::of(&tar.end())] });
        refuses_pull(&sandbox, &reference, &["layer", object]);
        assert_eq!(listed(&outside), ["secret"], "{name} wrote outside");
        assert_eq!(
            fs::read_to_string(&secret).expect("the secret"),
            "secret\n",
            "{name} wrote outside"
        );
        assert_eq!(
            std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&secret).expect("the secret")),
            1,
            "{name} linked it"
        );
    }
}

fn listed(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Absolute names are of the image's root, as every archiver and Docker has it: they are no escape.
#[test]
fn an_absolute_name_stays_inside() {
    let (sandbox, hostile) = (stocked("absolute"), Hostile::start());
    let written = sandbox.path("written").display().to_string();
    let tar = Tar::default().member(b'0', &written, "", b"x").end();
    let reference = hostile.put_image("absolute", &Forged { layers: vec![Layer::of(&tar)] });
    let outcome = sandbox.vaquita(&["pull", "-q", &reference]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(!sandbox.path("written").exists(), "an absolute name left the root");
}

#[test]
fn device_nodes() {
    let (sandbox, hostile) = (stocked("devices"), Hostile::start());
    for (name, kind, number) in [("memory", b'3', (1, 1)), ("disk", b'4', (8, 0))] {
        let tar = Tar::default().device(kind, "dev/node", number).end();
        let reference = hostile.put_image(name, &Forged { layers: vec![Layer::of(&tar)] });
        refuses_pull(&sandbox, &reference, &["layer", "dev/node", "device"]);
    }
    // What Debian's own trees hold is no danger: /dev/null.
    let tar = Tar::default().device(b'3', "dev/null", (1, 3)).end();
    let reference = hostile.put_image("null", &Forged { layers: vec![Layer::of(&tar)] });
    assert_eq!(sandbox.vaquita(&["pull", "-q", &reference]).code, 0);
}

/// What overlayfs, or the whiteout rules of layers, would take for instructions.
#[test]
fn members_that_would_steer_the_overlay() {
    let (sandbox, hostile) = (stocked("steering"), Hostile::start());
    let record = "SCHILY.xattr.trusted.overlay.redirect=/etc\n";
    let record = format!("{} {record}", record.len() + 3); // two digits and a space before it
    let redirect =
        Tar::default().member(b'x', "pax", "", record.as_bytes()).member(b'5', "moved", "", b"");
    let file = |name: &str| Tar::default().member(b'0', name, "", b"");
    for (name, tar, object) in [
        ("whiteout", Tar::default().device(b'3', "gone", (0, 0)), "gone"),
        ("redirect", redirect, "moved"),
        ("nameless", file("a/.wh."), "a/.wh."),
        ("itself", file("a/.wh.."), "a/.wh.."),
        ("parent", file("a/.wh..."), "a/.wh..."),
    ] {
        let reference = hostile.put_image(name, &Forged { layers: vec![Layer::of(&tar.end())] });
        refuses_pull(&sandbox, &reference, &["layer", object]);
    }
}

#[test]
fn bombs() {
    let (sandbox, hostile) = (stocked("bombs"), Hostile::start());
    let mut four_gibibytes = Tar::default();
    four_gibibytes.header(b'0', "zeros", "", 4 << 30);
    let inside = bomb(&four_gibibytes.unfinished(), 16, 256);
    let behind = bomb(&Tar::default().member(b'0', "hello", "", b"hello\n").end(), 16, 256);
    for (name, blob) in [("inside", inside), ("behind", behind)] {
        assert!(blob.len() < 5 << 20);
        let digest = format!("sha256:{}", sha256(&blob));
        let layer = Layer { blob, diff_id: format!("sha256:{}", sha256(b"never reached")) };
        let reference = hostile.put_image(name, &Forged { layers: vec![layer] });
        refuses_pull(&sandbox, &reference, &[&digest, "inflate"]);
    }
}

/// Under a limit of address space that a reader without a limit of its own would run into.
#[test]
fn documents_without_end() {
    let (sandbox, hostile) = (stocked("documents"), Hostile::start());
    let entry = format!(
        r#"{{"mediaType":"{MANIFEST_TYPE}","size":2,"digest":"sha256:{}","platform":{{"os":"plan9","architecture":"mips"}}}},"#,
        sha256(b"")
    );
    let opening = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":["#);
    let body = Body::Repeated { opening: opening.into(), piece: entry.into(), times: 10_000_000 };
    hostile
        .put("/v2/endless/manifests/latest", Answer { body, ..Answer::ok(INDEX_TYPE, Vec::new()) });
    let limited = |reference: &str| {
        let script = format!("ulimit -v 65536; exec vaquita pull -q {reference}");
        sandbox.shell(&script, &[])
    };
    let reference = format!("{}/endless:latest", hostile.address);
    let before = sandbox.listing();
    assert_one_line(&limited(&reference), &[&reference], 1, &["endless", "4194304"]);

    let deep =
        format!(r#"{{"schemaVersion":2,"layers":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let reference = hostile.put_manifest("deep", deep.clone().into());
    assert_one_line(&limited(&reference), &[&reference], 1, &["deep", "nested"]);

    let config = hostile.put_blob("deepconfig", deep.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{config}"}},"layers":[]}}"#,
        deep.len()
    );
    let reference = hostile.put_manifest("deepconfig", manifest.into());
    assert_one_line(&limited(&reference), &[&reference], 1, &["deepconfig", "nested"]);
    assert_eq!(sandbox.listing(), before);
}

#[test]
fn archives_that_are_none() {
    let sandbox = stocked("archives");
    let path = |name: &str| sandbox.path(name).display().to_string();
    let whole = fs::read(keep_archive(&sandbox)).expect("an archive");
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("text", b"no archive at all\n".to_vec()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("nomanifest", Tar::default().member(b'0', "other", "", b"").end()),
        ("badmanifest", Tar::default().member(b'0', "manifest.json", "", b"[{").end()),
        (
            "lacking",
            Tar::default()
                .member(
                    b'0',
                    "manifest.json",
                    "",
                    br#"[{"Config":"a.json","Layers":["b/layer.tar"]}]"#,
                )
                .end(),
        ),
    ] {
        fs::write(path(name), bytes).expect("write an archive");
        refuses(&sandbox, &["load", "-q", "-i", &path(name)], 1, &[]);
    }
    refuses(&sandbox, &["load", "-q", "-i", "/no/such/archive"], 1, &["/no/such/archive"]);
}
