//! Servers that say who they are and whom they see, and clients that ask them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long an answer may take that must come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for an answer that must not come.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// Who answered, and which client address it saw.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Answer {
    pub(super) server: String,
    pub(super) saw: IpAddr,
}

impl Answer {
    fn parse(text: &[u8]) -> io::Result<Self> {
        let bad = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                String::from_utf8_lossy(text).into_owned(),
            )
        };
        let line = std::str::from_utf8(text).map_err(|_| bad())?;
        let (server, saw) = line.trim_end().split_once(' ').ok_or_else(bad)?;
        Ok(Self {
            server: server.to_owned(),
            saw: saw.parse().map_err(|_| bad())?,
        })
    }
}

/// How a connection that must not be served ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    Refused,
    Silence,
}

/// Listens on TCP and UDP until the namespace ends. On TCP a line says who serves whom, then all is echoed, and after the client's end of
/// file comes `bye`; on UDP each packet is answered with the line.
pub(super) async fn serve(name: String, tcp: SocketAddr, udp: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(tcp).await?;
    let socket = UdpSocket::bind(udp).await?;
    tokio::task::spawn_local(answer_datagrams(name.clone(), socket));
    tokio::task::spawn_local(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::task::spawn_local(answer_stream(name.clone(), stream, peer));
        }
    });
    Ok(())
}

async fn answer_datagrams(name: String, socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
        let line = format!("{name} {}\n", peer.ip());
        if socket.send_to(line.as_bytes(), peer).await.is_err() {
            return;
        }
    }
}

async fn answer_stream(name: String, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream
        .write_all(format!("{name} {}\n", peer.ip()).as_bytes())
        .await?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.write_all(b"bye\n").await?;
    write.shutdown().await
}

/// An open connection whose greeting was read.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) answer: Answer,
}

impl Connection {
    pub(super) async fn open(to: SocketAddr) -> io::Result<Self> {
        timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(to).await?;
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                line.push(stream.read_u8().await?);
            }
            Ok(Self {
                answer: Answer::parse(&line)?,
                stream,
            })
        })
        .await?
    }

    /// Sends bytes and reads them back.
    pub(super) async fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, async {
            let mut back = vec![0; bytes.len()];
            let (mut read, mut write) = self.stream.split();
            tokio::try_join!(write.write_all(bytes), read.read_exact(&mut back))?;
            if back == bytes {
                Ok(())
            } else {
                Err(io::Error::other("the echo differs"))
            }
        })
        .await?
    }

    /// Ends the sending direction and returns what still comes.
    pub(super) async fn half_close(mut self) -> io::Result<String> {
        timeout(PATIENCE, async {
            self.stream.shutdown().await?;
            let mut rest = String::new();
            self.stream.read_to_string(&mut rest).await?;
            Ok(rest)
        })
        .await?
    }
}

/// One TCP request.
pub(super) async fn ask(to: SocketAddr) -> io::Result<Answer> {
    let mut connection = Connection::open(to).await?;
    connection.echo(b"ping").await?;
    Ok(connection.answer)
}

/// One UDP request from a socket. Datagrams may be lost while rules change, so it is repeated.
pub(super) async fn ask_from(socket: &UdpSocket, to: SocketAddr) -> io::Result<Answer> {
    let mut buffer = [0; 2048];
    for _ in 0..10 {
        // An earlier datagram's refusal is told here; this one is on its way only if it is sent.
        if socket.send_to(b"ping", to).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        match timeout(Duration::from_millis(500), socket.recv_from(&mut buffer)).await {
            Ok(Ok((length, from))) if from == to => return Answer::parse(&buffer[..length]),
            Ok(Ok((_, from))) => return Err(io::Error::other(format!("{from} answered for {to}"))),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no datagram came back"))
}

/// One UDP request.
pub(super) async fn ask_udp(to: SocketAddr) -> io::Result<Answer> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    ask_from(&UdpSocket::bind(any).await?, to).await
}

/// How a TCP connection is denied; an error if it is served.
pub(super) async fn denied(to: SocketAddr) -> io::Result<Denial> {
    match timeout(IMPATIENCE, Connection::open(to)).await {
        Ok(Ok(connection)) => Err(io::Error::other(format!("{} answered", connection.answer.server))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Ok(Denial::Silence),
        Ok(Err(_)) => Ok(Denial::Refused),
        Err(_) => Ok(Denial::Silence),
    }
}
