//! Why a request to the API server failed. Each error is one line, bounded and escaped, since the
//! API server's message may contain text of other users.

use std::{error::Error, path::PathBuf, time::Duration};

use kube::{core::Status, runtime::watcher};
use tokio::time::timeout;

use crate::net::text::{PROBLEM_MAX, escaped, untrusted};

/// Maximum time of one request that is not a watch.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A failure to reach the API server, or a request that it refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Neither a kubeconfig nor a ServiceAccount.
    #[error("no ServiceAccount: {0}")]
    NoServiceAccount(String),
    /// The kubeconfig cannot be read, or is invalid.
    #[error("{}: {cause}", path.display())]
    Kubeconfig { path: PathBuf, cause: String },
    /// The API server refused the request, with this status code.
    #[error("{text}")]
    Refused { code: u16, text: String },
    /// There was no valid response.
    #[error("{0}")]
    Failed(String),
    #[error("no response within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The Secret does not exist.
    #[error("not found in namespace {namespace}; create it")]
    NoSecret { namespace: &'static str },
    /// Access to the Secret is denied.
    #[error("access denied; add it to resourceNames of the Role routelet in {namespace}")]
    SecretDenied { namespace: &'static str },
    /// Another program deletes the BGPNodeStatus whenever it is created.
    #[error("the object is deleted repeatedly after its creation")]
    Deleted,
}

impl ApiError {
    /// The status code of the API server's response, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// An error that has no response of the API server.
    pub(super) fn failed(error: &(dyn Error + 'static)) -> Self {
        Self::Failed(chain(error))
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) => Self::Refused { code: status.code, text: refused(status) },
            _ => Self::failed(&error),
        }
    }
}

/// The response of the API server that made the watch fail, if there was one.
pub(super) fn response(error: &watcher::Error) -> Option<&Status> {
    use watcher::Error as E;
    match error {
        E::InitialListFailed(kube::Error::Api(status))
        | E::WatchStartFailed(kube::Error::Api(status))
        | E::WatchFailed(kube::Error::Api(status))
        | E::WatchError(status) => Some(status),
        _ => None,
    }
}

/// The result of a request, within [`REQUEST_TIMEOUT`].
pub(super) async fn request<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    within(REQUEST_TIMEOUT, request).await
}

/// The result of a request, within this time.
pub(super) async fn within<T>(
    time: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    Ok(timeout(time, request).await.map_err(|_| ApiError::Timeout(time))??)
}

/// An error with its causes, on one line, each once; for a response of the API server, only its
/// status code and message.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            return refused(status);
        }
        let status = error.downcast_ref::<Status>();
        if let Some(status) = status.or_else(|| error.downcast_ref::<Box<Status>>().map(Box::as_ref)) {
            return refused(status);
        }
        let more = error.to_string();
        match text.contains(&more) {
            true => {}
            false if text.is_empty() => text = more,
            false => text = format!("{text}: {more}"),
        }
        next = error.source();
    }
    escaped(&text.replace('\n', " "), PROBLEM_MAX)
}

fn refused(status: &Status) -> String {
    match (status.reason.as_str(), status.message.as_str()) {
        (reason, message) if message.is_empty() || message == reason => {
            format!("{} {}", status.code, untrusted(reason))
        }
        (reason, message) => {
            format!("{} {}: {}", status.code, untrusted(reason), escaped(message, PROBLEM_MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> Box<Status> {
        Box::new(Status { code, reason: reason.into(), message: message.into(), ..Status::default() })
    }

    /// Instead of `ApiError: Unauthorized: Unauthorized (Status { status: Some(Failure), code: 401,
    /// … })`.
    #[test]
    fn an_error_of_the_api_server_is_one_readable_line() {
        use watcher::Error as E;
        let api = |code, reason, message| kube::Error::Api(status(code, reason, message));
        let cases: [(E, &str); 3] = [
            (E::InitialListFailed(api(401, "Unauthorized", "Unauthorized")), "401 Unauthorized"),
            (
                E::WatchStartFailed(api(403, "Forbidden", "nodes is forbidden")),
                "403 Forbidden: nodes is forbidden",
            ),
            (E::WatchError(status(410, "Expired", "too old")), "410 Expired: too old"),
        ];
        for (error, want) in cases {
            assert_eq!(chain(&error), want);
            assert_eq!(response(&error).map(|s| s.code.to_string()).as_deref(), want.get(..3));
        }
        for text in ["\u{1b}[2J", "\n"].map(|part| part.repeat(100_000)) {
            let quoted = chain(&E::WatchError(status(403, "Forbidden", &text)));
            assert!(quoted.len() < 2 * PROBLEM_MAX && !quoted.contains(['\u{1b}', '\n']), "{quoted}");
            let quoted = chain(&E::WatchError(status(403, &text, "")));
            assert!(quoted.len() < 2 * PROBLEM_MAX && !quoted.contains(['\u{1b}', '\n']), "{quoted}");
        }
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = E::WatchFailed(kube::Error::ReadEvents(refused));
        let text = chain(&error);
        assert!(text.contains("connection refused") && !text.contains("Status {"), "{text}");
        assert!(response(&error).is_none());
    }

    #[test]
    fn each_failure_of_a_request_is_an_error_with_its_code_or_without() {
        let refused = ApiError::from(kube::Error::Api(status(409, "Conflict", "exists")));
        assert_eq!((refused.code(), refused.to_string().as_str()), (Some(409), "409 Conflict: exists"));
        let late = ApiError::Timeout(REQUEST_TIMEOUT);
        assert_eq!((late.code(), late.to_string().as_str()), (None, "no response within 10 s"));
        let kubeconfig = ApiError::Kubeconfig { path: "/x/y".into(), cause: "no such file".into() };
        assert_eq!(kubeconfig.to_string(), "/x/y: no such file");
    }
}
