//! Reading ahead: a thread fetches and inflates while the caller writes files.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Chunks on the way between the two threads.
const CHUNKS: usize = 4;
/// The most that a chunk holds.
const CHUNK_BYTES: usize = 64 << 10;
/// The thread runs whatever the reader is made of: inflate, hash, TLS. Only what is touched becomes memory.
const STACK_BYTES: usize = 512 << 10;

/// Calls `work` with a reader that gives what `reader` gives, read by a thread of its own a few chunks ahead.
///
/// An error of `reader` is given to `work` in its place in the stream. When `work` returns early, the thread ends with the
/// read that it is in. Where no thread can be started, `work` reads for itself.
pub fn read_ahead<T>(
    reader: &mut (dyn Read + Send),
    work: &mut dyn FnMut(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let pipe = Pipe::default();
    let reader = Mutex::new(reader);
    let fetch = || pipe.fetch(&mut **reader.lock().unwrap_or_else(PoisonError::into_inner));
    let threaded = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, fetch).ok()?;
        let mut ahead = Ahead { pipe: &pipe, chunk: Vec::new(), start: 0 };
        let result = work(&mut ahead);
        pipe.lock().stopped = true;
        pipe.taken.notify_all();
        Some(result)
    });
    threaded.unwrap_or_else(|| work(&mut **reader.lock().unwrap_or_else(PoisonError::into_inner)))
}

#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    /// Told when a chunk or the end was put in.
    filled: Condvar,
    /// Told when a chunk was taken out, or none will be any more.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// The reader's end: without an error, or with one until it is handed out.
    end: Option<io::Result<()>>,
    stopped: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, reader: &mut dyn Read) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let result = match reader.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result,
            };
            let mut state = self.lock();
            match result {
                Ok(count) if count > 0 => {
                    chunk.truncate(count);
                    state.chunks.push_back(chunk);
                    self.filled.notify_all();
                    while state.chunks.len() >= CHUNKS && !state.stopped {
                        state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                    chunk = state.spare.pop().unwrap_or_default();
                    chunk.resize(CHUNK_BYTES, 0);
                }
                result => {
                    state.end = Some(result.map(|_| ()));
                    self.filled.notify_all();
                    return;
                }
            }
            if state.stopped {
                return;
            }
        }
    }

    /// The next chunk, in exchange for one that is used up; `None` at the end.
    fn take(&self, used: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.lock();
        state.spare.push(used);
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                self.taken.notify_all();
                return Ok(Some(chunk));
            }
            if let Some(end) = &mut state.end {
                return std::mem::replace(end, Ok(())).map(|()| None);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Ahead<'a> {
    pipe: &'a Pipe,
    chunk: Vec<u8>,
    start: usize,
}

impl Read for Ahead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.chunk.len() {
            let used = std::mem::take(&mut self.chunk);
            self.start = 0;
            match self.pipe.take(used)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let rest = &self.chunk[self.start..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.start += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    struct Failing(u32);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(Error::new(Kind::Unavailable, "connection lost").into());
            }
            self.0 -= 1;
            buffer.fill(7);
            Ok(buffer.len())
        }
    }

    #[test]
    fn gives_every_byte_then_the_error() {
        let mut seen = 0;
        let result = read_ahead(&mut Failing(100), &mut |reader| {
            let mut buffer = [0; 1000];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => seen += count,
                    Err(error) => return Err(Error::io("read", error)),
                }
            }
        });
        assert_eq!(seen, 100 * CHUNK_BYTES);
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Unavailable, "read: connection lost")
        );
    }

    #[test]
    fn ends_when_the_work_ends() {
        let first = read_ahead(&mut io::repeat(9), &mut |reader| {
            let mut byte = [0];
            reader.read_exact(&mut byte).map_err(|e| Error::io("read", e))?;
            Ok(byte[0])
        });
        assert_eq!(first.unwrap(), 9);
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        let all = read_ahead(&mut &bytes[..], &mut |reader| {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map_err(|e| Error::io("read", e))?;
            Ok(all)
        });
        assert!(all.unwrap() == bytes);
    }
}
