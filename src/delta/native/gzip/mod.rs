//! Deflate as GNU gzip and zlib do it, bit by bit: what was packed by one of them can be opened, changed and closed again.
//!
//! RFC 1951 leaves the choice of matches, blocks and codes to the encoder. Those two share their ancestor's, and differ in little:
//! where a block ends, how far it is from the end of the content that matches are looked for, and the size of the hash table.
//! `deflate` finds the matches, `trees` writes blocks of them, `member` opens and closes a file.
//!
//! What they write depends on the content alone, never on how it came in slices: the window moves only when what is ahead in it
//! runs short, at a place that the matches decide. One thing is out of reach: GNU gzip compares beyond the end of the content,
//! with what is left in its window from the file before, if it was given several. It shows only where the match goes on with zeros.

mod deflate;
mod member;
mod trees;

pub use deflate::Deflater;
pub use member::{Closing, MAX_OPEN_BYTES, inflate, open};

/// Whose deflate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// GNU gzip.
    Gnu,
    /// zlib, with a window of 32 KiB and memory level 8: its defaults.
    Zlib,
    /// zlib at memory level 9: twice the hash table, and twice the symbols in a block.
    ZlibLarge,
}

/// The encoders, by their number in a recipe's byte.
const ENCODERS: [Encoder; 3] = [Encoder::Gnu, Encoder::Zlib, Encoder::ZlibLarge];

/// The levels, the likeliest first: the one for archives, the default, the fast one, then the rest.
const LEVELS: [u8; 9] = [9, 6, 1, 5, 8, 7, 4, 3, 2];

/// Which encoder, and how it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    encoder: Encoder,
    /// 1 to 9.
    level: u8,
}

impl Recipe {
    /// The encoder's number in the high half, the level in the low one.
    pub fn to_byte(self) -> u8 {
        (self.encoder as u8) << 4 | self.level
    }

    /// What `to_byte` wrote; `None` for any other byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let encoder = *ENCODERS.get(usize::from(byte >> 4))?;
        let level = byte & 15;
        LEVELS.contains(&level).then_some(Self { encoder, level })
    }

    /// Every recipe, the likeliest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LEVELS.len() * ENCODERS.len()).map(|number| Self {
            encoder: ENCODERS[number % ENCODERS.len()],
            level: LEVELS[number / ENCODERS.len()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    /// What the deflater makes of `content`, given to it in slices of `slice_bytes`.
    fn deflated(recipe: Recipe, content: &[u8], slice_bytes: usize) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut deflater = Deflater::new(recipe, &mut packed);
        for slice in content.chunks(slice_bytes) {
            deflater.write(slice).unwrap();
        }
        deflater.finish().unwrap();
        packed
    }

    /// What `gzip` makes of `content`, without header and trailer.
    fn gzipped(level: u8, content: &[u8]) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("regzip-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let input = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let output = Command::new("gzip").arg(format!("-{level}n")).stdin(input).output().unwrap();
        assert!(output.status.success());
        output.stdout[10..output.stdout.len() - 8].to_vec()
    }

    /// What zlib makes of each of `contents` by each of `recipes` (memory level, level); one process for all.
    fn zlibbed(contents: &[Vec<u8>], recipes: &[(u8, u8)]) -> Vec<Vec<u8>> {
        const PEER: &str = "
import sys, zlib
given, made = sys.stdin.buffer, []
while header := given.read(6):
    memory, level = header[:2]
    content = given.read(int.from_bytes(header[2:], 'little'))
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, memory)
    packed = packer.compress(content) + packer.flush()
    made.append(len(packed).to_bytes(4, 'little') + packed)
sys.stdout.buffer.write(b''.join(made))
";
        let mut peer = Command::new("python3")
            .args(["-c", PEER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = peer.stdin.take().unwrap();
        for content in contents {
            for &(memory, level) in recipes {
                input.write_all(&[memory, level]).unwrap();
                input.write_all(&(content.len() as u32).to_le_bytes()).unwrap();
                input.write_all(content).unwrap();
            }
        }
        drop(input);
        let mut output = peer.stdout.take().unwrap();
        let packed = (0..contents.len() * recipes.len())
            .map(|_| {
                let mut length = [0; 4];
                output.read_exact(&mut length).unwrap();
                let mut packed = vec![0; u32::from_le_bytes(length) as usize];
                output.read_exact(&mut packed).unwrap();
                packed
            })
            .collect();
        assert!(peer.wait().unwrap().success());
        packed
    }

    /// Numbers below a limit, always the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % limit
        }
    }

    type Make = fn(&mut Random, &mut Vec<u8>);

    fn word(random: &mut Random, content: &mut Vec<u8>) {
        // Few words are frequent, many are rare.
        let rank = random.below(2000) * random.below(2000) / 2000;
        let mut letters = Random(rank as u64);
        letters.below(2);
        let length = 2 + letters.below(9);
        content.extend((0..length).map(|_| b"etaoinshrdlucmfwyp"[letters.below(18)]));
        content.push(if random.below(9) == 0 { b'\n' } else { b' ' });
    }

    fn noise(random: &mut Random, content: &mut Vec<u8>) {
        content.push(random.below(256) as u8);
    }

    fn run(random: &mut Random, content: &mut Vec<u8>) {
        let byte = random.below(3) as u8;
        content.resize(content.len() + 1 + random.below(400), byte);
    }

    fn record(random: &mut Random, content: &mut Vec<u8>) {
        content.extend([0, 0, random.below(4) as u8, 0, 9, random.below(20) as u8, 0, 0, 0, 255]);
    }

    fn copy(random: &mut Random, content: &mut Vec<u8>) {
        // From about as far as a match may reach, or much nearer.
        let farthest = 33_000 >> random.below(16);
        let distance = 1 + random.below(farthest);
        match content.len().checked_sub(distance) {
            Some(at) => content.extend_from_within(at..at + (3 + random.below(9)).min(distance)),
            None => noise(random, content),
        }
    }

    fn mixture(random: &mut Random, content: &mut Vec<u8>) {
        let make = [word as Make, noise, run, record, copy][random.below(5)];
        for _ in 0..random.below(3000) {
            make(random, content);
        }
    }

    fn content(make: Make, length: usize) -> Vec<u8> {
        let mut content = Vec::new();
        let mut random = Random(length as u64);
        while content.len() < length {
            make(&mut random, &mut content);
        }
        content.truncate(length);
        content
    }

    /// Lengths at which something changes: none, the shortest and the longest match, the edges of the window and of where it moves.
    fn contents() -> Vec<Vec<u8>> {
        let mut contents: Vec<_> =
            [0, 1, 2, 3, 4, 258, 259].into_iter().map(|length| content(run, length)).collect();
        for make in [word as Make, noise, run, record, copy, mixture] {
            contents.extend([1000, 140_000].map(|length| content(make, length)));
        }
        let edges = [262, 32_506, 65_273, 65_274, 65_400, 65_536, 98_304];
        contents.extend(edges.map(|length| content(record, length)));
        contents
    }

    fn assert_same(ours: &[u8], theirs: &[u8], recipe: Recipe, number: usize) {
        let same = ours.iter().zip(theirs).take_while(|(one, other)| one == other).count();
        assert!(
            ours == theirs,
            "{recipe:?}, content {number}: {} and {} bytes, the first {same} the same",
            ours.len(),
            theirs.len()
        );
    }

    #[test]
    fn deflates_as_gnu_gzip() {
        for (number, content) in contents().iter().enumerate() {
            for level in 1..=9 {
                let recipe = Recipe { encoder: Encoder::Gnu, level };
                let ours = deflated(recipe, content, usize::MAX);
                assert_same(&ours, &gzipped(level, content), recipe, number);
            }
        }
    }

    #[test]
    fn deflates_as_zlib() {
        let contents = contents();
        let recipes: Vec<(u8, u8)> =
            (1..=9).map(|level| (8, level)).chain([(9, 1), (9, 6), (9, 9)]).collect();
        let mut theirs = zlibbed(&contents, &recipes).into_iter();
        for (number, content) in contents.iter().enumerate() {
            for &(memory, level) in &recipes {
                let encoder = if memory == 8 { Encoder::Zlib } else { Encoder::ZlibLarge };
                let recipe = Recipe { encoder, level };
                let ours = deflated(recipe, content, usize::MAX);
                assert_same(&ours, &theirs.next().unwrap(), recipe, number);
            }
        }
    }

    #[test]
    fn slices_change_nothing() {
        let content = content(mixture, 100_000);
        for recipe in Recipe::all().filter(|recipe| [9, 1].contains(&recipe.level)) {
            let whole = deflated(recipe, &content, usize::MAX);
            for slice_bytes in [1, 261, 262, 4096, 65_535] {
                assert!(
                    deflated(recipe, &content, slice_bytes) == whole,
                    "{recipe:?}, {slice_bytes}"
                );
            }
        }
    }

    #[test]
    fn recipes_are_bytes() {
        let all: Vec<Recipe> = Recipe::all().collect();
        let of_bytes: Vec<Recipe> = (0..=255).filter_map(Recipe::from_byte).collect();
        assert_eq!((all.len(), of_bytes.len()), (27, 27));
        assert_eq!(all[0].to_byte(), 0x09);
        for recipe in all {
            assert_eq!(Recipe::from_byte(recipe.to_byte()), Some(recipe));
        }
    }
}
