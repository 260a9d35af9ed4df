//! A proxy on loopback between an engine and its server, in which things go wrong as a seed says.
//!
//! It passes bytes on, and knows as little of HTTP as it can: a request begins with the first bytes of
//! the client after the server's last ones, and the stream of events is known by its path. It runs on
//! its own thread, so it goes on while a test's runtime is blocked.
//!
//! Its address stays the same while the server behind it is another ([`Proxy::lead_to`]), and while it
//! refuses connections ([`Proxy::close`]).

mod fault;
mod relay;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{oneshot, watch};

pub use fault::{Fault, Faults};

use fault::Draw;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 128;

/// A running proxy; it ends, and all that goes through it, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropping it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle and all connections have in common.
#[derive(Debug)]
struct Shared {
    /// The port of the server.
    server: Mutex<u16>,
    open: watch::Sender<bool>,
    draw: Mutex<Draw>,
    met: Mutex<BTreeMap<Fault, u64>>,
}

impl Proxy {
    /// Starts a proxy before the server on this port; nothing goes wrong yet.
    pub fn start(server: u16) -> Self {
        let shared = Arc::new(Shared {
            server: Mutex::new(server),
            open: watch::Sender::new(true),
            draw: Mutex::default(),
            met: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        // It never listens: it holds the port, so that nobody else gets it while the proxy is closed.
        let holder = bound(0);
        let address = holder.local_addr().unwrap();
        // Here and not in the thread, so that it listens when this returns.
        let listener = {
            let _inside = runtime.enter();
            listen(address.port())
        };
        let thread = std::thread::Builder::new()
            .name("faulty proxy".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let _holder = holder;
                    runtime.block_on(async {
                        tokio::select! {
                            () = accept(listener, address.port(), shared) => {}
                            _ = stopped => {}
                        }
                    });
                }
            })
            .unwrap();
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address, as a base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next connection on, the server is on this port.
    pub fn lead_to(&self, server: u16) {
        *lock(&self.shared.server) = server;
    }

    /// From the next request on, this goes wrong.
    pub fn suffer(&self, faults: Faults) {
        *lock(&self.shared.draw) = Draw::of(faults);
    }

    /// From the next request on, nothing goes wrong.
    pub fn calm(&self) {
        *lock(&self.shared.draw) = Draw::default();
    }

    /// Refuses connections, and resets those that there are.
    pub fn close(&self) {
        self.shared.open.send_replace(false);
    }

    /// Takes connections again.
    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }

    /// What has gone wrong, and how often.
    pub fn met(&self) -> BTreeMap<Fault, u64> {
        lock(&self.shared.met).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and the calls that it broke off have failed.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn meet(&self, fault: Fault) {
        *lock(&self.met).entry(fault).or_default() += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bound(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    // Several sockets may have the port so, as long as one of them listens.
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    socket
}

fn listen(port: u16) -> TcpListener {
    bound(port).listen(BACKLOG).unwrap()
}

async fn accept(listener: TcpListener, port: u16, shared: Arc<Shared>) {
    let mut open = shared.open.subscribe();
    let mut listener = Some(listener);
    loop {
        let Some(listening) = &listener else {
            // The sender is in `shared`.
            let _ = open.wait_for(|open| *open).await;
            listener = Some(listen(port));
            continue;
        };
        tokio::select! {
            _ = open.wait_for(|open| !*open) => listener = None,
            accepted = listening.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(relay::run(client, Arc::clone(&shared)));
            }
        }
    }
}
