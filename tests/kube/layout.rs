//! What `scripts/layout/record` runs with daemons under valgrind.

use crate::{
    common::net::Net,
    world::{Segment, all_routes},
};

#[test]
#[ignore = "not a test: work for scripts/layout/record to record"]
fn two_nodes_start_meet_and_end() {
    let mut net = Net::new();
    let mut segment = Segment::new(&mut net, &[]);
    let mut nodes = segment.nodes(&mut net, 2, |_| String::new());
    let cidrs: Vec<_> = nodes.iter().map(|n| segment.plane.pod_cidrs(&n.name)).collect();
    all_routes(&nodes, &cidrs);
    for node in &mut nodes {
        node.daemon().cli(&["show", "summary"]);
        node.daemon_mut().process.stop();
    }
}
