//! A program outside that decides in a simulation: asked over a WebSocket, one question after the other, while
//! simulated time stands still.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use awc::ws::Message;

use crate::client::bounded_socket::{BoundedSocket, answer, connect, sent};
use crate::client::websocket_client;
use crate::experiment::run::ExperimentError;
use crate::policy::external::frames;
use crate::policy::registry::SchedulerSpec;
use crate::simulation::Oracle;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take: a program that thinks for long slows a simulation down and changes nothing in it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What went wrong with a run's program first.
#[derive(Clone, Default)]
pub(super) struct Trouble(Rc<RefCell<Option<String>>>);

impl Trouble {
    /// That, as the end of the run: its results would be those of another algorithm.
    pub(super) fn check(&self) -> Result<(), ExperimentError> {
        match &*self.0.borrow() {
            Some(why) => Err(ExperimentError::Machine(why.clone())),
            None => Ok(()),
        }
    }

    fn is(&self, url: &str, why: &str) {
        self.0.borrow_mut().get_or_insert_with(|| format!("the program at {url}: {why}"));
    }
}

/// The socket to a program, with what drives it.
pub(super) struct ProgramSocket {
    runtime: actix_rt::Runtime,
    /// Where it leads. Another one is opened for another URL, should an algorithm choose among several.
    url: String,
    socket: Option<BoundedSocket>,
    /// The node that spoke last.
    speaker: String,
    trouble: Trouble,
}

impl ProgramSocket {
    /// To the program of `scheduler`, if it has one. `trouble` is told what goes wrong.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(super) fn open(
        scheduler: &SchedulerSpec,
        trouble: Trouble,
    ) -> Result<Self, ExperimentError> {
        let no_runtime = |why: std::io::Error| ExperimentError::Machine(super::no_thread(&why));
        let runtime = actix_rt::Runtime::new().map_err(no_runtime)?;
        let (url, speaker) = (String::new(), String::new());
        let mut opened = Self { runtime, url, socket: None, speaker, trouble };
        // A scheduler that cannot be is told of by the simulation.
        if let Ok(policy) = scheduler.build()
            && let Some(url) = policy.program()
        {
            opened.turn_to(url);
        }
        opened.trouble.check()?;
        Ok(opened)
    }

    fn turn_to(&mut self, url: &str) {
        if self.url == url {
            return;
        }
        (self.url, self.speaker) = (url.to_owned(), String::new());
        let connected = self.runtime.block_on(async {
            let http = websocket_client(CONNECT);
            connect(&http, url).await
        });
        self.socket = connected.map_err(|why| self.trouble.is(url, &why)).ok();
    }
}

impl Oracle for ProgramSocket {
    fn ask(&mut self, host: &str, url: &str, frames: &[String]) -> Option<Vec<u8>> {
        self.turn_to(url);
        let socket = self.socket.as_mut()?;
        // One socket serves all nodes.
        let greeting = (self.speaker != host).then(|| frames::node(host, ""));
        self.speaker.replace_range(.., host);
        let all = greeting.iter().chain(frames).map(|text| Message::Text(text.clone().into()));
        let said = self.runtime.block_on(async {
            if !sent(socket, all, PATIENCE).await {
                return None;
            }
            tokio::time::timeout(PATIENCE, answer(socket)).await.ok().flatten()
        });
        if said.is_none() {
            self.socket = None;
            self.trouble.is(url, "it has ended, or does not answer");
        }
        said.map(|text| text.to_vec())
    }
}
