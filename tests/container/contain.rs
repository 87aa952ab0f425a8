//! `contain WORD... -- COMMAND...`: one container in the foreground, each word a field of the spec.

use std::path::PathBuf;
use std::process::ExitCode;

use vaquita::container::{Bind, Host, Network, Spec, plan, start};
use vaquita::error::{Kind, Result};

pub fn contain(words: &[String]) -> ExitCode {
    match run(words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(match error.kind() {
                Kind::CommandNotFound => 127,
                Kind::CannotInvoke => 126,
                _ => 125,
            })
        }
    }
}

fn run(words: &[String]) -> Result<u8> {
    let spec = spec(words);
    let plan = plan(&spec, &Host::probe(spec.privileged))?;
    let code = start(&plan)?.wait()?;
    if words.iter().take_while(|word| *word != "--").any(|word| word == "twice") {
        return start(&plan)?.wait();
    }
    Ok(code)
}

fn spec(words: &[String]) -> Spec {
    let mut spec = Spec { hostname: "box".into(), ..Spec::default() };
    let end = words.iter().position(|word| word == "--").unwrap();
    spec.args = words[end + 1..].to_vec();
    for word in &words[..end] {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let (text, path) = (value.to_string(), PathBuf::from(value));
        match name {
            "lower" => spec.lowers.push(path),
            "upper" => spec.upper = path,
            "work" => spec.work = path,
            "mountpoint" => spec.mountpoint = path,
            "read-only" => spec.read_only = true,
            "hostname" => spec.hostname = text,
            "env" => spec.env.push(text),
            "cwd" => spec.cwd = text,
            "user" => spec.user = Some(text),
            "mount" => {
                let parts: Vec<&str> = value.split(':').collect();
                let read_only = parts.get(2) == Some(&"ro");
                let (source, target) = (parts[0].into(), parts[1].into());
                spec.mounts.push(Bind { source, target, read_only });
            }
            "net-none" => spec.network = Network::None,
            "tty" => spec.tty = true,
            "stdin" => spec.stdin = true,
            "no-new-privileges" => spec.no_new_privileges = true,
            "privileged" => spec.privileged = true,
            "cap-add" => spec.cap_add.push(text),
            "cap-drop" => spec.cap_drop.push(text),
            "twice" => {}
            other => panic!("contain: what is {other}?"),
        }
    }
    spec
}
