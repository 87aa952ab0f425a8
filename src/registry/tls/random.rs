//! The kernel's random numbers, in the form that the primitives ask for.
//!
//! The system call, not the C library's `getrandom`: in a static musl program that name is a weak symbol, which nothing
//! fetches from the library, and on riscv64 a call of it jumps to itself for ever.

use std::io;

use p256::elliptic_curve::rand_core::{TryCryptoRng, TryRng};

use crate::sys::host;

/// The kernel's generator (getrandom(2)).
pub(super) struct KernelRandom;

impl TryRng for KernelRandom {
    type Error = io::Error;

    fn try_next_u32(&mut self) -> Result<u32, io::Error> {
        let mut bytes = [0; 4];
        host::fill_random(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, io::Error> {
        let mut bytes = [0; 8];
        host::fill_random(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), io::Error> {
        host::fill_random(bytes)
    }
}

impl TryCryptoRng for KernelRandom {}
