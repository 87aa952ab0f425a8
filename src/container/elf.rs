//! Why the kernel may not execute a file: for which machine it is built.

/// How much of a file `machine` needs.
pub const HEADER_BYTES: usize = 20;

/// The ELF machine number of a file that begins with `header` (elf(5), e_machine); `None` if it is no ELF file.
pub fn machine(header: &[u8]) -> Option<u16> {
    const BIG_ENDIAN: u8 = 2;
    let header: &[u8; HEADER_BYTES] = header.try_into().ok()?;
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let number = [header[18], header[19]];
    let big = header[5] == BIG_ENDIAN;
    Some(if big { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) })
}

/// Docker's name for a machine (elf.h, EM_*).
pub fn architecture(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64le",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv",
        258 => "loong64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_byte_orders() {
        let mut header = *b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x28\0";
        assert_eq!(machine(&header), Some(40));
        (header[5], header[18], header[19]) = (2, 0, 22);
        assert_eq!(machine(&header).and_then(architecture), Some("s390x"));
        assert_eq!(machine(&header[..19]), None);
        assert_eq!(machine(b"#!/bin/sh\nexit 1.234"), None);
    }
}
