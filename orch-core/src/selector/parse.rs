//! The text of label selectors.

use super::{Operator, Requirement, SelectorError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Open,
    Close,
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    End,
}

impl Token<'_> {
    fn text(self) -> String {
        match self {
            Token::Word(word) => word.to_owned(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => ",".to_owned(),
            Token::Not => "!".to_owned(),
            Token::Equals => "=".to_owned(),
            Token::NotEquals => "!=".to_owned(),
            Token::Greater => ">".to_owned(),
            Token::Less => "<".to_owned(),
            Token::End => String::new(),
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Token<'a> {
        self.scan().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.scan();
        self.rest = rest;
        token
    }

    fn scan(&self) -> (Token<'a>, &'a str) {
        const FIXED: [(&str, Token<'_>); 9] = [
            ("==", Token::Equals),
            ("!=", Token::NotEquals),
            ("=", Token::Equals),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            return (Token::End, rest);
        }
        for (text, token) in FIXED {
            if let Some(rest) = rest.strip_prefix(text) {
                return (token, rest);
            }
        }
        let end = rest
            .find(|c: char| is_special(c) || c.is_ascii_whitespace())
            .unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        (Token::Word(word), rest)
    }
}

fn unexpected<T>(found: Token<'_>, expected: &str) -> Result<T, SelectorError> {
    Err(SelectorError::Labels(format!(
        "found '{}', expected: {expected}",
        found.text()
    )))
}

pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut lexer = Lexer { rest: text };
    let mut requirements = Vec::new();
    if lexer.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(requirement(&mut lexer)?);
        match lexer.next() {
            Token::End => return Ok(requirements),
            Token::Comma => match lexer.peek() {
                Token::Word(_) | Token::Not => {}
                other => return unexpected(other, "identifier after ','"),
            },
            other => return unexpected(other, "',' or 'end of string'"),
        }
    }
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, SelectorError> {
    let negated = lexer.peek() == Token::Not;
    if negated {
        lexer.next();
    }
    let key = match lexer.next() {
        Token::Word(word) => word,
        other => return unexpected(other, "'!', identifier"),
    };
    let new = |operator, values| Requirement::new(key, operator, values).map_err(SelectorError::from);
    match lexer.peek() {
        Token::End | Token::Comma => {
            let operator = if negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return new(operator, Vec::new());
        }
        other if negated => return unexpected(other, "',' or 'end of string'"),
        _ => {}
    }
    match lexer.next() {
        Token::Equals => new(Operator::Equals, vec![value(lexer)?]),
        Token::NotEquals => new(Operator::NotEquals, vec![value(lexer)?]),
        Token::Greater => new(Operator::GreaterThan, vec![value(lexer)?]),
        Token::Less => new(Operator::LessThan, vec![value(lexer)?]),
        Token::Word("in") => new(Operator::In, values(lexer)?),
        Token::Word("notin") => new(Operator::NotIn, values(lexer)?),
        other => unexpected(other, "in, notin, =, ==, !=, gt, lt"),
    }
}

/// One value, which may be empty.
fn value(lexer: &mut Lexer<'_>) -> Result<String, SelectorError> {
    match lexer.peek() {
        Token::End | Token::Comma => Ok(String::new()),
        Token::Word(word) => {
            lexer.next();
            Ok(word.to_owned())
        }
        other => unexpected(other, "identifier"),
    }
}

/// Values in parentheses, of which each may be empty.
fn values(lexer: &mut Lexer<'_>) -> Result<Vec<String>, SelectorError> {
    match lexer.next() {
        Token::Open => {}
        other => return unexpected(other, "'('"),
    }
    let mut values = Vec::new();
    loop {
        match lexer.next() {
            Token::Word(word) => {
                values.push(word.to_owned());
                match lexer.next() {
                    Token::Comma if lexer.peek() == Token::Close => values.push(String::new()),
                    Token::Comma => {}
                    Token::Close => return Ok(values),
                    other => return unexpected(other, "',' or ')'"),
                }
            }
            Token::Comma => {
                values.push(String::new());
                if lexer.peek() == Token::Close {
                    values.push(String::new());
                }
            }
            Token::Close => {
                if values.is_empty() {
                    values.push(String::new());
                }
                return Ok(values);
            }
            other => return unexpected(other, "',', ')' or identifier"),
        }
    }
}
