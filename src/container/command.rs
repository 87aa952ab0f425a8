//! The command as exec takes it: where it may lie, its arguments, its environment.

use std::ffi::CString;

use crate::error::{Error, Kind, Result};

use super::Spec;

/// PATH where the image and the user give none (moby, oci/defaults.go).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is executed in the end.
pub struct Command {
    /// As the user gave it.
    pub name: String,
    /// Where it may be, in the order of PATH; one if the name has a slash.
    pub candidates: Vec<CString>,
    /// The name and the arguments.
    pub arguments: Vec<CString>,
    /// `NAME=value`.
    pub environment: Vec<CString>,
    /// Whether HOME is to be that of the account.
    pub needs_home: bool,
}

/// The command of `spec`.
pub fn command(spec: &Spec) -> Result<Command> {
    let Some(name) = spec.args.first() else {
        return Err(Error::new(Kind::Invalid, "no command specified"));
    };
    let environment = environment(spec);
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let needs_home = !environment.iter().any(|variable| variable.starts_with("HOME="));
    Ok(Command {
        name: name.clone(),
        candidates: candidates(name, path.unwrap_or(DEFAULT_PATH))?,
        arguments: c_strings(&spec.args, "argument")?,
        environment: c_strings(&environment, "environment variable")?,
        needs_home,
    })
}

fn candidates(name: &str, path: &str) -> Result<Vec<CString>> {
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name.contains('/') {
        return Ok(vec![c_string(name.as_bytes(), "command")?]);
    }
    // Relative directories would depend on the working directory: Go's LookPath refuses them too.
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    let path = |directory: &str| c_string(format!("{directory}/{name}").as_bytes(), "command");
    directories.map(path).collect()
}

/// Docker's order: its own variables, then those given, where a name that is there already keeps its place. An entry
/// without `=` is no variable and is left out; an empty HOME counts as none.
fn environment(spec: &Spec) -> Vec<String> {
    let mut list = vec![format!("PATH={DEFAULT_PATH}")];
    if !spec.hostname.is_empty() {
        list.push(format!("HOSTNAME={}", spec.hostname));
    }
    if spec.tty {
        list.push("TERM=xterm".into());
    }
    for variable in &spec.env {
        let Some((name, _)) = variable.split_once('=') else { continue };
        let same = |known: &&mut String| known.split_once('=').is_some_and(|(n, _)| n == name);
        match list.iter_mut().find(same) {
            Some(known) => known.clone_from(variable),
            None => list.push(variable.clone()),
        }
    }
    list.retain(|variable| variable != "HOME=");
    list
}

fn c_strings(texts: &[String], what: &str) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text.as_bytes(), what)).collect()
}

/// `text` for the kernel; `what` names it in the error.
pub fn c_string(text: &[u8], what: &str) -> Result<CString> {
    CString::new(text).map_err(|refused| {
        let text = String::from_utf8_lossy(&refused.into_vec()).replace('\0', "\\0");
        Error::new(Kind::Invalid, format!("{what} \"{text}\": holds a zero byte"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(args: &[&str], env: &[&str], tty: bool) -> Spec {
        let strings = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
        Spec {
            args: strings(args),
            env: strings(env),
            tty,
            hostname: "h".into(),
            ..Spec::default()
        }
    }

    #[test]
    fn merges_the_environment_as_docker_does() {
        let default = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        for (env, tty, expected) in [
            (&[][..], false, vec![default, "HOSTNAME=h"]),
            (&["A=1", "A=2", "B", "HOME="], true, vec![default, "HOSTNAME=h", "TERM=xterm", "A=2"]),
            (&["TERM=vt100", "PATH=/x"], true, vec!["PATH=/x", "HOSTNAME=h", "TERM=vt100"]),
        ] {
            assert_eq!(environment(&spec(&[], env, tty)), expected);
        }
    }

    #[test]
    fn looks_where_path_says() {
        for (name, path, expected) in [
            ("sh", "/a:/b:", vec![c"/a/sh", c"/b/sh"]),
            ("sh", "bin:/b", vec![c"/b/sh"]),
            ("./sh", "/a", vec![c"./sh"]),
            ("", "/a", vec![]),
        ] {
            let found = candidates(name, path).unwrap();
            assert_eq!(found.iter().map(|p| p.as_c_str()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn refuses_what_exec_cannot_take() {
        let refusal = |args: &[&str]| command(&spec(args, &[], false)).err().unwrap().to_string();
        assert_eq!(refusal(&[]), "no command specified");
        assert_eq!(refusal(&["a", "b\0c"]), "argument \"b\\0c\": holds a zero byte");
        assert!(!command(&spec(&["a"], &["HOME=/x"], false)).unwrap().needs_home);
    }
}
