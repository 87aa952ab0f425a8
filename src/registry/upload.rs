//! Pushing: blobs and manifests to a registry (OCI distribution spec 1.1, "Push").
//!
//! A blob goes up in a session: POST opens it, PATCH appends a chunk, PUT names the digest and closes it. Nothing of the
//! blob is kept but the chunk under way, so its bytes are asked for as a stream that can be opened anew; the digest is
//! made while they pass. Of a chunk whose link broke the session says how much arrived, and the rest is sent. A session
//! that is gone, or that lost what it had confirmed, is replaced by a new one from the first byte on. What fits into one
//! chunk goes with the PUT. Where chunks are refused the stream is read twice: for its digest, then for one PUT.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::http::Method;

use super::client::{Access, Answer, Client, Content, Place, Question};
use super::session::{Session, Upload};
use super::{failure, location};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind, Result};
use crate::reference::Reference;
use crate::stream::{Stream, read_at_most};

/// The bytes of one PATCH: the smallest part that S3, behind most registries, takes without copying.
const CHUNK_BYTES: u64 = 5 << 20;
/// The largest chunk that is kept in memory because a registry wants it (`OCI-Chunk-Min-Length`).
const MAX_CHUNK_BYTES: u64 = 16 << 20;
/// Sessions that one blob may use up.
const MAX_SESSIONS: u32 = 4;
const READ_BYTES: usize = 64 << 10;

/// The bytes of a blob from the first on, the same ones each time that it is called.
pub type Open<'a> = &'a (dyn Fn() -> Result<Box<dyn Stream + 'a>> + 'a);

/// A blob that is at the registry: its digest and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// What the registry knows it by.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What is pushed to one repository. It may be shared between threads.
pub struct Push<'a> {
    pub(super) client: &'a Client,
    pub(super) reference: &'a Reference,
    /// The registry was found to refuse chunks.
    refuses_chunks: AtomicBool,
}

/// Why an upload did not come to its end.
pub(super) enum Stop {
    /// For good.
    Failed(Error),
    /// The session is no more, or does not hold what it should; a new one may.
    Vanished(Error),
    /// The registry takes no chunks.
    ChunksRefused(Error),
}

impl<'a> Push<'a> {
    /// Nothing is asked yet. The tag of `reference` is for `manifest`.
    pub fn new(client: &'a Client, reference: &'a Reference) -> Push<'a> {
        Push { client, reference, refuses_chunks: AtomicBool::new(false) }
    }

    /// Whether the repository has this blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let place = Place::Path(format!("blobs/{digest}"));
        let mut question = self.question(Method::HEAD, place, "check", digest);
        question.accepts = &[200, 404];
        let answer = self.client.ask(&question)?;
        let has = answer.status() == 200;
        answer.drain();
        Ok(has)
    }

    /// Lets the repository have a blob that the repository `from` of the same registry has. `false` if the registry has
    /// none there, does not let us read it, or mounts nothing.
    pub fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        let place = Place::Path(format!("blobs/uploads/?mount={digest}&from={from}"));
        let mut question = self.question(Method::POST, place, "mount", digest);
        question.access = Access::Push(Some(from));
        question.accepts = &[201, 202];
        let answer = match self.persist(&question) {
            Ok(answer) if answer.status() == 201 => {
                answer.drain();
                return Ok(true);
            }
            Ok(answer) => answer,
            Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Cancelled) => return Err(e),
            Err(e) => {
                log::debug!("{e}");
                return Ok(false);
            }
        };
        // The registry opened a session instead. It ages out by itself if it is not closed.
        if let Ok(session) = self.session_of(answer) {
            let mut question = self.question(Method::DELETE, session.place(), "mount", digest);
            question.accepts = &[200, 202, 204];
            let _ = self.client.ask(&question).map(Answer::drain);
        }
        Ok(false)
    }

    /// Uploads the blob that `open` gives; on success the registry has it under the digest that is returned. `name`
    /// stands for it in errors.
    pub fn blob(&self, name: &str, open: Open) -> Result<Uploaded> {
        let mut retry = self.client.retry();
        let mut sessions = 0;
        loop {
            sessions += 1;
            // Some that take no PATCH say that there is no session: the last one is for a PUT alone.
            let whole = self.refuses_chunks.load(Ordering::Relaxed) || sessions == MAX_SESSIONS;
            let sent = match whole {
                false => self.send_in_chunks(name, open),
                true => self.send_whole(name, open),
            };
            let error = match sent {
                Ok(uploaded) => return Ok(uploaded),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::ChunksRefused(error)) => {
                    log::debug!("{error}");
                    self.refuses_chunks.store(true, Ordering::Relaxed);
                    continue;
                }
                Err(Stop::Vanished(error)) => error,
            };
            let message = format!("upload {name}: session {sessions} of {MAX_SESSIONS} is lost");
            let error = Error::new(Kind::Unavailable, message).caused_by(error);
            if sessions == MAX_SESSIONS {
                return Err(error);
            }
            self.client.wait(&mut retry, error, None)?;
        }
    }

    /// Stores a manifest under the reference's tag, or by its digest where there is none. All that it names is there.
    pub fn manifest(&self, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let key = self.reference.tag().map_or_else(|| digest.to_string(), str::to_string);
        self.put_manifest(&key, media_type, bytes)?.drain();
        Ok(digest)
    }

    pub(super) fn question<'q>(
        &self,
        method: Method,
        place: Place,
        verb: &str,
        what: &dyn ToString,
    ) -> Question<'q>
    where
        'a: 'q,
    {
        let (what, name) = (what.to_string(), self.reference.familiar_name());
        Question {
            reference: self.reference,
            // PATCH, POST and PUT without any bytes say so by their length.
            content: match method == Method::POST || method == Method::PUT {
                true => Content::Bytes(&[]),
                false => Content::None,
            },
            method,
            place,
            headers: Vec::new(),
            access: Access::Push(None),
            accepts: &[],
            doing: format!("{verb} {what} in {name}"),
        }
    }

    /// Asks as often as it takes what changes nothing more by being asked twice.
    pub(super) fn persist(&self, question: &Question) -> Result<Answer> {
        self.client.persist(None, &mut |retry| self.client.ask_once(question, retry))
    }

    /// Opens a session and says how large its chunks shall be.
    fn begin(&self, name: &str) -> Result<(Session, u64)> {
        let place = Place::Path("blobs/uploads/".to_string());
        let mut question = self.question(Method::POST, place, "upload", &name);
        question.accepts = &[202];
        let answer = self.persist(&question)?;
        let least = answer.header("oci-chunk-min-length").and_then(|text| text.parse().ok());
        let session = self.session_of(answer)?;
        Ok((session, CHUNK_BYTES.max(least.unwrap_or(0))))
    }

    /// Where the session goes on that `answer` speaks of.
    fn session_of(&self, answer: Answer) -> Result<Session> {
        let name = self.reference.familiar_name();
        let refuse = |why: &str| Error::new(Kind::Invalid, format!("upload to {name}: {why}"));
        if !answer.is_home {
            return Err(refuse("the registry sends uploads elsewhere"));
        }
        let Some(url) = answer.header("location").map(|to| location::follow(&answer.url, to))
        else {
            return Err(refuse("the registry names no session"));
        };
        let home = answer.origin.clone();
        answer.drain();
        self.check(Session { home, url })
    }

    /// Refuses a session that is not to be gone to.
    pub(super) fn check(&self, session: Session) -> Result<Session> {
        let doing = || format!("upload to {}", self.reference.familiar_name());
        let hop = self.client.check_hop(&session.home, &session.url);
        hop.map_err(|e| failure::of_transport(e, &doing()))?;
        Ok(session)
    }

    fn send_in_chunks(&self, name: &str, open: Open) -> Result<Uploaded, Stop> {
        let (session, chunk_bytes) = self.begin(name).map_err(Stop::Failed)?;
        if chunk_bytes > MAX_CHUNK_BYTES {
            let message = format!("upload {name}: chunks of {chunk_bytes} bytes are too large");
            return Err(Stop::ChunksRefused(Error::new(Kind::Unsupported, message)));
        }
        let mut upload =
            Upload { push: self, name, session, hasher: Hasher::new(), confirmed_bytes: 0 };
        let mut stream = open().map_err(Stop::Failed)?;
        let mut chunk = Vec::with_capacity(chunk_bytes as usize);
        loop {
            chunk.clear();
            read_at_most(&mut *stream, chunk_bytes, &mut chunk).map_err(|e| failed(name, e))?;
            upload.hasher.update(&chunk);
            let is_last = (chunk.len() as u64) < chunk_bytes;
            if is_last && upload.confirmed_bytes == 0 {
                return upload.close(Content::Bytes(&chunk), chunk.len() as u64);
            }
            if !chunk.is_empty() {
                upload.append(&chunk)?;
            }
            if is_last {
                return upload.close(Content::Bytes(&[]), 0);
            }
        }
    }

    /// Reads the stream for its digest, and again for one PUT.
    fn send_whole(&self, name: &str, open: Open) -> Result<Uploaded, Stop> {
        let (mut hasher, mut size_bytes) = (Hasher::new(), 0);
        let mut stream = open().map_err(Stop::Failed)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    size_bytes += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(name, e)),
            }
        }
        let digest = hasher.clone().finish();
        if self.has_blob(&digest).map_err(Stop::Failed)? {
            return Ok(Uploaded { digest, size_bytes });
        }
        let (session, _) = self.begin(name).map_err(Stop::Failed)?;
        let upload = Upload { push: self, name, session, hasher, confirmed_bytes: 0 };
        let exact = || -> Result<Box<dyn Stream + '_>> {
            Ok(Box::new(Exactly { inner: open()?, left_bytes: size_bytes }))
        };
        upload.close(Content::Stream(size_bytes, &exact), size_bytes)
    }
}

fn failed(name: &str, error: io::Error) -> Stop {
    Stop::Failed(Error::io(format!("upload {name}"), error))
}

/// A reader that must end after so many bytes: ureq would wait for ever for what was promised and does not come.
struct Exactly<'a> {
    inner: Box<dyn Stream + 'a>,
    left_bytes: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left_bytes.checked_sub(count as u64) {
            Some(left) if count > 0 || left == 0 || buffer.is_empty() => {
                self.left_bytes = left;
                Ok(count)
            }
            _ => Err(Error::new(Kind::Corrupt, "it changed while it was uploaded").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_another_length_is_an_error() {
        let read = |bytes: &'static [u8]| {
            let mut text = String::new();
            let mut exactly = Exactly { inner: Box::new(bytes), left_bytes: 3 };
            exactly.read_to_string(&mut text).map(|_| text).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"abc"), Ok("abc".into()));
        assert_eq!(read(b"ab"), Err("it changed while it was uploaded".into()));
        assert_eq!(read(b"abcd"), Err("it changed while it was uploaded".into()));
    }
}
