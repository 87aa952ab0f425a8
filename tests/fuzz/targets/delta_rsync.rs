//! A delta in librsync's format, as in balena's delta images, and the basis that it is applied to: a byte says how long that is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaquita::delta::rsync::patch;

/// What a run may write before it is enough.
const LIMIT_BYTES: usize = 8 << 20;

struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&blocks, rest)) = bytes.split_first() else { return };
    let (mut basis, mut delta) = rest.split_at(rest.len().min(usize::from(blocks) * 256));
    let _ = patch(&mut basis, &mut delta, &mut Bounded(LIMIT_BYTES));
});
