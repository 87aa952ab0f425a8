//! The command: how it ends, who it runs as, what it may do, what it inherits.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::Test;
use crate::fixture::Fixture;

pub const TESTS: &[Test] = &[
    ("exit_codes", exit_codes),
    ("commands_that_cannot_run", commands_that_cannot_run),
    ("killed_is_128_and_the_signal", killed_is_128_and_the_signal),
    ("forwards_signals", forwards_signals),
    ("dies_with_its_parent", dies_with_its_parent),
    ("environment_and_home", environment_and_home),
    ("users", users),
    ("capabilities", capabilities),
    ("is_process_1_with_a_name", is_process_1_with_a_name),
    ("has_only_lo", has_only_lo),
    ("inherits_no_descriptors", inherits_no_descriptors),
    ("starts_with_default_signals", starts_with_default_signals),
    ("relays_10_mb_of_input", relays_10_mb_of_input),
    ("input_is_empty_unless_asked_for", input_is_empty_unless_asked_for),
    ("starts_with_closed_stdio", starts_with_closed_stdio),
    ("starts_two_in_one_process", starts_two_in_one_process),
    ("process_1_reaps_orphans", process_1_reaps_orphans),
];

fn exit_codes(fixture: &Fixture) {
    for (command, code) in [(&["true"][..], 0), (&["false"], 1), (&["sh", "-c", "exit 77"], 77)] {
        assert_eq!(fixture.run(&[], command).code, code, "{command:?}");
    }
}

fn commands_that_cannot_run(fixture: &Fixture) {
    let executable = |path: &str, text: &[u8]| {
        std::fs::write(fixture.lower(path), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(fixture.lower(path), mode).unwrap();
    };
    executable("bin/script", b"#!/no/such/sh\n");
    executable("bin/text", b"echo no shebang\n");
    executable("bin/foreign", b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\x00\x02\x00\x16\0\0\0\0");
    fixture.write("bin/data", "");
    for (command, code, message) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("", 127, "exec: \"\": executable file not found in $PATH"),
        (
            "script",
            127,
            "exec: \"script\": /bin/script is there, but not the interpreter or loader that it names",
        ),
        ("/etc", 126, "exec: \"/etc\": permission denied"),
        ("data", 126, "exec: \"data\": permission denied"),
        ("text", 126, "exec: \"text\": exec format error: neither an ELF program nor a #! script"),
        (
            "foreign",
            126,
            "exec: \"foreign\": exec format error: built for s390x, which this kernel",
        ),
    ] {
        let outcome = fixture.run(&[], &[command]);
        assert_eq!(outcome.code, code, "{command}: {outcome:?}");
        assert!(outcome.stderr.starts_with(message), "{command}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1);
    }
}

fn killed_is_128_and_the_signal(fixture: &Fixture) {
    let mut engine = fixture.spawn(&[], &["sh", "-c", "echo ready; exec /bin/sleep 60"]);
    // Before that the child is not yet the program: killed then, it could not be started.
    assert_eq!(fixture.lines_of(&mut engine).next().as_deref(), Some("ready"));
    let container = fixture.container_of(&engine);
    vaquita::sys::process::kill(container, 9).unwrap();
    assert_eq!(engine.wait().unwrap().code(), Some(137));
    let outcome = fixture.run(&[], &["sh", "-c", "sh -c 'kill -9 $$'; echo $?"]);
    assert_eq!(outcome.stdout, "137\n");
}

fn forwards_signals(fixture: &Fixture) {
    let script = "trap 'exit 143' TERM; trap 'echo usr1' USR1; trap 'echo int' INT; echo ready; \
                  while :; do /bin/sleep 0.05; done";
    let mut engine = fixture.spawn(&[], &["sh", "-c", script]);
    let mut lines = fixture.lines_of(&mut engine);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let pid = fixture.pid_of(&engine);
    for (signal, line) in [(10, "usr1"), (2, "int")] {
        vaquita::sys::process::kill(pid, signal).unwrap();
        assert_eq!(lines.next().as_deref(), Some(line));
    }
    vaquita::sys::process::kill(pid, 15).unwrap();
    assert_eq!(engine.wait().unwrap().code(), Some(143));
}

fn dies_with_its_parent(fixture: &Fixture) {
    for words in [&[][..], &["user=web"]] {
        let mut engine = fixture.spawn(words, &["sh", "-c", "echo ready; /bin/sleep 60"]);
        assert_eq!(fixture.lines_of(&mut engine).next().as_deref(), Some("ready"));
        let container = fixture.container_of(&engine);
        engine.kill().unwrap();
        engine.wait().unwrap();
        fixture.until("the container is gone", || {
            // As an orphan it may stay a zombie for a while: whoever is process 1 here has to collect it.
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", fixture.number(container)));
            stat.map_or(true, |stat| stat.contains(") Z "))
        });
    }
}

fn environment_and_home(fixture: &Fixture) {
    let outcome = fixture.run(&["env=A=b c", "env=HOSTNAME=other"], &["env"]);
    let mut lines: Vec<&str> = outcome.stdout.lines().collect();
    lines.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["A=b c", "HOME=/root", "HOSTNAME=other", path]);
    for (words, home) in [
        (&["user=web"][..], "/srv\n"),
        (&["user=1000"], "/\n"),
        (&["user=web", "env=HOME=/mine"], "/mine\n"),
    ] {
        assert_eq!(fixture.run(words, &["sh", "-c", "echo $HOME"]).stdout, home);
    }
    let outcome = fixture.run(&["env=PATH=/tools"], &["true"]);
    assert_eq!(outcome.code, 127);
}

fn users(fixture: &Fixture) {
    for (user, identity) in [
        ("web", "uid=33(web) gid=34(web) groups=11(adm),34(web)\n"),
        ("33", "uid=33(web) gid=34(web) groups=11(adm),34(web)\n"),
        ("web:11", "uid=33(web) gid=11(adm) groups=11(adm)\n"),
        ("1000:7", "uid=1000 gid=7 groups=7\n"),
        ("0", "uid=0(root) gid=0(root) groups=0(root)\n"),
    ] {
        assert_eq!(fixture.run(&[&format!("user={user}")], &["id"]).stdout, identity, "{user}");
    }
    for (user, message) in [
        ("nobody", "unable to find user nobody: no matching entries in passwd file\n"),
        ("web:nobody", "unable to find group nobody: no matching entries in group file\n"),
    ] {
        let outcome = fixture.run(&[&format!("user={user}")], &["id"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (125, message));
    }
}

fn capabilities(fixture: &Fixture) {
    const NONE: &str = "0000000000000000";
    const DOCKER: &str = "00000000a80425fb";
    for (words, held, bounding) in [
        (&[][..], DOCKER, DOCKER),
        (&["user=1000"], NONE, DOCKER),
        (&["cap-drop=ALL"], NONE, NONE),
        (&["cap-add=NET_ADMIN", "cap-drop=MKNOD"], "00000000a00435fb", "00000000a00435fb"),
    ] {
        let set = |name: &str| fixture.status(words, name);
        assert_eq!([set("CapEff"), set("CapPrm"), set("CapBnd")], [held, held, bounding]);
        assert_eq!([set("CapInh"), set("CapAmb")], [NONE, NONE]);
    }
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    assert_eq!(fixture.status(&["privileged"], "CapEff"), own);
    assert_eq!(fixture.status(&[], "NoNewPrivs"), "0");
    assert_eq!(fixture.status(&["no-new-privileges"], "NoNewPrivs"), "1");
    let outcome = fixture.run(&["cap-add=FLY"], &["true"]);
    assert_eq!((outcome.code, &*outcome.stderr), (125, "invalid capability: \"FLY\"\n"));
}

fn is_process_1_with_a_name(fixture: &Fixture) {
    let script = "echo $$; /bin/hostname; /bin/cat /proc/sys/kernel/hostname; umask; /bin/readlink /proc/self/cwd";
    let outcome = fixture.run(&["hostname=whale", "cwd=/made/here"], &["sh", "-c", script]);
    assert_eq!(outcome.stdout, "1\nwhale\nwhale\n0022\n/made/here\n");
}

fn has_only_lo(fixture: &Fixture) {
    let outcome = fixture.run(&["net-none"], &["ip", "address"]);
    let interfaces: Vec<&str> =
        outcome.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(interfaces.len(), 1, "{outcome:?}");
    assert!(interfaces[0].starts_with("1: lo: <LOOPBACK,UP,LOWER_UP>"), "{}", interfaces[0]);
    assert!(outcome.stdout.contains("inet 127.0.0.1/8"));
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = fixture.run(&[], &["readlink", "/proc/self/ns/net"]);
    assert_eq!(inside.stdout.trim(), host.to_str().unwrap());
}

/// 3 is the directory that ls itself has open.
fn inherits_no_descriptors(fixture: &Fixture) {
    let mut engine =
        fixture.shell("exec 7<\"$0\" 9<\"$1\"; exec \"$@\"", &[], &["ls", "/proc/self/fd"]);
    let output = engine.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n");
}

fn starts_with_default_signals(fixture: &Fixture) {
    let command = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let mut engine = fixture.shell("trap '' CHLD INT PIPE TERM HUP; exec \"$@\"", &[], &command);
    let output = engine.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    // The C library keeps signals 32 and 33 for itself and lets nobody reset them.
    let text = String::from_utf8_lossy(&output.stdout).replace("180000000", "000000000");
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

fn relays_10_mb_of_input(fixture: &Fixture) {
    let input: Vec<u8> =
        (0..10_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = vaquita::digest::Digest::of(&input).to_string();
    let outcome = fixture.run_with_input(&["stdin"], &["sha256sum"], &input);
    assert_eq!(outcome.stdout, format!("{}  -\n", digest.trim_start_matches("sha256:")));
}

fn input_is_empty_unless_asked_for(fixture: &Fixture) {
    assert_eq!(fixture.run_with_input(&[], &["cat"], b"text").stdout, "");
    assert_eq!(fixture.run_with_input(&["stdin"], &["cat"], b"text").stdout, "text");
}

fn starts_with_closed_stdio(fixture: &Fixture) {
    let script = "/bin/ls -l /proc/self/fd > /result; echo lost; echo lost >&2";
    let mut engine = fixture.shell("exec \"$@\" <&- >&- 2>&-", &["stdin"], &["sh", "-c", script]);
    assert_eq!(engine.status().unwrap().code(), Some(0));
    let result = std::fs::read_to_string(fixture.path("upper/result")).unwrap();
    assert!(result.contains("0 -> /dev/null") && result.contains("2 -> /dev/null"), "{result}");
}

fn starts_two_in_one_process(fixture: &Fixture) {
    let outcome = fixture.run(&["twice"], &["sh", "-c", "echo $$"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "1\n1\n"));
}

/// In a pid namespace of its own the engine is process 1: the background process below becomes its child.
fn process_1_reaps_orphans(fixture: &Fixture) {
    let command = fixture.command(&["stdin"], &["sh", "-c", "echo ready; read line"]);
    let mut engine = Command::new("unshare");
    engine.args(["--pid", "--fork", "sh", "-c", "(sleep 0.01 &); exec \"$@\"", "sh"]);
    engine.arg(command.get_program()).args(command.get_args());
    let mut engine = engine.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(fixture.lines_of(&mut engine).next().as_deref(), Some("ready"));
    let init = fixture.container_of(&engine);
    fixture.until("only the container is left", || fixture.children(init).len() == 1);
    drop(engine.stdin.take());
    assert_eq!(engine.wait().unwrap().code(), Some(1));
}
