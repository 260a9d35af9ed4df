//! Who gets what the agent says: each attached session its own, and what its sub-agents wait for.

use std::collections::{HashMap, VecDeque};

use recount_store::FrameNumber;

use super::connection::FromAgent;
use super::inbox::Inbox;
use crate::adapter::{Observation, Translated};
use crate::limits;

/// The inboxes of a connection's sessions, and whose sub-agents' sessions there are.
#[derive(Default)]
pub(super) struct Routes {
    inboxes: HashMap<String, Inbox>,
    parents: HashMap<String, String>,
    /// The children in the order in which they were met, to forget the oldest.
    met: VecDeque<String>,
}

impl Routes {
    pub(super) fn attach(&mut self, agent_session: String, inbox: Inbox) {
        self.inboxes.insert(agent_session, inbox);
    }

    /// Whether this inbox was there, and now nothing is.
    pub(super) fn detach(&mut self, agent_session: &str, inbox: &Inbox) -> bool {
        let attached = self.inboxes.get(agent_session);
        let known = attached.is_some_and(|attached| attached.is(inbox));
        if known {
            self.inboxes.remove(agent_session);
        }
        known
    }

    pub(super) fn is_attached(&self, agent_session: &str) -> bool {
        self.inboxes.contains_key(agent_session)
    }

    pub(super) fn has_sessions(&self) -> bool {
        !self.inboxes.is_empty()
    }

    /// Puts an observation into the inbox that it is for; into none where nobody here follows its session.
    ///
    /// `frame` is the one that was translated, and `epoch` the opening of the stream that it came over.
    pub(super) fn route(&mut self, translated: Translated, frame: Option<FrameNumber>, epoch: u64) {
        let Translated {
            session: Some(session),
            observation,
        } = translated
        else {
            return;
        };
        if let Observation::ChildOf { parent } = &observation {
            self.remember(session.clone(), parent.clone());
        }
        let own = self.inboxes.get(&session);
        let inbox = match own {
            None if concerns_ancestors(&observation) => self.ancestor(&session),
            own => own,
        };
        if let Some(inbox) = inbox {
            inbox.put(FromAgent {
                epoch,
                frame,
                observation,
                from_child: own.is_none(),
            });
        }
    }

    fn remember(&mut self, child: String, parent: String) {
        if self.parents.insert(child.clone(), parent).is_none() {
            self.met.push_back(child);
        }
        if self.met.len() > limits::CHILD_SESSIONS_MAX
            && let Some(oldest) = self.met.pop_front()
        {
            self.parents.remove(&oldest);
        }
    }

    fn ancestor(&self, session: &str) -> Option<&Inbox> {
        let mut session = session;
        // A bound, since nothing keeps an agent from naming parents in a circle.
        for _ in 0..limits::CHILD_DEPTH_MAX {
            session = self.parents.get(session)?;
            if let Some(inbox) = self.inboxes.get(session) {
                return Some(inbox);
            }
        }
        None
    }
}

/// Whether what is said of a sub-agent's session matters to the session that it works for: questions
/// keep it waiting, and activity shows that it is alive. Its output is not the session's.
fn concerns_ancestors(observation: &Observation) -> bool {
    match observation {
        Observation::PermissionAsked(_)
        | Observation::PermissionReplied { .. }
        | Observation::QuestionAsked(_)
        | Observation::QuestionReplied { .. }
        | Observation::Busy
        | Observation::Idle
        | Observation::Retrying { .. } => true,
        Observation::Connected
        | Observation::Heartbeat
        | Observation::Ignored
        | Observation::Counted { .. }
        | Observation::Missed
        | Observation::ChildOf { .. }
        | Observation::AnswerUpdated(_)
        | Observation::PartOpened { .. }
        | Observation::Delta { .. }
        | Observation::PartEnded { .. }
        | Observation::Tool { .. }
        | Observation::Error { .. }
        | Observation::Unrecognised { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(session: &str, observation: Observation) -> Translated {
        Translated {
            session: Some(session.to_owned()),
            observation,
        }
    }

    fn child_of(parent: &str) -> Observation {
        Observation::ChildOf {
            parent: parent.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_session_gets_its_own_and_what_its_sub_agents_wait_for() {
        let mut routes = Routes::default();
        let inbox = Inbox::new(1 << 20);
        routes.attach("a".to_owned(), inbox.clone());
        for (session, observation) in [
            ("b", child_of("a")),
            ("c", child_of("b")),
            ("a", Observation::Busy),
            ("c", Observation::Idle),
            ("c", Observation::Ignored),
            ("x", Observation::Busy),
            ("a", Observation::Idle),
        ] {
            routes.route(says(session, observation), Some(FrameNumber(7)), 1);
        }
        let arrived = |observation, from_child| FromAgent {
            epoch: 1,
            frame: Some(FrameNumber(7)),
            observation,
            from_child,
        };
        for expected in [
            arrived(Observation::Busy, false),
            arrived(Observation::Idle, true),
            arrived(Observation::Idle, false),
        ] {
            assert_eq!(inbox.next().await, expected);
        }
    }

    #[test]
    fn who_comes_back_is_not_detached_by_who_left() {
        let mut routes = Routes::default();
        let (left, back) = (Inbox::new(1 << 20), Inbox::new(1 << 20));
        routes.attach("a".to_owned(), left.clone());
        routes.attach("a".to_owned(), back.clone());
        assert!(!routes.detach("a", &left));
        assert!(routes.is_attached("a"));
        assert!(routes.detach("a", &back));
        assert!(!routes.is_attached("a"));
    }

    #[test]
    fn parents_in_a_circle_end() {
        let mut routes = Routes::default();
        routes.route(says("a", child_of("b")), None, 1);
        routes.route(says("b", child_of("a")), None, 1);
        routes.route(says("a", Observation::Busy), None, 1);
    }
}
