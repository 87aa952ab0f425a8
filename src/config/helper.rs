//! Credential helpers: programs named `docker-credential-NAME` that keep secrets where the user wants them.
//!
//! The protocol is Docker's: an action as the argument (`get`, `store`, `erase`), the server's key or a JSON document on
//! standard input, JSON or a complaint on standard output.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use miniserde::{Deserialize, Serialize};

use super::credentials::Credentials;
use crate::error::{Context, Error, Kind, Result};
use crate::json;
use crate::stream::read_at_most;
use crate::sys::process::{self, Ended};
use crate::sys::spawn::spawn;

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
    // Cannot fail: neither holds a zero byte.
    let program = CString::new(format!("docker-credential-{helper}")).unwrap_or_default();
    let argument = CString::new(action).unwrap_or_default();
    let (its_input, mut our_input) = std::io::pipe().context(doing)?;
    let (our_output, its_output) = std::io::pipe().context(doing)?;
    let (its_input, its_output) = (its_input.into(), its_output.into());
    let child = spawn(&program, &argument, &its_input, &its_output).context(doing)?;
    drop((its_input, its_output));
    // One that does not read its input says what it dislikes, or fails.
    let _ = our_input.write_all(input.as_bytes());
    drop(our_input);
    let answer = read(our_output.into()).context(doing);
    let ended = process::wait(child, true).context(doing)?;
    let answer = answer?;
    Ok((ended == Some(Ended::Exited(0)), String::from_utf8_lossy(&answer).into_owned()))
}

fn read(output: OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    read_at_most(&mut File::from(output), MAX_ANSWER_BYTES, &mut answer)?;
    Ok(answer)
}
