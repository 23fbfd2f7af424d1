//! The order of merged lists: what the patch names comes in the patch's order, what only the server has keeps its
//! place between its neighbours.

use serde_json::Value;

/// How the items of a list are told apart: by a field, or by themselves.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a>(pub(super) Option<&'a str>);

impl Identity<'_> {
    pub(super) fn same(self, a: &Value, b: &Value) -> bool {
        match self.0 {
            Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
            None => a == b,
        }
    }

    pub(super) fn position(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|other| self.same(other, item))
    }
}

/// Orders `merged` by `wanted`, keeping items that are not in `wanted` where the server had them.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    id: Identity<'_>,
) -> Vec<Value> {
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| id.position(wanted, item).is_some());
    named.sort_by_key(|item| id.position(wanted, item));
    rest.sort_by_key(|item| id.position(server, item).unwrap_or(usize::MAX));
    interleave(rest, named, server, id)
}

/// Merges two ordered lists: an item of the first goes before one of the second only if the server had it so.
fn interleave(first: Vec<Value>, second: Vec<Value>, server: &[Value], id: Identity<'_>) -> Vec<Value> {
    let mut all = Vec::with_capacity(first.len() + second.len());
    let mut first = first.into_iter().peekable();
    let mut second = second.into_iter().peekable();
    while let (Some(left), Some(right)) = (first.peek(), second.peek()) {
        let before = match (id.position(server, left), id.position(server, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        all.extend(if before { first.next() } else { second.next() });
    }
    all.extend(second);
    all.extend(first);
    all
}
