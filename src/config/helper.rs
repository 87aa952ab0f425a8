//! Credential helpers: programs named `docker-credential-NAME` that keep secrets where the user wants them.
//!
//! The protocol is Docker's: an action as the argument (`get`, `store`, `erase`), the server's key or a JSON document on
//! standard input, JSON or a complaint on standard output.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use miniserde::{Deserialize, Serialize};

use super::credentials::Credentials;
use crate::error::{Context, Error, Kind, Result};
use crate::json;

/// The largest answer of a helper, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 10;
/// The user's name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What a helper says when it has nothing for a server.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    user: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

/// What `helper` keeps for `server`.
pub(super) fn get(helper: &str, server: &str) -> Result<Option<Credentials>> {
    let (succeeded, answer) = run(helper, "get", server)?;
    if !succeeded && answer.trim() == NOT_FOUND {
        return Ok(None);
    }
    check(helper, "get", succeeded, &answer)?;
    let what = format!("answer of docker-credential-{helper}");
    let Answer { user, secret } = json::parse(answer.as_bytes(), &what)?;
    let (password, identity_token) = match user.as_str() {
        TOKEN_USER => (String::new(), secret),
        _ => (secret, String::new()),
    };
    Ok(Some(Credentials { user, password, identity_token, ..Credentials::default() }))
}

/// Gives `helper` what to keep for `server`.
pub(super) fn store(helper: &str, server: &str, credentials: &Credentials) -> Result<()> {
    let (user, secret) = match credentials.identity_token.as_str() {
        "" => (credentials.user.as_str(), credentials.password.as_str()),
        token => (TOKEN_USER, token),
    };
    let entry = Entry { server, user, secret };
    let (succeeded, answer) = run(helper, "store", &json::to_string(&entry))?;
    check(helper, "store", succeeded, &answer)
}

/// Makes `helper` forget what it keeps for `server`.
pub(super) fn erase(helper: &str, server: &str) -> Result<()> {
    let (succeeded, answer) = run(helper, "erase", server)?;
    if !succeeded && answer.trim() == NOT_FOUND {
        return Ok(());
    }
    check(helper, "erase", succeeded, &answer)
}

fn check(helper: &str, action: &str, succeeded: bool, answer: &str) -> Result<()> {
    if succeeded {
        return Ok(());
    }
    let message = format!("run docker-credential-{helper} {action}: {}", answer.trim());
    Err(Error::new(Kind::Internal, message))
}

/// Runs the helper; whether it succeeded, and what it printed. Its standard error is ours.
fn run(helper: &str, action: &str, input: &str) -> Result<(bool, String)> {
    let doing = || format!("run docker-credential-{helper} {action}");
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(Error::new(Kind::Invalid, format!("{}: not a valid name", doing())));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(doing)?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that does not read its input says what it dislikes, or fails.
        let _ = pipe.write_all(input.as_bytes());
    }
    let mut answer = Vec::new();
    let read = match child.stdout.take() {
        Some(pipe) => pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).context(doing),
        None => Ok(0),
    };
    let status = child.wait().context(doing)?;
    read?;
    Ok((status.success(), String::from_utf8_lossy(&answer).into_owned()))
}
