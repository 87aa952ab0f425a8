//! Joins what writes its result to what reads its input: the reader runs in a thread of its own, a few chunks behind. So
//! fetching and inflating go on while files are written, and a patch can feed an unpacking.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::thread;

use super::lanes::locked;
use crate::error::{Context, Error, Kind, Result};
use crate::queue::{Receiver, Sender, queue};
use crate::stream::Stream;

/// How many written chunks may wait to be read; a chunk is what one `write` was given.
const CHUNKS_AHEAD: usize = 8;
/// A chunk worth passing on.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Runs `produce` and `consume` side by side, the one's output being the other's input, which must be read to its end.
/// If both fail, the producer's error is the one, unless it failed only because nobody read on.
pub fn join<T: Send>(
    produce: impl FnOnce(&mut dyn Write) -> Result<()>,
    consume: impl FnOnce(&mut dyn Stream) -> Result<T> + Send,
) -> Result<T> {
    let (mut produce, mut consume, mut result) = (Some(produce), Some(consume), None);
    side_by_side(&mut |out| produce.take().map_or(Ok(()), |produce| produce(out)), &mut |input| {
        result = consume.take().map(|consume| consume(input)).transpose()?;
        Ok(())
    })?;
    result.ok_or_else(died)
}

fn died() -> Error {
    Error::new(Kind::Internal, "the consuming thread died")
}

/// `join`, compiled once for results of every type.
fn side_by_side(
    produce: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    consume: &mut (dyn FnMut(&mut dyn Stream) -> Result<()> + Send),
) -> Result<()> {
    let (sender, receiver) = queue(CHUNKS_AHEAD);
    // Chunks go round: a new one each time would be memory from the kernel, and back to it.
    let spare = &Mutex::new(Vec::new());
    thread::scope(|scope| {
        let mut reader = Receiving { receiver, spare, chunk: Vec::new(), read: 0, failed: false };
        let consumer = thread::Builder::new()
            .name("consumer".into())
            .spawn_scoped(scope, move || consume(&mut reader))
            .context(|| "start a thread".into())?;
        let mut writer = Sending { sender, spare, is_refused: false };
        let produced = produce(&mut writer);
        let is_refused = writer.is_refused;
        // An error instead of the end: what is cut short must not look whole.
        if produced.is_err() && !is_refused {
            // The consumer may have gone already; then it needs no telling.
            let _ = writer.sender.send(Err(ProducerFailed));
        }
        drop(writer);
        let consumed = consumer.join().map_err(|_| died())?;
        match produced {
            Err(e) if !is_refused => Err(e),
            Err(e) => consumed.and(Err(e)),
            Ok(()) => consumed,
        }
    })
}

/// Copies everything, in chunks worth passing to another thread.
pub fn copy(from: &mut dyn Stream, to: &mut dyn Write) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).context(|| "read".into())?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).context(|| "pass on".into())?;
    }
}

struct ProducerFailed;

/// What is written comes chunk by chunk.
type Chunk = Result<Vec<u8>, ProducerFailed>;

struct Sending<'a> {
    sender: Sender<Chunk>,
    /// Chunks that have been read.
    spare: &'a Mutex<Vec<Vec<u8>>>,
    is_refused: bool,
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut chunk = locked(self.spare).pop().unwrap_or_default();
        chunk.clear();
        chunk.extend_from_slice(bytes);
        self.is_refused = !self.sender.send(Ok(chunk));
        match self.is_refused {
            false => Ok(bytes.len()),
            true => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Receiving<'a> {
    receiver: Receiver<Chunk>,
    spare: &'a Mutex<Vec<Vec<u8>>>,
    chunk: Vec<u8>,
    read: usize,
    failed: bool,
}

impl Read for Receiving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() && !self.failed {
            match self.receiver.receive() {
                Some(Ok(chunk)) => {
                    let read = std::mem::replace(&mut self.chunk, chunk);
                    self.read = 0;
                    locked(self.spare).push(read);
                }
                Some(Err(ProducerFailed)) => self.failed = true,
                None => return Ok(0),
            }
        }
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut rest = self.chunk.get(self.read..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.read += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(reader: &mut dyn Stream) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).context(|| "read".into())?;
        Ok(bytes)
    }

    #[test]
    fn passes_everything() {
        let input: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let output = join(
            |out| {
                input
                    .chunks(777)
                    .try_for_each(|chunk| out.write_all(chunk))
                    .context(|| "write".into())
            },
            read_all,
        );
        assert_eq!(output.unwrap(), input);
    }

    #[test]
    fn tells_the_error_that_came_first() {
        let fails = |out: &mut dyn Write| {
            out.write_all(b"half").context(|| "write".into())?;
            Err(Error::new(Kind::Corrupt, "bad delta"))
        };
        assert_eq!(join(fails, read_all).unwrap_err().to_string(), "bad delta");
        let endless = |out: &mut dyn Write| loop {
            out.write_all(&[0; 64]).context(|| "write".into())?;
        };
        let full = |_: &mut dyn Stream| Err::<(), _>(Error::new(Kind::NoSpace, "disk full"));
        assert_eq!(join(endless, full).unwrap_err().to_string(), "disk full");
    }
}
