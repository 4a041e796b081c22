//! HTTP by the byte, at either end of a connection, and functions that do what a script says: for all
//! that goes on while a body is on its way.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::PATIENCE;

/// One end of a connection. What does not come in time fails the test.
pub struct Wire {
    pub stream: TcpStream,
    /// Read and not looked at.
    came: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("connected");
        Self { stream, came: Vec::new() }
    }

    /// A client's end.
    pub fn to(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self::new(TcpStream::connect(SocketAddr::new(ip.into(), port)).expect("it listens"))
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("it is taken");
    }

    /// Sends a chunk.
    pub fn say_chunk(&mut self, text: &str) {
        self.say(format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// Reads more; `false`: the connection has ended.
    fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(read) => {
                self.came.extend_from_slice(&piece[..read]);
                read > 0
            }
            Err(why)
                if matches!(why.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                false
            }
            Err(why) => panic!("nothing came after {:?}: {why}", self.came()),
        }
    }

    fn came(&self) -> String {
        String::from_utf8_lossy(&self.came).into_owned()
    }

    /// Reads up to and with `end`.
    pub fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.came.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                return String::from_utf8(self.take(at + end.len())).expect("text");
            }
            assert!(self.more(), "{end:?} never came after {:?}", self.came());
        }
    }

    /// Reads a head.
    pub fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    /// Reads so many bytes.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.came.len() < bytes {
            assert!(self.more(), "{bytes} bytes never came, but {:?}", self.came());
        }
        let rest = self.came.split_off(bytes);
        std::mem::replace(&mut self.came, rest)
    }

    /// Reads a chunk; `None`: the last one.
    pub fn chunk(&mut self) -> Option<String> {
        let size = self.until("\r\n");
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        let text = (size > 0).then(|| String::from_utf8(self.take(size)).expect("text"))?;
        assert_eq!(self.until("\r\n"), "\r\n");
        Some(text)
    }

    /// Reads chunks until `text` has come of them, whatever their pieces.
    pub fn chunks_of(&mut self, text: &str) {
        let mut came = String::new();
        while came != text {
            assert!(text.starts_with(&came), "{came:?} is no beginning of {text:?}");
            came += &self.chunk().unwrap_or_else(|| panic!("it ends after {came:?}"));
        }
    }

    /// Reads to the connection's end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.came)
    }

    /// Sends zeros until nobody takes them for a while, or so many have been sent; how many were taken.
    pub fn flood(&mut self, most: usize) -> usize {
        self.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a time-out");
        let mut taken = 0;
        while taken < most {
            match self.stream.write(&[0; 64 << 10]) {
                Ok(bytes) => taken += bytes,
                Err(_) => break,
            }
        }
        taken
    }
}

type Script = dyn Fn(Wire) + Send + Sync;

struct Shared {
    script: Box<Script>,
    /// Those whose script goes on, to be ended with the function.
    connections: Mutex<HashMap<usize, TcpStream>>,
    accepted: AtomicUsize,
    ended: AtomicBool,
}

/// A function each of whose connections goes by a script, and is closed behind it. Ends, with all of them, when dropped.
pub struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Scripted {
    pub fn start(ip: impl Into<IpAddr>, script: impl Fn(Wire) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::new(ip.into(), 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            script: Box::new(script),
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
                let number = serving.accepted.fetch_add(1, Ordering::SeqCst);
                let of_drop = stream.try_clone().expect("another handle");
                serving.connections.lock().unwrap().insert(number, of_drop);
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || {
                    let script =
                        std::panic::AssertUnwindSafe(|| (serving.script)(Wire::new(stream)));
                    // What failed was printed; the connection ends all the same.
                    let _ = std::panic::catch_unwind(script);
                    serving.connections.lock().unwrap().remove(&number);
                });
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread up, which then closes the socket.
        drop(TcpStream::connect(self.address));
        for (_, connection) in self.shared.connections.lock().unwrap().drain() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
