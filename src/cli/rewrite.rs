//! Docker's spelling of a command line turned into the one that argh knows.
//!
//! argh knows neither `--name=x`, `--rm=false`, `-it` nor `-eNAME`, and would take options behind the image of `run` for
//! its own. Groups (`image ls`, `container run`) become the short commands where there are such.

/// The options of each command that take a value. A command of a group is named with it where the group is kept.
const VALUES: &[(&str, &[&str])] = &[
    ("pull", &["--platform"]),
    ("push", &["--platform"]),
    ("run", RUN_VALUES),
    ("load", &["-i", "--input", "--platform"]),
    ("save", &["-o", "--output", "--format"]),
    ("export", &["-o", "--output"]),
    ("import", &["-c", "--change", "-m", "--message", "--platform"]),
    ("commit", &["-a", "--author", "-c", "--change", "-m", "--message"]),
    ("images", &["-f", "--filter", "--format"]),
    ("ps", &["-f", "--filter", "--format", "-n", "--last"]),
    ("inspect", &["-f", "--format", "--type"]),
    ("version", &["-f", "--format"]),
    ("info", &["-f", "--format"]),
    ("history", &["--format"]),
    ("image prune", &["--filter"]),
    ("container prune", &["--filter"]),
    ("system prune", &["--filter"]),
    ("system df", &["--format"]),
    ("image delta", &["-t", "--tag"]),
    ("delta create", &["--format", "--push", "-o", "--output"]),
    ("delta index", &["--push"]),
    ("login", &["-u", "--username", "-p", "--password"]),
];
const RUN_VALUES: &[&str] = &[
    "-e",
    "--env",
    "-v",
    "--volume",
    "-w",
    "--workdir",
    "-u",
    "--user",
    "--entrypoint",
    "--name",
    "-h",
    "--hostname",
    "--net",
    "--network",
    "--platform",
    "--cap-add",
    "--cap-drop",
    "--security-opt",
];
/// Options before the command that take a value.
const GLOBAL_VALUES: &[&str] = &[
    "--data-root",
    "--run-root",
    "--delta-data-root",
    "--basis-root",
    "--ca-file",
    "--insecure-registry",
    "--config-file",
    "--max-concurrent-downloads",
];

/// Long spellings of options, and argh's name for them.
const LONG_NAMES: &[(&str, &str)] =
    &[("--network", "--net"), ("--basis-root", "--delta-data-root")];

/// Switches that are on by themselves, and argh's name for turning them off.
const ON_BY_THEMSELVES: &[(&str, &str)] = &[("--human", "--no-human"), ("-H", "--no-human")];

/// A command's name in its group, and the words for argh.
type Spelling = (&'static str, &'static [&'static str]);

/// The groups, and for each of their commands the words for argh.
const GROUPS: &[(&str, &[Spelling])] = &[
    (
        "image",
        &[
            ("ls", &["images"]),
            ("list", &["images"]),
            ("rm", &["rmi"]),
            ("remove", &["rmi"]),
            ("pull", &["pull"]),
            ("push", &["push"]),
            ("tag", &["tag"]),
            ("history", &["history"]),
            ("inspect", &["inspect", "--type", "image"]),
            ("load", &["load"]),
            ("save", &["save"]),
            ("import", &["import"]),
            ("prune", KEPT),
            ("delta", KEPT),
        ],
    ),
    (
        "container",
        &[
            ("ls", &["ps"]),
            ("list", &["ps"]),
            ("ps", &["ps"]),
            ("rm", &["rm"]),
            ("remove", &["rm"]),
            ("inspect", &["inspect", "--type", "container"]),
            ("run", &["run"]),
            ("export", &["export"]),
            ("commit", &["commit"]),
            ("prune", KEPT),
        ],
    ),
    (
        "delta",
        &[("apply", KEPT), ("create", KEPT), ("index", KEPT), ("inspect", KEPT), ("plan", KEPT)],
    ),
    ("system", &[("df", KEPT), ("info", &["info"]), ("prune", KEPT)]),
];
/// Marks a command that exists only in its group.
const KEPT: &[&str] = &[];

/// The words for argh; or, for a command that its group does not know, which it knows.
pub fn rewrite(argv: &[String]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut words = argv.iter().map(String::as_str);
    let first = split_options(&mut words, GLOBAL_VALUES, true, &mut out);
    let Some(command) = first else { return Ok(out) };
    let name = match GROUPS.iter().find(|(group, _)| *group == command) {
        Some((group, commands)) => match ungroup(group, commands, &mut words, &mut out)? {
            Some(name) => name,
            None => return Ok(out),
        },
        None => {
            out.push(command.to_string());
            command.to_string()
        }
    };
    let values = VALUES.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, v)| v);
    if name != "run" {
        split_options(&mut words, values, false, &mut out);
    } else if let Some(image) = split_options(&mut words, values, true, &mut out) {
        out.extend(["--", image].map(str::to_string));
        out.extend(words.map(str::to_string));
    }
    Ok(out)
}

/// Writes a group's command as argh knows it, and gives its name among `VALUES`; `None` if the group stands alone or with
/// options, and all is written.
fn ungroup<'a>(
    group: &str,
    commands: &[Spelling],
    words: &mut impl Iterator<Item = &'a str>,
    out: &mut Vec<String>,
) -> Result<Option<String>, String> {
    let command = match words.next() {
        Some(command) if !command.starts_with('-') => command,
        other => {
            out.push(group.to_string());
            out.extend(other.into_iter().chain(words).map(str::to_string));
            return Ok(None);
        }
    };
    let Some((_, spelled)) = commands.iter().find(|(known, _)| *known == command) else {
        let known: Vec<&str> = commands.iter().map(|(known, _)| *known).collect();
        let known = known.join(", ");
        return Err(format!("unknown command: vaquita {group} {command}; there is: {known}"));
    };
    out.extend(spelled.iter().map(|word| word.to_string()));
    Ok(Some(match spelled.first() {
        Some(first) => first.to_string(),
        None => {
            out.extend([group, command].map(str::to_string));
            format!("{group} {command}")
        }
    }))
}

/// Copies options in argh's spelling, and the other words behind them: `-` is one, but argh takes it for an option. Stops at
/// the first word that is none if `to_first_word`, and gives it.
fn split_options<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    with_value: &[&str],
    to_first_word: bool,
    out: &mut Vec<String>,
) -> Option<&'a str> {
    let mut others: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" && to_first_word {
            return words.next();
        } else if word == "--" {
            others.extend(words.by_ref());
        } else if word.starts_with("--") {
            long_option(word, with_value, words, out);
        } else if word.len() > 1 && word.starts_with('-') {
            short_options(word, with_value, words, out);
        } else if to_first_word {
            return Some(word);
        } else {
            others.push(word);
        }
    }
    if others.iter().any(|word| word.starts_with('-')) {
        out.push("--".into());
    }
    out.extend(others.into_iter().map(str::to_string));
    None
}

fn long_option<'a>(
    word: &str,
    with_value: &[&str],
    words: &mut impl Iterator<Item = &'a str>,
    out: &mut Vec<String>,
) {
    let (name, value) =
        word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let takes_value = with_value.contains(&name);
    let off = ON_BY_THEMSELVES.iter().find(|(on, _)| *on == name).map(|(_, off)| off.to_string());
    let known = LONG_NAMES.iter().find(|(long, _)| *long == name).map_or(name, |(_, name)| name);
    match value {
        Some("false") if !takes_value => return out.extend(off),
        Some("true") if !takes_value => out.push(known.into()),
        Some(value) => out.extend([known, value].map(str::to_string)),
        None => out.push(known.into()),
    }
    if takes_value && value.is_none() {
        out.extend(words.next().map(str::to_string));
    }
}

/// `-it` is `-i -t`; the first letter that takes a value takes the rest of the word, or the next one.
fn short_options<'a>(
    word: &str,
    with_value: &[&str],
    words: &mut impl Iterator<Item = &'a str>,
    out: &mut Vec<String>,
) {
    let first: String = word.chars().take(2).collect();
    if matches!(word.strip_prefix(&first), Some("=true" | "=false"))
        && !with_value.contains(&first.as_str())
    {
        return long_option(word, with_value, words, out);
    }
    for (index, letter) in word.char_indices().skip(1) {
        let option = format!("-{letter}");
        let takes_value = with_value.contains(&option.as_str());
        out.push(option);
        if takes_value {
            let rest = &word[index + letter.len_utf8()..];
            match rest.strip_prefix('=').unwrap_or(rest) {
                "" => out.extend(words.next().map(str::to_string)),
                value => out.push(value.into()),
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_for_argh() {
        for (docker, argh) in [
            ("run -it --rm x ls -l", "run -i -t --rm -- x ls -l"),
            ("run --name=a -eA=b -e C=d x", "run --name a -e A=b -e C=d -- x"),
            ("run --rm=false --tty=true x --rm", "run --tty -- x --rm"),
            ("run --network host -u=1 -- x -y", "run --net host -u 1 -- x -y"),
            ("--basis-root=/d pull x", "--delta-data-root /d pull x"),
            ("--data-root=/d run x", "--data-root /d run -- x"),
            ("image ls -q", "images -q"),
            ("image rm -f x", "rmi -f x"),
            ("image delta -t n a b", "image delta -t n a b"),
            ("container run x", "run -- x"),
            ("container ls -aq", "ps -a -q"),
            ("rmi x -f", "rmi -f x"),
            ("rmi -f -- -x", "rmi -f -- -x"),
            ("import - name -m=x -c CMD", "import -m x -c CMD -- - name"),
            ("load -ifile", "load -i file"),
            ("container commit --pause=false -mx a b", "commit -m x a b"),
            (
                "--config-file=f login -ume --password=x r:5",
                "--config-file f login -u me --password x r:5",
            ),
            ("image", "image"),
            ("image --help", "image --help"),
            ("image inspect -f {{.Id}} x", "inspect --type image -f {{.Id}} x"),
            ("container inspect x", "inspect --type container x"),
            ("image prune -af --filter until=1h", "image prune -a -f --filter until=1h"),
            ("system df -v --format=json", "system df -v --format json"),
            ("delta create --push=r:5/a -ofile a b", "delta create --push r:5/a -o file a b"),
            ("delta plan a b", "delta plan a b"),
            ("system info", "info"),
            ("history --human=false -H x", "history --no-human -H x"),
            ("history -H=false -q=true x", "history --no-human -q x"),
            ("", ""),
        ] {
            let argv: Vec<String> = docker.split_whitespace().map(str::to_string).collect();
            assert_eq!(rewrite(&argv).unwrap().join(" "), argh, "{docker}");
        }
        let message = rewrite(&["system", "foo"].map(String::from)).unwrap_err();
        assert_eq!(message, "unknown command: vaquita system foo; there is: df, info, prune");
    }
}
