//! Who gets what the agent says: each attached session its own, and what its sub-agents wait for.

use std::collections::{HashMap, VecDeque};

use recount_store::FrameNumber;
use tokio::sync::mpsc;

use super::connection::FromAgent;
use crate::adapter::{Observation, Translated};
use crate::limits;

/// The inboxes of a connection's sessions, and whose sub-agents' sessions there are.
#[derive(Default)]
pub(super) struct Routes {
    inboxes: HashMap<String, mpsc::Sender<FromAgent>>,
    parents: HashMap<String, String>,
    /// The children in the order in which they were met, to forget the oldest.
    met: VecDeque<String>,
}

/// An observation and the inbox that it goes into.
pub(super) struct Parcel {
    pub(super) inbox: mpsc::Sender<FromAgent>,
    pub(super) content: FromAgent,
}

impl Routes {
    pub(super) fn attach(&mut self, agent_session: String, inbox: mpsc::Sender<FromAgent>) {
        self.inboxes.insert(agent_session, inbox);
    }

    pub(super) fn detach(&mut self, agent_session: &str) {
        self.inboxes.remove(agent_session);
    }

    pub(super) fn is_attached(&self, agent_session: &str) -> bool {
        self.inboxes.contains_key(agent_session)
    }

    pub(super) fn has_sessions(&self) -> bool {
        !self.inboxes.is_empty()
    }

    /// To whom an observation goes; `None` where nobody here follows its session.
    ///
    /// `frame` is the one that was translated, and `epoch` the opening of the stream that it came over.
    pub(super) fn route(
        &mut self,
        translated: Translated,
        frame: Option<FrameNumber>,
        epoch: u64,
    ) -> Option<Parcel> {
        let Translated {
            session,
            observation,
        } = translated;
        let session = session?;
        if let Observation::ChildOf { parent } = &observation {
            self.remember(session.clone(), parent.clone());
        }
        let (inbox, from_child) = match self.inboxes.get(&session) {
            Some(inbox) => (inbox, false),
            None if concerns_ancestors(&observation) => (self.ancestor(&session)?, true),
            None => return None,
        };
        let content = FromAgent {
            epoch,
            frame,
            observation,
            from_child,
        };
        Some(Parcel {
            inbox: inbox.clone(),
            content,
        })
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

    fn ancestor(&self, session: &str) -> Option<&mpsc::Sender<FromAgent>> {
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
        | Observation::Ignored
        | Observation::Counted { .. }
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

    #[test]
    fn a_session_gets_its_own_and_what_its_sub_agents_wait_for() {
        let mut routes = Routes::default();
        let (inbox, _receiver) = mpsc::channel(1);
        routes.attach("a".to_owned(), inbox);
        assert!(routes.route(says("b", child_of("a")), None, 1).is_none());
        assert!(routes.route(says("c", child_of("b")), None, 1).is_none());

        let own = routes
            .route(says("a", Observation::Busy), Some(FrameNumber(7)), 1)
            .map(|parcel| parcel.content);
        let expected = |from_child| FromAgent {
            epoch: 1,
            frame: Some(FrameNumber(7)),
            observation: Observation::Busy,
            from_child,
        };
        assert_eq!(own, Some(expected(false)));
        let grandchild = routes
            .route(says("c", Observation::Busy), Some(FrameNumber(7)), 1)
            .map(|parcel| parcel.content);
        assert_eq!(grandchild, Some(expected(true)));
        assert!(
            routes
                .route(says("c", Observation::Ignored), None, 1)
                .is_none()
        );
        assert!(
            routes
                .route(says("x", Observation::Busy), None, 1)
                .is_none()
        );
    }

    #[test]
    fn parents_in_a_circle_end() {
        let mut routes = Routes::default();
        routes.route(says("a", child_of("b")), None, 1);
        routes.route(says("b", child_of("a")), None, 1);
        assert!(
            routes
                .route(says("a", Observation::Busy), None, 1)
                .is_none()
        );
    }
}
