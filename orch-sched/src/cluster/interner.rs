use std::collections::HashMap;
use std::sync::Arc;

/// Stands for a text: equal symbols, equal texts. 0 stands for "none".
pub(crate) type Symbol = u32;

pub(crate) const NONE: Symbol = 0;

/// Texts as small numbers, counted, so that those of removed nodes go away.
#[derive(Debug)]
pub(crate) struct Interner {
    symbols: HashMap<Arc<str>, Symbol>,
    entries: Vec<Entry>,
    free: Vec<Symbol>,
}

#[derive(Debug)]
struct Entry {
    text: Arc<str>,
    users: u32,
    /// The text read as an integer, for `Gt` and `Lt`.
    number: Option<i64>,
}

impl Default for Interner {
    fn default() -> Self {
        let none = Entry {
            text: "".into(),
            users: 1,
            number: None,
        };
        Self {
            symbols: HashMap::new(),
            entries: vec![none],
            free: Vec::new(),
        }
    }
}

impl Interner {
    /// The text's symbol, with one more user.
    pub(crate) fn acquire(&mut self, text: &str) -> Symbol {
        if let Some(&symbol) = self.symbols.get(text) {
            self.entries[symbol as usize].users += 1;
            return symbol;
        }
        let text: Arc<str> = text.into();
        let entry = Entry {
            text: text.clone(),
            users: 1,
            number: text.parse().ok(),
        };
        let symbol = match self.free.pop() {
            Some(symbol) => {
                self.entries[symbol as usize] = entry;
                symbol
            }
            None => {
                self.entries.push(entry);
                Symbol::try_from(self.entries.len() - 1).expect("fewer than 2^32 distinct texts")
            }
        };
        self.symbols.insert(text, symbol);
        symbol
    }

    /// Takes one user away.
    pub(crate) fn release(&mut self, symbol: Symbol) {
        if symbol == NONE {
            return;
        }
        let entry = &mut self.entries[symbol as usize];
        entry.users -= 1;
        if entry.users == 0 {
            self.symbols.remove(&entry.text);
            entry.text = "".into();
            self.free.push(symbol);
        }
    }

    /// The symbol of a text that is in use.
    pub(crate) fn find(&self, text: &str) -> Option<Symbol> {
        self.symbols.get(text).copied()
    }

    pub(crate) fn text(&self, symbol: Symbol) -> &str {
        &self.entries[symbol as usize].text
    }

    pub(crate) fn number(&self, symbol: Symbol) -> Option<i64> {
        self.entries[symbol as usize].number
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.symbols.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_lives_as_long_as_its_users() {
        let mut texts = Interner::default();
        let (a, again) = (texts.acquire("a"), texts.acquire("a"));
        assert_eq!(a, again);
        texts.release(a);
        assert_eq!(texts.find("a"), Some(a));
        texts.release(a);
        assert_eq!((texts.find("a"), texts.len()), (None, 0));
        assert_eq!(texts.acquire("12"), a, "the number is used again");
        assert_eq!(texts.number(a), Some(12));
    }
}
