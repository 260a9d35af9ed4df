//! Chrome's trace event format, as its document defines it, for the phases that we use: a file that does not keep to
//! it is refused, with the place.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

/// What lasts on one track: from, and until.
type Slices = Vec<(u64, u64)>;

/// Checks a file in the format's object form; gives how many arrows there are in it.
pub(crate) fn check(file: &Value) -> Result<usize, String> {
    let file = file.as_object().ok_or("the file is no object")?;
    if let Some(unit) = file.get("displayTimeUnit")
        && !["ms", "ns"].contains(&unit.as_str().unwrap_or_default())
    {
        return Err(format!("there is no unit {unit}"));
    }
    let events = file.get("traceEvents").and_then(Value::as_array);
    let events = events.ok_or("there are no traceEvents")?;
    let mut slices: BTreeMap<(u64, u64), Slices> = BTreeMap::new();
    let mut named = HashSet::new();
    let mut flows: HashMap<String, Vec<Flow>> = HashMap::new();
    for (n, event) in events.iter().enumerate() {
        let wrong = |what: &str| format!("event {n}, {event}: {what}");
        let event = event.as_object().ok_or_else(|| wrong("it is no object"))?;
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let number = |name: &str| event.get(name).and_then(Value::as_u64);
        let name = text("name").ok_or_else(|| wrong("it has no name"))?;
        text("cat").ok_or_else(|| wrong("it has no category"))?;
        let ts = number("ts").ok_or_else(|| wrong("it has no time"))?;
        let pid = number("pid").ok_or_else(|| wrong("it has no process"))?;
        let tid = number("tid").ok_or_else(|| wrong("it has no thread"))?;
        let args = match event.get("args") {
            None => &Map::new(),
            Some(args) => args
                .as_object()
                .ok_or_else(|| wrong("its args are no object"))?,
        };
        let known: &[&str] = match text("ph").ok_or_else(|| wrong("it has no phase"))? {
            "X" => {
                let dur = number("dur").ok_or_else(|| wrong("it has no duration"))?;
                slices.entry((pid, tid)).or_default().push((ts, ts + dur));
                &["dur"]
            }
            "i" => {
                let scopes = ["g", "p", "t"];
                if !scopes.contains(&text("s").ok_or_else(|| wrong("it has no scope"))?) {
                    return Err(wrong("there is no such scope"));
                }
                &["s"]
            }
            "M" => {
                let is_right = match name {
                    "process_name" | "thread_name" | "process_labels" => {
                        args.values().all(Value::is_string)
                    }
                    "process_sort_index" | "thread_sort_index" => {
                        args.get("sort_index").is_some_and(Value::is_u64)
                    }
                    _ => false,
                };
                if !is_right {
                    return Err(wrong("there is no such metadata"));
                }
                if name == "process_name" {
                    named.insert((pid, None));
                } else if name == "thread_name" {
                    named.insert((pid, Some(tid)));
                }
                &[]
            }
            phase @ ("s" | "f") => {
                let id = event.get("id").ok_or_else(|| wrong("it has no id"))?;
                if phase == "f" && text("bp").is_some_and(|bp| bp != "e") {
                    return Err(wrong("there is no such binding point"));
                }
                flows.entry(id.to_string()).or_default().push(Flow {
                    begins: phase == "s",
                    what: (name.to_owned(), text("cat").map(str::to_owned)),
                    ts,
                    place: (pid, tid),
                });
                &["id", "bp"]
            }
            _ => return Err(wrong("there is no such phase")),
        };
        let always = ["name", "cat", "ph", "ts", "pid", "tid", "args"];
        let surplus = event
            .keys()
            .find(|key| !always.contains(&key.as_str()) && !known.contains(&key.as_str()));
        if let Some(surplus) = surplus {
            return Err(wrong(&format!(
                "it has {surplus:?}, which its phase does not"
            )));
        }
    }
    for (place, slices) in &mut slices {
        let (pid, tid) = *place;
        if !named.contains(&(pid, None)) || !named.contains(&(pid, Some(tid))) {
            return Err(format!("nobody says what {place:?} is"));
        }
        slices.sort_unstable();
        // They may hold one another by the format; ours do not.
        for pair in slices.windows(2) {
            let [(_, until), (from, _)] = pair else {
                unreachable!("windows of two")
            };
            if until > from {
                return Err(format!("on {place:?}, {pair:?} overlap"));
            }
        }
    }
    for (id, flow) in &flows {
        let [from, to] = &flow[..] else {
            return Err(format!("arrow {id} has {} ends", flow.len()));
        };
        if !from.begins || to.begins || from.what != to.what || from.ts > to.ts {
            return Err(format!(
                "arrow {id} does not lead from its beginning to its end"
            ));
        }
        for end in [from, to] {
            let on = slices.get(&end.place).into_iter().flatten();
            if !{ on }.any(|(begin, until)| (*begin..*until).contains(&end.ts)) {
                return Err(format!("arrow {id} is bound to nothing at {}", end.ts));
            }
        }
    }
    Ok(flows.len())
}

/// One end of an arrow.
struct Flow {
    begins: bool,
    what: (String, Option<String>),
    ts: u64,
    place: (u64, u64),
}
