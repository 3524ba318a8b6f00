//! Creates Events (events.k8s.io/v1).

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use super::{
    Options, client,
    error::{ApiError, request},
};
use crate::{
    k8s::{
        API_VERSION,
        node::Nodes,
        notice::{self, EventRecorder},
    },
    net::{Diagnostic, Subject, SubjectKind},
};

/// How often to check for due Events while nothing changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time to the next attempt after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the sender of the notices is dropped.
pub(super) async fn run(
    options: Options,
    mut standing: watch::Receiver<Arc<BTreeSet<Diagnostic>>>,
    nodes: watch::Receiver<Arc<Nodes>>,
) {
    let mut recorder = EventRecorder::default();
    let mut refused = false;
    loop {
        let now = standing.borrow_and_update().clone();
        let uid = nodes.borrow().own.as_ref().map(|own| own.uid.clone());
        let mut pause = CHECK_INTERVAL;
        // Before our Node is known there is no object for Events.
        if let Some(uid) = uid {
            let due = recorder.due(Instant::now(), &now);
            match create(&options, &uid, &due, &mut recorder).await {
                Ok(()) => refused &= due.is_empty(),
                Err(error) => {
                    if !refused {
                        warn!(%error, "cannot create Events, retrying; allow our ServiceAccount to create events.events.k8s.io");
                    }
                    (refused, pause) = (true, RETRY_INTERVAL);
                }
            }
        }
        // Each arm is cancel safe.
        tokio::select! {
            r = standing.changed(), if pause == CHECK_INTERVAL => if r.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

async fn create(
    options: &Options,
    uid: &str,
    due: &[Diagnostic],
    recorder: &mut EventRecorder,
) -> Result<(), ApiError> {
    if due.is_empty() {
        return Ok(());
    }
    let connection = client::connect(options).await?;
    for problem in due {
        let events = Api::<Event>::namespaced(connection.client.clone(), notice::namespace(problem));
        let event = event(problem, &options.node_name, uid);
        match request(events.create(&PostParams::default(), &event)).await {
            Ok(_) => {}
            // Created before a restart, or by another node.
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Err(error),
        }
        recorder.recorded(Instant::now(), problem);
    }
    Ok(())
}

fn event(problem: &Diagnostic, node: &str, uid: &str) -> Event {
    let object = |api_version: &str, kind: &str, name: &str, uid: &str| ObjectReference {
        api_version: Some(api_version.into()),
        kind: Some(kind.into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..ObjectReference::default()
    };
    let Subject { kind, name, namespace, uid: of_object } = &problem.subject;
    let regarding = match kind {
        SubjectKind::Node => object("v1", "Node", name, of_object),
        SubjectKind::BgpPeer | SubjectKind::BgpPolicy => object(API_VERSION, kind.as_str(), name, of_object),
        SubjectKind::Service => {
            let service = object("v1", "Service", name, of_object);
            ObjectReference { namespace: namespace.clone(), ..service }
        }
        _ => object("v1", "Node", node, uid),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(notice::event_name(problem, node)),
            namespace: Some(notice::namespace(problem).into()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(jiff::Timestamp::now())),
        reporting_controller: Some("routelet.io/routelet".into()),
        // At most 128 and 1024 octets.
        reporting_instance: Some(node.chars().take(128).collect()),
        note: Some(shortened(&problem.line())),
        action: Some("Routing".into()),
        reason: Some(problem.reason.as_str().into()),
        regarding: Some(regarding),
        type_: Some("Warning".into()),
        ..Event::default()
    }
}

fn shortened(text: &str) -> String {
    const MAX_NOTE: usize = 1024;
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > MAX_NOTE - 3) {
        Some((at, _)) if text.len() > MAX_NOTE => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_truncated_at_a_character() {
        for text in ["short".to_owned(), "x".repeat(1024), "ä".repeat(600), "x".repeat(5000)] {
            let short = shortened(&text);
            assert!(short.len() <= 1024 && (short == text || short.ends_with('…')), "{}", short.len());
        }
    }
}
