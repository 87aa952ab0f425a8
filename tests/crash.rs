//! Ends the process at every step by which the store changes, or lets that step fail, and holds what must hold then.
//!
//! Only with `--features fault` (src/sys/fault.rs). For each command and each point N: the store is put back to what it was
//! before, the command runs and is killed at N. Then `check --deep` must find no damage, every name must stand for what it
//! stood for before or for what the command was to make of it, and the same command again must come to its end, with
//! nothing left over, on the disk or mounted. The same with ENOSPC and EIO at N instead of a kill: the error must be one line, nothing may panic.
//!
//! A kill leaves the page cache as it is, so this is about the order of steps; whether each is durable when the next begins
//! is for real power cuts to show. The stores lie on a tmpfs.
//!
//! `CRASH=rmi cargo test --features fault --test crash` runs the scenarios whose name contains `rmi`.

mod sandbox;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use sandbox::{Outcome, Registry, Sandbox, fixture, succeed};

const SIGKILL: i32 = 128 + 9;
/// More points than any command here has.
const MAX_POINTS: usize = 2000;
/// Scenarios at a time: they wait for processes, not for each other.
const THREADS: usize = 3;

/// Images by name, and containers by name: what a store announces.
type Announced = BTreeMap<String, String>;

/// A command and the store that it starts from.
struct Scenario {
    name: &'static str,
    /// Makes the store that the command starts from; `vaquita` is in its PATH.
    prepare: &'static str,
    command: &'static str,
    /// What makes the command possible again after a crash, if it is not so by itself.
    again: &'static str,
    /// What must hold at any time beside what `verify` looks at.
    holds: &'static str,
    /// The name of an image that is dated when it is made, so that each has another ID.
    dated: &'static str,
    /// Not every point, but one of so many.
    stride: usize,
}

/// What most scenarios have.
const PLAIN: Scenario =
    Scenario { name: "", prepare: "true", command: "", again: "", holds: "", dated: "", stride: 1 };

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "pull", command: "vaquita pull -q $REGISTRY/several:1", ..PLAIN },
    // More nodes than a window holds.
    Scenario {
        name: "pull-long",
        command: "vaquita pull -q $REGISTRY/long:1",
        stride: 23,
        ..PLAIN
    },
    // Several checkpoints, and members that replace what they rely on: the next try goes on from one.
    Scenario {
        name: "pull-replacing",
        command: "vaquita pull -q $REGISTRY/replacing:1",
        stride: 29,
        ..PLAIN
    },
    Scenario {
        name: "pull-update",
        prepare: "vaquita pull -q $REGISTRY/moving:1; $FIXTURES/push $REGISTRY/moving:1 $IMAGES/app2.tar",
        command: "vaquita pull -q $REGISTRY/moving:1",
        ..PLAIN
    },
    Scenario {
        name: "pull-delta",
        prepare: "vaquita load -q -i $IMAGES/app1.tar",
        command: "vaquita pull -q $REGISTRY/app:delta",
        ..PLAIN
    },
    Scenario {
        name: "pull-mends",
        prepare: "vaquita pull -q $REGISTRY/several:1; vaquita tag $REGISTRY/several:1 keep:1; rm $(ls -d data/layers/*/layer.json | head -n 1)",
        command: "vaquita pull -q $REGISTRY/several:1",
        stride: 2,
        ..PLAIN
    },
    Scenario {
        name: "repair",
        prepare: "vaquita pull -q $REGISTRY/several:1; printf x >$(ls -d data/layers/*/fs/etc/release | head -n 1)",
        command: "vaquita check --deep --repair",
        ..PLAIN
    },
    Scenario {
        name: "load",
        prepare: "vaquita load -q -i $IMAGES/app1.tar",
        command: "vaquita load -q -i $IMAGES/app2.tar",
        ..PLAIN
    },
    Scenario {
        name: "load-delta",
        prepare: "vaquita load -q -i $IMAGES/app1.tar",
        command: "vaquita load -q -i $IMAGES/delta.tar",
        stride: 3,
        ..PLAIN
    },
    Scenario {
        name: "import",
        prepare: "tar -cf tree.tar -C $IMAGES/layers/a .",
        command: "vaquita import tree.tar made:1",
        dated: "made:1",
        stride: 3,
        ..PLAIN
    },
    Scenario {
        name: "commit",
        prepare: "vaquita load -q -i $IMAGES/busybox.tar; \
                  vaquita run --name web busybox:latest sh -c 'echo x >/new; rm -r /home /var; mkdir /var'",
        command: "vaquita commit -c 'CMD x' web made:1",
        dated: "made:1",
        ..PLAIN
    },
    Scenario {
        name: "delta",
        prepare: "vaquita load -q -i $IMAGES/app1.tar; vaquita load -q -i $IMAGES/app2.tar",
        command: "vaquita image delta app:1 app:2 -t app:made",
        dated: "app:made",
        ..PLAIN
    },
    // What was there stays until the archive is whole.
    Scenario {
        name: "save",
        prepare: "vaquita load -q -i $IMAGES/app1.tar",
        command: "echo earlier >out.tar; exec vaquita save -o out.tar app:1",
        holds: "grep -qx earlier out.tar || { tar -tf out.tar >list && tar -xOf out.tar manifest.json | grep -q app:1; }",
        ..PLAIN
    },
    // Each store in its turn pushes to a repository of its own, so that there is something to push.
    Scenario {
        name: "push",
        prepare: "vaquita load -q -i $IMAGES/several.tar",
        command: "mkdir -p run; [ -s run/name ] || echo $REGISTRY/pushed/$$:1 >run/name; name=$(cat run/name); \
                  env -u VAQUITA_FAULT vaquita tag several:1 $name; vaquita push -q $name; code=$?; \
                  env -u VAQUITA_FAULT vaquita rmi -f $name >/dev/null; exit $code",
        ..PLAIN
    },
    Scenario {
        name: "tag",
        prepare: "vaquita load -q -i $IMAGES/app1.tar; vaquita load -q -i $IMAGES/app2.tar; vaquita tag app:1 now:1",
        command: "vaquita tag app:2 now:1",
        ..PLAIN
    },
    Scenario {
        name: "rmi",
        prepare: "vaquita pull -q $REGISTRY/several:1; vaquita load -q -i $IMAGES/app1.tar",
        command: "vaquita rmi $REGISTRY/several:1",
        ..PLAIN
    },
    // One that a container uses, one without a name, two with.
    Scenario {
        name: "image-prune",
        prepare: "for file in busybox several app1 app2; do vaquita load -q -i $IMAGES/$file.tar; done; \
                  vaquita tag app:2 app:1; vaquita run --name web busybox:latest true",
        command: "vaquita image prune -af",
        stride: 5,
        ..PLAIN
    },
    Scenario {
        name: "container-prune",
        prepare: "vaquita load -q -i $IMAGES/busybox.tar; \
                  for name in one two; do vaquita run --name $name busybox:latest touch /new; done",
        command: "vaquita container prune -f",
        stride: 5,
        ..PLAIN
    },
    Scenario {
        name: "collect",
        prepare: "vaquita load -q -i $IMAGES/app1.tar; cp -a data/images images; vaquita load -q -i $IMAGES/app2.tar; \
                  rm -r data/images data/references; mv images data/images; mkdir data/references data/stages/old; \
                  echo x >data/stages/old/file; echo x >data/references/.a.new",
        command: "vaquita check --repair",
        ..PLAIN
    },
    Scenario {
        name: "run",
        prepare: "vaquita load -q -i $IMAGES/busybox.tar",
        command: "vaquita run --name web busybox:latest true",
        again: "vaquita rm -f web",
        ..PLAIN
    },
    Scenario {
        name: "rm",
        prepare: "vaquita load -q -i $IMAGES/busybox.tar; vaquita run --name web busybox:latest true",
        command: "vaquita rm web",
        ..PLAIN
    },
    // Of two layers, merged; of one, bound.
    Scenario {
        name: "mount",
        prepare: "vaquita load -q -i $IMAGES/several.tar; mkdir at",
        command: "vaquita mount -w several:1 at",
        again: "vaquita umount at",
        ..PLAIN
    },
    Scenario {
        name: "mount-bound",
        prepare: "vaquita load -q -i $IMAGES/long.tar; mkdir at",
        command: "vaquita mount long:1 at",
        again: "vaquita umount at",
        holds: "! mountpoint -q at || ! touch at/new 2>/dev/null",
        ..PLAIN
    },
    Scenario {
        name: "umount",
        prepare: "vaquita load -q -i $IMAGES/several.tar; mkdir at",
        command: "mountpoint -q at || env -u VAQUITA_FAULT vaquita mount several:1 at; exec vaquita umount at",
        ..PLAIN
    },
];

#[test]
fn every_point_of_every_command() {
    let shared = Sandbox::new("crash");
    let work = shared.path("work");
    fs::create_dir_all(&work).unwrap();
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=512m", "crash"]).arg(&work));
    let registry = Registry::start(work.join("registry"), false);
    let images = work.join("images");
    prepare(&images, &registry);
    let wanted = std::env::var("CRASH").unwrap_or_default();
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|s| s.name.contains(&wanted)).collect();
    assert!(!chosen.is_empty(), "no scenario has {wanted:?} in its name");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(scenario) = chosen.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let ground = Ground::new(&work, scenario, &registry, &images);
                    ground.every_point();
                }
            });
        }
    });
}

/// Small images in IMAGES and in the registry: every point is reached many times over.
fn prepare(images: &Path, registry: &Registry) {
    let layers = images.join("layers");
    for (layer, path, content) in [
        ("a", "etc/release", "one"),
        ("b", "usr/share/b", "of the second layer"),
        ("v1", "app/data", "1"),
        ("v2", "app/data", "2"),
    ] {
        let path = layers.join(layer).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let lines: String = (0..500).map(|line| format!("{content} {line}\n")).collect();
        fs::write(&path, lines).unwrap();
    }
    for number in 0..300 {
        let path = layers.join(format!("long/files/{number}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, number.to_string()).unwrap();
    }
    let image = |name: &str, file: &str, parts: &[&str]| {
        let parts: Vec<PathBuf> = parts.iter().map(|part| layers.join(part)).collect();
        let mut command = fixture("image");
        command.args(["--mtime", "1700000000", "--name", name, "-o"]).arg(images.join(file));
        succeed(command.args(parts));
    };
    image("several:1", "several.tar", &["a", "b"]);
    image("long:1", "long.tar", &["long"]);
    succeed(fixture("odd").arg(&layers));
    image("replacing:1", "replacing.tar", &["brief.tar"]);
    image("app:1", "app1.tar", &["a", "v1"]);
    image("app:2", "app2.tar", &["a", "v2"]);
    succeed(fixture("busybox").arg(images.join("busybox.tar")).args([
        "-",
        "-",
        "--name",
        "busybox:latest",
    ]));
    let maker = Sandbox::new("crash-delta");
    for file in ["app1.tar", "app2.tar"] {
        assert_eq!(
            maker.vaquita(&["load", "-q", "-i", &images.join(file).display().to_string()]).code,
            0
        );
    }
    assert_eq!(maker.vaquita(&["image", "delta", "app:1", "app:2", "-t", "app:delta"]).code, 0);
    let delta = images.join("delta.tar");
    assert_eq!(maker.vaquita(&["save", "-o", &delta.display().to_string(), "app:delta"]).code, 0);
    for (name, file) in [
        ("several:1", "several.tar"),
        ("long:1", "long.tar"),
        ("replacing:1", "replacing.tar"),
        ("moving:1", "app1.tar"),
        ("app:delta", "delta.tar"),
    ] {
        succeed(fixture("push").arg(format!("{}/{name}", registry.address)).arg(images.join(file)));
    }
}

/// A scenario's own directory, and what it announces before and after.
struct Ground<'a> {
    scenario: &'a Scenario,
    directory: PathBuf,
    variables: Vec<(&'static str, String)>,
    before: Announced,
    after: Announced,
    /// What the store's directories hold afterwards, and what is mounted.
    entries_after: Vec<String>,
    mounts_after: Vec<String>,
    points: usize,
    calls: usize,
}

impl Ground<'_> {
    fn new<'a>(
        work: &Path,
        scenario: &'a Scenario,
        registry: &Registry,
        images: &Path,
    ) -> Ground<'a> {
        let directory = work.join(scenario.name);
        fs::create_dir_all(directory.join("bin")).unwrap();
        let wrapper = directory.join("bin/vaquita");
        let roots = [directory.join("data"), directory.join("run")];
        let [data, run] = &roots;
        let line =
            format!("exec {:?} --data-root {data:?} --run-root {run:?} \"$@\"", sandbox::binary());
        fs::write(&wrapper, format!("#!/bin/sh\n{line}\n")).unwrap();
        succeed(Command::new("chmod").arg("755").arg(&wrapper));
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let path = std::env::var("PATH").unwrap_or_default();
        let variables = vec![
            ("PATH", format!("{}:{path}", directory.join("bin").display())),
            ("REGISTRY", registry.address.clone()),
            ("IMAGES", images.display().to_string()),
            ("FIXTURES", fixtures.display().to_string()),
        ];
        let (before, after) = (Announced::new(), Announced::new());
        let mut ground = Ground {
            scenario,
            directory,
            variables,
            before,
            after,
            entries_after: Vec::new(),
            mounts_after: Vec::new(),
            points: 0,
            calls: 0,
        };
        ground.must(&format!("set -e; {}", scenario.prepare));
        fs::create_dir_all(ground.path("data")).unwrap();
        ground.must("cp -a data base");
        ground.before = ground.announced();
        let counted = ground.shell(scenario.command, "count");
        assert_eq!(counted.code, 0, "{}: {counted:?}", scenario.name);
        let numbers = counted.stderr.lines().find_map(|line| line.strip_prefix("fault points: "));
        let (points, calls) = numbers.and_then(|line| line.split_once(' ')).expect("the count");
        (ground.points, ground.calls) = (points.parse().unwrap(), calls.parse().unwrap());
        assert!(ground.points > 1, "{}: {points} points", scenario.name);
        ground.after = ground.announced();
        ground.mounts_after = ground.mounts();
        ground.clean();
        ground.entries_after = ground.entries();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A shell command with the fault that `fault` says, if any.
    fn shell(&self, script: &str, fault: &str) -> Outcome {
        let mut command = Command::new("timeout");
        // `exec`: the code is the program's own. What the program leaves behind must not hold our pipe open.
        command.args(["-k", "5", "60", "sh", "-c", script]).current_dir(&self.directory);
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null());
        if !fault.is_empty() {
            command.env("VAQUITA_FAULT", fault);
        }
        sandbox::run(&mut command)
    }

    fn must(&self, script: &str) -> String {
        let outcome = self.shell(script, "");
        assert_eq!(outcome.code, 0, "{}: {script}: {outcome:?}", self.scenario.name);
        outcome.stdout
    }

    /// Names of images and containers, and what they stand for.
    fn announced(&self) -> Announced {
        let lines = self
            .must("vaquita images --no-trunc | tail -n +2; vaquita ps -a --no-trunc | tail -n +2");
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let mut announced = Announced::new();
        for line in lines.lines().map(words) {
            match &line[..] {
                [id, image, .., name] if id.len() == 64 => {
                    announced.insert(format!("container {name}"), image.clone())
                }
                [repository, tag, id, ..] => {
                    announced.insert(format!("{repository}:{tag}"), id.clone())
                }
                other => panic!("{other:?}"),
            };
        }
        announced
    }

    fn every_point(&self) {
        let mut killed = 0;
        for number in (1..=MAX_POINTS).step_by(self.scenario.stride) {
            self.reset();
            let outcome = self.shell(self.scenario.command, &number.to_string());
            if outcome.code != SIGKILL {
                assert_eq!(outcome.code, 0, "{} at {number}: {outcome:?}", self.scenario.name);
                break;
            }
            killed = number;
            self.verify(&format!("{}, killed at {number}", self.scenario.name));
        }
        // Threads make the number of points differ a little from run to run.
        assert!(
            killed + self.scenario.stride + 4 >= self.points,
            "{}: {killed} of {}",
            self.scenario.name,
            self.points
        );
        for number in (1..=self.calls).step_by(self.scenario.stride) {
            let error = if number % 2 == 0 { "EIO" } else { "ENOSPC" };
            self.reset();
            let outcome = self.shell(self.scenario.command, &format!("{error}:{number}"));
            let what = format!("{}, {error} at {number}", self.scenario.name);
            let errors = outcome.stderr.lines().filter(|line| !line.starts_with("vaquita: warn: "));
            assert!(errors.count() <= 1, "{what}: {outcome:?}");
            assert!(outcome.code < 126, "{what}: {outcome:?}");
            self.verify(&what);
        }
        let stride = self.scenario.stride;
        let (kills, errors) = (killed.div_ceil(stride), self.calls.div_ceil(stride));
        println!("{}: {kills} kills, {errors} errors, one point of {stride}", self.scenario.name);
    }

    fn reset(&self) {
        for point in self.mounts() {
            succeed(Command::new("umount").args(["-l", &point]));
        }
        self.must("rm -rf data run; cp -a base data");
    }

    /// What is mounted in the scenario's directory, the last first.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let points = table.lines().rev().filter_map(|line| line.split(' ').nth(1));
        points
            .filter(|point| Path::new(point).starts_with(&self.directory))
            .map(str::to_string)
            .collect()
    }

    /// Holds what must hold after a crash or an error, and that the same command then comes to its end.
    fn verify(&self, what: &str) {
        let damaged_before = matches!(self.scenario.name, "repair" | "pull-mends");
        let checked = self.shell("vaquita check --deep", "");
        assert!(checked.code == 0 || damaged_before, "{what}: {checked:?}");
        let holds = self.shell(self.scenario.holds, "");
        assert_eq!(holds.code, 0, "{what}: {}: {holds:?}", self.scenario.holds);
        let now = self.announced();
        for name in self.before.keys().chain(self.after.keys()).chain(now.keys()) {
            let (before, after, now) = (self.before.get(name), self.after.get(name), now.get(name));
            // An image that was committed and not yet named is whole and stands for nothing.
            let is_unnamed = name.ends_with(":<none>") && now.is_some();
            let is_another = name == self.scenario.dated;
            let is_old_or_new = now == before || now == after || is_another;
            assert!(
                is_old_or_new || is_unnamed,
                "{what}: {name} is {now:?}, {before:?}, {after:?}"
            );
        }
        if !self.scenario.again.is_empty() {
            let _ = self.shell(self.scenario.again, "");
        }
        let again = self.shell(self.scenario.command, "");
        // What is removed already cannot be removed again.
        let is_gone = again.stderr.contains("No such") && self.scenario.name.starts_with("rm");
        assert!(again.code == 0 || is_gone, "{what}: again: {again:?}");
        assert_eq!(self.mounts(), self.mounts_after, "{what}: again");
        self.clean();
        assert_eq!(self.entries(), self.entries_after, "{what}: again");
    }

    /// Lets the collector do all that it would do in time, and what was set aside be looked at.
    fn clean(&self) {
        self.age();
        self.must("vaquita check --repair; rm -rf data/quarantine/*");
    }

    /// What lies in the store's directories; of references with what they say, of containers only how many.
    fn entries(&self) -> Vec<String> {
        let mut entries = Vec::new();
        for directory in
            ["", "layers", "images", "references", "stages", "quarantine", "containers"]
        {
            let path = self.path("data").join(directory);
            for entry in fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap()) {
                let name = entry.file_name().into_string().unwrap();
                entries.push(match directory {
                    // One that was not named yet stays beside the next.
                    "images" | "references" if !self.scenario.dated.is_empty() => continue,
                    "references" => fs::read_to_string(entry.path()).unwrap(),
                    "containers" => "a container".into(),
                    _ => format!("{directory}/{name}"),
                });
            }
        }
        entries.sort();
        entries
    }

    /// Makes everything that nobody needs old enough for the collector.
    fn age(&self) {
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 60 * 60);
        let stages = fs::read_dir(self.path("data/stages")).into_iter().flatten().flatten();
        let layers = fs::read_dir(self.path("data/layers")).into_iter().flatten().flatten();
        let files = layers.map(|layer| layer.path().join("layer.json"));
        for path in stages.map(|stage| stage.path()).chain(files) {
            if let Ok(file) = fs::File::open(path) {
                file.set_modified(long_ago).unwrap();
            }
        }
    }
}
