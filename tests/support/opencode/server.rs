//! `opencode serve`, started and ended.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use super::{Home, binary};
use crate::process::Running;

/// A start takes about two seconds, on a machine that has nothing else to do.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The port, as after a restart; otherwise a free one.
    pub port: Option<u16>,
    /// The password that every request then needs.
    pub password: Option<String>,
}

/// A running server; it is killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    running: Running,
    port: u16,
    password: Option<String>,
}

impl Server {
    /// Starts a server without a password on a free port, and waits until it listens.
    pub fn start(home: &Home) -> Self {
        Self::start_with(home, ServerOptions::default())
    }

    /// Starts a server and waits until it listens.
    pub fn start_with(home: &Home, options: ServerOptions) -> Self {
        // Between looking for a port and listening on it, another may take it.
        const ATTEMPTS: usize = 5;
        let mut failures = Vec::new();
        let begun = Instant::now();
        while failures.len() < ATTEMPTS && begun.elapsed() < START_TIMEOUT {
            let port = options.port.unwrap_or_else(free_port);
            let mut command = home.command(binary());
            command.args([
                "serve",
                "--hostname",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ]);
            if let Some(password) = &options.password {
                command.env("OPENCODE_SERVER_PASSWORD", password);
            }
            let running = Running::spawn(&mut command);
            // Earlier, the port is open, but a request would never be answered.
            if running
                .stdout_line("server listening on", START_TIMEOUT)
                .is_some()
            {
                return Self {
                    running,
                    port,
                    password: options.password,
                };
            }
            failures.push(running);
        }
        panic!("opencode serve does not start: {failures:#?}");
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The password, where there is one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Kills the server and its process group, as `kill -9` does. What tools have started may be
    /// left; the home ends that.
    pub fn kill(&mut self) {
        self.running.kill_group();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
