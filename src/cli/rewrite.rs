//! Docker's spelling of a command line turned into the one that argh knows.
//!
//! argh knows neither `--name=x`, `--rm=false`, `-it` nor `-eNAME`, and would take options behind the image of `run` for
//! its own. Groups (`image ls`, `container run`) become the short commands.

/// The options of each command that take a value. A command of a group is named with it where the group is kept.
const VALUES: &[(&str, &[&str])] = &[
    ("pull", &["--platform"]),
    ("run", RUN_VALUES),
    ("load", &["-i", "--input", "--platform"]),
    ("save", &["-o", "--output", "--format"]),
    ("export", &["-o", "--output"]),
    ("import", &["-c", "--change", "-m", "--message", "--platform"]),
    ("images", &["-f", "--filter", "--format"]),
    ("ps", &["-f", "--filter", "--format", "-n", "--last"]),
    ("inspect", &["-f", "--format", "--type"]),
    ("version", &["-f", "--format"]),
    ("info", &["-f", "--format"]),
    ("image delta", &["-t", "--tag"]),
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
const GLOBAL_VALUES: &[&str] =
    &["--data-root", "--run-root", "--ca-file", "--insecure-registry", "--config-file"];

/// Long spellings of options, and argh's name for them.
const LONG_NAMES: &[(&str, &str)] = &[("--network", "--net")];

/// The words for argh.
pub fn rewrite(argv: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut words = argv.iter().map(String::as_str);
    let first = split_options(&mut words, GLOBAL_VALUES, true, &mut out);
    let Some(command) = first else { return out };
    let command = match command {
        "image" | "container" | "system" => ungroup(command, &mut words, &mut out),
        other => Some(other.to_string()),
    };
    let Some(command) = command else { return out };
    let is_run = command == "run";
    let kept_group = out.last().filter(|word| *word == "image");
    let name = kept_group.map_or(command.clone(), |group| format!("{group} {command}"));
    let values = VALUES.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, v)| v);
    out.push(command);
    if !is_run {
        split_options(&mut words, values, false, &mut out);
    } else if let Some(image) = split_options(&mut words, values, true, &mut out) {
        out.extend(["--", image].map(str::to_string));
        out.extend(words.map(str::to_string));
    }
    out
}

/// `image ls` is `images`; a command that exists only in its group keeps it.
fn ungroup<'a>(
    group: &str,
    words: &mut impl Iterator<Item = &'a str>,
    out: &mut Vec<String>,
) -> Option<String> {
    let command = match (group, words.next()) {
        (_, None) => {
            out.push(group.to_string());
            return None;
        }
        ("image", Some("ls" | "list")) => "images",
        ("image", Some("rm" | "remove")) => "rmi",
        ("container", Some("ls" | "list" | "ps")) => "ps",
        ("image", Some("delta")) => {
            out.push(group.to_string());
            "delta"
        }
        (_, Some(other)) => other,
    };
    Some(command.to_string())
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
    let known = LONG_NAMES.iter().find(|(long, _)| *long == name).map_or(name, |(_, name)| name);
    match value {
        Some("false") if !takes_value => return,
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
            (
                "--config-file=f login -ume --password=x r:5",
                "--config-file f login -u me --password x r:5",
            ),
            ("image", "image"),
            ("", ""),
        ] {
            let argv: Vec<String> = docker.split_whitespace().map(str::to_string).collect();
            assert_eq!(rewrite(&argv).join(" "), argh, "{docker}");
        }
    }
}
