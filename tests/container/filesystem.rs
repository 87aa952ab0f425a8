//! What the container sees and what it can change.

use std::fs;
use std::os::unix::fs::symlink;

use crate::Test;
use crate::fixture::Fixture;

pub const TESTS: &[Test] = &[
    ("changes_go_to_the_upper_directory", changes_go_to_the_upper_directory),
    ("shows_no_mount_of_the_host", shows_no_mount_of_the_host),
    ("hides_and_protects_the_kernel", hides_and_protects_the_kernel),
    ("privileged_hides_nothing", privileged_hides_nothing),
    ("root_can_be_read_only", root_can_be_read_only),
    ("binds", binds),
    ("binds_cannot_leave_by_links", binds_cannot_leave_by_links),
    ("binds_restrict_what_lies_below", binds_restrict_what_lies_below),
    ("device_nodes_work_only_in_dev", device_nodes_work_only_in_dev),
    ("a_hundred_layers", a_hundred_layers),
    ("links_of_the_image_stay_inside", links_of_the_image_stay_inside),
    ("links_of_proc_lead_nowhere", links_of_proc_lead_nowhere),
    ("says_what_is_missing", says_what_is_missing),
    ("leaves_no_mount_behind", leaves_no_mount_behind),
];

fn changes_go_to_the_upper_directory(fixture: &Fixture) {
    assert_eq!(fixture.run(&[], &["sh", "-c", "echo new > /tmp/file"]).code, 0);
    assert_eq!(fs::read_to_string(fixture.path("upper/tmp/file")).unwrap(), "new\n");
    assert!(!fixture.lower("tmp/file").exists());
}

fn shows_no_mount_of_the_host(fixture: &Fixture) {
    let outcome = fixture.run(&[], &["cat", "/proc/self/mountinfo"]);
    let points: Vec<&str> =
        outcome.stdout.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    let allowed = |point: &&str| {
        *point == "/" || ["/proc", "/sys", "/dev"].iter().any(|top| point.starts_with(top))
    };
    assert!(points.iter().all(allowed), "{points:?}");
    assert!(points.len() <= 35, "{points:?}");
    let host = fixture.dir.to_str().unwrap();
    assert!(!outcome.stdout.contains(host), "{}", outcome.stdout);
}

fn hides_and_protects_the_kernel(fixture: &Fixture) {
    let script = "/bin/cat /proc/kcore | /bin/wc -c; /bin/cat /proc/timer_list | /bin/wc -c; /bin/ls /sys/firmware | /bin/wc -l; \
                  /bin/mkdir /sys/fs/x; echo 1 > /proc/sys/vm/drop_caches; /bin/touch /dev/shm/file && echo shm";
    let outcome = fixture.run(&[], &["sh", "-c", script]);
    assert_eq!(outcome.stdout, "0\n0\n0\nshm\n");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{}", outcome.stderr);
}

fn privileged_hides_nothing(fixture: &Fixture) {
    let script = "/bin/cat /proc/self/mountinfo";
    let outcome = fixture.run(&["privileged"], &["sh", "-c", script]);
    assert!(outcome.stdout.contains(" /sys rw,"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("/proc/timer_list"));
    let devices = fixture.run(
        &["privileged"],
        &["sh", "-c", "/bin/ls /dev; /bin/mknod /tmp/n c 1 3; echo > /tmp/n"],
    );
    assert_eq!(devices.stderr, "");
    let host: Vec<_> =
        fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for name in ["kmsg", "vda", "fuse"].iter().filter(|name| host.iter().any(|h| h == *name)) {
        assert!(devices.stdout.lines().any(|line| line == *name), "{name}: {}", devices.stdout);
    }
}

fn root_can_be_read_only(fixture: &Fixture) {
    let script = "/bin/touch /file; /bin/touch /dev/shm/ok && pwd";
    let outcome = fixture.run(&["read-only", "cwd=/made"], &["sh", "-c", script]);
    assert_eq!(outcome.stdout, "/made\n");
    assert_eq!(outcome.stderr, "touch: /file: Read-only file system\n");
}

fn binds(fixture: &Fixture) {
    fs::create_dir(fixture.path("data")).unwrap();
    fs::write(fixture.path("data/file"), "old").unwrap();
    fs::write(fixture.path("hosts"), "hosts").unwrap();
    let (data, hosts) = (fixture.path("data"), fixture.path("hosts"));
    let words = [
        format!("mount={}:/new/data", data.display()),
        format!("mount={}:/new:ro", data.display()),
        format!("mount={}:/etc/hosts", hosts.display()),
        format!("mount={}:/sub/file:ro", hosts.display()),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    fs::create_dir(fixture.path("data/data")).unwrap();
    let script = "/bin/cat /new/file /etc/hosts /sub/file; echo x > /new/file; echo x > /sub/file; \
                  echo new > /new/data/made";
    let outcome = fixture.run(&words, &["sh", "-c", script]);
    assert_eq!(outcome.stdout, "oldhostshosts");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(fixture.path("data/made")).unwrap(), "new\n");
}

fn binds_cannot_leave_by_links(fixture: &Fixture) {
    let outside = fixture.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(fixture.path("data")).unwrap();
    symlink(&outside, fixture.lower("absolute")).unwrap();
    symlink("../../../../../../../../..", fixture.lower("above")).unwrap();
    fs::create_dir_all(fixture.lower(outside.to_str().unwrap().trim_start_matches('/'))).unwrap();
    for target in ["/absolute/dir", "/above/made/dir", "/tmp/../../../../made2/dir"] {
        let word = format!("mount={}:{target}", fixture.path("data").display());
        let script = format!("echo x > {target}/through");
        let outcome = fixture.run(&[&word], &["sh", "-c", &script]);
        assert_eq!(outcome.code, 0, "{target}: {outcome:?}");
        assert_eq!(fs::read_to_string(fixture.path("data/through")).unwrap(), "x\n");
        fs::remove_file(fixture.path("data/through")).unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!std::path::Path::new("/made").exists() && !std::path::Path::new("/made2").exists());
    assert!(fixture.path("upper/made/dir").is_dir() && fixture.path("upper/made2/dir").is_dir());
}

/// Only with mount_setattr (Linux 5.12; not under qemu-user).
fn binds_restrict_what_lies_below(fixture: &Fixture) {
    if std::env::var_os("VAQUITA_TEST_BUSYBOX").is_some() {
        return;
    }
    let script =
        "echo x > /host/dev/shm/vaquita-test; /bin/cat /host/dev/null; /bin/cat /host/dev/zero";
    let outcome = fixture.run(&["mount=/:/host:ro"], &["sh", "-c", script]);
    let (read_only, refused) = ("Read-only file system", "Permission denied");
    assert_eq!(outcome.stderr.matches(read_only).count(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches(refused).count(), 2, "{}", outcome.stderr);
}

fn device_nodes_work_only_in_dev(fixture: &Fixture) {
    fs::create_dir(fixture.path("data")).unwrap();
    let word = format!("mount={}:/data", fixture.path("data").display());
    let script = "for d in /tmp /dev /dev/shm /data; do /bin/mknod $d/n c 1 3; echo x > $d/n; done; \
                  echo x > /dev/null && /bin/head -c 2 /dev/zero | /bin/wc -c";
    let outcome = fixture.run(&[&word], &["sh", "-c", script]);
    assert_eq!(outcome.stderr.matches("Permission denied").count(), 4, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "2\n");
}

fn a_hundred_layers(fixture: &Fixture) {
    let mut words = Vec::new();
    for number in (0..100).rev() {
        let layer = fixture.path(&format!("layer-with-a-rather-long-name-{number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("top"), format!("{number}")).unwrap();
        fs::write(layer.join(format!("file{number}")), ".").unwrap();
        words.push(format!("lower={}", layer.display()));
    }
    words.push(format!("lower={}", fixture.path("lower").display()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome =
        fixture.run(&words, &["sh", "-c", "/bin/cat /top; echo; /bin/cat /file* | /bin/wc -c"]);
    assert_eq!(outcome.stdout, "99\n100\n", "{}", outcome.stderr);
}

/// An image whose /proc, /dev and /etc are links to directories of the host must not reach them.
fn links_of_the_image_stay_inside(fixture: &Fixture) {
    let outside = fixture.path("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("passwd"), "web:x:4444:4444::/:\n").unwrap();
    fs::rename(fixture.lower("etc"), fixture.lower("etc.old")).unwrap();
    symlink(&outside, fixture.lower("etc")).unwrap();
    symlink(&outside, fixture.lower("dev")).unwrap();
    let outcome = fixture.run(&["user=web"], &["id"]);
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert!(!outcome.stdout.contains("4444"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// Such a link of the image, as the working directory or a mount target, would lead to the host: during the start the
/// child may follow it, or has the host's root open.
fn links_of_proc_lead_nowhere(fixture: &Fixture) {
    let outside = fixture.path("outside");
    fs::create_dir(&outside).unwrap();
    let bind = format!("mount={}:/link/made", fixture.path("lower").display());
    for (number, start) in
        ["/proc/self/root", "/proc/self/fd/4", "/proc/self/fd/5", "/host/1/root"].iter().enumerate()
    {
        let link = fixture.lower("link");
        let _ = fs::remove_file(&link);
        symlink(format!("{start}{}", outside.display()), link).unwrap();
        for word in ["cwd=/link/made", &bind] {
            let outcome = fixture.run(&["mount=/proc:/host", word], &["pwd"]);
            assert_eq!(outcome.code, 125, "{number} {outcome:?}");
            assert!(outcome.stderr.contains("\"/link/made\": "), "{outcome:?}");
            assert!(!outcome.stderr.contains(start), "{outcome:?}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{start}");
    }
}

fn says_what_is_missing(fixture: &Fixture) {
    let missing = fixture.path("missing").display().to_string();
    for (words, message) in [
        (
            &[&*format!("lower={missing}")][..],
            format!("mount overlay on \"{}\": No such file", fixture.path("mountpoint").display()),
        ),
        (
            &[&*format!("mount={missing}:/x")],
            format!("open mount source \"{missing}\": No such file or directory (os error 2)\n"),
        ),
        (
            &[&*format!("mount={}:/bin", fixture.lower("etc/passwd").display())],
            "bind mount on \"/bin\": Not a directory (os error 20)\n".into(),
        ),
    ] {
        let outcome = fixture.run(words, &["true"]);
        assert_eq!(outcome.code, 125);
        assert!(outcome.stderr.starts_with(&message), "{}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1);
    }
}

fn leaves_no_mount_behind(fixture: &Fixture) {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(fixture.run(&["tty"], &["true"]).code, 0);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(fs::read_dir(fixture.path("mountpoint")).unwrap().count(), 0);
}
