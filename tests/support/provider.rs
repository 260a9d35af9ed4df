//! A scripted stand-in for a model provider, on loopback.
//!
//! It speaks the Chat Completions protocol of `OpenAI`, streamed. The prompt says what the model does (see
//! [`script`]), so a test prepares nothing, and a repeated call is answered by the same script. It
//! runs on its own thread and goes on answering while a test's runtime is blocked.

pub mod script;
mod serve;
mod wire;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};

use script::script_of;
use serde_json::Value;

/// How long a test waits for something that ought to happen at once.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running provider; it ends when it is dropped.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    journal: Arc<watch::Sender<Journal>>,
    /// Dropping it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    /// Starts a provider on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let journal = Arc::new(watch::Sender::new(Journal::default()));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("scripted provider".into())
            .spawn({
                let journal = Arc::clone(&journal);
                move || serve::run(listener, journal, stopped)
            })
            .unwrap();
        Self {
            address,
            journal,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The base URL, which ends in `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every model call so far, in the order of arrival, calls beside the conversation included.
    pub fn calls(&self) -> Vec<Call> {
        self.journal.borrow().calls.clone()
    }

    /// The calls that played the script of a prompt which contains these words.
    pub fn calls_for(&self, prompt: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| !call.side && call.prompt.contains(prompt));
        calls
    }

    /// The text that was sent for such a prompt, call by call.
    pub fn texts_for(&self, prompt: &str) -> Vec<String> {
        self.calls_for(prompt)
            .into_iter()
            .map(|call| call.sent)
            .collect()
    }

    /// How the calls for such a prompt ended, or where they stand.
    pub fn outcomes_for(&self, prompt: &str) -> Vec<Outcome> {
        self.calls_for(prompt)
            .into_iter()
            .map(|call| call.outcome)
            .collect()
    }

    /// Opens a gate; it stays open.
    pub fn open_gate(&self, name: &str) {
        self.journal.send_modify(|journal| {
            journal.open_gates.insert(name.into());
        });
    }

    /// Waits until a call stands at a gate.
    pub async fn reached_gate(&self, name: &str) {
        let at_gate = |call: &Call| matches!(&call.outcome, Outcome::AtGate(gate) if gate == name);
        let what = format!("a call to reach the gate {name}");
        self.wait_for(&what, |calls| calls.iter().any(at_gate))
            .await;
    }

    /// Waits until the last call for a prompt with these words has ended so.
    pub async fn ended(&self, prompt: &str, outcome: &Outcome) {
        let meant = |call: &&Call| !call.side && call.prompt.contains(prompt);
        let what = format!("{prompt} to end with {outcome:?}");
        self.wait_for(&what, |calls| {
            let last = calls.iter().rfind(meant);
            last.is_some_and(|call| call.outcome == *outcome)
        })
        .await;
    }

    /// Waits until so many calls for a prompt with these words were made.
    pub async fn asked(&self, prompt: &str, times: usize) {
        let meant = |call: &&Call| !call.side && call.prompt.contains(prompt);
        let what = format!("{prompt} to be asked {times} times");
        self.wait_for(&what, |calls| calls.iter().filter(meant).count() >= times)
            .await;
    }

    async fn wait_for(&self, what: &str, reached: impl Fn(&[Call]) -> bool) {
        let mut journal = self.journal.subscribe();
        let reached = journal.wait_for(|journal| reached(&journal.calls));
        let in_time = tokio::time::timeout(PATIENCE, reached).await.is_ok();
        assert!(in_time, "still waiting for {what}: {:#?}", self.calls());
    }

    /// Forgets all calls, how often a script was played, and which gates are open.
    pub fn reset(&self) {
        self.journal.send_modify(|journal| {
            // Calls under way still report by their numbers, so numbers go on.
            let numbers = journal.numbers;
            *journal = Journal {
                numbers,
                ..Journal::default()
            };
        });
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed, and the calls it broke off have failed.
            let _ = thread.join();
        }
    }
}

/// One call of the model.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts all calls, from 1.
    pub number: u64,
    /// When the call came in.
    pub at: SystemTime,
    /// The model that was asked for.
    pub model: String,
    /// The user message that says what to do.
    pub prompt: String,
    /// The script in it: everything from `fake:` on; empty if there is none.
    pub script: String,
    /// Everything that the model was to read, as it came.
    pub messages: Arc<[Value]>,
    /// Asked for a title or the like; such a call plays no script.
    pub side: bool,
    /// Which step of the script this call played, from 0.
    pub step: usize,
    /// How often this step of this prompt has been asked for, from 1: above 1 is a repetition.
    pub attempt: u64,
    /// The exact text that was sent so far.
    pub sent: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended, or where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being answered.
    Running,
    /// It waits at a gate.
    AtGate(String),
    /// It was answered in full.
    Done,
    /// It was refused with this HTTP status.
    Refused(u16),
    /// The script broke it off.
    Cut,
    /// The client closed the connection before the end.
    ClientGone,
}

/// What the provider remembers.
#[derive(Debug, Default)]
struct Journal {
    calls: Vec<Call>,
    numbers: u64,
    attempts: HashMap<(String, usize), u64>,
    open_gates: HashSet<String>,
}

impl Journal {
    fn begin(&mut self, request: &wire::Request) -> Call {
        self.numbers += 1;
        let script = script_of(&request.prompt).unwrap_or_default();
        let attempt = if request.side {
            1
        } else {
            let key = if script.is_empty() {
                &request.prompt
            } else {
                script
            };
            let attempts = self
                .attempts
                .entry((key.to_owned(), request.step))
                .or_default();
            *attempts += 1;
            *attempts
        };
        let call = Call {
            number: self.numbers,
            at: SystemTime::now(),
            model: request.model.clone(),
            prompt: request.prompt.clone(),
            script: script.to_owned(),
            messages: request.messages.as_slice().into(),
            side: request.side,
            step: request.step,
            attempt,
            sent: String::new(),
            outcome: Outcome::Running,
        };
        self.calls.push(call.clone());
        call
    }

    /// Changes what is known of a call, unless it was forgotten meanwhile.
    fn update(&mut self, number: u64, change: impl FnOnce(&mut Call)) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.number == number) {
            change(call);
        }
    }
}
