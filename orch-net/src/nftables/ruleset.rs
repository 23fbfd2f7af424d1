//! From the desired state, or a difference, to one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::NftablesConfig;
use super::content::{ChainId, Choice, Collection, Content, Element, Entry, Sticky, Value};
use super::script::{Script, TableWriter};
use crate::model::{Change, DesiredState, Family, ServicePort};

/// What the tables hold beyond the service ports themselves.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    tables: BTreeMap<Family, Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Chains shared by service ports with as many endpoints. They stay until the table is written anew.
    choices: HashSet<(Choice, Entry)>,
    /// How many service ports hold a shared element.
    shared: HashMap<Element, usize>,
}

/// What differs between two contents.
#[derive(Debug, Default)]
struct Delta {
    gone: BTreeSet<Element>,
    fresh: BTreeSet<Element>,
    before: Vec<Sticky>,
    after: Vec<Sticky>,
}

impl Ruleset {
    /// The script that replaces the tables by the desired state, and how many elements and chains it writes.
    pub(super) fn full(&mut self, config: &NftablesConfig, desired: &DesiredState) -> (String, usize) {
        self.tables.clear();
        let mut script = Script::default();
        let mut writes = 0;
        for family in &config.families {
            let ports: Vec<&ServicePort> = desired
                .iter()
                .map(|port| &**port)
                .filter(|port| port.key.family == *family)
                .collect();
            let table = self.tables.entry(*family).or_default();
            let mut writer = script.table(config, *family);
            writer.remove_table();
            writer.base();
            writes += table.fill(&mut writer, &ports);
        }
        (script.into_text(), writes)
    }

    /// The script that brings about a difference, empty if the rules do not differ.
    pub(super) fn incremental(&mut self, config: &NftablesConfig, changes: &[Change]) -> (String, usize) {
        let mut script = Script::default();
        let mut writes = 0;
        for family in &config.families {
            let mut delta = Delta::default();
            let table = self.tables.entry(*family).or_default();
            for change in changes {
                let of_family = |port: &&ServicePort| port.key.family == *family;
                let content =
                    |port: Option<&ServicePort>| port.filter(of_family).map(Content::of).unwrap_or_default();
                let (before, after) = (
                    content(change.before.as_deref()),
                    content(change.after.as_deref()),
                );
                table.add(&mut delta, before, after);
            }
            let mut writer = script.table(config, *family);
            writes += table.write(&mut writer, &delta);
        }
        (script.into_text(), writes)
    }
}

impl Table {
    fn fill(&mut self, writer: &mut TableWriter<'_>, ports: &[&ServicePort]) -> usize {
        let mut by_collection: BTreeMap<Collection, Vec<Element>> = BTreeMap::new();
        let mut stickies = Vec::new();
        for port in ports {
            let content = Content::of(port);
            stickies.extend(content.sticky);
            for element in content.elements {
                self.require(element.value, writer);
                if element.collection.is_shared() {
                    let count = self.shared.entry(element).or_default();
                    *count += 1;
                    if *count > 1 {
                        continue;
                    }
                }
                by_collection.entry(element.collection).or_default().push(element);
            }
        }
        for sticky in &stickies {
            let ids: Vec<u64> = sticky.endpoints.iter().map(|(id, _)| *id).collect();
            writer.sticky(sticky, true, &ids);
        }
        // Verdicts last: their chains are there by then.
        for elements in by_collection.values() {
            writer.add_elements(elements);
        }
        by_collection.values().map(Vec::len).sum::<usize>() + stickies.len()
    }

    /// Makes the chains that an element will point to, unless they exist or belong to a service port.
    fn require(&mut self, value: Value, writer: &mut TableWriter<'_>) {
        let Value::Goto(ChainId::Choose(choice @ Choice::Random(..), entry)) = value else {
            return;
        };
        for entry in [Entry::Plain, entry] {
            if self.choices.insert((choice, entry)) {
                writer.choice_chain(choice, entry);
            }
        }
    }

    fn add(&mut self, delta: &mut Delta, before: Content, after: Content) {
        for element in before.elements {
            if element.collection.is_shared() && !self.release(element) {
                continue;
            }
            delta.gone.insert(element);
        }
        for element in after.elements {
            if element.collection.is_shared() && !self.retain(element) {
                continue;
            }
            if !delta.gone.remove(&element) {
                delta.fresh.insert(element);
            }
        }
        delta.before.extend(before.sticky);
        delta.after.extend(after.sticky);
    }

    /// Whether nobody holds the element any more.
    fn release(&mut self, element: Element) -> bool {
        let Some(count) = self.shared.get_mut(&element) else {
            return false;
        };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.shared.remove(&element);
        }
        last
    }

    /// Whether nobody held the element before.
    fn retain(&mut self, element: Element) -> bool {
        let count = self.shared.entry(element).or_default();
        *count += 1;
        *count == 1
    }

    fn write(&mut self, writer: &mut TableWriter<'_>, delta: &Delta) -> usize {
        // An element may be released by one service port and taken by an earlier one of the same difference.
        let gone: Vec<&Element> = delta.gone.difference(&delta.fresh).collect();
        let fresh: Vec<&Element> = delta.fresh.difference(&delta.gone).collect();
        for element in &fresh {
            self.require(element.value, writer);
        }
        let by_id = |stickies: &[Sticky]| -> BTreeMap<u64, Sticky> {
            stickies
                .iter()
                .map(|sticky| (sticky.id, sticky.clone()))
                .collect()
        };
        let (before, after) = (by_id(&delta.before), by_id(&delta.after));
        let mut writes = gone.len() + fresh.len();
        for (id, sticky) in after.iter().filter(|(id, sticky)| before.get(id) != Some(sticky)) {
            let old = before.get(id);
            writer.sticky(sticky, old.is_none(), &ids_without(sticky, old));
            writes += 1;
        }
        writer.delete_elements(gone);
        writer.add_elements(fresh);
        for (id, sticky) in before.iter().filter(|(id, sticky)| after.get(id) != Some(sticky)) {
            match after.get(id) {
                Some(new) => writer.remove_sticky_endpoints(&ids_without(sticky, Some(new))),
                None => writer.remove_sticky(sticky),
            }
            writes += 1;
        }
        writes
    }
}

/// The ids of a chain's endpoints that another one does not have.
fn ids_without(sticky: &Sticky, other: Option<&Sticky>) -> Vec<u64> {
    let known: HashSet<u64> = other
        .into_iter()
        .flat_map(|other| &other.endpoints)
        .map(|(id, _)| *id)
        .collect();
    sticky
        .endpoints
        .iter()
        .map(|(id, _)| *id)
        .filter(|id| !known.contains(id))
        .collect()
}
