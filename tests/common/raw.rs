//! A server that answers with the bytes that a test gives it, and remembers the bytes it got.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came over the wire.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Everything up to the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// Headers with their names in lower case.
    pub fn headers(&self) -> HashMap<String, String> {
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        self.head.lines().skip(1).filter_map(pair).collect()
    }

    pub fn header(&self, name: &str) -> String {
        self.headers().remove(name).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Reply {
    /// Sends these bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// Closes the connection without a word.
    Close,
    /// Says nothing and keeps the connection open.
    Hang,
}

/// An answer with that status, headers (each with its line end) and body.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    Reply::Bytes([head.as_bytes(), body].concat())
}

pub fn ok(body: &str) -> Reply {
    answer("200 OK", "", body.as_bytes())
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    ended: AtomicBool,
}

/// See the module. Ends, with all its connections, when dropped.
pub struct RawServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl RawServer {
    pub fn start(
        ip: impl Into<IpAddr>,
        port: u16,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = SocketAddr::new(ip.into(), port);
        let listener = TcpListener::bind(address).unwrap_or_else(|why| panic!("{address}: {why}"));
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                serving.accepted.fetch_add(1, Ordering::SeqCst);
                serving.connections.lock().unwrap().extend(stream.try_clone());
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &serving));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread up, which then closes the socket.
        drop(TcpStream::connect(self.address));
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer) {
        shared.requests.lock().unwrap().push(request.clone());
        match (shared.handler)(&request) {
            Reply::Bytes(bytes) => {
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
            Reply::Close => {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Reply::Hang => {}
        }
    }
}

/// Reads one request; what comes after it stays in `buffer`.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut request = Request { head, body: Vec::new() };
            let length: usize = request.header("content-length").parse().unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                request.body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some(request);
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

/// Sends `request` in pieces of `step` bytes and reads until the node closes the connection, on a
/// thread of its own.
pub async fn spoken(ip: Ipv4Addr, port: u16, request: impl Into<Vec<u8>>, step: usize) -> String {
    let request = request.into();
    let asked = move || {
        let mut stream = TcpStream::connect((ip, port)).expect("connects");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(super::PATIENCE)).expect("a socket");
        for piece in request.chunks(step) {
            // A node that has refused it reads no more.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    actix_rt::task::spawn_blocking(asked).await.expect("joins")
}
