//! Kubernetes with real parts: API server, controller manager, etcd and CNI plugins of the test kit, each test with a
//! control plane of its own in its own namespaces.
#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests of the real world"
)]

#[path = "../common/blocks.rs"]
mod blocks;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/engine.rs"]
mod engine;
#[path = "../kit/mod.rs"]
mod kit;

mod bad_input;
mod cleanup;
#[path = "../common/cluster.rs"]
mod cluster;
mod clusters;
mod conflist;
mod docker;
mod doctor;
mod documented;
mod drain;
mod events;
mod fakes;
mod faults;
mod figures;
mod firewall;
mod gobgp;
mod guard;
mod kubectl;
mod layout;
mod mesh;
mod node_changes;
mod objects;
mod offline;
mod packages;
mod pods;
mod policy;
mod reflectors;
mod reported;
mod rights;
mod scale;
mod services;
mod speaker;
mod stolen;
mod switch;
mod takeover;
mod token;
mod upkeep;
mod watch;
mod world;
