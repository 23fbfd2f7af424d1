//! Forgetting UDP flows that the kernel still translates to endpoints which went.
//!
//! A UDP "connection" lives in connection tracking for as long as packets flow, so a client that keeps its port would talk to a lost
//! endpoint for ever. TCP ends by itself. The messages are ctnetlink's (`linux/netfilter/nfnetlink_conntrack.h`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::model::{Changes, DesiredState, Protocol, ServicePort};

const NEW: u16 = 0x0100;
const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const GENERIC: usize = 4;
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const UDP: u8 = 17;

/// UDP frontends with the endpoints that flows to them may have.
#[derive(Debug, Default)]
pub(super) struct StaleFlows {
    addresses: HashMap<SocketAddr, HashSet<SocketAddr>>,
    node_ports: HashMap<u16, HashSet<SocketAddr>>,
}

impl StaleFlows {
    /// The frontends whose flows may have become stale.
    pub(super) fn of(desired: &DesiredState, changes: &Changes) -> Self {
        let mut stale = Self::default();
        match changes {
            Changes::All => desired.iter().for_each(|port| stale.add(port, Some(port))),
            Changes::Only(changes) => {
                for change in changes {
                    if let Some(before) = &change.before
                        && loses_flows(before, change.after.as_deref())
                    {
                        stale.add(before, change.after.as_deref());
                    }
                }
            }
        }
        stale
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    fn add(&mut self, frontends_of: &ServicePort, now: Option<&ServicePort>) {
        if frontends_of.key.protocol != Protocol::Udp {
            return;
        }
        for frontend in &frontends_of.frontends {
            let valid = now
                .into_iter()
                .flat_map(ServicePort::all_endpoints)
                .map(|endpoint| endpoint.address);
            match frontend.address.ip() {
                Some(ip) => {
                    let entry = self
                        .addresses
                        .entry(SocketAddr::new(ip, frontend.port))
                        .or_default();
                    entry.extend(valid);
                }
                None => self.node_ports.entry(frontend.port).or_default().extend(valid),
            }
        }
    }

    fn is_stale(&self, flow: &Flow) -> bool {
        if flow.protocol != UDP {
            return false;
        }
        if let Some(valid) = self.addresses.get(&flow.to) {
            return !valid.contains(&flow.answers_from);
        }
        // A flow to some other host's port of that number is none of ours: ours are translated.
        let translated = flow.answers_from != flow.to;
        let valid = self.node_ports.get(&flow.to.port());
        translated && valid.is_some_and(|valid| !valid.contains(&flow.answers_from))
    }

    /// Removes the flows, and says how many there were. Blocks for a dump of the table.
    pub(super) fn forget(&self) -> io::Result<usize> {
        let door = Door::open()?;
        let mut stale = Vec::new();
        door.dump(|flow| {
            if self.is_stale(&flow) {
                stale.push(flow);
            }
        })?;
        for flow in &stale {
            door.delete(flow)?;
        }
        Ok(stale.len())
    }
}

fn loses_flows(before: &ServicePort, after: Option<&ServicePort>) -> bool {
    if before.key.protocol != Protocol::Udp {
        return false;
    }
    let Some(after) = after else { return true };
    let now: HashSet<_> = after.all_endpoints().map(|endpoint| endpoint.address).collect();
    before
        .all_endpoints()
        .any(|endpoint| !now.contains(&endpoint.address))
}

/// An entry of the connection tracking table.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    protocol: u8,
    /// Where the client sent to.
    to: SocketAddr,
    /// Where the answers come from: the endpoint, if the flow is translated.
    answers_from: SocketAddr,
    family: u8,
    /// The attributes that name the entry, as the kernel wrote them.
    identity: Vec<u8>,
}

impl Flow {
    /// Reads the payload of a message: the generic header and attributes.
    fn parse(payload: &[u8]) -> Option<Self> {
        let family = *payload.first()?;
        let (mut orig, mut reply, mut identity) = (None, None, Vec::new());
        for attribute in Attributes(payload.get(GENERIC..)?) {
            match attribute.kind {
                TUPLE_ORIG => {
                    orig = Tuple::parse(attribute.value);
                    identity.extend_from_slice(attribute.whole);
                }
                TUPLE_REPLY => reply = Tuple::parse(attribute.value),
                ZONE => identity.extend_from_slice(attribute.whole),
                _ => {}
            }
        }
        let (orig, reply) = (orig?, reply?);
        Some(Self {
            protocol: orig.protocol,
            to: orig.destination,
            answers_from: reply.source,
            family,
            identity,
        })
    }
}

#[derive(Debug)]
struct Tuple {
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut source, mut destination) = (None, None);
        let (mut protocol, mut source_port, mut destination_port) = (None, 0, 0);
        for attribute in Attributes(bytes) {
            for inner in Attributes(attribute.value) {
                match (attribute.kind, inner.kind) {
                    (TUPLE_IP, 1 | 3) => source = inner.ip(),
                    (TUPLE_IP, 2 | 4) => destination = inner.ip(),
                    (TUPLE_PROTO, 1) => protocol = inner.value.first().copied(),
                    (TUPLE_PROTO, 2) => source_port = inner.port()?,
                    (TUPLE_PROTO, 3) => destination_port = inner.port()?,
                    _ => {}
                }
            }
        }
        Some(Self {
            protocol: protocol?,
            source: SocketAddr::new(source?, source_port),
            destination: SocketAddr::new(destination?, destination_port),
        })
    }
}

struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
    /// With header and padding.
    whole: &'a [u8],
}

impl Attribute<'_> {
    fn ip(&self) -> Option<IpAddr> {
        if let Ok(four) = <[u8; 4]>::try_from(self.value) {
            return Some(IpAddr::from(four));
        }
        <[u8; 16]>::try_from(self.value).ok().map(IpAddr::from)
    }

    fn port(&self) -> Option<u16> {
        <[u8; 2]>::try_from(self.value).ok().map(u16::from_be_bytes)
    }
}

struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16::from_ne_bytes([*self.0.first()?, *self.0.get(1)?]));
        let kind = u16::from_ne_bytes([*self.0.get(2)?, *self.0.get(3)?]);
        let value = self.0.get(4..length)?;
        let padded = align(length).min(self.0.len());
        let (whole, rest) = self.0.split_at(padded);
        self.0 = rest;
        Some(Attribute {
            kind: kind & TYPE_MASK & !NESTED,
            value,
            whole,
        })
    }
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A ctnetlink socket.
struct Door {
    socket: std::os::fd::OwnedFd,
}

impl Door {
    fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        Ok(Self { socket })
    }

    fn request(&self, kind: u16, flags: u16, family: u8, attributes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + GENERIC + attributes.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + GENERIC + attributes.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&[family, 0, 0, 0]);
        message.extend_from_slice(attributes);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    fn dump(&self, mut visit: impl FnMut(Flow)) -> io::Result<()> {
        self.request(GET, DUMP, 0, &[])?;
        self.answers(|kind, payload| {
            if kind == NEW
                && let Some(flow) = Flow::parse(payload)
            {
                visit(flow);
            }
        })
    }

    fn delete(&self, flow: &Flow) -> io::Result<()> {
        self.request(DELETE, ACK, flow.family, &flow.identity)?;
        match self.answers(|_, _| {}) {
            // It ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Reads messages up to the end of a dump or an acknowledgement.
    fn answers(&self, mut visit: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..read];
            while rest.len() >= HEADER {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let Some(payload) = rest.get(HEADER..length) else {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "truncated netlink message",
                    ));
                };
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledgement(payload),
                    _ => visit(kind, payload),
                }
                rest = rest.get(align(length)..).unwrap_or_default();
            }
        }
    }
}

fn acknowledgement(payload: &[u8]) -> io::Result<()> {
    let code = payload
        .get(..4)
        .and_then(|code| <[u8; 4]>::try_from(code).ok())
        .map_or(0, i32::from_ne_bytes);
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn tuple(kind: u16, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ips = [
            attribute(1, &octets(source.ip())),
            attribute(2, &octets(destination.ip())),
        ]
        .concat();
        let ports = [
            attribute(1, &[UDP]),
            attribute(2, &source.port().to_be_bytes()),
            attribute(3, &destination.port().to_be_bytes()),
        ]
        .concat();
        attribute(
            kind | NESTED,
            &[attribute(1 | NESTED, &ips), attribute(2 | NESTED, &ports)].concat(),
        )
    }

    fn flow(to: &str, answers_from: &str) -> Flow {
        let client: SocketAddr = "10.0.0.9:4000".parse().unwrap();
        let orig = tuple(TUPLE_ORIG, client, to.parse().unwrap());
        let payload = [
            vec![2, 0, 0, 0],
            orig,
            tuple(TUPLE_REPLY, answers_from.parse().unwrap(), client),
        ]
        .concat();
        Flow::parse(&payload).unwrap()
    }

    #[test]
    fn a_flow_is_read_and_named_by_its_original_tuple() {
        let flow = flow("10.96.0.1:53", "10.0.0.1:5353");
        assert_eq!(flow.to, "10.96.0.1:53".parse().unwrap());
        assert_eq!(flow.answers_from, "10.0.0.1:5353".parse().unwrap());
        assert_eq!(
            flow.identity,
            tuple(TUPLE_ORIG, "10.0.0.9:4000".parse().unwrap(), flow.to)
        );
    }

    #[test]
    fn truncated_messages_are_no_flows() {
        for length in 0..40 {
            assert!(Flow::parse(&vec![0xff; length]).is_none());
        }
    }

    #[test]
    fn only_flows_to_lost_endpoints_are_stale() {
        let mut stale = StaleFlows::default();
        let valid: HashSet<SocketAddr> = ["10.0.0.2:5353".parse().unwrap()].into();
        stale
            .addresses
            .insert("10.96.0.1:53".parse().unwrap(), valid.clone());
        stale.node_ports.insert(30053, valid);
        assert!(stale.is_stale(&flow("10.96.0.1:53", "10.0.0.1:5353")));
        assert!(!stale.is_stale(&flow("10.96.0.1:53", "10.0.0.2:5353")));
        assert!(
            !stale.is_stale(&flow("10.96.0.2:53", "10.0.0.1:5353")),
            "another service's"
        );
        assert!(stale.is_stale(&flow("192.0.2.1:30053", "10.0.0.1:5353")));
        assert!(
            !stale.is_stale(&flow("192.0.2.7:30053", "192.0.2.7:30053")),
            "not translated, not ours"
        );
    }
}
