//! The caller's capability sets (capabilities(7)), as masks with bit n for capability n.

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::process::last_error;

/// The last capability number that a mask can hold.
const LAST: u64 = 63;

/// Takes every capability outside `keep` out of the bounding set: no exec gives it back. Needs CAP_SETPCAP.
pub fn bound(keep: u64) -> Result<(), Errno> {
    for number in 0..=LAST {
        if keep & (1 << number) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP reads no memory.
        let result =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) };
        if result != 0 {
            // EINVAL: past the last capability that this kernel knows.
            return match last_error() {
                Errno::INVAL => Ok(()),
                other => Err(other),
            };
        }
    }
    Ok(())
}

/// Reduces the permitted and effective sets to `mask`, as far as they are held, and empties the inheritable and ambient
/// sets.
pub fn reduce(mask: u64) -> Result<(), Errno> {
    // Kernels before 4.3 have no ambient set and answer EINVAL: nothing to clear.
    let _ = thread::clear_ambient_capability_set();
    let held = thread::capabilities(None)?;
    let kept = held.permitted & CapabilitySet::from_bits_retain(mask);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets)
}
