//! `login` and `logout`: who to be at a registry, asked, checked with the registry, and kept in Docker's `config.json`.

use std::io::{BufRead, IsTerminal, Read, Write};

use argh::FromArgs;

use super::output;
use crate::config::{ClientConfig, Credentials, server_key, server_name};
use crate::error::{Context, Error, Kind, Result};
use crate::registry::{Client, Options};
use crate::stream::Stream;
use crate::sys::descriptor;
use crate::sys::terminal::Raw;

/// The longest name or password, in bytes: access tokens have some thousands.
const MAX_INPUT_BYTES: u64 = 64 << 10;
/// Docker Hub, where no server is named.
const DEFAULT_SERVER: &str = "docker.io";

/// Log in to a registry; the credentials are kept once the registry has taken them
#[derive(FromArgs)]
#[argh(subcommand, name = "login")]
pub struct Login {
    /// user name
    #[argh(option, short = 'u', arg_name = "name")]
    pub username: Option<String>,
    /// password or personal access token
    #[argh(option, short = 'p', arg_name = "password")]
    pub password: Option<String>,
    /// take the password from standard input
    #[argh(switch)]
    pub password_stdin: bool,
    /// registry: host[:port] (default: Docker Hub)
    #[argh(positional, arg_name = "server")]
    pub server: Option<String>,
}

/// Log out from a registry
#[derive(FromArgs)]
#[argh(subcommand, name = "logout")]
pub struct Logout {
    /// registry: host[:port] (default: Docker Hub)
    #[argh(positional, arg_name = "server")]
    pub server: Option<String>,
}

/// Logs in and keeps the credentials in `config`; `options` say how to reach the registry.
pub fn login(args: Login, options: &Options, config: &ClientConfig) -> Result<()> {
    let server = args.server.as_deref().unwrap_or(DEFAULT_SERVER);
    let registry = registry_of(server);
    let attempt = |credentials: &Credentials| {
        let credentials = vec![credentials.clone()];
        let client = Client::new(Options { credentials, client_config: None, ..options.clone() })?;
        client.login(registry)
    };
    let password = given_password(&args)?;
    if let (None, None) = (&args.username, &password)
        && let Some(known) = config.find(registry)?
    {
        output::line("Authenticating with existing credentials...");
        match attempt(&known) {
            Ok(_) => {
                output::line("Login Succeeded");
                return Ok(());
            }
            Err(e) if e.kind() == Kind::Unauthorized => {
                output::line_aside(&format!("Login did not succeed, error: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    let (user, password) = match (args.username, password) {
        (Some(user), Some(password)) => (user, password),
        (user, password) => ask_for(user, password)?,
    };
    for (value, name) in [(&user, "Username"), (&password, "Password")] {
        if value.is_empty() {
            return Err(Error::new(Kind::Invalid, format!("{name} is required")));
        }
    }
    let registry = registry.to_string();
    let mut credentials = Credentials { registry, user, password, ..Credentials::default() };
    if let Some(identity_token) = attempt(&credentials)? {
        credentials.identity_token = identity_token;
        credentials.password.clear();
    }
    let kept_elsewhere = config.keep(&credentials)?;
    if !kept_elsewhere {
        output::line_aside(&format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/",
            config.path().display()
        ));
    }
    output::line("Login Succeeded");
    Ok(())
}

/// Forgets what `config` keeps for a registry.
pub fn logout(args: &Logout, config: &ClientConfig) -> Result<()> {
    let server = args.server.as_deref().unwrap_or(DEFAULT_SERVER);
    output::line(&format!("Removing login credentials for {}", server_key(server)));
    config.forget(server).map(drop)
}

/// A server as references name it.
fn registry_of(server: &str) -> &str {
    let name = server_name(server);
    if name == server_name(DEFAULT_SERVER) { DEFAULT_SERVER } else { name }
}

/// The password of `--password` or of standard input; the latter without the end of its line.
fn given_password(args: &Login) -> Result<Option<String>> {
    let refuse = |why: &str| Err(Error::new(Kind::Invalid, why));
    if args.password.is_some() {
        if args.password_stdin {
            return refuse(
                "conflicting options: cannot specify both --password and --password-stdin",
            );
        }
        output::line_aside(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
        );
    }
    if !args.password_stdin {
        return Ok(args.password.clone());
    }
    if args.username.is_none() {
        return refuse("the --password-stdin option requires --username to be set");
    }
    let mut password = String::new();
    let mut input = std::io::stdin().lock().take(MAX_INPUT_BYTES);
    input.read_to_string(&mut password).context(|| "read the password".into())?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    Ok(Some(password.strip_suffix('\r').unwrap_or(password).to_string()))
}

/// Asks the user for what is missing.
fn ask_for(user: Option<String>, password: Option<String>) -> Result<(String, String)> {
    if !std::io::stdin().is_terminal() {
        let message = "cannot perform an interactive login from a non TTY device";
        return Err(Error::new(Kind::Invalid, message));
    }
    let reading = || "read from the terminal".to_string();
    let user = match user {
        Some(user) => user,
        None => {
            output::print("Username: ");
            let mut line = String::new();
            let mut input = std::io::stdin().lock().take(MAX_INPUT_BYTES);
            input.read_line(&mut line).context(reading)?;
            line.trim().to_string()
        }
    };
    let password = match password {
        Some(password) => password,
        None => {
            // First: whoever answers as soon as he is asked must not be echoed.
            let terminal = Raw::enter(descriptor::standard(0)).context(reading)?;
            output::print("Password: ");
            let password = read_secret(&mut std::io::stdin().lock(), &mut std::io::stdout());
            drop(terminal);
            output::print("\n");
            password?
        }
    };
    Ok((user, password))
}

/// One line of a terminal in raw mode, which echoes nothing and passes every key on.
fn read_secret(input: &mut dyn Stream, output: &mut dyn Write) -> Result<String> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const KILL: u8 = 21;
    const DELETE: u8 = 127;
    // What was asked must be seen before the answer is waited for.
    let _ = output.flush();
    let mut secret = Vec::new();
    let mut key = [0];
    while (secret.len() as u64) < MAX_INPUT_BYTES {
        let count = input.read(&mut key).context(|| "read the password".into())?;
        match key[0] {
            _ if count == 0 => break,
            b'\r' | b'\n' | END => break,
            INTERRUPT => return Err(Error::new(Kind::Cancelled, "login: interrupted")),
            BACKSPACE | DELETE => drop_character(&mut secret),
            KILL => secret.clear(),
            other => secret.push(other),
        }
    }
    String::from_utf8(secret).map_err(|_| Error::new(Kind::Invalid, "the password is not UTF-8"))
}

/// The last character may have several bytes.
fn drop_character(secret: &mut Vec<u8>) {
    while secret.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_secret_as_a_terminal_sends_it() {
        let read = |keys: &str| {
            let secret = read_secret(&mut keys.as_bytes(), &mut std::io::sink());
            secret.map_err(|e| e.to_string())
        };
        for (keys, secret) in [
            ("secret\rmore", "secret"),
            ("sexx\u{7f}\u{8}cret\n", "secret"),
            ("é\u{7f}\u{7f}\u{7f}a\u{4}", "a"),
            ("wrong\u{15}right", "right"),
            ("", ""),
        ] {
            assert_eq!(read(keys), Ok(secret.to_string()), "{keys:?}");
        }
        assert_eq!(read("se\u{3}"), Err("login: interrupted".to_string()));
    }

    #[test]
    fn names_registries_as_references_do() {
        for (server, registry) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://r.example:5/v2/", "r.example:5"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(server), registry);
        }
    }
}
