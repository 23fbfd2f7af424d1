//! nftables in memory: takes this backend's scripts, refuses what the kernel would refuse, and routes packets by them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::nft::{Nft, NftError};

/// An [`Nft`] that evaluates scripts instead of running them, as far as this backend's vocabulary goes.
#[derive(Debug, Default)]
pub struct FakeNft {
    tables: Mutex<Tables>,
}

type Tables = BTreeMap<String, Table>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the fake's rules do with a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is translated to one of these, and its source is hidden or not.
    Endpoints {
        /// All that the random choice may come to.
        endpoints: BTreeSet<SocketAddr>,
        /// Whether the connection is masqueraded by mark.
        masquerade: bool,
    },
    /// It is refused.
    Reject,
    /// It is dropped.
    Drop,
    /// No rule concerns it.
    Pass,
}

/// A new connection, as rules see it.
#[derive(Clone, Copy, Debug)]
struct Packet {
    source: IpAddr,
    destination: SocketAddr,
    protocol: u8,
    source_is_node: bool,
    destination_is_node: bool,
}

impl FakeNft {
    /// What becomes of a new connection. `node` are the node's own addresses, `protocol` is IANA's number.
    #[must_use]
    pub fn route(&self, source: IpAddr, destination: SocketAddr, protocol: u8, node: &[IpAddr]) -> Verdict {
        let tables = self.tables.lock();
        let family = if destination.is_ipv4() { "ip " } else { "ip6 " };
        let Some((_, table)) = tables.iter().find(|(name, _)| name.starts_with(family)) else {
            return Verdict::Pass;
        };
        let packet = Packet {
            source,
            destination,
            protocol,
            source_is_node: node.contains(&source),
            destination_is_node: node.contains(&destination.ip()),
        };
        let mut marked = false;
        for chain in ["services", "unserved"] {
            match table.run(chain, packet, &mut marked) {
                Verdict::Pass => {}
                verdict => return verdict,
            }
        }
        Verdict::Pass
    }

    /// How many elements all maps and sets hold.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.tables
            .lock()
            .values()
            .flat_map(|table| table.sets.values())
            .map(BTreeMap::len)
            .sum()
    }

    /// Removes all rules, as `nft flush ruleset`.
    pub fn flush(&self) {
        self.tables.lock().clear();
    }

    /// All elements of all maps and sets, for comparison.
    #[must_use]
    pub fn dump(&self) -> BTreeSet<String> {
        let tables = self.tables.lock();
        let mut lines = BTreeSet::new();
        for (name, table) in tables.iter() {
            for (set, elements) in &table.sets {
                lines.extend(
                    elements
                        .iter()
                        .map(|(key, value)| format!("{name} {set} {key} => {value}")),
                );
            }
        }
        lines
    }
}

#[async_trait]
impl Nft for FakeNft {
    async fn apply(&self, script: &str) -> Result<(), NftError> {
        let mut tables = self.tables.lock();
        let after = evaluate(&tables, script)?;
        *tables = after;
        Ok(())
    }

    async fn check(&self, script: &str) -> Result<(), NftError> {
        evaluate(&self.tables.lock(), script).map(drop)
    }

    async fn list_chain(&self, family: &str, table: &str, chain: &str) -> Result<String, NftError> {
        let tables = self.tables.lock();
        let rules = tables
            .get(&format!("{family} {table}"))
            .and_then(|table| table.chains.get(chain));
        rules
            .map(|rules| rules.join("\n"))
            .ok_or_else(|| NftError::NotFound(chain.to_owned()))
    }
}

fn evaluate(tables: &Tables, script: &str) -> Result<Tables, NftError> {
    let mut tables = tables.clone();
    for line in script.lines() {
        command(&mut tables, line).map_err(|what| match what {
            Refusal::NotFound => NftError::NotFound(line.to_owned()),
            Refusal::Exists => NftError::Exists(line.to_owned()),
            Refusal::Busy => NftError::Failed(format!("busy: {line}")),
            Refusal::Syntax => NftError::Failed(format!("not understood: {line}")),
        })?;
    }
    for table in tables.values() {
        table
            .links_hold()
            .map_err(|target| NftError::NotFound(format!("chain {target}")))?;
    }
    Ok(tables)
}

enum Refusal {
    NotFound,
    Exists,
    Busy,
    Syntax,
}

fn command(tables: &mut Tables, line: &str) -> Result<(), Refusal> {
    let mut words = line.splitn(5, ' ');
    let mut word = || words.next().ok_or(Refusal::Syntax);
    let (verb, what) = (word()?, word()?);
    let name = format!("{} {}", word()?, word()?);
    let rest = words.next().unwrap_or_default().trim();
    match (verb, what) {
        ("add", "table") => {
            tables.entry(name).or_default();
            return Ok(());
        }
        ("delete", "table") => return tables.remove(&name).map(drop).ok_or(Refusal::NotFound),
        _ => {}
    }
    let table = tables.get_mut(&name).ok_or(Refusal::NotFound)?;
    let (object, body) = rest.split_once(' ').unwrap_or((rest, ""));
    match (verb, what) {
        ("add", "chain") => drop(table.chains.entry(object.to_owned()).or_default()),
        ("flush", "chain") => table.chains.get_mut(object).ok_or(Refusal::NotFound)?.clear(),
        ("delete", "chain") => {
            let rules = table.chains.remove(object).ok_or(Refusal::NotFound)?;
            if !rules.is_empty() {
                return Err(Refusal::Busy);
            }
        }
        ("add", "rule") => table
            .chains
            .get_mut(object)
            .ok_or(Refusal::NotFound)?
            .push(body.to_owned()),
        ("add", "set" | "map") => drop(table.sets.entry(object.to_owned()).or_default()),
        ("delete", "set") => drop(table.sets.remove(object).ok_or(Refusal::NotFound)?),
        ("add" | "delete", "element") => elements(table, verb == "add", object, body)?,
        _ => return Err(Refusal::Syntax),
    }
    Ok(())
}

fn elements(table: &mut Table, add: bool, set: &str, body: &str) -> Result<(), Refusal> {
    let set = table.sets.get_mut(set).ok_or(Refusal::NotFound)?;
    let list = body
        .strip_prefix("{ ")
        .and_then(|body| body.strip_suffix(" }"))
        .ok_or(Refusal::Syntax)?;
    for element in list.split(", ") {
        let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
        if !add {
            set.remove(key).ok_or(Refusal::NotFound)?;
        } else if let Some(old) = set.insert(key.to_owned(), value.to_owned())
            && old != value
        {
            return Err(Refusal::Exists);
        }
    }
    Ok(())
}

impl Table {
    /// Whether every chain and set that something points to is there.
    fn links_hold(&self) -> Result<(), String> {
        let rules = self.chains.values().flatten();
        let verdicts = self.sets.values().flat_map(BTreeMap::values);
        for text in rules.chain(verdicts) {
            let words: Vec<&str> = text.split_whitespace().collect();
            for pair in words
                .windows(2)
                .filter(|pair| pair[0] == "goto" || pair[0] == "jump")
            {
                let target = pair[1].trim_end_matches(',');
                if !self.chains.contains_key(target) {
                    return Err(target.to_owned());
                }
            }
            for word in words.iter().filter_map(|word| word.strip_prefix('@')) {
                if !self.sets.contains_key(word) {
                    return Err(word.to_owned());
                }
            }
        }
        Ok(())
    }

    fn run(&self, chain: &str, packet: Packet, marked: &mut bool) -> Verdict {
        for rule in self.chains.get(chain).into_iter().flatten() {
            match self.rule(rule, packet, marked) {
                Verdict::Pass => {}
                verdict => return verdict,
            }
        }
        Verdict::Pass
    }

    fn rule(&self, rule: &str, packet: Packet, marked: &mut bool) -> Verdict {
        let Some(statement) = matching(self, rule, packet) else {
            return Verdict::Pass;
        };
        let mut statement = statement;
        if let Some(rest) = statement.strip_prefix("meta mark set meta mark or ") {
            *marked = true;
            statement = rest.split_once(' ').map_or("", |(_, rest)| rest);
        }
        if let Some(target) = statement.strip_prefix("goto ") {
            return self.run(target, packet, marked);
        }
        match statement {
            "meta l4proto 6 reject with tcp reset" if packet.protocol == 6 => Verdict::Reject,
            "reject" => Verdict::Reject,
            "drop" => Verdict::Drop,
            _ => self.lookup(statement, packet, marked),
        }
    }

    /// `KEY vmap @NAME`, an inline vmap, or `dnat … map @NAME`.
    fn lookup(&self, statement: &str, packet: Packet, marked: &mut bool) -> Verdict {
        let words: Vec<&str> = statement.split_whitespace().collect();
        if let Some(name) = statement.split(" vmap @").nth(1) {
            let verdict = self
                .sets
                .get(name)
                .and_then(|map| map.get(&packet.key(statement)));
            return verdict.map_or(Verdict::Pass, |verdict| self.rule(verdict, packet, marked));
        }
        if let Some((_, targets)) = statement.split_once(" vmap { ") {
            let chains = targets
                .trim_end_matches(" }")
                .split(", ")
                .filter_map(|one| one.split_once(" : goto "));
            let endpoints = chains.filter_map(|(_, chain)| match self.run(chain, packet, marked) {
                Verdict::Endpoints { endpoints, .. } => Some(endpoints),
                _ => None,
            });
            return Verdict::Endpoints {
                endpoints: endpoints.flatten().collect(),
                masquerade: *marked,
            };
        }
        if let Some(to) = statement.split(" dnat to ").nth(1) {
            let endpoints = to.parse().into_iter().collect();
            return Verdict::Endpoints {
                endpoints,
                masquerade: *marked,
            };
        }
        if let (Some(name), Some(modulus)) = (statement.split(" map @").nth(1), after(&words, "mod")) {
            let map = self.sets.get(name);
            let key = packet.slot(statement.split(" to ").nth(1).unwrap_or_default());
            let found =
                (0..modulus.parse::<u32>().unwrap_or(0)).filter_map(|i| map?.get(&format!("{key} . {i}")));
            let parse = |text: &String| {
                let (ip, port) = text.split_once(" . ")?;
                Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
            };
            return Verdict::Endpoints {
                endpoints: found.filter_map(parse).collect(),
                masquerade: *marked,
            };
        }
        Verdict::Pass
    }
}

impl Packet {
    /// What the map of endpoints is looked up by, but for the index.
    fn slot(&self, expression: &str) -> String {
        let (ip, port) = (self.destination.ip(), self.destination.port());
        if expression.contains(" daddr . ") {
            format!("{ip} . {port}")
        } else {
            port.to_string()
        }
    }

    fn key(&self, expression: &str) -> String {
        let by_address = expression
            .split(" vmap")
            .next()
            .is_some_and(|key| key.contains(" daddr . "));
        let tail = format!("{} . {}", self.protocol, self.destination.port());
        if by_address {
            format!("{} . {tail}", self.destination.ip())
        } else {
            tail
        }
    }
}

fn after<'a>(words: &[&'a str], word: &str) -> Option<&'a str> {
    words.iter().skip_while(|w| **w != word).nth(1).copied()
}

/// The statement of a rule if its conditions hold.
fn matching<'r>(table: &Table, rule: &'r str, packet: Packet) -> Option<&'r str> {
    let mut rest = rule;
    loop {
        let family = rest.strip_prefix("ip6 ").or_else(|| rest.strip_prefix("ip "));
        if let Some(condition) = rest.strip_prefix("fib saddr type local ") {
            rest = packet.source_is_node.then_some(condition)?;
        } else if let Some(condition) = rest.strip_prefix("fib daddr type local ") {
            rest = packet.destination_is_node.then_some(condition)?;
        } else if let Some(condition) = family.and_then(|text| text.strip_prefix("daddr != ")) {
            rest = condition.split_once(' ')?.1;
        } else if let Some(condition) = family.and_then(|text| text.strip_prefix("daddr @")) {
            let (set, statement) = condition.split_once(' ')?;
            rest = table
                .sets
                .get(set)?
                .contains_key(&packet.destination.ip().to_string())
                .then_some(statement)?;
        } else if let Some(condition) = family.and_then(|text| text.strip_prefix("saddr ")) {
            let (negated, condition) = condition
                .strip_prefix("!= ")
                .map_or((false, condition), |rest| (true, rest));
            let (set, statement) = condition.strip_prefix('@')?.split_once(' ')?;
            let holds = |cidr: &String| {
                cidr.parse::<crate::Cidr>()
                    .is_ok_and(|cidr| cidr.contains(packet.source))
            };
            rest = (table.sets.get(set)?.keys().any(holds) != negated).then_some(statement)?;
        } else {
            return Some(rest);
        }
    }
}
