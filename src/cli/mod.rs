//! The command line: parses, calls the engine, prints. Nothing else in the program prints.
//!
//! Output and exit codes are Docker's: 0, 1 for an engine that could not, 125 for a bad option and for a `run` that did not
//! come to start its command, 126 and 127 for a command that cannot be executed or found, else the container's own.

mod archive;
mod arguments;
mod check;
mod commands;
mod commit;
mod containers;
mod delta;
mod help;
mod history;
mod images;
mod inspect;
mod listing;
mod login;
mod mount;
mod output;
mod progress;
mod prune;
mod push;
mod rewrite;
mod system;
mod template;
mod usage;

use std::path::{Path, PathBuf};

use arguments::{Arguments, Command};

use crate::config::{ClientConfig, DaemonConfig};
use crate::engine::{self, Deltas, Engine};
use crate::error::{Error, Kind, Result};
use crate::registry;

/// The exit code for a bad option, and for an engine error of `run`.
const EXIT_ENGINE: i32 = 125;

/// Runs one command line, without the program's name, and gives the exit code.
pub fn main(argv: Vec<String>) -> i32 {
    let arguments = match parse(&argv) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    output::start_log(arguments.debug);
    let is_run = matches!(arguments.command, Command::Run(_));
    match execute(arguments) {
        Ok(code) => code,
        Err(e) => {
            output::error(&e.to_string());
            exit_code(e.kind(), is_run)
        }
    }
}

fn exit_code(kind: Kind, is_run: bool) -> i32 {
    match kind {
        Kind::CommandNotFound => 127,
        Kind::CannotInvoke => 126,
        _ if is_run => EXIT_ENGINE,
        _ => 1,
    }
}

/// The parsed arguments, or the exit code if help or an error was printed instead.
fn parse(argv: &[String]) -> Result<Arguments, i32> {
    if help::is_asked_for(argv) {
        output::print(help::OVERVIEW);
        return Err(if argv.is_empty() { EXIT_ENGINE } else { 0 });
    }
    if matches!(argv, [only] if only == "--version" || only == "-v") {
        output::print(&system::version_line());
        return Err(0);
    }
    let words = rewrite::rewrite(argv).map_err(|message| {
        output::error(&message);
        1
    })?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    <Arguments as argh::FromArgs>::from_args(&["vaquita"], &words).map_err(|early| {
        if early.status.is_ok() {
            output::print(&early.output);
            return 0;
        }
        let line = early.output.split_whitespace().collect::<Vec<_>>().join(" ");
        output::error(&format!("{line}; see 'vaquita --help'"));
        usage_exit_code(&line)
    })
}

/// Docker tells a bad option (125) from a missing argument or an unknown command (1).
fn usage_exit_code(line: &str) -> i32 {
    let is_option = line.contains("Unrecognized argument: -")
        || line.contains("for option")
        || line.contains("Error parsing option");
    if is_option { EXIT_ENGINE } else { 1 }
}

fn execute(arguments: Arguments) -> Result<i32> {
    let config = DaemonConfig::read(arguments.config_file.as_deref().map(Path::new))?;
    if config.debug {
        output::start_log(true);
    }
    let client_config = ClientConfig::of_user();
    let mut registry = registry::Options {
        ca_files: arguments.ca_file.iter().map(PathBuf::from).collect(),
        client_config: Some(client_config.clone()),
        ..registry::Options::of(&config)
    };
    registry.insecure.extend(arguments.insecure_registry);
    match arguments.command {
        Command::Login(args) => {
            return login::login(args, &registry, &client_config).map(|()| 0);
        }
        Command::Logout(args) => return login::logout(&args, &client_config).map(|()| 0),
        _ => {}
    }
    let root = |given: Option<String>, configured: Option<PathBuf>, default: PathBuf| {
        given.map(PathBuf::from).or(configured).unwrap_or(default)
    };
    let data_root = root(arguments.data_root, config.data_root, engine::default_data_root());
    let run_root = root(arguments.run_root, config.exec_root, engine::default_run_root());
    for path in [&data_root, &run_root] {
        if !path.is_absolute() {
            let message = format!("{} is not an absolute path", path.display());
            return Err(Error::new(Kind::Invalid, message));
        }
    }
    let mut engine = Engine::open(&data_root, &run_root, registry)?;
    engine.max_concurrent_downloads =
        arguments.max_concurrent_downloads.or(config.max_concurrent_downloads);
    if let Some(root) = &arguments.delta_data_root {
        engine.read_bases_of(Path::new(root))?;
    }
    if config.deltas == Some(false) {
        engine.deltas = Deltas::Never;
    }
    commands::execute(&engine, arguments.command)
}
