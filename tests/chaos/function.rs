//! `fn-count`, the suite's own function: one server in each node's namespace, which writes down every run.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::http;

/// Its name, as nodes know it.
pub const NAME: &str = "fn-count";
/// How long a run takes.
pub const TIME: Duration = Duration::from_millis(40);
const PORT: u16 = 9000;

/// Where a node finds it.
pub fn url() -> String {
    format!("http://{}:{PORT}/", Ipv4Addr::LOCALHOST)
}

/// What ran.
#[derive(Default)]
pub struct Runs {
    /// Call number → how often it ran, and on which node last.
    pub of: HashMap<u64, (u32, usize)>,
    /// Node → how many run there now, and how many did at most.
    at_once: HashMap<usize, (u32, u32)>,
}

impl Runs {
    /// How many ran at once at most, on any node.
    pub fn most_at_once(&self) -> u32 {
        self.at_once.values().map(|(_, most)| *most).max().unwrap_or(0)
    }
}

/// The servers, on a thread of their own that ends with this.
pub struct Functions {
    runs: Arc<Mutex<Runs>>,
    more: UnboundedSender<(usize, TcpListener)>,
}

impl Functions {
    pub fn start() -> Self {
        let runs = Arc::<Mutex<Runs>>::default();
        let (more, wanted) = unbounded_channel();
        let noted = runs.clone();
        std::thread::spawn(move || super::runtime().block_on(serve_all(wanted, noted)));
        Self { runs, more }
    }

    /// One for this node, in the namespace in which this thread is.
    pub fn serve(&self, node: usize) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
        listener.set_nonblocking(true)?;
        self.more.send((node, listener)).map_err(io::Error::other)
    }

    /// What ran since the last time.
    pub fn take(&self) -> Runs {
        std::mem::take(&mut *self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve_all(mut wanted: UnboundedReceiver<(usize, TcpListener)>, runs: Arc<Mutex<Runs>>) {
    while let Some((node, listener)) = wanted.recv().await {
        let runs = runs.clone();
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
            while let Ok((stream, _)) = listener.accept().await {
                let runs = runs.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, node, &runs).await;
                });
            }
        });
    }
}

/// A run that goes on; it ends when this is dropped.
struct Running<'a>(&'a Mutex<Runs>, usize);

impl<'a> Running<'a> {
    fn start(runs: &'a Mutex<Runs>, node: usize, call: u64) -> Self {
        let mut noted = runs.lock().unwrap_or_else(PoisonError::into_inner);
        let run = noted.of.entry(call).or_default();
        *run = (run.0 + 1, node);
        let (now, most) = noted.at_once.entry(node).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Self(runs, node)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, _) = noted.at_once.entry(self.1).or_default();
        // It may have begun before the notes did.
        *now = now.saturating_sub(1);
    }
}

/// The call's number is its body, and so is the answer.
async fn serve(mut stream: TcpStream, node: usize, runs: &Mutex<Runs>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = Vec::new();
    loop {
        let call = http::read(&mut stream, &mut held).await?;
        let number = call.text().trim().parse().map_err(io::Error::other)?;
        let running = Running::start(runs, node, number);
        // A node that is gone has nothing that runs any more.
        tokio::select! {
            () = tokio::time::sleep(TIME) => {}
            read = stream.read_buf(&mut held) => if read? == 0 { return Ok(()) },
        }
        drop(running);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", call.body.len());
        stream.write_all(&[head.as_bytes(), &call.body].concat()).await?;
    }
}
