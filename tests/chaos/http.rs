//! As much HTTP as the suite needs: bare, so that nothing is tried again behind its back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a head, and what a body, may have at most.
const BYTES_MAX: usize = 1 << 20;
/// A node that is stopped is still connected to by its kernel: what takes longer has no machine behind it.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A request or an answer, read to its end.
pub struct Message {
    /// The first line.
    pub first: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The status of an answer; 0 of what is none.
    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads one message; `held` keeps what was read beyond it.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S, held: &mut Vec<u8>) -> io::Result<Message> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        more(stream, held).await?;
    };
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    held.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut message = Message { first, headers, body: Vec::new() };
    if message.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        loop {
            let line = take_line(stream, held).await?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| bad("no chunk"))?;
            let chunk = take(stream, held, size).await?;
            message.body.extend(chunk);
            take_line(stream, held).await?;
            if size == 0 {
                break;
            }
            if message.body.len() > BYTES_MAX {
                return Err(bad("too large"));
            }
        }
    } else {
        let length = message.header("content-length").parse().unwrap_or(0);
        message.body = take(stream, held, length).await?;
    }
    Ok(message)
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, held: &mut Vec<u8>) -> io::Result<()> {
    if held.len() > BYTES_MAX {
        return Err(bad("too large"));
    }
    match stream.read_buf(held).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn take<S: AsyncRead + Unpin>(
    stream: &mut S,
    held: &mut Vec<u8>,
    length: usize,
) -> io::Result<Vec<u8>> {
    while held.len() < length {
        more(stream, held).await?;
    }
    Ok(held.drain(..length).collect())
}

async fn take_line<S: AsyncRead + Unpin>(stream: &mut S, held: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(at) = held.windows(2).position(|two| two == b"\r\n") {
            let line = held.drain(..at + 2).collect::<Vec<_>>();
            return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        more(stream, held).await?;
    }
}

/// A failed request, and whether anything of it can have reached the node.
pub struct Failed {
    pub connected: bool,
    pub why: io::Error,
}

/// Sends one request on a connection of its own and reads the answer.
pub async fn ask(
    (address, port): (Ipv4Addr, u16),
    what: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Message, Failed> {
    let at = SocketAddr::from((address, port));
    let stream = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(at)).await;
    let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let mut stream = stream.map_err(|why| Failed { connected: false, why })?;
    let exchange = async {
        stream.set_nodelay(true)?;
        let mut head = format!(
            "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        read(&mut stream, &mut Vec::new()).await
    };
    exchange.await.map_err(|why| Failed { connected: true, why })
}
