//! Writing nftables commands.
//!
//! Nothing that a user typed appears in a script: addresses and ports are written from typed values, names from hashes.

use std::fmt::Write;

use super::NftablesConfig;
use super::content::{ChainId, Choice, Collection, Element, Entry, Key, List, Space, Sticky, Target, Value};
use crate::model::{Family, Protocol};

/// Elements that one command carries at most.
const BATCH: usize = 1000;

/// The chain whose presence tells that the table is as this backend left it.
pub(super) const SENTINEL: &str = "services";
/// What [`SENTINEL`] holds.
pub(super) const SENTINEL_RULE: &str = "@services";

/// One transaction being written.
#[derive(Debug, Default)]
pub(super) struct Script {
    text: String,
}

/// Writes commands for one table.
#[derive(Debug)]
pub(super) struct TableWriter<'a> {
    script: &'a mut Script,
    config: &'a NftablesConfig,
    family: Family,
}

impl Script {
    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn table<'a>(&'a mut self, config: &'a NftablesConfig, family: Family) -> TableWriter<'a> {
        TableWriter {
            script: self,
            config,
            family,
        }
    }
}

pub(super) fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn protocol_number(protocol: Protocol) -> u8 {
    // Numbers, because names need /etc/protocols, which small images lack.
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn prefix(space: Space) -> &'static str {
    match space {
        Space::Address => "",
        Space::NodePort => "nodeport-",
    }
}

pub(super) fn collection_name(collection: Collection) -> String {
    let in_list = |list, main: &str, local: &str| {
        if list == List::Main {
            main.to_owned()
        } else {
            local.to_owned()
        }
    };
    match collection {
        Collection::Services(space) => format!("{}services", prefix(space)),
        Collection::Endpoints(space, list, protocol) => {
            format!(
                "{}{}-{protocol}",
                prefix(space),
                in_list(list, "endpoints", "local-endpoints")
            )
        }
        Collection::Policy(space, list) => {
            format!(
                "{}{}",
                prefix(space),
                in_list(list, "policy-cluster", "policy-local")
            )
        }
        Collection::Blocked(space) => format!("{}blocked", prefix(space)),
        Collection::ClusterIps => "cluster-ips".to_owned(),
        Collection::Hairpin => "hairpin".to_owned(),
    }
}

fn write_chain_name(text: &mut String, chain: ChainId) {
    match chain {
        ChainId::Choose(choice, entry) => {
            match choice {
                Choice::Random(space, List::Main, protocol, n) => {
                    push(text, format_args!("{}pick-{protocol}-{n}", prefix(space)))
                }
                Choice::Random(space, List::Local, protocol, n) => {
                    push(text, format_args!("{}local-pick-{protocol}-{n}", prefix(space)))
                }
                Choice::Sticky(id) => push(text, format_args!("sticky-{id:016x}")),
            }
            text.push_str(match entry {
                Entry::Plain => "",
                Entry::Masquerade => "-masquerade",
                Entry::Cluster => "-cluster",
            });
        }
        ChainId::ExternalLocal(space) => push(text, format_args!("{}external-local", prefix(space))),
        ChainId::Reject => text.push_str("refuse"),
        ChainId::Drop => text.push_str("discard"),
    }
}

pub(super) fn chain_name(chain: ChainId) -> String {
    let mut text = String::new();
    write_chain_name(&mut text, chain);
    text
}

fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).expect("writing to a string can not fail");
}

fn write_target(text: &mut String, target: &Target) {
    if let Some(ip) = target.ip {
        push(text, format_args!("{ip} . "));
    }
    push(
        text,
        format_args!("{} . {}", protocol_number(target.protocol), target.port),
    );
}

fn write_element(text: &mut String, element: &Element, with_value: bool) {
    match &element.key {
        Key::Target(target) => write_target(text, target),
        Key::Slot(target, index) => {
            if let Some(ip) = target.ip {
                push(text, format_args!("{ip} . "));
            }
            push(text, format_args!("{} . {index}", target.port));
        }
        Key::Ip(ip) => push(text, format_args!("{ip}")),
        Key::Pair(ip) => push(text, format_args!("{ip} . {ip}")),
    }
    match element.value {
        Value::Goto(chain) if with_value => {
            text.push_str(" : goto ");
            write_chain_name(text, chain);
        }
        Value::Endpoint(address) if with_value => {
            push(text, format_args!(" : {} . {}", address.ip(), address.port()));
        }
        _ => {}
    }
}

impl TableWriter<'_> {
    /// `verb` and the table: `add rule ip orch-proxy `.
    fn command(&mut self, verb: &str, args: std::fmt::Arguments<'_>) {
        let table = &self.config.table;
        push(
            &mut self.script.text,
            format_args!("{verb} {} {table} {args}\n", keyword(self.family)),
        );
    }

    fn rule(&mut self, chain: &str, rule: std::fmt::Arguments<'_>) {
        self.command("add rule", format_args!("{chain} {rule}"));
    }

    fn chain(&mut self, chain: &str, rules: &[String]) {
        self.command("add chain", format_args!("{chain}"));
        for rule in rules {
            self.rule(chain, format_args!("{rule}"));
        }
    }

    /// Removes the table, whether it is there or not.
    pub(super) fn remove_table(&mut self) {
        self.command("add table", format_args!(""));
        self.command("delete table", format_args!(""));
    }

    /// Makes the table with all that does not depend on service ports.
    pub(super) fn base(&mut self) {
        self.command("add table", format_args!(""));
        self.cidr_set("pod-cidrs", &self.config.pod_cidrs);
        self.cidr_set("bridge-cidrs", &self.config.bridge_cidrs);
        for collection in Collection::all() {
            self.collection(collection);
        }
        // A reset is never rate-limited, as ICMP errors are.
        self.chain(
            "refuse",
            &[
                "meta l4proto 6 reject with tcp reset".to_owned(),
                "reject".to_owned(),
            ],
        );
        self.chain("discard", &["drop".to_owned()]);
        self.policy_chain(Space::Address);
        self.policy_chain(Space::NodePort);
        self.dispatch_chains();
        self.masquerade_chain();
        for (name, hook) in [
            ("nat-prerouting", "type nat hook prerouting priority -100"),
            ("nat-output", "type nat hook output priority -100"),
        ] {
            self.hook(name, hook, "jump services");
        }
        for (name, hook) in [
            ("filter-prerouting", "type filter hook prerouting priority -90"),
            ("filter-output", "type filter hook output priority -90"),
        ] {
            self.hook(name, hook, "ct state new jump unserved");
        }
        self.hook(
            "nat-postrouting",
            "type nat hook postrouting priority 100",
            "jump masquerading",
        );
    }

    fn hook(&mut self, name: &str, hook: &str, rule: &str) {
        self.command("add chain", format_args!("{name} {{ {hook} ; policy accept ; }}"));
        self.rule(name, format_args!("{rule}"));
    }

    fn cidr_set(&mut self, name: &str, cidrs: &[crate::Cidr]) {
        let address = self.address_type();
        self.command(
            "add set",
            format_args!("{name} {{ type {address} ; flags interval ; auto-merge ; }}"),
        );
        let mine = cidrs.iter().filter(|cidr| self.family.has(cidr));
        let mine: Vec<String> = mine.map(ToString::to_string).collect();
        if !mine.is_empty() {
            self.command("add element", format_args!("{name} {{ {} }}", mine.join(", ")));
        }
    }

    fn address_type(&self) -> &'static str {
        match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// The expression by which packets are looked up in a space.
    fn target_expr(&self, space: Space) -> String {
        match space {
            Space::Address => format!("{} daddr . meta l4proto . th dport", keyword(self.family)),
            Space::NodePort => "meta l4proto . th dport".to_owned(),
        }
    }

    /// The expression by which endpoints are looked up, but for the index. There is a map for each protocol, because nft 1.0.6 can
    /// not read back a map whose type is given by `th dport`.
    fn slot_expr(&self, space: Space, protocol: Protocol) -> String {
        match space {
            Space::Address => format!("{} daddr . {protocol} dport", keyword(self.family)),
            Space::NodePort => format!("{protocol} dport"),
        }
    }

    fn collection(&mut self, collection: Collection) {
        let name = collection_name(collection);
        let ip = keyword(self.family);
        let address = self.address_type();
        match collection {
            Collection::Services(space) | Collection::Policy(space, _) | Collection::Blocked(space) => {
                let key = self.target_expr(space);
                self.command("add map", format_args!("{name} {{ typeof {key} : verdict ; }}"));
            }
            Collection::Endpoints(space, _, protocol) => {
                let key = self.slot_expr(space, protocol);
                self.command(
                    "add map",
                    format_args!(
                        "{name} {{ typeof {key} . numgen random mod 2 : {ip} daddr . {protocol} dport ; }}"
                    ),
                );
            }
            Collection::ClusterIps => self.command("add set", format_args!("{name} {{ type {address} ; }}")),
            Collection::Hairpin => {
                self.command(
                    "add set",
                    format_args!("{name} {{ type {address} . {address} ; }}"),
                );
            }
        }
    }

    /// `externalTrafficPolicy: Local`: pods and the node itself reach all endpoints, others the local ones.
    fn policy_chain(&mut self, space: Space) {
        let name = chain_name(ChainId::ExternalLocal(space));
        let ip = keyword(self.family);
        let key = self.target_expr(space);
        let cluster = collection_name(Collection::Policy(space, List::Main));
        let local = collection_name(Collection::Policy(space, List::Local));
        let mark = self.config.masquerade_mark();
        let rules = [
            format!("{ip} saddr @pod-cidrs {key} vmap @{cluster}"),
            format!("fib saddr type local meta mark set meta mark or {mark} {key} vmap @{cluster}"),
            format!("{key} vmap @{local}"),
        ];
        self.chain(&name, &rules);
    }

    fn dispatch_chains(&mut self) {
        let ip = keyword(self.family);
        let loopback = match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1",
        };
        let node = format!("{ip} daddr != {loopback} fib daddr type local");
        let address = self.target_expr(Space::Address);
        let port = self.target_expr(Space::NodePort);
        self.chain(
            "services",
            &[
                format!("{address} vmap @services"),
                format!("{node} {port} vmap @nodeport-services"),
            ],
        );
        self.chain(
            "unserved",
            &[
                format!("{address} vmap @blocked"),
                format!("{node} {port} vmap @nodeport-blocked"),
                format!("{ip} daddr @cluster-ips goto refuse"),
            ],
        );
    }

    /// Answers must come back through this node, which knows what was translated: always for marked connections, and without a
    /// mark where the answer would take a shorter way: to the pod itself, or to its neighbour on the same bridge.
    fn masquerade_chain(&mut self) {
        let ip = keyword(self.family);
        let mark = self.config.masquerade_mark();
        let clear = self.config.masquerade_mark_mask();
        self.chain(
            "masquerading",
            &[
                format!("ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random"),
                format!(
                    "ct status dnat {ip} saddr @bridge-cidrs {ip} daddr @bridge-cidrs masquerade fully-random"
                ),
                format!("meta mark and {mark} == 0 return"),
                format!("meta mark set meta mark and {clear}"),
                "masquerade fully-random".to_owned(),
            ],
        );
    }

    /// Makes a chain that all service ports with as many endpoints share.
    pub(super) fn choice_chain(&mut self, choice: Choice, entry: Entry) {
        let name = chain_name(ChainId::Choose(choice, entry));
        let rules = self.choice_rules(choice, entry);
        self.chain(&name, &rules);
    }

    fn choice_rules(&self, choice: Choice, entry: Entry) -> Vec<String> {
        let ip = keyword(self.family);
        let mark = self.config.masquerade_mark();
        let plain = chain_name(ChainId::Choose(choice, Entry::Plain));
        let set_mark = format!("meta mark set meta mark or {mark}");
        let pods_known = self.config.pod_cidrs.iter().any(|cidr| self.family.has(cidr));
        match (entry, choice) {
            (Entry::Plain, Choice::Sticky(_)) => Vec::new(),
            (Entry::Plain, Choice::Random(space, list, protocol, n)) => {
                let map = collection_name(Collection::Endpoints(space, list, protocol));
                let key = self.slot_expr(space, protocol);
                vec![format!(
                    "dnat {ip} addr . port to {key} . numgen random mod {n} map @{map}"
                )]
            }
            (Entry::Masquerade, _) => vec![set_mark, format!("goto {plain}")],
            (Entry::Cluster, _) if self.config.masquerade_all => {
                vec![set_mark, format!("goto {plain}")]
            }
            (Entry::Cluster, _) if pods_known => {
                vec![
                    format!("{ip} saddr != @pod-cidrs {set_mark}"),
                    format!("goto {plain}"),
                ]
            }
            (Entry::Cluster, _) => vec![format!("goto {plain}")],
        }
    }

    /// Makes or remakes the chain of a service port with session affinity; `fresh` are the endpoints that have no chain yet.
    pub(super) fn sticky(&mut self, sticky: &Sticky, is_new: bool, fresh: &[u64]) {
        let name = chain_name(ChainId::Choose(Choice::Sticky(sticky.id), Entry::Plain));
        let ip = keyword(self.family);
        for (id, address) in sticky.endpoints.iter().filter(|(id, _)| fresh.contains(id)) {
            let (kind, timeout) = (self.address_type(), sticky.timeout_seconds);
            self.command(
                "add set",
                format_args!(
                    "clients-{id:016x} {{ type {kind} ; flags dynamic, timeout ; timeout {timeout}s ; }}"
                ),
            );
            let protocol = protocol_number(sticky.protocol);
            let rules = [
                format!("update @clients-{id:016x} {{ {ip} saddr }}"),
                format!("meta l4proto {protocol} dnat to {address}"),
            ];
            self.chain(&format!("to-{id:016x}"), &rules);
        }
        if is_new {
            self.command("add chain", format_args!("{name}"));
        } else {
            self.command("flush chain", format_args!("{name}"));
        }
        for (id, _) in &sticky.endpoints {
            self.rule(
                &name,
                format_args!("{ip} saddr @clients-{id:016x} goto to-{id:016x}"),
            );
        }
        let choices: Vec<String> = sticky
            .endpoints
            .iter()
            .enumerate()
            .map(|(index, (id, _))| format!("{index} : goto to-{id:016x}"))
            .collect();
        self.rule(
            &name,
            format_args!(
                "numgen random mod {} vmap {{ {} }}",
                choices.len(),
                choices.join(", ")
            ),
        );
        if is_new {
            self.choice_chain(Choice::Sticky(sticky.id), Entry::Masquerade);
            self.choice_chain(Choice::Sticky(sticky.id), Entry::Cluster);
        }
    }

    /// Removes endpoints' chains that nothing points to any more.
    pub(super) fn remove_sticky_endpoints(&mut self, ids: &[u64]) {
        for id in ids {
            self.command("flush chain", format_args!("to-{id:016x}"));
            self.command("delete chain", format_args!("to-{id:016x}"));
            self.command("delete set", format_args!("clients-{id:016x}"));
        }
    }

    /// Removes a service port's own chains, which nothing points to any more.
    pub(super) fn remove_sticky(&mut self, sticky: &Sticky) {
        for entry in [Entry::Masquerade, Entry::Cluster, Entry::Plain] {
            let name = chain_name(ChainId::Choose(Choice::Sticky(sticky.id), entry));
            self.command("flush chain", format_args!("{name}"));
            self.command("delete chain", format_args!("{name}"));
        }
        let ids: Vec<u64> = sticky.endpoints.iter().map(|(id, _)| *id).collect();
        self.remove_sticky_endpoints(&ids);
    }

    /// Adds elements, which are sorted so that those of one collection stand together.
    pub(super) fn add_elements<'e>(&mut self, elements: impl IntoIterator<Item = &'e Element>) {
        self.elements("add element", elements, true);
    }

    /// Deletes elements, sorted likewise.
    pub(super) fn delete_elements<'e>(&mut self, elements: impl IntoIterator<Item = &'e Element>) {
        self.elements("delete element", elements, false);
    }

    fn elements<'e>(
        &mut self,
        verb: &str,
        elements: impl IntoIterator<Item = &'e Element>,
        with_value: bool,
    ) {
        let mut open: Option<(Collection, usize)> = None;
        for element in elements {
            match &mut open {
                Some((collection, count)) if *collection == element.collection && *count < BATCH => {
                    *count += 1;
                    self.script.text.push_str(", ");
                }
                _ => {
                    if open.is_some() {
                        self.script.text.push_str(" }\n");
                    }
                    let (family, table) = (keyword(self.family), &self.config.table);
                    let name = collection_name(element.collection);
                    push(
                        &mut self.script.text,
                        format_args!("{verb} {family} {table} {name} {{ "),
                    );
                    open = Some((element.collection, 1));
                }
            }
            write_element(&mut self.script.text, element, with_value);
        }
        if open.is_some() {
            self.script.text.push_str(" }\n");
        }
    }
}
