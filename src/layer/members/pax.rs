//! PAX records: what a member has that a ustar header cannot say (POSIX pax, "pax Extended Header").

use super::Segment;
use crate::sys::node::{Mtime, Xattr};

/// The records that are heeded; the others only go into the header record.
#[derive(Default)]
pub struct Pax {
    path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Mtime>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Option<Sparse>,
}

/// GNU tar's sparse files in PAX archives: map in the records (0.0 and 0.1) or before the data (1.0).
#[derive(Default)]
pub struct Sparse {
    name: Option<Vec<u8>>,
    pub size: u64,
    pub map_in_payload: bool,
    pub segments: Vec<Segment>,
}

impl Pax {
    /// Parses `LENGTH KEY=VALUE\n` records; `None` when they are malformed.
    pub fn parse(mut records: &[u8]) -> Option<Pax> {
        let mut pax = Pax::default();
        while !records.is_empty() {
            let blank = records.iter().position(|&byte| byte == b' ')?;
            let len = decimal(&records[..blank])?;
            let (record, rest) = records.split_at_checked(usize::try_from(len).ok()?)?;
            let text = record.get(blank + 1..)?.strip_suffix(b"\n")?;
            let equals = text.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (&text[..equals], &text[equals + 1..]);
            pax.heed(key, value)?;
            records = rest;
        }
        Some(pax)
    }

    /// The name, which for a sparse file is not the one of the archive member.
    pub fn path(&self) -> Option<Vec<u8>> {
        self.sparse.as_ref().and_then(|sparse| sparse.name.clone()).or_else(|| self.path.clone())
    }

    fn heed(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value takes a record back: the header holds.
        let text = (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.linkpath = text,
            b"size" => self.size = optional(value, decimal)?,
            b"uid" => self.uid = optional(value, decimal)?,
            b"gid" => self.gid = optional(value, decimal)?,
            b"mtime" => self.mtime = optional(value, time)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().heed(name, value)?;
                }
            }
        }
        Some(())
    }
}

impl Sparse {
    fn heed(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = decimal(value)?,
            b"major" => self.map_in_payload = decimal(value)? == 1,
            b"map" => {
                let mut numbers = value.split(|&byte| byte == b',');
                while let Some(offset) = numbers.next() {
                    let (offset, len) = (decimal(offset)?, decimal(numbers.next()?)?);
                    self.segments.push(Segment { offset, len });
                }
            }
            b"offset" => self.segments.push(Segment { offset: decimal(value)?, len: 0 }),
            b"numbytes" => self.segments.last_mut()?.len = decimal(value)?,
            _ => {}
        }
        Some(())
    }
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `SECONDS[.FRACTION]`; before 1970 counts as 1970, as Docker has it.
fn time(value: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if seconds < 0 || text.starts_with('-') {
        return Some(Mtime::default());
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Mtime { seconds, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len += 1;
        }
        [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn reads_records_with_any_bytes_in_them() {
        let capability = b"\x01\0\0\x02\n5 a=\n\0";
        let records = [
            record("SCHILY.xattr.security.capability", capability),
            record("size", b"9000000000"),
            record("path", "d\u{e9}j\u{e0} vu".as_bytes()),
            record("uid", b"3000000"),
            record("gid", b""),
            record("mtime", b"1700000000.0123456789"),
            record("comment", b"not heeded"),
        ];
        let pax = Pax::parse(&records.concat()).unwrap();
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), capability.to_vec())]);
        assert_eq!((pax.size, pax.uid, pax.gid), (Some(9_000_000_000), Some(3_000_000), None));
        assert_eq!(pax.path().unwrap(), "d\u{e9}j\u{e0} vu".as_bytes());
        assert_eq!(pax.mtime, Some(Mtime { seconds: 1_700_000_000, nanoseconds: 12_345_678 }));
    }

    #[test]
    fn reads_times() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("-1.5", Some((0, 0))),
            ("-0.5", Some((0, 0))),
            ("7.", Some((7, 0))),
            ("x", None),
            ("1.x", None),
            ("1e3", None),
        ] {
            let expected = expected.map(|(seconds, nanoseconds)| Mtime { seconds, nanoseconds });
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn refuses_malformed_records() {
        for records in [
            "x",
            "5 a=b",
            "99 a=b\n",
            "3 a=b\n",
            "0 a=b\n",
            "6 a=b\n\n",
            "6 ab\n\n",
            "10 size=x\n",
            " ",
        ] {
            assert!(Pax::parse(records.as_bytes()).is_none(), "{records:?}");
        }
    }
}
