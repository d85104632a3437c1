//! Which files a layer has: their sizes, kinds and names. Sizes are those of a distribution's root.

use super::content::word;
use super::random::Random;

/// Of 10,000 files, how many are of 2ⁿ to 2ⁿ⁺¹ bytes, from n = 4. The rest is empty.
const OCTAVES: [usize; 20] = [
    100, 200, 400, 600, 900, 1200, 1600, 1600, 1300, 800, 500, 300, 180, 100, 60, 30, 15, 8, 5, 2,
];

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Program,
    Packed,
}

/// The sizes of `files` files, which are `total` bytes together, or a few less.
pub(super) fn sizes(random: &mut Random, files: u32, total: u64) -> Vec<u64> {
    let mut sizes: Vec<u64> = (0..files).map(|_| size(random)).collect();
    let natural: u64 = sizes.iter().sum();
    for size in &mut sizes {
        let scaled = u128::from(*size) * u128::from(total) / u128::from(natural.max(1));
        *size = u64::try_from(scaled).expect("it is no more than the total");
    }
    sizes
}

fn size(random: &mut Random) -> u64 {
    let mut chosen = random.below(10_000);
    for (octave, weight) in (4..).zip(OCTAVES) {
        if chosen < weight {
            let low = 1_u64 << octave;
            return low + random.next() % low;
        }
        chosen -= weight;
    }
    0
}

/// Small files are mostly text; large ones programs and archives.
pub(super) fn kind(random: &mut Random, size: u64) -> Kind {
    let (text, program) = if size < 1 << 16 { (75, 95) } else { (15, 75) };
    match random.below(100) {
        chance if chance < text => Kind::Text,
        chance if chance < program => Kind::Program,
        _ => Kind::Packed,
    }
}

/// A file's name, which `number` makes unlike all others of its folder.
pub(super) fn file_name(random: &mut Random, number: u32, kind: Kind) -> String {
    let endings: &[&str] = match kind {
        Kind::Text => &[".py", ".js", ".h", ".md", ".json", ".1", ".conf", ""],
        Kind::Program => &[".so.1", ".so", ".pyc", ".mo", ".a", ""],
        Kind::Packed => &[".gz", ".png", ".jar", ".woff2"],
    };
    let ending = endings[random.below(endings.len())];
    let mut name = folder_name(random, number);
    if random.once_in(400) {
        name.push_str(&"-with-a-very-long-name".repeat(6));
    }
    name + ending
}

/// A folder's name, likewise.
pub(super) fn folder_name(random: &mut Random, number: u32) -> String {
    let rank = random.below(2048);
    let word = String::from_utf8(word(random, rank)).expect("words are ASCII");
    format!("{word}{number}")
}

#[cfg(test)]
mod tests {
    use super::{OCTAVES, Random, sizes};

    #[test]
    fn sizes_come_to_the_total_and_most_are_small() {
        assert!(OCTAVES.iter().sum::<usize>() <= 10_000);
        let total = 2 << 30;
        let mut sizes = sizes(&mut Random::new(7), 60_000, total);
        let sum: u64 = sizes.iter().sum();
        assert!(sum <= total && sum > total - 60_000);
        sizes.sort_unstable();
        assert!(sizes[30_000] < 8192, "the median is {}", sizes[30_000]);
        assert!(sizes[59_999] > 4 << 20);
    }
}
