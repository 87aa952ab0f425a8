//! Suffix arrays, by induced sorting (Nong, Zhang, Chan: "Two Efficient Algorithms for Linear Time Suffix Array Construction").

/// The starts of all suffixes of `text` in order. `text` has to be shorter than 4 GiB; takes 13 bytes of memory for each byte.
pub fn suffixes(text: &[u8]) -> Vec<u32> {
    let text: Vec<u32> = text.iter().map(|&byte| byte.into()).collect();
    sort(&text, 256)
}

/// Not a suffix.
const NONE: u32 = u32::MAX;

/// The suffix array of `text`, whose letters are under `letters`.
fn sort(text: &[u32], letters: usize) -> Vec<u32> {
    let length = text.len();
    match length {
        0 => return Vec::new(),
        1 => return vec![0],
        _ => {}
    }
    // A suffix is small if it is less than the one behind it; the last is large: its end is less than everything.
    let mut is_small = vec![false; length];
    for at in (0..length - 1).rev() {
        is_small[at] = match text[at].cmp(&text[at + 1]) {
            std::cmp::Ordering::Equal => is_small[at + 1],
            order => order.is_lt(),
        };
    }
    let is_leftmost = |at: usize| at > 0 && is_small[at] && !is_small[at - 1];
    let mut starts = vec![0_u32; letters + 1];
    for &letter in text {
        starts[letter as usize + 1] += 1;
    }
    for letter in 0..letters {
        starts[letter + 1] += starts[letter];
    }

    let leftmost: Vec<u32> =
        (0..length).filter(|&at| is_leftmost(at)).map(|at| at as u32).collect();
    let mut sorted = vec![NONE; length];
    induce(text, &is_small, &starts, &leftmost, &mut sorted);
    if leftmost.len() > 1 {
        let order: Vec<u32> =
            sorted.iter().copied().filter(|&at| at != NONE && is_leftmost(at as usize)).collect();
        let leftmost = order_of_pieces(text, &leftmost, order);
        induce(text, &is_small, &starts, &leftmost, &mut sorted);
    }
    sorted
}

/// The leftmost small suffixes in order: `sorted` has them by their pieces, each up to the next; where pieces are equal, the text
/// of the pieces' ranks decides.
fn order_of_pieces(text: &[u32], leftmost: &[u32], sorted: Vec<u32>) -> Vec<u32> {
    let mut index = vec![NONE; text.len()];
    for (number, &at) in leftmost.iter().enumerate() {
        index[at as usize] = number as u32;
    }
    let end = |number: u32| {
        leftmost.get(number as usize + 1).map_or(text.len(), |&next| next as usize + 1)
    };
    let mut ranks = vec![0; leftmost.len()];
    let mut rank = 0;
    for pair in sorted.windows(2) {
        let [one, other] = [pair[0], pair[1]].map(|at| &text[at as usize..end(index[at as usize])]);
        // The last piece ends with the text, which is less than any letter.
        let is_last = |at: u32| index[at as usize] as usize + 1 == leftmost.len();
        if one != other || is_last(pair[0]) || is_last(pair[1]) {
            rank += 1;
        }
        ranks[index[pair[1] as usize] as usize] = rank;
    }
    drop(sorted);
    drop(index);
    let order = sort(&ranks, rank as usize + 1);
    order.iter().map(|&number| leftmost[number as usize]).collect()
}

/// Sorts all suffixes, given the leftmost small ones in order.
fn induce(text: &[u32], is_small: &[bool], starts: &[u32], leftmost: &[u32], sorted: &mut [u32]) {
    sorted.fill(NONE);
    let mut ends = starts[1..].to_vec();
    for &at in leftmost.iter().rev() {
        let end = &mut ends[text[at as usize] as usize];
        *end -= 1;
        sorted[*end as usize] = at;
    }
    let mut heads = starts.to_vec();
    let mut large = |sorted: &mut [u32], at: u32| {
        let head = &mut heads[text[at as usize] as usize];
        sorted[*head as usize] = at;
        *head += 1;
    };
    large(sorted, text.len() as u32 - 1);
    for place in 0..sorted.len() {
        let at = sorted[place];
        if at != NONE && at > 0 && !is_small[at as usize - 1] {
            large(sorted, at - 1);
        }
    }
    let mut ends = starts[1..].to_vec();
    for place in (0..sorted.len()).rev() {
        let at = sorted[place];
        if at != NONE && at > 0 && is_small[at as usize - 1] {
            let end = &mut ends[text[at as usize - 1] as usize];
            *end -= 1;
            sorted[*end as usize] = at - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_all_suffixes() {
        let mut seed = 7_u32;
        let mut random = |limit: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % limit
        };
        let mut texts: Vec<Vec<u8>> = vec![
            b"".to_vec(),
            b"a".to_vec(),
            b"banana".to_vec(),
            b"mississippi".to_vec(),
            vec![0; 300],
        ];
        for letters in [1, 2, 3, 256] {
            for length in [2, 3, 5, 50, 500] {
                texts.push((0..length).map(|_| random(letters) as u8).collect());
            }
        }
        for text in texts {
            let mut expected: Vec<u32> = (0..text.len() as u32).collect();
            expected.sort_by_key(|&at| &text[at as usize..]);
            assert_eq!(suffixes(&text), expected, "{text:?}");
        }
    }
}
