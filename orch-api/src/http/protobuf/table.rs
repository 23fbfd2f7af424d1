//! The wire layout of the messages, from `messages.txt`.

use std::collections::HashMap;
use std::sync::OnceLock;

/// Sorted by tag in each message.
#[derive(Debug)]
pub(super) struct Table {
    messages: HashMap<&'static str, Message>,
    /// By `group/version.kind` in lower case: the tables' spelling of acronyms differs from the kinds'.
    kinds: HashMap<String, &'static str>,
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Message(Vec<Known>);

/// A field.
#[derive(Debug)]
pub(super) struct Known {
    tag: u64,
    /// Its name in JSON.
    pub(super) name: String,
    pub(super) kind: Type,
}

/// How often a value may stand there.
#[derive(Debug)]
pub(super) enum Type {
    One(Scalar),
    List(Scalar),
    Map(Scalar),
    /// A message whose fields stand in JSON among those around it.
    Inline(&'static str),
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Scalar {
    Text,
    Bytes,
    Integer,
    Truth,
    Double,
    Message(&'static str),
}

impl Table {
    /// The table, read at the first use: a server that no Go program writes to does without it.
    pub(super) fn get() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::parse(include_str!("messages.txt")))
    }

    fn parse(text: &'static str) -> Self {
        let messages: HashMap<_, _> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, fields)| {
                (
                    name,
                    Message(fields.split(';').filter_map(Known::parse).collect()),
                )
            })
            .collect();
        let kinds = messages.keys().map(|name| (name.to_lowercase(), *name)).collect();
        Self { messages, kinds }
    }

    /// A message by its full name.
    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }

    /// The message of a kind. Options go by every group's name.
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        let group = group.split('.').next().unwrap_or_default();
        let own = format!("{group}/{version}.{kind}").to_lowercase();
        let name = self
            .kinds
            .get(&own)
            .or_else(|| self.kinds.get(&format!("meta/v1.{kind}").to_lowercase()))?;
        self.message(name)
    }
}

impl Message {
    /// The field with this tag.
    pub(super) fn field(&self, tag: u64) -> Option<&Known> {
        self.0.iter().find(|field| field.tag == tag)
    }
}

impl Known {
    fn parse(text: &'static str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (tag, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let kind = match (name, kind.as_bytes().first()?) {
            ("-", _) => Type::Inline(kind),
            (_, b'*') => Type::List(Scalar::parse(&kind[1..])),
            (_, b'%') => Type::Map(Scalar::parse(&kind[1..])),
            _ => Type::One(Scalar::parse(kind)),
        };
        Some(Self {
            tag,
            name: name.to_owned(),
            kind,
        })
    }
}

impl Scalar {
    fn parse(text: &'static str) -> Self {
        match text {
            "s" => Self::Text,
            "b" => Self::Bytes,
            "i" => Self::Integer,
            "t" => Self::Truth,
            "d" => Self::Double,
            message => Self::Message(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_a_field_names_is_there() {
        let table = Table::get();
        for (holder, message) in &table.messages {
            for field in &message.0 {
                let (Type::One(Scalar::Message(name))
                | Type::List(Scalar::Message(name))
                | Type::Map(Scalar::Message(name))
                | Type::Inline(name)) = &field.kind
                else {
                    continue;
                };
                assert!(table.message(name).is_some(), "{holder} names {name}");
            }
        }
        assert!(table.messages.len() > 500);
    }
}
