//! The native delta from outside: on random pairs of tars, on executables whose parts have moved, and damaged.

mod pairs;

use std::io::Write;
use std::process::{Command, Stdio};

use pairs::{Member, Random, changed, some_members, tar_of};
use vaquita::delta::ReadAt;
use vaquita::delta::native::{Index, apply, make};
use vaquita::error::Result;

/// Of files, in bytes.
const SIZES: [usize; 5] = [0, 10, 700, 5000, 60_000];

fn a_file(name: &str, content: Vec<u8>) -> Member {
    let (name, link) = (name.into(), String::new());
    Member {
        name,
        kind: tar::EntryType::Regular,
        link,
        content,
        mode: 0o644,
        mtime: 1,
        attribute: None,
    }
}

fn delta_of(basis: &[u8], target: &[u8]) -> Vec<u8> {
    let (mut basis, mut target) = (basis, target);
    let index = Index::of(&mut basis).unwrap();
    let mut delta = Vec::new();
    make(&index, &mut basis, &mut target, &mut delta).unwrap();
    delta
}

fn applied(delta: &[u8], basis: &[u8]) -> Result<Vec<u8>> {
    let (mut delta, mut basis, mut target) = (delta, basis, Vec::new());
    apply(&mut delta, &mut basis, &mut target)?;
    assert!(delta.is_empty(), "the whole delta is read");
    Ok(target)
}

#[test]
fn random_pairs_come_back() {
    for seed in 0..60 {
        let random = &mut Random(seed);
        let lower = some_members(random, &SIZES);
        let upper = some_members(random, &SIZES);
        let basis = [tar_of(&lower), tar_of(&upper)].concat();
        let target = match random.below(10) {
            0 => Vec::new(),
            1 => random.content(3000),
            2 => tar_of(&upper),
            _ => {
                tar_of(&changed(if random.below(3) == 0 { &lower } else { &upper }, random, &SIZES))
            }
        };
        let delta = delta_of(&basis, &target);
        assert!(applied(&delta, &basis).unwrap() == target, "seed {seed}");
        assert!(
            delta.len() <= target.len() + 64,
            "seed {seed}: {} bytes for {}",
            delta.len(),
            target.len()
        );
    }
}

#[test]
fn what_is_here_costs_nothing() {
    let random = &mut Random(1);
    let mut members = Vec::new();
    while members.len() < 200 {
        members.append(&mut some_members(random, &SIZES));
    }
    let basis = tar_of(&members);
    let delta = delta_of(&basis, &basis);
    assert!(delta.len() < 200, "{}", delta.len());
    // New times, and everything renamed as a new version would be.
    for member in &mut members {
        member.mtime = 1_900_000_000;
        member.name = format!("v2/{}", member.name);
    }
    let delta = delta_of(&basis, &tar_of(&members));
    assert!(delta.len() < 2000, "{}", delta.len());
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let random = &mut Random(5);
    let small = |mut members: Vec<Member>| {
        members.truncate(12);
        members.iter_mut().for_each(|member| member.content.truncate(400));
        members
    };
    let members = small(some_members(random, &SIZES));
    let basis = tar_of(&members);
    let target = tar_of(&small(changed(&members, random, &SIZES)));
    let delta = delta_of(&basis, &target);
    assert!(delta.len() > 150, "{}: too little to damage", delta.len());
    for at in 0..delta.len() {
        for flip in [1, 0xff] {
            let mut damaged = delta.clone();
            damaged[at] ^= flip;
            // Another result is found out by its digest; what matters here is that nothing panics or runs away.
            if let Ok(made) = applied(&damaged, &basis) {
                assert_eq!(made.len(), target.len());
            }
        }
        assert!(applied(&delta[..at], &basis).is_err(), "cut at {at}");
    }
    let error = applied(&delta, &basis[512..]).unwrap_err();
    assert!(error.to_string().contains("delta is for a basis of"), "{error}");
    assert!(
        applied(b"vqdelta2", &basis)
            .unwrap_err()
            .to_string()
            .contains("no delta of a version that is known")
    );
}

#[test]
fn a_basis_that_fails_is_an_error() {
    struct Failing(u64);
    impl ReadAt for Failing {
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
        fn size_bytes(&self) -> u64 {
            self.0
        }
    }
    let basis = tar_of(&some_members(&mut Random(9), &SIZES));
    let delta = delta_of(&basis, &basis);
    let error =
        apply(&mut &delta[..], &mut Failing(basis.len() as u64), &mut std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("bad sector"), "{error}");
}

/// An instruction set: ELF's number, and how a call at `place` to `target` is written.
struct Machine {
    number: u16,
    call: fn(place: u64, target: u64) -> Vec<u8>,
    unit: usize,
}

const MACHINES: [Machine; 3] = [
    Machine {
        number: 62,
        unit: 1,
        call: |place, target| {
            [&[0xe8][..], &(target.wrapping_sub(place + 5) as u32).to_le_bytes()].concat()
        },
    },
    Machine {
        number: 183,
        unit: 4,
        call: |place, target| {
            (0x9400_0000_u32 | (target.wrapping_sub(place) >> 2) as u32 & 0x03ff_ffff)
                .to_le_bytes()
                .to_vec()
        },
    },
    Machine {
        number: 40,
        unit: 4,
        call: |place, target| {
            (0xeb00_0000_u32 | (target.wrapping_sub(place + 8) >> 2) as u32 & 0x00ff_ffff)
                .to_le_bytes()
                .to_vec()
        },
    },
];

/// A 64-bit executable (also where the machine has none) of `count` functions that call each other, with a table of their addresses.
/// `grown` bytes are put into the function at a third.
fn executable(machine: &Machine, count: usize, grown: usize) -> Vec<u8> {
    let random = &mut Random(77);
    let calls: Vec<Vec<usize>> =
        (0..count).map(|_| (0..6).map(|_| random.below(count)).collect()).collect();
    let bodies: Vec<Vec<u8>> =
        (0..count).map(|_| (0..40).map(|_| random.next() as u8 & 0x3f | 0x10).collect()).collect();
    let (code_at, table_at) = (0x1000_u64, 0x80_0000_u64);
    let function_bytes = |number: usize| 6 * (40 + 8) + if number == count / 3 { grown } else { 0 };
    let mut starts = vec![code_at];
    for number in 0..count {
        starts.push(
            starts[number]
                + function_bytes(number) as u64 / machine.unit as u64 * machine.unit as u64,
        );
    }
    let mut code = Vec::new();
    for number in 0..count {
        for &callee in &calls[number] {
            code.extend_from_slice(&bodies[number]);
            let place = code_at + code.len() as u64;
            let call = (machine.call)(place, starts[callee]);
            code.extend_from_slice(&call);
            code.resize(code.len() + 8 - call.len(), 0x90);
        }
        code.resize((starts[number + 1] - code_at) as usize, 0x12);
    }
    let table: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
    let mut file = vec![0; 64 + 2 * 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18..20].copy_from_slice(&machine.number.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[54..56].copy_from_slice(&56_u16.to_le_bytes());
    file[56..58].copy_from_slice(&2_u16.to_le_bytes());
    let table_offset = 0x1000 + code.len().next_multiple_of(4096);
    for (index, (flags, offset, address, bytes)) in
        [(5_u32, 0x1000_u64, code_at, code.len()), (6, table_offset as u64, table_at, table.len())]
            .into_iter()
            .enumerate()
    {
        let at = 64 + index * 56;
        file[at..at + 4].copy_from_slice(&1_u32.to_le_bytes());
        file[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        file[at + 16..at + 24].copy_from_slice(&address.to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&(bytes as u64).to_le_bytes());
        file[at + 40..at + 48].copy_from_slice(&(bytes as u64).to_le_bytes());
    }
    file.resize(0x1000, 0);
    file.extend(code);
    file.resize(table_offset, 0);
    file.extend(table);
    file
}

#[test]
fn moved_code_costs_next_to_nothing() {
    for machine in &MACHINES {
        let image = |grown: usize| {
            let content = executable(machine, 2000, grown);
            let member = Member {
                name: "bin/program".into(),
                kind: tar::EntryType::Regular,
                link: String::new(),
                content,
                mode: 0o755,
                mtime: 0,
                attribute: None,
            };
            tar_of(&[member])
        };
        let (basis, target) = (image(0), image(64));
        let delta = delta_of(&basis, &target);
        assert!(applied(&delta, &basis).unwrap() == target);
        // 12,000 calls and 2,000 addresses, of which most have changed.
        assert!(delta.len() < 600, "machine {}: {} bytes", machine.number, delta.len());
    }
}

fn gzipped(content: &[u8], options: &[&str]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    gzip.args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut gzip = gzip.spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let content = content.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&content).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// A line in a changelog changes every byte of what gzip makes of it.
#[test]
fn a_gzip_member_costs_what_was_changed_in_it() {
    let line = |number: usize| format!("entry {number}: {:x}\n", number * 7_654_321);
    let old: String = (0..6000).map(line).collect();
    let new = format!("a line that is new\n{}", old.replace("entry 77:", "entry seven:"));
    let file = |content: Vec<u8>| a_file("usr/share/doc/changelog.gz", content);
    let named = gzipped(new.as_bytes(), &["-1"]);
    let packed = gzipped(new.as_bytes(), &["-9n"]);
    for (basis, target, limit) in [
        (gzipped(old.as_bytes(), &["-9n"]), packed.clone(), 250),
        // Packed in another way, or not at all, or with another file behind it.
        (gzipped(old.as_bytes(), &["-6"]), named, 250),
        (old.clone().into_bytes(), packed.clone(), 250),
        (b"nothing like it".to_vec(), packed.clone(), packed.len()),
        (packed.clone(), packed.repeat(2), packed.len()),
    ] {
        let (basis, target) = (tar_of(&[file(basis)]), tar_of(&[file(target)]));
        let delta = delta_of(&basis, &target);
        assert!(applied(&delta, &basis).unwrap() == target);
        assert!(delta.len() < limit, "{} bytes", delta.len());
        for at in (0..delta.len()).step_by(delta.len() / 40 + 1) {
            let mut damaged = delta.clone();
            damaged[at] ^= 0x10;
            let _ = applied(&damaged, &basis);
        }
    }
}

/// Whoever makes a tar by hand may leave out the zeros at its end, and those behind the last file.
#[test]
fn a_tar_that_ends_in_a_file_comes_back() {
    let mut member = a_file("name", b"as it was".to_vec());
    let end = 512 + member.content.len();
    let basis = tar_of(&[member.clone()])[..end].to_vec();
    member.content = b"as it is now".to_vec();
    let target = tar_of(&[member.clone()]);
    for cut in 512..=target.len() {
        let target = &target[..cut];
        assert!(applied(&delta_of(&basis, target), &basis).unwrap() == target, "cut at {cut}");
    }
    member.content.clear();
    let target = tar_of(&[member]);
    for cut in [512, 513, target.len()] {
        assert!(applied(&delta_of(&basis, &target[..cut]), &basis).unwrap() == target[..cut]);
    }
}

/// A few bytes can ask for the basis any number of times: what comes of it is held against what the delta says that it makes.
#[test]
fn a_delta_makes_no_more_than_it_says() {
    let basis = tar_of(&some_members(&mut Random(2), &SIZES));
    let delta = delta_of(&basis, &basis);
    // The second of the two lengths, which are equal, is replaced.
    let length_bytes = basis.len().ilog2() as usize / 7 + 1;
    let (before, after) = (8 + length_bytes, 8 + 2 * length_bytes);
    for (length, why) in
        [(&[1][..], "makes more than it says"), (&[0xff, 0xff, 0xff, 1], "lacks the last")]
    {
        let damaged = [&delta[..before], length, &delta[after..]].concat();
        let error = applied(&damaged, &basis).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}
