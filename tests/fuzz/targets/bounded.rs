//! A place to write to that ends a run which has shown enough.

/// What a run may write before it is enough.
const LIMIT_BYTES: usize = 8 << 20;

/// Takes so many bytes, and no more.
pub struct Bounded(usize);

impl Bounded {
    pub fn new() -> Bounded {
        Bounded(LIMIT_BYTES)
    }
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
