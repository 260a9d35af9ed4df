//! One connection through the proxy: requests there, answers back, and what goes wrong with them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::fault::Fault;
use super::{Shared, lock};

/// How a request for the stream of events begins.
const STREAM: &[u8] = b"GET /global/event ";

/// What is passed on at once at most.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// How much of a trickle comes at a time, and how long after the last.
const TRICKLE: (usize, Duration) = (16, Duration::from_millis(1));

/// How much of a stream trickles before it flows again: longer, it would fall behind for good.
const TRICKLE_BYTES_MAX: usize = 16 << 10;

/// Passes on until one side ends, or something else ends both.
pub(super) async fn run(client: TcpStream, shared: Arc<Shared>) {
    // What is written is to leave at once, in the pieces that it was written in.
    client.set_nodelay(true).unwrap();
    let mut open = shared.open.subscribe();
    let mut relay = Relay {
        client,
        server: None,
        shared: &shared,
    };
    let end = tokio::select! {
        end = relay.pass_on() => end,
        _ = open.wait_for(|open| !*open) => End::Reset,
    };
    if let End::Reset = end {
        // With no time to linger, closing resets.
        relay.client.set_zero_linger().unwrap();
    }
}

/// How the client's connection ends.
enum End {
    Close,
    Reset,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Reset
    }
}

/// A request and its answer.
#[derive(Debug)]
struct Exchange {
    is_stream: bool,
    fault: Option<Fault>,
    /// Bytes of the answer that are still passed on before the fault.
    spared: usize,
    /// Bytes of the answer that are still to trickle.
    trickling: usize,
    answered: bool,
}

struct Relay<'a> {
    client: TcpStream,
    server: Option<TcpStream>,
    shared: &'a Shared,
}

impl Relay<'_> {
    async fn pass_on(&mut self) -> End {
        match self.exchanges().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn exchanges(&mut self) -> Result<End, End> {
        let mut exchange: Option<Exchange> = None;
        let (mut asked, mut answer) = (vec![0; PIECE_BYTES_MAX], vec![0; PIECE_BYTES_MAX]);
        loop {
            tokio::select! {
                length = self.client.read(&mut asked) => {
                    let piece = &asked[..length?];
                    if piece.is_empty() {
                        return Ok(End::Close);
                    }
                    let begins = exchange.as_ref().is_none_or(|exchange| exchange.answered);
                    if begins {
                        exchange = Some(self.begin(piece));
                    }
                    let fault = exchange.as_ref().and_then(|exchange| exchange.fault);
                    if let Some(end) = self.refuse(fault).await? {
                        return Ok(end);
                    }
                    self.ask(piece).await?;
                }
                length = read(self.server.as_mut(), &mut answer) => {
                    let piece = &answer[..length?];
                    let Some(exchange) = exchange.as_mut().filter(|_| !piece.is_empty()) else {
                        return Ok(End::Close);
                    };
                    exchange.answered = true;
                    if let Some(end) = self.answer(exchange, piece).await? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn begin(&self, request: &[u8]) -> Exchange {
        let is_stream = request.starts_with(STREAM);
        let mut draw = lock(&self.shared.draw);
        let mut exchange = Exchange {
            is_stream,
            fault: draw.of_request(),
            spared: 0,
            trickling: 0,
            answered: false,
        };
        if let (true, None) = (is_stream, exchange.fault)
            && let Some((fault, after)) = draw.of_stream()
        {
            (exchange.fault, exchange.spared) = (Some(fault), after);
        }
        exchange
    }

    /// What keeps a request from the server, where something does.
    async fn refuse(&mut self, fault: Option<Fault>) -> Result<Option<End>, End> {
        let Some(fault) = fault else { return Ok(None) };
        let end = match fault {
            Fault::ResetBefore => End::Reset,
            Fault::HalfOpenBefore => {
                self.shared.meet(fault);
                return Ok(Some(self.pass_nothing().await));
            }
            Fault::PageBefore(status) => self.send_page(status).await?,
            _ => return Ok(None),
        };
        self.shared.meet(fault);
        Ok(Some(end))
    }

    async fn ask(&mut self, piece: &[u8]) -> Result<(), End> {
        let server = match &mut self.server {
            Some(server) => server,
            none => {
                let port = *lock(&self.shared.server);
                let server = TcpStream::connect(("127.0.0.1", port)).await?;
                server.set_nodelay(true)?;
                none.insert(server)
            }
        };
        Ok(server.write_all(piece).await?)
    }

    /// Passes a piece of an answer on, as far as its fault lets it.
    async fn answer(&mut self, exchange: &mut Exchange, piece: &[u8]) -> Result<Option<End>, End> {
        let Some(fault) = exchange.fault else {
            self.give(exchange, piece).await?;
            return Ok(None);
        };
        if piece.len() <= exchange.spared {
            exchange.spared -= piece.len();
            self.give(exchange, piece).await?;
            return Ok(None);
        }
        self.shared.meet(fault);
        exchange.fault = None;
        match fault {
            Fault::Stall => {
                let pause = lock(&self.shared.draw).stall();
                sleep(Duration::from_millis(pause)).await;
            }
            Fault::Trickle => {
                exchange.trickling = if exchange.is_stream {
                    TRICKLE_BYTES_MAX
                } else {
                    usize::MAX
                };
            }
            Fault::ResetAfter => return Ok(Some(End::Reset)),
            Fault::PageAfter(status) => return Ok(Some(self.send_page(status).await?)),
            Fault::ResetWithin | Fault::Cut | Fault::HalfOpenWithin => {
                self.give(exchange, &piece[..within(piece)]).await?;
                return Ok(Some(match fault {
                    Fault::ResetWithin => End::Reset,
                    Fault::Cut => End::Close,
                    _ => self.pass_nothing().await,
                }));
            }
            Fault::ResetBefore | Fault::HalfOpenBefore | Fault::PageBefore(_) => {
                unreachable!("it does not come to an answer")
            }
        }
        if let (true, Some((fault, after))) =
            (exchange.is_stream, lock(&self.shared.draw).of_stream())
        {
            (exchange.fault, exchange.spared) = (Some(fault), after);
        }
        self.give(exchange, piece).await?;
        Ok(None)
    }

    async fn give(&mut self, exchange: &mut Exchange, piece: &[u8]) -> Result<(), End> {
        let (slow, rest) = piece.split_at(exchange.trickling.min(piece.len()));
        let (size, pause) = TRICKLE;
        for drop in slow.chunks(size) {
            self.client.write_all(drop).await?;
            sleep(pause).await;
        }
        exchange.trickling -= slow.len();
        Ok(self.client.write_all(rest).await?)
    }

    /// Keeps both connections, and takes what the client sends for itself, until the client leaves.
    async fn pass_nothing(&mut self) -> End {
        let mut lost = vec![0; PIECE_BYTES_MAX];
        while let Ok(1..) = self.client.read(&mut lost).await {}
        End::Close
    }

    async fn send_page(&mut self, status: u16) -> Result<End, End> {
        let page = "<!doctype html><title>Gateway</title><p>Come back later.";
        let answer = format!(
            "HTTP/1.1 {status} Gateway\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{page}",
            page.len()
        );
        self.client.write_all(answer.as_bytes()).await?;
        Ok(End::Close)
    }
}

/// What the server says; nothing as long as there is none.
async fn read(server: Option<&mut TcpStream>, piece: &mut [u8]) -> io::Result<usize> {
    match server {
        Some(server) => server.read(piece).await,
        None => std::future::pending().await,
    }
}

/// Where a piece is cut: within its last frame, if it has the beginning of one; else in its middle.
fn within(piece: &[u8]) -> usize {
    const DATA: &[u8] = b"data: {\"";
    let begins = piece.windows(DATA.len()).rposition(|begin| begin == DATA);
    begins.map_or(piece.len() / 2, |at| at + DATA.len())
}
