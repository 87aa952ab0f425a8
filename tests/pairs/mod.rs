//! Seeded pairs of tars: what is in an image, and what becomes of it in the next version.
#![allow(dead_code, reason = "each test program uses its part")]

/// A reproducible source of numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Text, or noise.
    pub fn content(&mut self, bytes: usize) -> Vec<u8> {
        let letters = if self.below(2) == 0 { 20 } else { 256 };
        (0..bytes).map(|_| (self.below(letters) as u8).wrapping_add(b'a')).collect()
    }
}

/// A member of a tar.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub kind: tar::EntryType,
    pub link: String,
    pub content: Vec<u8>,
    pub mode: u32,
    pub mtime: u64,
    pub attribute: Option<String>,
}

/// The tar of them.
pub fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        if let Some(value) = &member.attribute {
            builder.append_pax_extensions([("SCHILY.xattr.user.test", value.as_bytes())]).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(member.kind);
        header.set_mode(member.mode);
        header.set_mtime(member.mtime);
        header.set_size(member.content.len() as u64);
        if member.link.is_empty() {
            builder.append_data(&mut header, &member.name, &member.content[..]).unwrap();
        } else {
            builder.append_link(&mut header, &member.name, &member.link).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// Fewer than 30; files are of `sizes`.
pub fn some_members(random: &mut Random, sizes: &[usize; 5]) -> Vec<Member> {
    let count = random.below(30);
    let member = |number: usize, random: &mut Random| {
        let kind = match random.below(8) {
            0 => tar::EntryType::Directory,
            1 => tar::EntryType::Symlink,
            2 => tar::EntryType::Link,
            _ => tar::EntryType::Regular,
        };
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        let bytes = if kind == tar::EntryType::Regular { sizes[random.below(5)] } else { 0 };
        let long = if random.below(10) == 0 { "long/".repeat(30) } else { String::new() };
        Member {
            name: format!("dir{}/{long}file-{number}", random.below(4)),
            kind,
            link: if is_link { format!("dir1/file-{}", random.below(30)) } else { String::new() },
            content: random.content(bytes),
            mode: [0o644, 0o755, 0o4755][random.below(3)],
            mtime: 1_700_000_000 + random.below(1000) as u64,
            attribute: (random.below(10) == 0).then(|| format!("value {}", random.below(100))),
        }
    };
    (0..count).map(|number| member(number, random)).collect()
}

/// What may become of an image: edits, moves, renames, new times, whiteouts, members that come and go.
pub fn changed(members: &[Member], random: &mut Random, sizes: &[usize; 5]) -> Vec<Member> {
    let mut members = members.to_vec();
    if random.below(4) == 0 {
        members.iter_mut().for_each(|member| member.mtime = 1_800_000_000 + random.below(5) as u64);
    }
    for _ in 0..random.below(12) {
        if members.is_empty() {
            members = some_members(random, sizes);
            continue;
        }
        let at = random.below(members.len());
        let length = members[at].content.len();
        match random.below(9) {
            0 => drop(members.remove(at)),
            1 => members[at].name.push_str("-2"),
            2 => {
                let member = members.remove(at);
                let to = random.below(members.len() + 1);
                members.insert(to, member);
            }
            3 if length > 0 => {
                for _ in 0..20 {
                    let place = random.below(length);
                    members[at].content[place] ^= 1 << random.below(8);
                }
            }
            4 if length > 0 => {
                let (from, to) = (random.below(length), random.below(length));
                let part = members[at].content[from.min(to)..from.max(to)].to_vec();
                let place = random.below(length);
                members[at].content.splice(place..place, part);
            }
            5 if length > 0 => {
                let fresh = random.content(300);
                let place = random.below(length);
                members[at].content.splice(place..place, fresh);
            }
            6 => members[at].mode ^= 0o111,
            7 => {
                let mut member = members[at].clone();
                (member.name, member.kind) =
                    (format!("dir1/.wh.gone-{}", random.below(9)), tar::EntryType::Regular);
                (member.link, member.content) = (String::new(), Vec::new());
                members.insert(at, member);
            }
            _ => {
                let mut fresh = some_members(random, sizes);
                members.append(&mut fresh);
            }
        }
    }
    members
}

/// The same, as far as it can be unpacked: hard links lead to files that came before them.
pub fn made_sound(mut members: Vec<Member>) -> Vec<Member> {
    for at in 0..members.len() {
        let (before, rest) = members.split_at_mut(at);
        let member = &mut rest[0];
        if member.kind != tar::EntryType::Link {
            continue;
        }
        let latest = |name: &str| before.iter().rev().find(|other| other.name == name);
        let is_file = |name: &str| latest(name).is_some_and(|m| m.kind == tar::EntryType::Regular);
        let mut files = before.iter().filter(|other| {
            is_file(&other.name) && other.name != member.name && !other.name.contains(".wh.")
        });
        match files.next_back() {
            Some(file) => member.link = file.name.clone(),
            None => (member.kind, member.link) = (tar::EntryType::Regular, String::new()),
        }
    }
    members
}

/// A sparse file, in GNU's format 1.0 (tar manual, "PAX Format, Version 1.0"): the map, then the parts' bytes.
pub fn sparse_member(random: &mut Random) -> Vec<u8> {
    let part = random.content(500);
    let (offset, size) = (4096 * random.below(50), 4096 * 64);
    let mut content = format!("1\n{offset}\n{}\n", part.len()).into_bytes();
    content.resize(512, 0);
    content.extend(part);
    let mut builder = tar::Builder::new(Vec::new());
    let (real_size, name) = (size.to_string(), format!("dir0/sparse-{}", random.below(3)));
    let extensions = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", &name),
        ("GNU.sparse.realsize", &real_size),
    ];
    builder.append_pax_extensions(extensions.map(|(key, value)| (key, value.as_bytes()))).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o600);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "GNUSparseFile.0/sparse", &content[..]).unwrap();
    let mut tar = builder.into_inner().unwrap();
    // Without the end: more comes behind it.
    tar.truncate(tar.len() - 1024);
    tar
}
