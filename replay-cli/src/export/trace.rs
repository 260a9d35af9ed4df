//! Chrome's trace event format: a picture over time, for Perfetto.
//!
//! A session and a connection are a process each, what lasts in them is a slice on a track. Slices of one kind that
//! last at the same time stand on tracks of their own, so that none overlaps another.

use std::collections::BTreeMap;

use recount_store::{StreamId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::spans::{About, Ending, Mark, Span, Spans, What, link};

/// The whole file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trace {
    display_time_unit: &'static str,
    trace_events: Vec<TraceEvent>,
}

/// One item of it. The names are the format's.
#[derive(Debug, Serialize)]
struct TraceEvent {
    name: String,
    cat: &'static str,
    ph: &'static str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: usize,
    tid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

/// A kind of track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Track {
    /// What belongs to no slice.
    Events,
    Messages,
    Attempts,
    Turns,
    Calls,
    Waits,
    Connection,
    Breaker,
    Server,
}

impl Track {
    fn of(what: &What) -> Self {
        match what {
            What::Message { .. } => Self::Messages,
            What::Attempt { .. } => Self::Attempts,
            What::Run { .. } => Self::Turns,
            What::Call { .. } => Self::Calls,
            What::Wait { .. } => Self::Waits,
            What::Link(_) => Self::Connection,
            What::Breaker { .. } => Self::Breaker,
            What::Server { .. } => Self::Server,
        }
    }

    /// What the track is called, and the category of what is on it.
    const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Messages => "messages",
            Self::Attempts => "attempts",
            Self::Turns => "turns",
            Self::Calls => "tool calls",
            Self::Waits => "waits for a person",
            Self::Connection => "connection",
            Self::Breaker => "breaker",
            Self::Server => "server",
        }
    }
}

/// How many tracks of a kind there can be, for their numbers.
const LANES: usize = 1000;

/// A place for slices: a process and a thread, in the format's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    pid: usize,
    tid: usize,
}

/// The picture of these spans; with `texts`, of what was said, too.
pub(crate) fn trace(spans: &Spans, texts: bool) -> Trace {
    let mut drawing = Drawing::default();
    for (index, (stream, about)) in spans.about.iter().enumerate() {
        drawing.process(index + 1, *stream, about);
    }
    let pid = |stream: StreamId| {
        let known = spans.about.iter().position(|(known, _)| *known == stream);
        known.map_or(0, |index| index + 1)
    };
    for (stream, mark) in &spans.marks {
        let place = drawing.lane(pid(*stream), Track::Events, mark.at, mark.at);
        drawing.mark(place, Track::Events, mark, texts);
    }
    let mut places = Vec::with_capacity(spans.all.len());
    for span in &spans.all {
        places.push(drawing.slice(pid(span.stream), span, texts));
    }
    for (index, span) in spans.all.iter().enumerate() {
        if let Some(cause) = span.cause.filter(|cause| *cause != index) {
            let from = (places[cause], spans.all[cause].begin);
            drawing.flow(index, from, (places[index], span.begin));
        }
    }
    Trace {
        display_time_unit: "ms",
        trace_events: drawing.events,
    }
}

/// What was drawn, and where there is room.
#[derive(Debug, Default)]
struct Drawing {
    events: Vec<TraceEvent>,
    /// Until when each track is taken.
    taken: BTreeMap<Place, u64>,
}

impl Drawing {
    fn process(&mut self, pid: usize, stream: StreamId, about: &About) {
        let title = about.title.as_ref().or(about.url.as_ref());
        let title = title.map_or_else(String::new, |title| format!(": {title}"));
        let name = format!("{stream}{title}");
        self.name(
            "process_name",
            Place { pid, tid: 0 },
            json!({ "name": name }),
        );
    }

    /// Says how a process or a track is called, or where it stands.
    fn name(&mut self, what: &str, place: Place, args: Value) {
        self.events.push(TraceEvent {
            name: what.to_owned(),
            cat: "__metadata",
            ph: "M",
            ts: 0,
            dur: None,
            pid: place.pid,
            tid: place.tid,
            id: None,
            bp: None,
            s: None,
            args,
        });
    }

    /// The first track of a kind that has room for something.
    fn lane(&mut self, pid: usize, track: Track, begin: Timestamp, end: Timestamp) -> Place {
        let place = |lane: usize| Place {
            pid,
            tid: (track as usize + 1) * LANES + lane,
        };
        let mut lane = 0;
        while self
            .taken
            .get(&place(lane))
            .is_some_and(|taken| *taken > begin.0)
            && lane + 1 < LANES
        {
            lane += 1;
        }
        let place = place(lane);
        if self.taken.insert(place, end.0).is_none() {
            let number = if lane == 0 {
                String::new()
            } else {
                format!(" {}", lane + 1)
            };
            let name = format!("{}{number}", track.name());
            self.name("thread_name", place, json!({ "name": name }));
            self.name(
                "thread_sort_index",
                place,
                json!({ "sort_index": place.tid }),
            );
        }
        place
    }

    fn slice(&mut self, pid: usize, span: &Span, texts: bool) -> Place {
        let track = Track::of(&span.what);
        // A slice of no length holds nothing, not even the arrow that leads to it.
        let end = Timestamp(span.end.0.max(span.begin.0.saturating_add(1)));
        let place = self.lane(pid, track, span.begin, end);
        self.events.push(TraceEvent {
            name: name(&span.what),
            cat: track.name(),
            ph: "X",
            ts: span.begin.0,
            dur: Some(end.0 - span.begin.0),
            pid,
            tid: place.tid,
            id: None,
            bp: None,
            s: None,
            args: args(span, texts),
        });
        for mark in &span.marks {
            self.mark(place, track, mark, texts);
        }
        place
    }

    fn mark(&mut self, place: Place, track: Track, mark: &Mark, texts: bool) {
        let mut args = json!({ "event": mark.seq });
        if texts {
            args["says"] = mark.says.clone().into();
        }
        self.events.push(TraceEvent {
            name: mark.name.clone(),
            cat: track.name(),
            ph: "i",
            ts: mark.at.0,
            dur: None,
            pid: place.pid,
            tid: place.tid,
            id: None,
            bp: None,
            s: Some("t"),
            args,
        });
    }

    /// An arrow from the beginning of a slice to the beginning of another.
    fn flow(&mut self, id: usize, from: (Place, Timestamp), to: (Place, Timestamp)) {
        for (ph, bp, (place, at)) in [("s", None, from), ("f", Some("e"), to)] {
            self.events.push(TraceEvent {
                name: "leads to".to_owned(),
                cat: "cause",
                ph,
                // An arrow leads forwards, also where a clock went back.
                ts: at.0.max(from.1.0),
                dur: None,
                pid: place.pid,
                tid: place.tid,
                id: Some(id),
                bp,
                s: None,
                args: Value::Null,
            });
        }
    }
}

fn name(what: &What) -> String {
    match what {
        What::Message { message, .. } => format!("message {message:.6}"),
        What::Attempt { attempt, .. } => format!("attempt {attempt}"),
        What::Run { run, .. } => format!("run {run}"),
        What::Call { tool, .. } => tool.clone(),
        What::Wait { .. } => "waits for an answer".to_owned(),
        What::Link(state) => link(*state).to_owned(),
        What::Breaker { half_open: false } => "open".to_owned(),
        What::Breaker { half_open: true } => "half-open".to_owned(),
        What::Server { pid } => format!("process {pid}"),
    }
}

fn args(span: &Span, texts: bool) -> Value {
    let mut args = json!({ "event": span.seq, "ended": ended(&span.ending) });
    if let Ending::Badly { why: reason, .. } = &span.ending {
        args["reason"] = reason.clone().into();
    }
    if let Some(message) = span.what.message() {
        args["message"] = message.to_string().into();
    }
    let mut say = |name: &str, text: &str| {
        if texts {
            args[name] = text.into();
        }
    };
    match &span.what {
        What::Message { text, .. } => say("text", text),
        What::Run { answer, .. } => say("answer", answer),
        What::Call { input, output, .. } => {
            say("input", input);
            say("output", output);
        }
        What::Wait { asks, .. } => say("asks", asks),
        What::Attempt { .. } | What::Link(_) | What::Breaker { .. } | What::Server { .. } => {}
    }
    args
}

const fn ended(ending: &Ending) -> &'static str {
    match ending {
        Ending::Open => "not yet",
        Ending::Well(_) => "well",
        Ending::Badly { .. } => "badly",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::fixture::story;

    #[test]
    fn a_story_is_drawn() {
        let Ok(spans) = Spans::of(story().into_iter().map(Ok::<_, std::convert::Infallible>));
        let Trace { trace_events, .. } = trace(&spans, true);
        let lines: Vec<String> = trace_events
            .iter()
            .map(|event| serde_json::to_string(event).expect("JSON"))
            .collect();
        expect![[r#"
            {"name":"process_name","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":0,"args":{"name":"session/081040g2081040g2"}}
            {"name":"process_name","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":0,"args":{"name":"connection/0c1g60r30c1g60r3: http://127.0.0.1:4101"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":1000,"args":{"name":"events"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":1000,"args":{"sort_index":1000}}
            {"name":"SessionOpened","cat":"events","ph":"i","ts":1795338844000000,"pid":1,"tid":1000,"s":"t","args":{"event":1,"says":"opencode in /home/project with test/model"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":1000,"args":{"name":"events"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":1000,"args":{"sort_index":1000}}
            {"name":"ConnectionOpened","cat":"events","ph":"i","ts":1795338846000000,"pid":2,"tid":1000,"s":"t","args":{"event":1,"says":"opencode, started in /home/project"}}
            {"name":"ServerReady","cat":"events","ph":"i","ts":1795338848000000,"pid":2,"tid":1000,"s":"t","args":{"event":3,"says":"http://127.0.0.1:4101 version 1.18.3"}}
            {"name":"AgentSessionBound","cat":"events","ph":"i","ts":1795338850000000,"pid":1,"tid":1000,"s":"t","args":{"event":3,"says":"ses_1"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":2000,"args":{"name":"messages"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":2000,"args":{"sort_index":2000}}
            {"name":"message 040g20","cat":"messages","ph":"X","ts":1795338845000000,"dur":18000000,"pid":1,"tid":2000,"args":{"ended":"not yet","event":2,"message":"040g2081040g2081","text":"Why did it fail?\nBe brief."}}
            {"name":"RerunDecided","cat":"messages","ph":"i","ts":1795338863000000,"pid":1,"tid":2000,"s":"t","args":{"event":12,"says":"040g20 waits for a person: a tool had begun: bash"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":9000,"args":{"name":"server"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":9000,"args":{"sort_index":9000}}
            {"name":"process 4242","cat":"server","ph":"X","ts":1795338847000000,"dur":12000000,"pid":2,"tid":9000,"args":{"ended":"well","event":2}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":7000,"args":{"name":"connection"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":2,"tid":7000,"args":{"sort_index":7000}}
            {"name":"connected","cat":"connection","ph":"X","ts":1795338849000000,"dur":9000000,"pid":2,"tid":7000,"args":{"ended":"well","event":4}}
            {"name":"StreamLost","cat":"connection","ph":"i","ts":1795338857000000,"pid":2,"tid":7000,"s":"t","args":{"event":5,"says":"the stream broke: connection reset"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":3000,"args":{"name":"attempts"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":3000,"args":{"sort_index":3000}}
            {"name":"attempt 1","cat":"attempts","ph":"X","ts":1795338851000000,"dur":1000000,"pid":1,"tid":3000,"args":{"ended":"well","event":4,"message":"040g2081040g2081"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":4000,"args":{"name":"turns"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":4000,"args":{"sort_index":4000}}
            {"name":"run 1","cat":"turns","ph":"X","ts":1795338853000000,"dur":9000000,"pid":1,"tid":4000,"args":{"answer":"Let me look.\nIt","ended":"badly","event":6,"message":"040g2081040g2081","reason":"its process is gone"}}
            {"name":"TurnStarted","cat":"turns","ph":"i","ts":1795338854000000,"pid":1,"tid":4000,"s":"t","args":{"event":7,"says":"040g20"}}
            {"name":"thread_name","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":5000,"args":{"name":"tool calls"}}
            {"name":"thread_sort_index","cat":"__metadata","ph":"M","ts":0,"pid":1,"tid":5000,"args":{"sort_index":5000}}
            {"name":"bash","cat":"tool calls","ph":"X","ts":1795338856000000,"dur":5000000,"pid":1,"tid":5000,"args":{"ended":"badly","event":9,"input":"{\"command\":\"make\"}","message":"040g2081040g2081","output":"","reason":"lost"}}
            {"name":"disconnected","cat":"connection","ph":"X","ts":1795338858000000,"dur":5000000,"pid":2,"tid":7000,"args":{"ended":"not yet","event":6}}
            {"name":"ReconnectScheduled","cat":"connection","ph":"i","ts":1795338860000000,"pid":2,"tid":7000,"s":"t","args":{"event":8,"says":"try 1 not before 2026-11-22T09:14:20.000000Z"}}"#]].assert_eq(&lines.join("\n"));
    }
}
