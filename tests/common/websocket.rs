//! WebSockets by the byte: a client such as v1's scheduler has, and a stand-in for v1's learner.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::PATIENCE;

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// Reads up to the empty line.
fn head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Reads a frame: its first byte and its payload, unmasked.
fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut start = [0; 2];
    stream.read_exact(&mut start).ok()?;
    let length = match start[1] & 0x7f {
        126 => {
            let mut two = [0; 2];
            stream.read_exact(&mut two).ok()?;
            u16::from_be_bytes(two).into()
        }
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    if start[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).ok()?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((start[0], payload))
}

/// A frame's bytes. Clients mask.
fn frame(kind: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![kind];
    match u16::try_from(payload.len()).expect("a short payload") {
        short @ 0..126 => bytes.push(bit | short as u8),
        long => {
            bytes.push(bit | 126);
            bytes.extend(long.to_be_bytes());
        }
    }
    if masked {
        // A mask of zeros is one too.
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

/// A client's end.
pub struct Client(TcpStream);

impl Client {
    /// Shakes hands as the recordings do; answers with the server's head.
    pub fn connect(ip: impl Into<IpAddr>, port: u16, path: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(SocketAddr::new(ip.into(), port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let shake = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(shake.as_bytes()).expect("sent");
        let head = head(&mut stream).expect("answered");
        (Self(stream), head)
    }

    pub fn send(&mut self, kind: u8, payload: &[u8]) {
        self.0.write_all(&frame(kind, payload, true)).expect("sent");
    }

    /// `None`: the connection has ended.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        read_frame(&mut self.0)
    }

    /// Sends nothing more.
    pub fn finish(&self) {
        self.0.shutdown(Shutdown::Write).expect("connected");
    }

    /// Asks as v1's scheduler does.
    pub fn ask(&mut self, text: &str) -> String {
        self.send(TEXT, text.as_bytes());
        let (kind, payload) = self.receive().expect("answered");
        assert_eq!(kind, TEXT, "{payload:?}");
        String::from_utf8(payload).expect("text")
    }
}

/// What the stand-in does with a question.
pub enum Reply {
    Text(String),
    /// Says nothing, and keeps the socket open.
    Hang,
    /// Ends the socket.
    Close,
}

type Handler = dyn Fn(&str) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    open: AtomicUsize,
    accepted: AtomicUsize,
    asked: Mutex<Vec<String>>,
    sockets: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// Stands in for v1's learner. Ends, with all its sockets, when dropped.
pub struct Learner {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Learner {
    pub fn start(
        address: SocketAddr,
        handler: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|why| panic!("{address}: {why}"));
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            asked: Mutex::default(),
            sockets: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                serving.sockets.lock().unwrap().extend(stream.try_clone());
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &serving));
            }
        });
        Self { address, shared }
    }

    /// Sockets open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Sockets opened so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The questions so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let Some(request) = head(&mut stream) else { return };
    let is_key = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
    let key = request.lines().find(is_key).and_then(|line| line.split_once(':')).expect("a key").1;
    let accept = actix_http::ws::hash_key(key.trim().as_bytes());
    let accept = String::from_utf8_lossy(&accept).into_owned();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nServer: Python/3.11 websockets/10.3\r\n\r\n"
    );
    if stream.write_all(answer.as_bytes()).is_err() {
        return;
    }
    shared.accepted.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    while let Some((TEXT, question)) = read_frame(&mut stream) {
        let question = String::from_utf8(question).expect("text");
        shared.asked.lock().unwrap().push(question.clone());
        match (shared.handler)(&question) {
            Reply::Text(text) => {
                if stream.write_all(&frame(TEXT, text.as_bytes(), false)).is_err() {
                    break;
                }
            }
            Reply::Hang => {}
            Reply::Close => break,
        }
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
    let _ = stream.shutdown(Shutdown::Both);
}
