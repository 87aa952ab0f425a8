//! The one error type of the engine: a kind, a message, a cause.
//!
//! The kind holds only what a caller or a status code branches on. The message names the object and what was tried on
//! it; the cause says why it failed. Printed, it is one line: `mount overlay on "/x": no such device`. Context is
//! added once, where the object is known; whoever returns an error does not also log it.

use std::fmt;

use crate::sys::Errno;

/// What a caller may branch on. Every other difference between errors is in their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The named image, container, blob or file is not there.
    NotFound,
    /// The name is taken, or the object is in use by another.
    Conflict,
    /// What the user or a remote gave is malformed.
    Invalid,
    /// The registry wants other credentials, or any.
    Unauthorized,
    /// A remote did not answer, or not in time; trying again may help.
    Unavailable,
    /// Bytes differ from what their digest, or our own record, says.
    Corrupt,
    /// The disk is full or a quota is reached.
    NoSpace,
    /// The caller no longer wants it.
    Cancelled,
    /// The kernel or the platform lacks what was asked for.
    Unsupported,
    /// The container's command exists but cannot be executed (exit code 126).
    CannotInvoke,
    /// The container's command does not exist (exit code 127).
    CommandNotFound,
    /// Everything else: mostly a system call that failed.
    Internal,
}

/// An error of the engine. `Display` gives the whole chain in one line. One pointer wide: results are passed everywhere,
/// and errors are rare.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible function of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a cause; `message` reads `verb object: reason` or states the fact.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), cause: None }))
    }

    /// The same with the error that led to it, printed after a colon.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// An error of a file or system call: the kind follows from the error number.
    pub fn io(message: impl Into<String>, cause: std::io::Error) -> Self {
        // An engine error that travelled through a Read or Write comes back with its own kind.
        let carried =
            cause.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).map(Error::kind);
        let kind = carried.unwrap_or_else(|| kind_of(&cause));
        Error::new(kind, message).caused_by(cause)
    }

    /// What to branch on.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The same error under another kind, where the caller knows better what a failure means.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }
}

fn kind_of(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => Kind::NotFound,
        Io::AlreadyExists | Io::ResourceBusy => Kind::Conflict,
        Io::StorageFull | Io::QuotaExceeded => Kind::NoSpace,
        Io::TimedOut | Io::ConnectionRefused | Io::ConnectionReset => Kind::Unavailable,
        Io::InvalidData | Io::UnexpectedEof => Kind::Corrupt,
        Io::Unsupported => Kind::Unsupported,
        _ => Kind::Internal,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause.as_ref() as _)
    }
}

/// An engine error that has to pass through `Read` or `Write`; `Error::io` finds its kind again.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

/// Adds what was tried, on which object, to a failure of the system.
pub trait Context<T> {
    /// Turns a failure into an engine error whose message is what `message` gives.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::io(message(), cause))
    }
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::io(message(), errno.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_chain_in_one_line() {
        let error = Error::io("open layer `x`", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), Kind::NoSpace);
        assert_eq!(error.to_string(), "open layer `x`: No space left on device (os error 28)");
    }

    #[test]
    fn keeps_its_kind_through_a_reader() {
        let inner = Error::new(Kind::Unauthorized, "registry says no");
        let outer = Error::io("read blob", std::io::Error::from(inner));
        assert_eq!(outer.kind(), Kind::Unauthorized);
        assert_eq!(outer.to_string(), "read blob: registry says no");
    }
}
