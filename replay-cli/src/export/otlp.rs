//! OpenTelemetry spans, as OTLP says them in JSON.
//!
//! A message is a trace: its attempts, the runs of its turn and their tool calls are the spans in it, with the names
//! that the conventions for generative AI give them. A connection is a trace of its own. Ids are made of the log's, so
//! that the same log gives the same spans again.

use recount_store::{Seq, StreamId, Timestamp};
use serde_json::{Value, json};

use super::spans::{About, Ending, Mark, Span, Spans, What, link};

/// The conventions that the attributes follow.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.41.0";

/// The spans as one request of a collector's; with `texts`, with what was said, too.
pub(crate) fn request(spans: &Spans, texts: bool) -> Value {
    let told: Vec<Value> = spans
        .all
        .iter()
        .map(|span| self::span(spans, span, texts))
        .collect();
    json!({
        "resourceSpans": [{
            "resource": { "attributes": attributes([("service.name", "recount".into())]) },
            "scopeSpans": [{
                "scope": { "name": "recount", "version": env!("CARGO_PKG_VERSION") },
                "spans": told,
                "schemaUrl": SCHEMA,
            }],
            "schemaUrl": SCHEMA,
        }],
    })
}

/// A span's kind, in the protocol's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Internal = 1,
    Client = 3,
}

fn span(spans: &Spans, span: &Span, texts: bool) -> Value {
    let empty = About::default();
    let about = spans.about(span.stream).unwrap_or(&empty);
    let mut told = json!({
        "traceId": trace_id(span),
        "spanId": span_id(span, span.seq),
        "name": name(span, about),
        "kind": kind(&span.what) as u8,
        "startTimeUnixNano": nanos(span.begin),
        "endTimeUnixNano": nanos(span.end),
        "attributes": attributes(said(spans, span, about, texts)),
        "events": span.marks.iter().map(|mark| event(mark, texts)).collect::<Vec<_>>(),
        "status": status(&span.ending),
    });
    if let Some(parent) = span.parent {
        told["parentSpanId"] = span_id(span, spans.all[parent].seq).into();
    }
    told
}

fn name(span: &Span, about: &About) -> String {
    match &span.what {
        What::Message { .. } => "recount.message".to_owned(),
        What::Attempt { .. } => "recount.delivery".to_owned(),
        What::Run { .. } => format!("invoke_agent {}", about.agent),
        What::Call { tool, .. } => format!("execute_tool {tool}"),
        What::Wait { .. } => "recount.wait_for_answer".to_owned(),
        What::Link(state) => format!("recount.connection {}", link(*state)),
        What::Breaker { .. } => "recount.breaker".to_owned(),
        What::Server { .. } => "recount.server".to_owned(),
    }
}

const fn kind(what: &What) -> Kind {
    match what {
        What::Attempt { .. } | What::Run { .. } => Kind::Client,
        What::Message { .. }
        | What::Call { .. }
        | What::Wait { .. }
        | What::Link(_)
        | What::Breaker { .. }
        | What::Server { .. } => Kind::Internal,
    }
}

/// The value of an attribute.
enum Said {
    Text(String),
    Number(u64),
    Yes(bool),
    Texts(Vec<String>),
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn said(spans: &Spans, span: &Span, about: &About, texts: bool) -> Vec<(&'static str, Said)> {
    let mut said = vec![("recount.event", Said::Number(span.seq.0))];
    match span.stream {
        StreamId::Session(id) => said.push(("gen_ai.conversation.id", Said::Text(id.to_string()))),
        StreamId::Connection(id) => {
            said.push(("recount.connection.id", Said::Text(id.to_string())));
        }
        StreamId::Engine => {}
    }
    if let Some(message) = span.what.message() {
        said.push(("recount.message.id", Said::Text(message.to_string())));
    }
    if span.ending == Ending::Open {
        said.push(("recount.open", Said::Yes(true)));
    }
    if let Ending::Badly { kind, .. } = span.ending {
        said.push(("error.type", kind.into()));
    }
    match &span.what {
        What::Message { text, .. } => {
            if texts {
                said.push(("recount.text", Said::Text(text.clone())));
            }
        }
        What::Attempt { attempt, .. } => {
            said.push(("recount.attempt", Said::Number((*attempt).into())));
            said.extend(server(spans, about));
        }
        What::Run { run, answer, .. } => {
            said.push(("gen_ai.operation.name", "invoke_agent".into()));
            said.push(("gen_ai.agent.name", Said::Text(about.agent.clone())));
            let connection = about.connection.and_then(|stream| spans.about(stream));
            if let Some(version) = connection.and_then(|about| about.version.clone()) {
                said.push(("gen_ai.agent.version", Said::Text(version)));
            }
            said.push(("gen_ai.provider.name", Said::Text(provider(about))));
            if let Some(model) = &about.model {
                let model = model
                    .split_once('/')
                    .map_or(model.as_str(), |(_, model)| model);
                said.push(("gen_ai.request.model", model.into()));
            }
            said.push(("recount.run", Said::Number((*run).into())));
            if let Ending::Well(finish) = &span.ending {
                let finish = vec![finish.clone()];
                said.push(("gen_ai.response.finish_reasons", Said::Texts(finish)));
            }
            if texts {
                let asked = asked(spans, span);
                said.push(("gen_ai.input.messages", messages("user", asked, None)));
                let finish = match &span.ending {
                    Ending::Open => None,
                    Ending::Well(finish) => Some(finish.as_str()),
                    Ending::Badly { .. } => Some("error"),
                };
                said.push((
                    "gen_ai.output.messages",
                    messages("assistant", answer, finish),
                ));
            }
            said.extend(server(spans, about));
        }
        What::Call {
            call,
            tool,
            input,
            output,
            ..
        } => {
            said.push(("gen_ai.operation.name", "execute_tool".into()));
            said.push(("gen_ai.tool.name", Said::Text(tool.clone())));
            said.push(("gen_ai.tool.call.id", Said::Text(call.clone())));
            // The agent runs it on its own side, whatever it does.
            said.push(("gen_ai.tool.type", "extension".into()));
            said.push(("gen_ai.agent.name", Said::Text(about.agent.clone())));
            if texts {
                said.push(("gen_ai.tool.call.arguments", Said::Text(input.clone())));
                said.push(("gen_ai.tool.call.result", Said::Text(output.clone())));
            }
        }
        What::Wait { asks, .. } => {
            if texts {
                said.push(("recount.asks", Said::Text(asks.clone())));
            }
        }
        What::Link(_) => said.extend(server_of(about)),
        What::Breaker { half_open } => {
            said.push(("recount.breaker.half_open", Said::Yes(*half_open)));
        }
        What::Server { pid } => said.push(("process.pid", Said::Number((*pid).into()))),
    }
    said
}

/// What the message said that a span is a part of.
fn asked<'a>(spans: &'a Spans, span: &Span) -> &'a str {
    match span.parent.map(|parent| &spans.all[parent].what) {
        Some(What::Message { text, .. }) => text,
        _ => "",
    }
}

/// Messages as the conventions want them: JSON, in a text.
fn messages(role: &str, text: &str, finish: Option<&str>) -> Said {
    let mut message = json!({ "role": role, "parts": [{ "type": "text", "content": text }] });
    if let Some(finish) = finish {
        message["finish_reason"] = finish.into();
    }
    Said::Text(json!([message]).to_string())
}

/// Who makes the model, as the conventions name them; the agent, where no model is named.
fn provider(about: &About) -> String {
    let provider = about
        .model
        .as_deref()
        .and_then(|model| model.split_once('/'));
    let provider = provider.map_or(about.agent.as_str(), |(provider, _)| provider);
    let known = match provider {
        "amazon-bedrock" => "aws.bedrock",
        "azure" => "azure.ai.openai",
        "google" => "gcp.gemini",
        "google-vertex" | "google-vertex-anthropic" => "gcp.vertex_ai",
        "mistral" => "mistral_ai",
        "moonshotai" => "moonshot_ai",
        "xai" => "x_ai",
        other => other,
    };
    known.to_owned()
}

/// Where the server of a session's connection is.
fn server(spans: &Spans, about: &About) -> Vec<(&'static str, Said)> {
    let connection = about.connection.and_then(|stream| spans.about(stream));
    connection.map(server_of).unwrap_or_default()
}

fn server_of(about: &About) -> Vec<(&'static str, Said)> {
    let url = about.url.as_deref().and_then(|url| url.split_once("://"));
    let Some((scheme, rest)) = url else {
        return Vec::new();
    };
    // Without a user and a password, which are nobody's business.
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) if !port.contains(']') => (address, port.parse().ok()),
        _ => (host, None),
    };
    let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    let address = address.trim_start_matches('[').trim_end_matches(']');
    vec![
        ("server.address", address.into()),
        ("server.port", Said::Number(port)),
    ]
}

fn event(mark: &Mark, texts: bool) -> Value {
    let mut said = vec![("recount.event", Said::Number(mark.seq.0))];
    if texts {
        said.push(("recount.says", Said::Text(mark.says.clone())));
    }
    json!({
        "timeUnixNano": nanos(mark.at),
        "name": mark.name,
        "attributes": attributes(said),
    })
}

fn status(ending: &Ending) -> Value {
    match ending {
        Ending::Open | Ending::Well(_) => json!({}),
        Ending::Badly { why: reason, .. } => json!({ "code": 2, "message": reason }),
    }
}

fn attributes(said: impl IntoIterator<Item = (&'static str, Said)>) -> Value {
    let value = |said| match said {
        Said::Text(text) => json!({ "stringValue": text }),
        // Numbers of 64 bits are texts in the JSON of protobuf.
        Said::Number(number) => json!({ "intValue": number.to_string() }),
        Said::Yes(yes) => json!({ "boolValue": yes }),
        Said::Texts(texts) => {
            let texts: Vec<Value> = texts
                .into_iter()
                .map(|text| json!({ "stringValue": text }))
                .collect();
            json!({ "arrayValue": { "values": texts } })
        }
    };
    said.into_iter()
        .map(|(key, said)| json!({ "key": key, "value": value(said) }))
        .collect()
}

fn nanos(at: Timestamp) -> String {
    (u128::from(at.0) * 1000).to_string()
}

/// 16 bytes: a message's id, or a connection's, and what is left of its stream's name.
fn trace_id(span: &Span) -> String {
    hex(&[&own_id(span)[..], &span.stream.to_bytes()[..6]].concat())
}

/// The id of the span's message, or of its connection.
fn own_id(span: &Span) -> [u8; 10] {
    match span.what.message() {
        Some(message) => message.to_bytes(),
        None => *span
            .stream
            .to_bytes()
            .last_chunk()
            .expect("a stream's name ends with an id"),
    }
}

/// 8 bytes: where the ids of the trace's spans begin, and the number of the span's first event.
fn span_id(span: &Span, seq: Seq) -> String {
    let own = own_id(span);
    let base = u64::from_be_bytes(*own.first_chunk().expect("an id is longer"));
    // Zero means that there is no span.
    let id = base.wrapping_add(seq.0).max(1);
    hex(&id.to_be_bytes())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::fixture::story;

    fn told(texts: bool) -> String {
        let Ok(spans) = Spans::of(story().into_iter().map(Ok::<_, std::convert::Infallible>));
        let request = request(&spans, texts);
        let spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array();
        let lines: Vec<String> = spans.expect("spans").iter().map(Value::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_story_is_told_in_spans() {
        expect![[r#"
            {"attributes":[{"key":"recount.event","value":{"intValue":"2"}},{"key":"gen_ai.conversation.id","value":{"stringValue":"081040g2081040g2"}},{"key":"recount.message.id","value":{"stringValue":"040g2081040g2081"}},{"key":"recount.open","value":{"boolValue":true}},{"key":"recount.text","value":{"stringValue":"Why did it fail?\nBe brief."}}],"endTimeUnixNano":"1795338863000000000","events":[{"attributes":[{"key":"recount.event","value":{"intValue":"12"}},{"key":"recount.says","value":{"stringValue":"040g20 waits for a person: a tool had begun: bash"}}],"name":"RerunDecided","timeUnixNano":"1795338863000000000"}],"kind":1,"name":"recount.message","spanId":"0101010101010103","startTimeUnixNano":"1795338845000000000","status":{},"traceId":"01010101010101010101010202020202"}
            {"attributes":[{"key":"recount.event","value":{"intValue":"2"}},{"key":"recount.connection.id","value":{"stringValue":"0c1g60r30c1g60r3"}},{"key":"process.pid","value":{"intValue":"4242"}}],"endTimeUnixNano":"1795338859000000000","events":[],"kind":1,"name":"recount.server","spanId":"0303030303030305","startTimeUnixNano":"1795338847000000000","status":{},"traceId":"03030303030303030303020303030303"}
            {"attributes":[{"key":"recount.event","value":{"intValue":"4"}},{"key":"recount.connection.id","value":{"stringValue":"0c1g60r30c1g60r3"}},{"key":"server.address","value":{"stringValue":"127.0.0.1"}},{"key":"server.port","value":{"intValue":"4101"}}],"endTimeUnixNano":"1795338858000000000","events":[{"attributes":[{"key":"recount.event","value":{"intValue":"5"}},{"key":"recount.says","value":{"stringValue":"the stream broke: connection reset"}}],"name":"StreamLost","timeUnixNano":"1795338857000000000"}],"kind":1,"name":"recount.connection connected","spanId":"0303030303030307","startTimeUnixNano":"1795338849000000000","status":{},"traceId":"03030303030303030303020303030303"}
            {"attributes":[{"key":"recount.event","value":{"intValue":"4"}},{"key":"gen_ai.conversation.id","value":{"stringValue":"081040g2081040g2"}},{"key":"recount.message.id","value":{"stringValue":"040g2081040g2081"}},{"key":"recount.attempt","value":{"intValue":"1"}},{"key":"server.address","value":{"stringValue":"127.0.0.1"}},{"key":"server.port","value":{"intValue":"4101"}}],"endTimeUnixNano":"1795338852000000000","events":[],"kind":3,"name":"recount.delivery","parentSpanId":"0101010101010103","spanId":"0101010101010105","startTimeUnixNano":"1795338851000000000","status":{},"traceId":"01010101010101010101010202020202"}
            {"attributes":[{"key":"recount.event","value":{"intValue":"6"}},{"key":"gen_ai.conversation.id","value":{"stringValue":"081040g2081040g2"}},{"key":"recount.message.id","value":{"stringValue":"040g2081040g2081"}},{"key":"error.type","value":{"stringValue":"turn_interrupted"}},{"key":"gen_ai.operation.name","value":{"stringValue":"invoke_agent"}},{"key":"gen_ai.agent.name","value":{"stringValue":"opencode"}},{"key":"gen_ai.agent.version","value":{"stringValue":"1.18.3"}},{"key":"gen_ai.provider.name","value":{"stringValue":"test"}},{"key":"gen_ai.request.model","value":{"stringValue":"model"}},{"key":"recount.run","value":{"intValue":"1"}},{"key":"gen_ai.input.messages","value":{"stringValue":"[{\"parts\":[{\"content\":\"Why did it fail?\\nBe brief.\",\"type\":\"text\"}],\"role\":\"user\"}]"}},{"key":"gen_ai.output.messages","value":{"stringValue":"[{\"finish_reason\":\"error\",\"parts\":[{\"content\":\"Let me look.\\nIt\",\"type\":\"text\"}],\"role\":\"assistant\"}]"}},{"key":"server.address","value":{"stringValue":"127.0.0.1"}},{"key":"server.port","value":{"intValue":"4101"}}],"endTimeUnixNano":"1795338862000000000","events":[{"attributes":[{"key":"recount.event","value":{"intValue":"7"}},{"key":"recount.says","value":{"stringValue":"040g20"}}],"name":"TurnStarted","timeUnixNano":"1795338854000000000"}],"kind":3,"name":"invoke_agent opencode","parentSpanId":"0101010101010103","spanId":"0101010101010107","startTimeUnixNano":"1795338853000000000","status":{"code":2,"message":"its process is gone"},"traceId":"01010101010101010101010202020202"}
            {"attributes":[{"key":"recount.event","value":{"intValue":"9"}},{"key":"gen_ai.conversation.id","value":{"stringValue":"081040g2081040g2"}},{"key":"recount.message.id","value":{"stringValue":"040g2081040g2081"}},{"key":"error.type","value":{"stringValue":"tool_lost"}},{"key":"gen_ai.operation.name","value":{"stringValue":"execute_tool"}},{"key":"gen_ai.tool.name","value":{"stringValue":"bash"}},{"key":"gen_ai.tool.call.id","value":{"stringValue":"call_1"}},{"key":"gen_ai.tool.type","value":{"stringValue":"extension"}},{"key":"gen_ai.agent.name","value":{"stringValue":"opencode"}},{"key":"gen_ai.tool.call.arguments","value":{"stringValue":"{\"command\":\"make\"}"}},{"key":"gen_ai.tool.call.result","value":{"stringValue":""}}],"endTimeUnixNano":"1795338861000000000","events":[],"kind":1,"name":"execute_tool bash","parentSpanId":"0101010101010107","spanId":"010101010101010a","startTimeUnixNano":"1795338856000000000","status":{"code":2,"message":"lost"},"traceId":"01010101010101010101010202020202"}
            {"attributes":[{"key":"recount.event","value":{"intValue":"6"}},{"key":"recount.connection.id","value":{"stringValue":"0c1g60r30c1g60r3"}},{"key":"recount.open","value":{"boolValue":true}},{"key":"server.address","value":{"stringValue":"127.0.0.1"}},{"key":"server.port","value":{"intValue":"4101"}}],"endTimeUnixNano":"1795338863000000000","events":[{"attributes":[{"key":"recount.event","value":{"intValue":"8"}},{"key":"recount.says","value":{"stringValue":"try 1 not before 2026-11-22T09:14:20.000000Z"}}],"name":"ReconnectScheduled","timeUnixNano":"1795338860000000000"}],"kind":1,"name":"recount.connection disconnected","spanId":"0303030303030309","startTimeUnixNano":"1795338858000000000","status":{},"traceId":"03030303030303030303020303030303"}"#]].assert_eq(&told(true));
    }

    #[test]
    fn what_was_said_stays_here_unless_it_is_wanted() {
        for text in ["Be brief", "Let me look", "make"] {
            assert!(told(true).contains(text), "{text}");
            assert!(!told(false).contains(text), "{text}");
        }
    }

    #[test]
    fn a_server_is_named_without_its_secrets() {
        let server = |url: &str| {
            let about = About {
                url: Some(url.to_owned()),
                ..About::default()
            };
            attributes(server_of(&about)).to_string()
        };
        let address = |address: &str, port: &str| {
            attributes([
                ("server.address", address.into()),
                ("server.port", Said::Number(port.parse().expect("a port"))),
            ])
            .to_string()
        };
        assert_eq!(
            server("http://127.0.0.1:4101"),
            address("127.0.0.1", "4101")
        );
        assert_eq!(
            server("https://me:secret@host.example/path?token=1"),
            address("host.example", "443")
        );
        assert_eq!(server("http://[::1]:80"), address("::1", "80"));
        assert_eq!(server("http://[::1]"), address("::1", "80"));
        assert_eq!(server("nothing"), "[]");
    }
}
