//! Which entry of the basis each entry of a target is told against.

use super::entries::{Entry, Index};

/// Samples that two files must have in common, of eight, to be taken for alike.
const MIN_SAMPLES_IN_COMMON: usize = 2;

/// The peer of each of `entries`, by its number in the basis.
pub fn peers(index: &Index, entries: &[Entry]) -> Vec<Option<usize>> {
    let mut peers = vec![None; entries.len()];
    // Where the entry in hand begins: at its first extension header.
    let mut first = 0;
    let mut next = 0;
    for (number, entry) in entries.iter().enumerate() {
        if entry.is_extension() {
            continue;
        }
        let peer = peer(index, entry, next);
        peers[number] = peer;
        if let Some(peer) = peer {
            pair_extensions(index, entries, first..number, peer, &mut peers);
            next = peer + 1;
        }
        first = number + 1;
    }
    peers
}

fn peer(index: &Index, entry: &Entry, next: usize) -> Option<usize> {
    let entry_of = |number: usize| &index.entries[number];
    let is_same = |&number: &usize| entry_of(number).hash == entry.hash;
    let following = (next..index.entries.len()).find(|&number| !entry_of(number).is_extension());
    let of_path = following
        .filter(|&number| entry_of(number).path == entry.path)
        .or_else(|| index.of_path(&entry.path))
        .filter(|&number| entry_of(number).kind == entry.kind);
    if !entry.is_file() {
        return of_path;
    }
    of_path
        .filter(is_same)
        .or_else(|| following.filter(is_same))
        .or_else(|| index.of_content(&entry.hash))
        .or_else(|| of_path.filter(|&number| entry_of(number).is_file()))
        .or_else(|| index.of_shape(&entry.path))
        .or_else(|| {
            let (number, count) = index.most_similar(entry)?;
            (count >= MIN_SAMPLES_IN_COMMON).then_some(number)
        })
}

/// Extension headers are like those of the same kind before the peer.
fn pair_extensions(
    index: &Index,
    entries: &[Entry],
    own: std::ops::Range<usize>,
    peer: usize,
    peers: &mut [Option<usize>],
) {
    let before = index.entries[..peer].iter().rposition(|entry| !entry.is_extension());
    let theirs = before.map_or(0, |before| before + 1)..peer;
    for number in own {
        peers[number] =
            theirs.clone().find(|&other| index.entries[other].kind == entries[number].kind);
    }
}
