//! Which numbers of a range are taken. Memory follows what is taken, not the range.

use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Bitmap {
    /// Numbers are in `[0, size)`.
    size: u128,
    /// 64 numbers a word; a word that is not there is free.
    words: BTreeMap<u128, u64>,
    taken: u128,
    /// Where the search goes on, so that what was just released is not given out again at once.
    next: u128,
}

impl Bitmap {
    pub(super) fn new(size: u128) -> Self {
        Bitmap {
            size,
            words: BTreeMap::new(),
            taken: 0,
            next: 0,
        }
    }

    pub(super) fn free(&self) -> u128 {
        self.size - self.taken
    }

    pub(super) fn taken(&self) -> u128 {
        self.taken
    }

    pub(super) fn has(&self, number: u128) -> bool {
        self.words
            .get(&(number / 64))
            .is_some_and(|word| word & bit(number) != 0)
    }

    /// Takes `number`; says whether it was free. It must be in the range.
    pub(super) fn take(&mut self, number: u128) -> bool {
        debug_assert!(number < self.size);
        let word = self.words.entry(number / 64).or_insert(0);
        let free = *word & bit(number) == 0;
        *word |= bit(number);
        self.taken += u128::from(free);
        free
    }

    /// Gives `number` back; says whether it was taken.
    pub(super) fn release(&mut self, number: u128) -> bool {
        let Some(word) = self.words.get_mut(&(number / 64)) else {
            return false;
        };
        let taken = *word & bit(number) != 0;
        *word &= !bit(number);
        if *word == 0 {
            self.words.remove(&(number / 64));
        }
        self.taken -= u128::from(taken);
        taken
    }

    /// Takes the next free number, going round.
    pub(super) fn take_next(&mut self) -> Option<u128> {
        let found = self
            .find_free(self.next, self.size)
            .or_else(|| self.find_free(0, self.next))?;
        self.take(found);
        self.next = if found + 1 < self.size { found + 1 } else { 0 };
        Some(found)
    }

    fn find_free(&self, from: u128, to: u128) -> Option<u128> {
        let mut number = from;
        while number < to {
            let word = self.words.get(&(number / 64)).copied().unwrap_or(0);
            // Those of the word before `number` do not count.
            let free = !word & (u64::MAX << (number % 64));
            if free != 0 {
                let found = number / 64 * 64 + u128::from(free.trailing_zeros());
                return (found < to).then_some(found);
            }
            number = (number / 64 + 1) * 64;
        }
        None
    }

    /// What is taken, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u128> {
        self.words.iter().flat_map(|(index, word)| {
            (0..64u128)
                .filter(move |i| word & (1 << i) != 0)
                .map(move |i| index * 64 + i)
        })
    }
}

fn bit(number: u128) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_behaves_as_a_set(size in 1u128..200, steps in prop::collection::vec((0u8..3, 0u128..200), 0..300)) {
            let mut bitmap = Bitmap::new(size);
            let mut set = BTreeSet::new();
            for (what, number) in steps {
                let number = number % size;
                match what {
                    0 => prop_assert_eq!(bitmap.take(number), set.insert(number)),
                    1 => prop_assert_eq!(bitmap.release(number), set.remove(&number)),
                    _ => match bitmap.take_next() {
                        Some(n) => prop_assert!(n < size && set.insert(n)),
                        None => prop_assert_eq!(set.len() as u128, size),
                    },
                }
                prop_assert_eq!(bitmap.taken(), set.len() as u128);
            }
            prop_assert_eq!(bitmap.iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
        }
    }
}
