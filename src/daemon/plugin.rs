//! `kubectl routelet`: reads the reports of all nodes, without a daemon.

use super::{Error, block_on};
use crate::k8s::{
    io::{
        endpoints::{self, Wanted},
        reports::{Access, ReportsError, read},
    },
    reports::{
        Report,
        pair::{Agents, Endpoint},
    },
};

/// The reports of all nodes, or why they cannot be read.
///
/// # Errors
///
/// If no thread can be started.
pub fn cluster_reports(access: &Access) -> Result<Result<Vec<Report>, ReportsError>, Error> {
    block_on(read(access))
}

/// Two pods, and where routelet runs on their Nodes.
///
/// # Errors
///
/// If no thread can be started.
pub fn cluster_endpoints(
    access: &Access,
    namespace: Option<&str>,
    wanted: &[Wanted; 2],
) -> Result<Result<([Endpoint; 2], Agents), ReportsError>, Error> {
    block_on(endpoints::read(access, namespace, wanted))
}
