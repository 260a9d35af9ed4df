//! A conversation as Markdown, for a person.
//!
//! What was typed, and what tools gave, stands in fences that nothing in it can close. An answer is Markdown itself,
//! and is shown as such, in a quote that it cannot leave; its HTML is shown and not obeyed, and no picture is
//! loaded from anywhere.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;
use recount_projections::turn::{Answered, CallOutcome, Item, Part, Question, Run};
use recount_projections::{Transcript, Turn};
use recount_store::{MessageId, SessionId, StreamId};

use super::spans::{Ending, Span, Spans, What};
use crate::render::time;

/// The conversation of a session.
pub(crate) fn markdown(
    session: SessionId,
    transcript: &Transcript,
    spans: &Spans,
    zone: &TimeZone,
) -> String {
    let mut page = Page {
        text: String::new(),
        spans,
        zone,
    };
    page.head(session);
    for (number, (message, text)) in (1..).zip(&transcript.messages) {
        page.message(number, *message, text);
        if let Some(turn) = transcript.turn_of(*message) {
            page.turn(turn);
        }
        page.ending(*message);
    }
    page.text
}

struct Page<'a> {
    text: String,
    spans: &'a Spans,
    zone: &'a TimeZone,
}

impl Page<'_> {
    /// Writes a paragraph.
    fn paragraph(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn head(&mut self, session: SessionId) {
        let about = self.spans.about(StreamId::Session(session)).cloned();
        let about = about.unwrap_or_default();
        let title = about
            .title
            .map_or_else(|| format!("Session {session}"), |title| inline(&title));
        self.paragraph(&format!("# {title}"));
        let mut list = format!("- Session: `{session}`");
        if !about.agent.is_empty() {
            let _ = write!(list, "\n- Agent: {}", inline(&about.agent));
        }
        if let Some(model) = about.model {
            let _ = write!(list, "\n- Model: {}", inline(&model));
        }
        if let Some((from, at)) = about.fork {
            let _ = write!(list, "\n- Goes on from session `{from}` as of event {at}");
        }
        self.paragraph(&list);
    }

    /// The spans that are about a message, in order.
    fn of(&self, message: MessageId) -> impl Iterator<Item = &Span> {
        let about = move |span: &&Span| span.what.message() == Some(message);
        self.spans.all.iter().filter(about)
    }

    fn message(&mut self, number: usize, message: MessageId, text: &str) {
        let span = self.of(message).next();
        let at = span.map_or_else(String::new, |span| {
            format!(", {}", time::full(span.begin, self.zone))
        });
        self.paragraph(&format!("## {number}. Message{at}"));
        self.paragraph(&fenced(text, "text"));
        let failed: Vec<String> =
            self.of(message)
                .filter_map(|span| match (&span.what, &span.ending) {
                    (What::Attempt { attempt, .. }, Ending::Badly { why: how, .. }) => Some(
                        format!("- Attempt {attempt} to deliver it: {}", inline(how)),
                    ),
                    _ => None,
                })
                .collect();
        if !failed.is_empty() {
            self.paragraph(&failed.join("\n"));
        }
    }

    fn turn(&mut self, turn: &Turn) {
        let several = turn.runs.len() > 1;
        for run in &turn.runs {
            let number = run.number;
            let which = if several {
                format!(", run {number}")
            } else {
                String::new()
            };
            self.paragraph(&format!("### Answer{which}"));
            self.run(run);
            let ended = self.of(turn.message).find_map(|span| match &span.what {
                What::Run { run, .. } if *run == number => Some(span.ending.clone()),
                _ => None,
            });
            // What ended the message, too, is said there.
            let message = self.of(turn.message).next().map(|span| &span.ending);
            if let Some(Ending::Badly { why, .. }) = ended.filter(|ended| Some(ended) != message) {
                self.paragraph(&format!("**Interrupted:** {}", inline(&why)));
            }
        }
        for question in &turn.questions {
            self.question(question);
        }
        if let Some(error) = &turn.agent_error {
            self.paragraph(&format!("**The agent reported:** {}", inline(error)));
        }
        if let Some(reason) = &turn.stalled {
            self.paragraph(&format!("**Stalled:** {}", inline(reason)));
        }
    }

    fn run(&mut self, run: &Run) {
        for item in &run.items {
            match item {
                Item::Part(part) => self.part(part),
                Item::Call(call) => {
                    let outcome = match &call.outcome {
                        None => "not ended",
                        Some((CallOutcome::Completed, _)) => "completed",
                        Some((CallOutcome::Failed, _)) => "failed",
                        Some((CallOutcome::Lost, _)) => "lost",
                    };
                    let summary = format!("Tool <code>{}</code>: {outcome}", html(&call.tool));
                    let mut inside = fenced(&call.input, "json");
                    if let Some((_, output)) = call.outcome.as_ref().filter(|(_, o)| !o.is_empty())
                    {
                        inside.push_str("\n\n");
                        inside.push_str(&fenced(output, "text"));
                    }
                    self.details(&summary, &inside);
                }
            }
        }
    }

    fn part(&mut self, part: &Part) {
        let mut text = answer(&part.text);
        if !part.after_hole.is_empty() {
            if !part.text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str("*(something is missing here)*\n\n");
            text.push_str(&answer(&part.after_hole));
        }
        if part.reasoning && !part.is_empty() {
            self.details("Thought", &text);
        } else if !part.is_empty() {
            self.paragraph(&text);
        }
        if let Some(withdrawn) = part.withdrawn.as_ref().filter(|text| !text.is_empty()) {
            self.details("Text that the agent took back", &answer(withdrawn));
        }
    }

    /// What is folded away until somebody wants it. The summary is HTML.
    fn details(&mut self, summary: &str, inside: &str) {
        let folded = format!("<details>\n<summary>{summary}</summary>\n\n{inside}\n\n</details>");
        self.paragraph(&folded);
    }

    fn question(&mut self, question: &Question) {
        let answer = match (&question.answer, &question.expired) {
            (_, Some(expired)) => format!("nobody answered: {}", inline(expired)),
            (Some(Answered::Once), _) => "allowed once".to_owned(),
            (Some(Answered::Always), _) => "allowed always".to_owned(),
            (Some(Answered::Reject), _) => "rejected".to_owned(),
            (Some(Answered::Words(words)), _) => {
                let words: Vec<String> = words.iter().flatten().map(|word| inline(word)).collect();
                words.join(", ")
            }
            (None, None) => "not answered".to_owned(),
        };
        let asks = inline(&question.asks.to_string());
        self.paragraph(&format!(
            "**The agent asked:** {asks}  \n**Answer:** {answer}"
        ));
    }

    fn ending(&mut self, message: MessageId) {
        let span = self
            .of(message)
            .find(|span| matches!(span.what, What::Message { .. }));
        let Some(span) = span else { return };
        let took = time::span(Duration::from_micros(span.end.0 - span.begin.0));
        let told = match &span.ending {
            Ending::Open => match span.marks.last() {
                Some(mark) => format!("**No end yet:** {}", inline(&mark.says)),
                None => "**No end yet.**".to_owned(),
            },
            Ending::Well(how) => format!("*Ended after {took}: {}.*", inline(how)),
            Ending::Badly { why, .. } => format!("**Failed after {took}:** {}", inline(why)),
        };
        self.paragraph(&told);
    }
}

/// Text in a fence that is longer than any in it.
fn fenced(text: &str, language: &str) -> String {
    let text = lines_of(text);
    let longest = text
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{fence}{language}\n{text}{end}{fence}")
}

/// The same text with line feeds alone.
fn lines_of(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Text in a line, every character of which means itself.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' => out.push(' '),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '+' | '-' | '!' | '|' | '~'
            | '$' | '@' => {
                out.push('\\');
                out.push(character);
            }
            _ => out.push(character),
        }
    }
    out
}

/// Text in a line of HTML.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

/// An answer, which is Markdown, in a quote.
fn answer(text: &str) -> String {
    let mut quote = String::new();
    for line in harmless(&lines_of(text)).lines() {
        if !quote.is_empty() {
            quote.push('\n');
        }
        quote.push_str(if line.is_empty() { ">" } else { "> " });
        quote.push_str(line);
    }
    quote
}

/// Markdown in which no HTML is obeyed and no picture is loaded.
///
/// Fences begin their lines here, whatever they stood in: so it is certain which lines are in one, and a reader
/// sees the same. Everywhere else `<` is an entity.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut fence: Option<Fence> = None;
    for line in text.lines() {
        match fence {
            Some(open) if open.is_closed_by(line) => {
                out.push_str(line.trim());
                fence = None;
            }
            Some(open) => out.push_str(open.within(line)),
            None => {
                fence = Fence::opened_by(line);
                if fence.is_some() {
                    out.push_str(line.trim_start_matches([' ', '\t']));
                } else {
                    harmless_line(line, &mut out);
                }
            }
        }
        out.push('\n');
    }
    out
}

/// Where a block of code began.
#[derive(Clone, Copy)]
struct Fence {
    mark: u8,
    length: usize,
    /// How far it was indented.
    indent: usize,
}

impl Fence {
    fn opened_by(line: &str) -> Option<Self> {
        let rest = line.trim_start_matches([' ', '\t']);
        let mark = *rest
            .as_bytes()
            .first()
            .filter(|mark| b"`~".contains(mark))?;
        let length = rest.bytes().take_while(|byte| *byte == mark).count();
        let is_code_in_a_line = mark == b'`' && rest[length..].contains('`');
        (length >= 3 && !is_code_in_a_line).then_some(Self {
            mark,
            length,
            indent: line.len() - rest.len(),
        })
    }

    fn is_closed_by(self, line: &str) -> bool {
        let marks = line.trim_matches([' ', '\t']);
        marks.len() >= self.length && marks.bytes().all(|byte| byte == self.mark)
    }

    /// A line of the code, as much less indented as its fence.
    fn within(self, line: &str) -> &str {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        &line[indent.min(self.indent)..]
    }
}

/// A line outside of fences.
fn harmless_line(line: &str, out: &mut String) {
    let mut rest = line;
    // A fence in a list or a quote would begin here for a reader, and not for us.
    let inside = line.trim_start_matches(|c: char| c.is_ascii_digit() || " \t>-+*.)".contains(c));
    if ["```", "~~~"].iter().any(|fence| inside.starts_with(fence)) {
        out.push_str(&line[..line.len() - inside.len()].replace('<', "&lt;"));
        out.push_str(&inline(inside));
        return;
    }
    while let Some(character) = rest.chars().next() {
        let (taken, after) = rest.split_at(character.len_utf8());
        rest = after;
        match character {
            '\\' if rest.starts_with(|next: char| next.is_ascii_punctuation()) => {
                let (escaped, after) = rest.split_at(1);
                rest = after;
                out.push_str(&inline(escaped));
            }
            '`' => {
                let length = 1 + rest.bytes().take_while(|byte| *byte == b'`').count();
                rest = &rest[length - 1..];
                let Some(code) = code(rest, length) else {
                    out.push_str(&"`".repeat(length));
                    continue;
                };
                rest = &rest[code.len() + length..];
                if code.contains('<') || code.contains("![") {
                    let _ = write!(out, "<code>{}</code>", inline(code));
                } else {
                    let marks = "`".repeat(length);
                    let _ = write!(out, "{marks}{code}{marks}");
                }
            }
            '<' => out.push_str("&lt;"),
            '!' if rest.starts_with('[') => out.push_str("\\!"),
            _ => out.push_str(taken),
        }
    }
}

/// The code that begins a text, up to so many marks, neither more nor fewer.
fn code(text: &str, length: usize) -> Option<&str> {
    let mut from = 0;
    loop {
        let begin = from + text[from..].find('`')?;
        let run = text[begin..]
            .bytes()
            .take_while(|byte| *byte == b'`')
            .count();
        if run == length {
            return Some(&text[..begin]);
        }
        from = begin + run;
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;
    use pulldown_cmark::{Event as Seen, Parser, Tag, TagEnd};
    use recount_projections::{Projection as _, Transcript};
    use recount_store::{
        Event, Json, OutputKind, PermissionAnswer, Placement, Recorded, ToolOutcome,
    };

    use super::*;
    use crate::render::fixture::{message, session, session_event, story};

    fn page(events: &[Recorded]) -> String {
        let Ok(spans) = Spans::of(
            events
                .iter()
                .cloned()
                .map(Ok::<_, std::convert::Infallible>),
        );
        let mut transcript = Transcript::default();
        for event in events {
            transcript.apply(event);
        }
        markdown(session(), &transcript, &spans, &TimeZone::UTC)
    }

    fn said(text: &str) -> Event {
        Event::OutputAppended {
            message: message(),
            run: 1,
            part: "prt".to_owned(),
            kind: OutputKind::Text,
            placement: Placement::End,
            text: text.to_owned(),
        }
    }

    fn conversation(asked: &str, tool: &str, output: &str, answer: &str, reason: &str) -> String {
        let message = message();
        let events = [
            Event::MessageQueued {
                message,
                key: None,
                text: asked.to_owned(),
            },
            Event::TurnRequested { message, run: 1 },
            Event::TurnStarted { message, run: 1 },
            Event::ToolCallStarted {
                message,
                run: 1,
                call: "call".to_owned(),
                tool: tool.to_owned(),
                input: Json(b"{}".to_vec()),
            },
            Event::PermissionAsked {
                message,
                permission: "per".to_owned(),
                action: "bash".to_owned(),
                detail: reason.to_owned(),
                call: None,
            },
            Event::PermissionAnswered {
                message,
                permission: "per".to_owned(),
                answer: PermissionAnswer::Once,
            },
            Event::ToolCallEnded {
                message,
                run: 1,
                call: "call".to_owned(),
                outcome: ToolOutcome::Completed,
                output: output.to_owned(),
            },
            said(answer),
            Event::TurnFailed {
                message,
                run: 1,
                reason: reason.to_owned(),
            },
        ];
        let events: Vec<_> = (1..)
            .zip(events)
            .map(|(n, event)| session_event(n, event))
            .collect();
        page(&events)
    }

    #[test]
    fn a_story_reads_well() {
        expect![[r##"
            # Session 081040g2081040g2

            - Session: `081040g2081040g2`
            - Agent: opencode
            - Model: test/model

            ## 1. Message, 2026-11-22 09:14:05

            ```text
            Why did it fail?
            Be brief.
            ```

            ### Answer

            > Let me look.
            > It

            <details>
            <summary>Tool <code>bash</code>: lost</summary>

            ```json
            {"command":"make"}
            ```

            </details>

            **Interrupted:** its process is gone

            **No end yet:** 040g20 waits for a person: a tool had begun: bash
        "##]]
        .assert_eq(&page(&story()));
    }

    #[test]
    fn what_looks_like_markdown_is_what_was_said() {
        let told = conversation(
            "# Not a heading\n```\n</details><script>",
            "<b>`bash`",
            "````\nout",
            "See `Vec<u8>` and `make`, not <b>this</b>.\n\n1. Run\n   ```sh\n   a < b\n   ```\n\n![x](http://x)",
            "*really* <i>bad</i>\n# no",
        );
        expect![[r#"
            # Session 081040g2081040g2

            - Session: `081040g2081040g2`

            ## 1. Message, 2026-11-22 09:14:04

            ````text
            # Not a heading
            ```
            </details><script>
            ````

            ### Answer

            <details>
            <summary>Tool <code>&lt;b&gt;`bash`</code>: completed</summary>

            ```json
            {}
            ```

            `````text
            ````
            out
            `````

            </details>

            > See <code>Vec&lt;u8&gt;</code> and `make`, not &lt;b>this&lt;/b>.
            >
            > 1. Run
            > ```sh
            > a < b
            > ```
            >
            > \![x](http://x)

            **The agent asked:** bash \*really\* &lt;i&gt;bad&lt;/i&gt; \# no  
            **Answer:** allowed once

            **Failed after 8.0 s:** \*really\* &lt;i&gt;bad&lt;/i&gt; \# no
        "#]]
        .assert_eq(&told);
    }

    /// What of it a reader would take for HTML, for a picture, for a heading of ours, and for code.
    fn seen(page: &str) -> (Vec<String>, usize, Vec<String>, Vec<String>) {
        let (mut tags, mut pictures, mut headings, mut codes) = (vec![], 0, vec![], vec![]);
        let (mut quotes, mut heading, mut code) = (0, None, None);
        for event in Parser::new(page) {
            match event {
                Seen::Html(html) | Seen::InlineHtml(html) => {
                    let own = html
                        .split_inclusive('>')
                        .filter_map(|part| part.find('<').map(|at| part[at..].to_owned()));
                    tags.extend(own);
                }
                Seen::Start(Tag::Image { .. }) => pictures += 1,
                Seen::Start(Tag::BlockQuote(_)) => quotes += 1,
                Seen::End(TagEnd::BlockQuote(_)) => quotes -= 1,
                Seen::Start(Tag::Heading { .. }) if quotes == 0 => heading = Some(String::new()),
                Seen::End(TagEnd::Heading(_)) => headings.extend(heading.take()),
                Seen::Start(Tag::CodeBlock(_)) if quotes == 0 => code = Some(String::new()),
                Seen::End(TagEnd::CodeBlock) if quotes == 0 => codes.extend(code.take()),
                Seen::Text(text) => {
                    for open in [&mut heading, &mut code].into_iter().flatten() {
                        open.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        (tags, pictures, headings, codes)
    }

    fn nasty() -> impl Strategy<Value = String> {
        let pieces = [
            "a",
            " ",
            "  ",
            "    ",
            "\t",
            "\n",
            "\n\n",
            "\r\n",
            "`",
            "``",
            "```",
            "````",
            "~~~",
            "```sh\n",
            "\n```\n",
            "   ```\n",
            "- ",
            "1. ",
            "> ",
            "# ",
            "---",
            "<",
            ">",
            "<b>",
            "</details>",
            "</code>",
            "<details>",
            "<!--",
            "-->",
            "<script>",
            "&lt;",
            "&",
            "![x](y)",
            "![",
            "[",
            "]",
            "(z)",
            "]: u",
            "*",
            "_",
            "\\",
            "\\`",
            "|",
            "\u{0}",
            "é",
            "http://x.y",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..24)
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_text_leaves_its_place(
            asked in nasty(), tool in nasty(), output in nasty(), answer in nasty(), reason in nasty(),
        ) {
            let page = conversation(&asked, &tool, &output, &answer, &reason);
            let (tags, pictures, headings, codes) = seen(&page);
            let own: Vec<&str> = tags.iter().map(String::as_str).filter(|tag| !["<code>", "</code>"].contains(tag)).collect();
            prop_assert_eq!(own, ["<details>", "<summary>", "</summary>", "</details>"], "{}", page);
            prop_assert_eq!(pictures, 0, "{}", page);
            prop_assert_eq!(headings.len(), 3, "{}", page);
            let text = |text: &str| {
                let text = lines_of(text);
                let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                text + end
            };
            let mut expected = vec![text(&asked), "{}\n".to_owned()];
            if !output.is_empty() {
                expected.push(text(&output));
            }
            prop_assert_eq!(codes, expected, "{}", page);
        }
    }
}
