//! The network between the adapter that is really used and the agents' servers, with all that goes wrong on one.
//!
//! It loses nothing in silence: bytes that arrive are in order, as with TCP. What it does is late, broken off, said
//! by somebody else, or never; and a server may miss or repeat a frame of its stream.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use recount_engine::adapter::http::{Body, NoAnswer, Request, Response, Transport};
use recount_engine::adapter::scripted::PortlessServer;
use recount_store::LogReader;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::Value;
use tokio::time::sleep;

use crate::book::Book;
use crate::dice::Dice;
use crate::life::{Life, Operation};
use crate::promises::Asked;
use crate::trace::Trace;

/// How often things go wrong, out of a thousand. Drawn from the seed, and calm at the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// No connection can be made.
    refused: u32,
    /// The connection breaks before the request has arrived, or the answer.
    lost_before: u32,
    lost_after: u32,
    /// Nothing comes and nothing ends, before the request has arrived, or the answer.
    silent_before: u32,
    silent_after: u32,
    /// Something else answers with a page.
    html: u32,
    /// It is too much for the server at this moment.
    later: u32,
    /// The server says that it failed, having done it or not.
    failed: u32,
    /// An answer breaks off in the middle.
    torn: u32,
    /// A call takes long.
    slow: u32,
    /// For each piece of a stream: it breaks, ends cleanly, falls silent for ever, comes late.
    stream_broken: u32,
    stream_ended: u32,
    stream_silent: u32,
    stream_late: u32,
    /// For each frame: it is missing, comes twice, cannot be read.
    frame_missing: u32,
    frame_twice: u32,
    frame_garbled: u32,
}

impl Weather {
    /// The weather of a world. Each fault has a rate of its own, and often none.
    pub(crate) fn of(dice: &Dice) -> Self {
        let rare = |dice: &Dice| dice.pick(&[0, 0, 0, 1, 3, 10]);
        let call = |dice: &Dice| dice.pick(&[0, 0, 0, 5, 20, 60, 150]);
        Self {
            refused: call(dice),
            lost_before: call(dice),
            lost_after: call(dice),
            silent_before: dice.pick(&[0, 0, 0, 3, 20]),
            silent_after: dice.pick(&[0, 0, 0, 3, 20]),
            html: dice.pick(&[0, 0, 0, 0, 5, 30]),
            later: call(dice),
            failed: call(dice),
            torn: call(dice),
            slow: dice.pick(&[0, 0, 20, 200, 600]),
            stream_broken: rare(dice),
            stream_ended: rare(dice),
            stream_silent: dice.pick(&[0, 0, 0, 1, 2]),
            stream_late: dice.pick(&[0, 0, 5, 50]),
            frame_missing: rare(dice),
            frame_twice: rare(dice),
            frame_garbled: rare(dice),
        }
    }
}

/// All that is between engine and agents. Clones are the same network.
#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: Mutex<BTreeMap<String, PortlessServer>>,
    /// What a host is called in the book, where that is not its address.
    names: Mutex<BTreeMap<String, String>>,
    weather: Mutex<Weather>,
    dice: Dice,
    trace: Trace,
    book: Book,
}

impl Network {
    pub(crate) fn new(dice: Dice, trace: Trace, book: Book) -> Self {
        Self(Arc::new(Inner {
            hosts: Mutex::default(),
            names: Mutex::default(),
            weather: Mutex::default(),
            dice,
            trace,
            book,
        }))
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        *self.0.weather.lock().unwrap() = weather;
    }

    /// From now on this server answers at `host`; `None` is nobody.
    pub(crate) fn set_host(&self, host: &str, server: Option<PortlessServer>) {
        let mut hosts = self.0.hosts.lock().unwrap();
        match server {
            Some(server) => hosts.insert(host.to_owned(), server),
            None => hosts.remove(host),
        };
    }

    /// In the book this address has this name from now on, whoever listens there.
    pub(crate) fn set_name(&self, host: &str, name: &str) {
        let mut names = self.0.names.lock().unwrap();
        names.insert(host.to_owned(), name.to_owned());
    }

    /// Who answers at `host`.
    pub(crate) fn host(&self, host: &str) -> Option<PortlessServer> {
        self.0.hosts.lock().unwrap().get(host).cloned()
    }

    /// The network as one life of the engine has it.
    pub(crate) fn wire(&self, life: &Life, log: LogReader) -> Wire {
        Wire {
            network: Arc::clone(&self.0),
            life: life.clone(),
            log,
        }
    }
}

impl Inner {
    /// A server that comes back on another port is the same one, to who looks at what it was asked.
    fn call_by_name(&self, url: &mut Url) {
        let names = self.names.lock().unwrap();
        if let Some(name) = names.get(url.authority()) {
            let is_set = url.set_host(Some(name)).is_ok() && url.set_port(None).is_ok();
            assert!(is_set, "{name} is a host");
        }
    }
}

/// See [`Network::wire`].
#[derive(Debug)]
pub(crate) struct Wire {
    network: Arc<Inner>,
    life: Life,
    log: LogReader,
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, mut request: Request) -> Result<Response, NoAnswer> {
        let network = &self.network;
        let address = request.url.authority().to_owned();
        network.call_by_name(&mut request.url);
        let dice = &network.dice;
        let call = format!("{} {}", request.method, request.url.path());
        // Who dies at this moment may have sent it, and gets no answer.
        let died = match self.life.operate() {
            Operation::Done => false,
            Operation::Last if dice.percent(50) => true,
            Operation::Last | Operation::Never => return pending().await,
        };
        network.book.sent(&self.log, &request);
        let asked = Asked::of(&request);
        let url = request.url.clone();
        let host = url.authority().to_owned();
        let weather = *network.weather.lock().unwrap();
        let fails = |rate| dice.permille(rate);
        let say = |what: &str| network.trace.say("network", format!("{call}: {what}"));
        if fails(weather.refused) {
            say("refused");
            network.book.told(asked.as_ref());
            return Err(no_answer(true, "connection refused"));
        }
        if !died {
            sleep(self.delay(weather)).await;
            if self.life.is_dead() {
                return pending().await;
            }
        }
        if fails(weather.lost_before) {
            say("reset before it arrived");
            return Err(no_answer(false, "connection reset"));
        }
        if fails(weather.silent_before) {
            say("lost, and silence");
            network.book.hangs(&host);
            return pending().await;
        }
        if fails(weather.html) {
            say("answered with a page");
            return Ok(page());
        }
        if fails(weather.later) {
            say("too much at this moment");
            network.book.told(asked.as_ref());
            return Ok(later(dice));
        }
        let failed = fails(weather.failed);
        if failed && dice.percent(50) {
            say("500, and nothing done");
            return Ok(failure());
        }
        let server = network.hosts.lock().unwrap().get(&address).cloned();
        let Some(server) = server else {
            network.book.told(asked.as_ref());
            return Err(no_answer(true, "connection refused"));
        };
        let is_stream = request.url.path() == "/global/event";
        // What has arrived is done, whether or not somebody still waits for the answer.
        let answer = {
            let (server, book) = (server.clone(), network.book.clone());
            let (url, asked) = (url.clone(), asked.clone());
            tokio::spawn(async move {
                let written = book.written(&url);
                let answer = server.answer(request).await;
                if answer.as_ref().is_some_and(|a| a.status.is_success()) {
                    book.done(&url, asked.as_ref());
                }
                answer.map(|answer| (answer, written))
            })
        };
        let answer = answer.await.ok().flatten();
        if died || self.life.is_dead() || fails(weather.silent_after) {
            say("arrived, and silence");
            network.book.hangs(&host);
            return pending().await;
        }
        if failed {
            say("500, although done");
            return Ok(failure());
        }
        if fails(weather.lost_after) {
            say("arrived, and reset");
            return Err(no_answer(false, "connection reset"));
        }
        sleep(self.delay(weather)).await;
        let Some((mut answer, written)) = answer else {
            return Err(no_answer(false, "connection closed"));
        };
        say(answer.status.as_str());
        if !answer.status.is_server_error() && !self.life.is_dead() {
            network.book.told(asked.as_ref());
        }
        answer.body = if is_stream {
            self.stream(answer.body, server, host)
        } else {
            self.body(answer.body, weather, (&url, written)).await
        };
        Ok(answer)
    }
}

impl Wire {
    fn delay(&self, weather: Weather) -> Duration {
        let dice = &self.network.dice;
        if dice.permille(weather.slow) {
            dice.millis(1, 3000)
        } else {
            dice.millis(0, 3)
        }
    }

    /// The body of a call's answer: whole, or broken off somewhere.
    async fn body(&self, body: Body, weather: Weather, (url, written): (&Url, u64)) -> Body {
        let dice = &self.network.dice;
        let chunks: Vec<_> = body.collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flatten().flatten().collect();
        if bytes.is_empty() || !dice.permille(weather.torn) {
            self.network.book.showed(url, &bytes, written);
            return stream::iter([Ok(Bytes::from(bytes))]).boxed();
        }
        let part = Bytes::copy_from_slice(&bytes[..dice.below(bytes.len())]);
        let rest: Body = match dice.below(3) {
            0 => stream::iter([Err("connection reset".to_owned())]).boxed(),
            1 => stream::empty().boxed(),
            _ => {
                self.network.book.hangs(url.authority());
                stream::pending().boxed()
            }
        };
        stream::iter([Ok(part)]).chain(rest).boxed()
    }

    /// The stream of a server's events, until it or the engine dies.
    fn stream(&self, body: Body, server: PortlessServer, host: String) -> Body {
        let reading = Reading {
            network: Arc::clone(&self.network),
            life: self.life.clone(),
            opening: self.network.book.opened(),
            server,
            host,
            body,
            ready: VecDeque::new(),
        };
        stream::unfold(Some(reading), |reading| async {
            let mut reading = reading?;
            let item = reading.next().await?;
            let more = item.is_ok().then_some(reading);
            Some((item, more))
        })
        .boxed()
    }
}

/// A stream that is being read.
struct Reading {
    network: Arc<Inner>,
    life: Life,
    /// Which opening of a stream it is, in this world.
    opening: u64,
    server: PortlessServer,
    host: String,
    body: Body,
    /// What is to be given before more is asked for.
    ready: VecDeque<Result<Bytes, String>>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            if self.life.is_dead() {
                return pending().await;
            }
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let chunk = tokio::select! {
                biased;
                chunk = self.body.next() => chunk?.ok()?,
                () = self.server.ended() => {
                    return match self.network.dice.below(3) {
                        0 => None,
                        1 => Some(Err("connection reset".to_owned())),
                        // The machine is gone with it.
                        _ => pending().await,
                    };
                }
            };
            let weather = *self.network.weather.lock().unwrap();
            let dice = self.network.dice.clone();
            let trace = self.network.trace.clone();
            let say = |what: &str| trace.say("network", format!("stream: {what}"));
            if dice.permille(weather.stream_late) {
                sleep(dice.millis(1, 2000)).await;
            }
            if dice.permille(weather.stream_ended) {
                say("ends");
                return None;
            }
            if dice.permille(weather.stream_silent) {
                say("falls silent");
                return pending().await;
            }
            let broken = dice.permille(weather.stream_broken);
            let mut bytes = self.frames(&chunk, weather);
            if broken {
                say("breaks");
                bytes.truncate(dice.below(bytes.len() + 1));
            }
            // In pieces that have nothing to do with frames.
            while !bytes.is_empty() {
                let piece = match dice.below(4) {
                    0 => 1 + dice.below(bytes.len()),
                    _ => bytes.len(),
                };
                let rest = bytes.split_off(piece);
                self.ready.push_back(Ok(bytes.into()));
                bytes = rest;
            }
            if broken {
                self.ready.push_back(Err("connection reset".to_owned()));
            }
        }
    }

    /// What of a chunk, which is made of whole frames, arrives.
    fn frames(&self, chunk: &[u8], weather: Weather) -> Vec<u8> {
        let (network, dice) = (&self.network, &self.network.dice);
        let mut bytes = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            let end = rest.windows(2).position(|two| two == b"\n\n");
            let (frame, after) = rest.split_at(end.map_or(rest.len(), |end| end + 2));
            rest = after;
            if dice.permille(weather.frame_missing) {
                network.trace.say("network", "stream: a frame is missing");
                continue;
            }
            if dice.permille(weather.frame_garbled) {
                network.trace.say("network", "stream: a frame is garbled");
                // Not the line end, or two would become one.
                bytes.extend_from_slice(&frame[..dice.below(frame.len() - 2)]);
                bytes.extend_from_slice(b"\n\n");
                continue;
            }
            for _ in 0..=usize::from(dice.permille(weather.frame_twice)) {
                bytes.extend_from_slice(frame);
                let data = frame.strip_prefix(b"data: ").unwrap_or(frame);
                if let Ok(frame) = serde_json::from_slice::<Value>(data) {
                    network
                        .book
                        .streamed(&self.host, self.opening, &frame["payload"]);
                }
            }
        }
        bytes
    }
}

fn no_answer(never_sent: bool, reason: &str) -> NoAnswer {
    NoAnswer {
        never_sent,
        reason: reason.to_owned(),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: &'static str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Response {
        status,
        headers,
        body: stream::iter([Ok(Bytes::from_static(body.as_bytes()))]).boxed(),
    }
}

fn page() -> Response {
    answer(StatusCode::OK, "text/html", "<!doctype html>")
}

fn failure() -> Response {
    answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", "{}")
}

fn later(dice: &Dice) -> Response {
    let status = dice.pick(&[
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ]);
    let mut response = answer(status, "application/json", "{}");
    if dice.percent(50) {
        let name: HeaderName = RETRY_AFTER;
        let seconds = HeaderValue::from(dice.between(0, 20));
        response.headers.insert(name, seconds);
    }
    response
}
