//! Runs every `tests/behaviour/*.case`: commands, what they print, how they end.
//!
//! A case is a text file. `# ` starts a comment. `$ ` starts a shell command, in which `vaquita` works on roots that
//! this case has for itself; what follows, up to the next command, is what it must print:
//!
//! ```text
//! $ vaquita rm nothing-of-that-name
//! ! No such container: nothing-of-that-name
//! ? 1
//! ```
//!
//! A command goes on in lines that start with `> `. Plain lines are standard output, `! ` standard error, `? N` the exit status if it is not 0. A line `...` stands for
//! any number of lines. Within a line: `<id>` is 12 hex digits, `<sha>` 64, `<name>` a name made up for a container,
//! `<years>` `11 years ago` or the like, `<time>` an RFC 3339 time, `<any>` anything. `<ago>` is a time that just passed; in its table the width of
//! gaps is not compared, as it follows from that time. `<id:WEB>` also sets the variable WEB for the commands below,
//! and where WEB is set already, it must be the same again. `<registry>` is the registry's address.
//!
//! The commands find these variables: REGISTRY and TLS_REGISTRY (host:port), CA (file with the authority of the
//! second), IMAGES (directory with the archives named in `prepare`), FIXTURES (`tests/fixtures`), VAQUITA (the binary,
//! to be called without these roots).
//!
//! `CASE=pull cargo test --test behaviour` runs the cases whose file name contains `pull`.

mod sandbox;

use std::fs;
use std::path::{Path, PathBuf};

use sandbox::{Registry, Sandbox, fixture, succeed};

type Variables = Vec<(String, String)>;

#[test]
fn cases() {
    let shared = Sandbox::new("behaviour");
    let registry = Registry::start(shared.path("registry"), false);
    let tls_registry = Registry::start(shared.path("tls-registry"), true);
    let variables = prepare(&shared, &registry, &tls_registry);
    let wanted = std::env::var("CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let mut count = 0;
    for path in case_files().iter().filter(|path| path.to_string_lossy().contains(&wanted)) {
        count += 1;
        if let Err(failure) = run_case(path, variables.clone()) {
            failures.push(failure);
        }
    }
    assert!(count > 0, "no case has {wanted:?} in its name");
    assert!(
        failures.is_empty(),
        "{} of {count} cases fail\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

fn case_files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour");
    let entries = fs::read_dir(directory).expect("the cases");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a case").path()).collect();
    paths.sort();
    paths
}

/// The images that the cases use, as archives in IMAGES and in both registries.
fn prepare(shared: &Sandbox, registry: &Registry, tls_registry: &Registry) -> Variables {
    let images = shared.path("images");
    fs::create_dir_all(&images).expect("create the directory of images");
    let archive = |name: &str| images.join(name).display().to_string();
    let created = ["--created", "2015-01-02T03:04:05Z"];
    let busybox = |name: &str, options: &[&str]| {
        let mut command = fixture("busybox");
        command.args([&archive(name), "-", "-"]).args(created).args(options);
        succeed(&mut command);
    };
    busybox("busybox.tar", &["--name", "busybox:latest"]);
    busybox("layout.tar", &["--name", "busybox:layout", "--format", "oci"]);
    busybox(
        "tool.tar",
        &[
            "--name",
            "tool:1",
            "--entrypoint",
            r#"["echo","tool"]"#,
            "--cmd",
            r#"["default"]"#,
            "--env",
            "COLOUR=red",
            "--workdir",
            "/tmp",
            "--user",
            "app",
            "--label",
            "vendor=fixture",
        ],
    );
    let layer = shared.path("layer");
    fs::create_dir_all(layer.join("etc")).expect("create a layer");
    fs::write(layer.join("etc/release"), "one\n").expect("write a layer");
    fs::write(layer.join("etc/.wh.group"), "").expect("write a whiteout");
    let base = shared.path("base");
    fs::create_dir_all(base.join("bin")).expect("create a layer");
    fs::create_dir_all(base.join("etc")).expect("create a layer");
    fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
    std::os::unix::fs::symlink("busybox", base.join("bin/sh")).expect("link sh");
    fs::write(base.join("etc/group"), "root:x:0:\n").expect("write a layer");
    succeed(
        fixture("image")
            .args(["--mtime", "1700000000", "--name", "layers:1", "-o", &archive("layers.tar")])
            .args(created)
            .args([&base, &layer]),
    );
    for (number, text) in [("1", "one"), ("2", "two")] {
        let lines: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
        fs::write(layer.join("etc/release"), text.to_string() + &lines).expect("write a layer");
        let name = format!("app:{number}");
        succeed(
            fixture("image")
                .args([
                    "--mtime",
                    "1700000000",
                    "--name",
                    &name,
                    "-o",
                    &archive(&format!("app{number}.tar")),
                ])
                .args(created)
                .args([&base, &layer]),
        );
    }
    for (name, platform) in
        [("armv5.tar", "linux/arm/v5"), ("armv7.tar", "linux/arm/v7"), ("arm64.tar", "linux/arm64")]
    {
        let variant = format!("VARIANT={platform}");
        succeed(
            fixture("image")
                .args(["-o", &archive(name), "--platform", platform, "--env", &variant])
                .args(created)
                .arg(&layer),
        );
    }
    push(registry, "busybox:latest", &[], &[&archive("busybox.tar")]);
    push(registry, "team/oci:1.0", &["--oci"], &[&archive("layers.tar")]);
    let all =
        [archive("busybox.tar"), archive("armv5.tar"), archive("armv7.tar"), archive("arm64.tar")];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    push(registry, "multi:list", &[], &all);
    push(registry, "multi:index", &["--oci"], &all);
    push(registry, "armonly:latest", &[], &all[1..]);
    let authority = tls_registry.authority().display().to_string();
    push(tls_registry, "busybox:latest", &["--ca", &authority], &[&archive("busybox.tar")]);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    [
        ("REGISTRY", registry.address.clone()),
        ("TLS_REGISTRY", tls_registry.address.clone()),
        ("CA", authority),
        ("IMAGES", images.display().to_string()),
        ("FIXTURES", fixtures.display().to_string()),
        ("VAQUITA", sandbox::binary().display().to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

fn push(registry: &Registry, name: &str, options: &[&str], archives: &[&str]) {
    succeed(
        fixture("push").args(options).arg(format!("{}/{name}", registry.address)).args(archives),
    );
}

/// A command of a case and what it must do.
#[derive(Default)]
struct Step {
    line: usize,
    command: String,
    stdout: Vec<String>,
    stderr: Vec<String>,
    code: i32,
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { line: number + 1, command: command.into(), ..Step::default() });
            continue;
        }
        let Some(step) = steps.last_mut() else { continue };
        if line.starts_with("# ") {
            continue;
        }
        if let Some(more) = line.strip_prefix("> ") {
            step.command.push('\n');
            step.command.push_str(more);
            continue;
        }
        match line.split_once(' ') {
            Some(("!", text)) => step.stderr.push(text.into()),
            Some(("?", code)) => step.code = code.parse().expect("`? ` and a number"),
            _ => step.stdout.push(line.into()),
        }
    }
    for step in &mut steps {
        while step.stdout.last().is_some_and(String::is_empty) {
            step.stdout.pop();
        }
    }
    steps
}

fn run_case(path: &Path, mut variables: Variables) -> Result<(), String> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let sandbox = Sandbox::new(&format!("case-{name}"));
    for step in parse(&fs::read_to_string(path).expect("read a case")) {
        let outcome = sandbox.shell(&step.command, &variables);
        let stdout = lines_match(&step.stdout, &outcome.stdout, &mut variables);
        let stderr = lines_match(&step.stderr, &outcome.stderr, &mut variables);
        if !stdout || !stderr || outcome.code != step.code {
            return Err(format!(
                "{}:{}: $ {}\n--- expected ({})\n{}\n! {}\n--- printed ({})\n{}! {}",
                path.display(),
                step.line,
                step.command,
                step.code,
                step.stdout.join("\n"),
                step.stderr.join("\n! "),
                outcome.code,
                outcome.stdout,
                outcome.stderr,
            ));
        }
    }
    Ok(())
}

fn lines_match(expected: &[String], actual: &str, variables: &mut Variables) -> bool {
    let loose_gaps = expected.iter().any(|line| line.contains("<ago>"));
    let tidy = |line: &str| if loose_gaps { narrow_gaps(line) } else { line.to_string() };
    let expected: Vec<String> = expected.iter().map(|line| tidy(line)).collect();
    let actual: Vec<String> = actual.lines().map(tidy).collect();
    some_lines_match(&expected, &actual, variables)
}

fn some_lines_match(expected: &[String], actual: &[String], variables: &mut Variables) -> bool {
    match (expected.split_first(), actual.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=actual.len()).any(|skipped| some_lines_match(rest, &actual[skipped..], variables))
        }
        (Some((first, rest)), Some((line, lines))) => {
            let mut found = variables.clone();
            if line_matches(first, line, &mut found) && some_lines_match(rest, lines, &mut found) {
                *variables = found;
                return true;
            }
            false
        }
        _ => false,
    }
}

/// Three spaces or more, the gap between columns, as exactly three; none at the end.
fn narrow_gaps(line: &str) -> String {
    let columns: Vec<&str> =
        line.split("   ").map(str::trim).filter(|column| !column.is_empty()).collect();
    columns.join("   ")
}

/// Whether `text` is what `pattern` says; what it names is added to `variables`.
fn line_matches(pattern: &str, text: &str, variables: &mut Variables) -> bool {
    let Some((literal, rest)) = pattern.split_once('<') else { return pattern == text };
    let Some(text) = text.strip_prefix(literal) else { return false };
    let Some((placeholder, rest)) = rest.split_once('>') else { return false };
    let (class, name) = placeholder.split_once(':').unwrap_or((placeholder, ""));
    let ends = (0..=text.len()).rev().filter(|&end| text.is_char_boundary(end));
    for (value, after) in ends.map(|end| text.split_at(end)) {
        let Some(fits) = fits(class, value, variables) else {
            // Not a placeholder: `<none>` is what Docker prints.
            return text.strip_prefix('<').is_some_and(|text| {
                let literal_end = format!("{placeholder}>");
                text.strip_prefix(&literal_end)
                    .is_some_and(|text| line_matches(rest, text, variables))
            });
        };
        let mut found = variables.clone();
        if fits && bind(name, value, &mut found) && line_matches(rest, after, &mut found) {
            *variables = found;
            return true;
        }
    }
    false
}

/// Whether `value` is of the class; `None` if there is no such class.
fn fits(class: &str, value: &str, variables: &Variables) -> Option<bool> {
    let hex = |length| {
        value.len() == length && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let ago = value.strip_suffix(" ago");
    let known = |name: &str| variables.iter().any(|(known, its)| known == name && its == value);
    Some(match class {
        "any" => true,
        "id" => hex(12),
        "sha" => hex(64),
        "name" => {
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }
        "registry" => known("REGISTRY"),
        "tls-registry" => known("TLS_REGISTRY"),
        "years" => ago.is_some_and(|span| span.len() == 8 && span.ends_with(" years")),
        "ago" => ago.is_some_and(|span| {
            let short = ["Less than a second", "1 second", "About a minute"].contains(&span);
            short || span.strip_suffix(" seconds").is_some_and(|n| n.parse::<u8>().is_ok())
        }),
        "time" => value.len() >= 20 && value.ends_with('Z') && value.as_bytes()[10] == b'T',
        _ => return None,
    })
}

fn bind(name: &str, value: &str, variables: &mut Variables) -> bool {
    match variables.iter().find(|(known, _)| known == name) {
        _ if name.is_empty() => true,
        Some((_, known)) => known == value,
        None => {
            variables.push((name.into(), value.into()));
            true
        }
    }
}

#[test]
fn the_matcher_itself() {
    let id = "0123456789ab";
    for (pattern, text, expected) in [
        ("plain", "plain", true),
        ("plain", "plainer", false),
        ("<none>   <none>", "<none>   <none>", true),
        ("<none>", "<some>", false),
        ("a <id> b", &format!("a {id} b"), true),
        ("a <id> b", "a 0123456789aX b", false),
        ("a <id> b", "a 0123456789abc b", false),
        ("<id:X> <id:X>", &format!("{id} {id}"), true),
        ("<id:X> <id:X>", &format!("{id} 1123456789ab"), false),
        ("<any>: <any>", "open x: no such file", true),
        ("Up <ago>", "Up 3 seconds ago", true),
        ("Up <ago>", "Up 3 weeks ago", false),
        ("<years>", "11 years ago", true),
    ] {
        assert_eq!(line_matches(pattern, text, &mut Vec::new()), expected, "{pattern} {text}");
    }
    let expected = ["a".to_string(), "...".into(), "z".into()];
    assert!(lines_match(&expected, "a\nb\nc\nz\n", &mut Vec::new()));
    assert!(!lines_match(&expected, "a\nb\nc\n", &mut Vec::new()));
}
