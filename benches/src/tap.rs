//! A tap on the wire: a proxy between a client and its agent that notes when what passes.
//!
//! It is in the client's process, so that both have the same clock; every subject goes through one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A tap, which ends with this. What passes has to come whole: one request, or one delta, at a time.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    noted: Arc<Mutex<Noted>>,
    // Aborts what goes through it.
    _task: JoinSet<()>,
}

/// When what passed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Requests to keep a message, as they came from the client.
    pub stores: Vec<Instant>,
    /// Answers to those, as they came from the server.
    pub stored: Vec<Instant>,
    /// Requests to begin, as they came from the client.
    pub starts: Vec<Instant>,
    /// Pieces of answers, just before they went to the client.
    pub deltas: Vec<Instant>,
}

impl Tap {
    /// Begins to pass on what comes for the server at `url`.
    ///
    /// # Panics
    ///
    /// If there is no port.
    pub async fn on(url: &str) -> Self {
        let to = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("its number");
        let noted: Arc<Mutex<Noted>> = Arc::default();
        let mut task = JoinSet::new();
        task.spawn({
            let noted = Arc::clone(&noted);
            async move {
                let mut passing = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    passing.spawn(pass(client, to.clone(), Arc::clone(&noted)));
                }
            }
        });
        Self {
            address,
            noted,
            _task: task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What passed since the last time.
    #[must_use]
    pub fn take(&self) -> Noted {
        std::mem::take(&mut lock(&self.noted))
    }
}

async fn pass(mut client: TcpStream, to: String, notes: Arc<Mutex<Noted>>) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    // Small things are not held back: this is about their time.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut upward, mut downward) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut storing = false;
    loop {
        tokio::select! {
            read = client.read(&mut upward) => {
                let now = Instant::now();
                let Ok(length @ 1..) = read else { return };
                let head = request(&upward[..length]);
                if head.contains("/message") && head.starts_with("POST ") {
                    storing = true;
                    lock(&notes).stores.push(now);
                } else if head.contains("/prompt_async") {
                    lock(&notes).starts.push(now);
                }
                if server.write_all(&upward[..length]).await.is_err() { return }
            }
            read = server.read(&mut downward) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &downward[..length];
                let deltas = String::from_utf8_lossy(bytes).matches("\"message.part.delta\"").count();
                let now = Instant::now();
                {
                    let mut notes = lock(&notes);
                    notes.deltas.extend(std::iter::repeat_n(now, deltas));
                    if std::mem::take(&mut storing) {
                        notes.stored.push(now);
                    }
                }
                if client.write_all(bytes).await.is_err() { return }
            }
        }
    }
}

/// The first line of a request: bytes that begin none have none of the words.
fn request(bytes: &[u8]) -> String {
    let line = bytes
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(1024)]).into_owned()
}

fn lock(noted: &Mutex<Noted>) -> std::sync::MutexGuard<'_, Noted> {
    // Nothing between two notes can panic.
    noted.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use recount_engine::adapter::InProcessServer as _;
    use recount_engine::adapter::scripted::{Script, Scripted, Step};

    use super::*;
    use crate::bench::runtime;
    use crate::peers::{BareClient, Heard, Parser};

    #[test]
    fn what_passes_is_noted_in_its_order() {
        runtime().block_on(async {
            for parser in [Parser::Usual, Parser::Engines] {
                let agent = Scripted::new(Script::always(vec![Step::text("one two", 2)]));
                let server = agent.serve("/project", 0, None).await.expect("a port");
                let tap = Tap::on(&server.url()).await;
                let mut client = BareClient::connect(&tap.url(), parser).await;
                let session = client.calls().create_session("/project").await;
                client.calls().prompt(&session, "hello").await;
                let mut text = String::new();
                loop {
                    match client.next().await {
                        Heard::Delta(piece) => text.push_str(&piece),
                        Heard::Idle => break,
                        Heard::Other => {}
                    }
                }
                assert_eq!(text, "one two");
                let Noted {
                    stores,
                    stored,
                    starts,
                    deltas,
                } = tap.take();
                let counts = [&stores, &stored, &starts, &deltas].map(Vec::len);
                assert_eq!(counts, [1, 1, 1, 2]);
                assert!(stores[0] <= stored[0] && stored[0] <= starts[0]);
            }
        });
    }
}
