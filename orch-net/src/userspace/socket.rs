//! Sockets for frontends.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, bind,
    recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // The IPv4 side of a node port is a service port of its own.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A UDP socket that answers from the address it was asked at, also when it is bound to all of them.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
}

/// Who sent a datagram, and to which of this host's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parties {
    pub(super) client: SocketAddr,
    pub(super) local: IpAddr,
}

impl Datagrams {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let raw = socket(family, SockType::Datagram, flags, None)?;
        if address.is_ipv4() {
            setsockopt(&raw, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&raw, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&raw, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        bind(raw.as_raw_fd(), &SockaddrStorage::from(address))?;
        Ok(Self {
            socket: UdpSocket::from_std(raw.into())?,
        })
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Parties)> {
        self.socket
            .async_io(Interest::READABLE, || self.try_receive(buffer))
            .await
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Parties)> {
        let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let client = message.address.as_ref().and_then(to_std);
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        match (client, local) {
            (Some(client), Some(local)) => Ok((message.bytes, Parties { client, local })),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a datagram without its addresses",
            )),
        }
    }

    pub(super) async fn send(&self, bytes: &[u8], parties: Parties) -> io::Result<usize> {
        self.socket
            .async_io(Interest::WRITABLE, || self.try_send(bytes, parties))
            .await
    }

    fn try_send(&self, bytes: &[u8], parties: Parties) -> io::Result<usize> {
        let slices = [IoSlice::new(bytes)];
        let to = SockaddrStorage::from(parties.client);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = match parties.local {
            IpAddr::V4(local) => {
                let address = nix::libc::in_addr {
                    s_addr: u32::from_ne_bytes(local.octets()),
                };
                let any = nix::libc::in_addr { s_addr: 0 };
                let info = nix::libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: address,
                    ipi_addr: any,
                };
                sendmsg(
                    fd,
                    &slices,
                    &[ControlMessage::Ipv4PacketInfo(&info)],
                    flags,
                    Some(&to),
                )
            }
            IpAddr::V6(local) => {
                let address = nix::libc::in6_addr {
                    s6_addr: local.octets(),
                };
                let info = nix::libc::in6_pktinfo {
                    ipi6_addr: address,
                    ipi6_ifindex: 0,
                };
                sendmsg(
                    fd,
                    &slices,
                    &[ControlMessage::Ipv6PacketInfo(&info)],
                    flags,
                    Some(&to),
                )
            }
        };
        Ok(sent?)
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(four) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((four.ip(), four.port())));
    }
    let six = address.as_sockaddr_in6()?;
    Some(SocketAddr::from((six.ip(), six.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wildcard_socket_answers_from_the_address_it_was_asked_at() {
        let server = Datagrams::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = server.socket.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = SocketAddr::from(([127, 9, 9, 9], port));
        client.send_to(b"ping", at).await.unwrap();
        let mut buffer = [0; 16];
        let (length, parties) = server.receive(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], parties.local), (&b"ping"[..], at.ip()));
        server.send(b"pong", parties).await.unwrap();
        let (_, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, at);
    }
}
