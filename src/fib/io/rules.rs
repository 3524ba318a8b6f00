//! Follows the host's routing rules and, where one comes before that of our table, the routes of
//! the table that it looks up.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    fib::{
        host::RouteType,
        rules::{Bypasses, Rule, rule},
        wire::{self, kind},
    },
    mailbox::publish,
    net::{Family, Prefix},
    netlink::{
        decode::Message,
        io::{Channel, Notifications, Protocol},
    },
    pace::tick,
};

/// `RTNLGRP_IPV4_RULE` and `RTNLGRP_IPV6_RULE`.
const GROUPS: [u32; 2] = [8, 19];
/// After a notification, so that many are one look.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Between two looks, as the routes of another table may change; longer where they are so many that
/// a look takes long.
const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_PER_LOOK: u32 = 200;
/// So many routes of another table are read. Without a default route in it, the rest stays
/// unreported.
const MAX_ROUTES: usize = 20_000;

/// What never comes to `table`.
pub(super) fn follow(table: u32) -> watch::Receiver<Arc<Bypasses>> {
    let (bypasses, watch) = watch::channel(Arc::default());
    tokio::spawn(run(table, bypasses));
    watch
}

async fn run(table: u32, bypasses: watch::Sender<Arc<Bypasses>>) {
    let mut changes = Notifications::open(Protocol::ROUTE, &GROUPS, "routing rules");
    loop {
        let begun = Instant::now();
        match spawn_blocking(move || read(table)).await {
            Ok(Ok(now)) => publish(&bypasses, Arc::new(now)),
            Ok(Err(error)) => tracing::debug!(%error, "cannot read the routing rules"),
            Err(_) => return,
        }
        let interval = INTERVAL.max(begun.elapsed() * INTERVAL_PER_LOOK);
        tokio::select! {
            () = changes.changed() => sleep(DEBOUNCE).await,
            () = tick(interval) => {}
            () = bypasses.closed() => return,
        }
        changes.forget();
    }
}

fn read(table: u32) -> io::Result<Bypasses> {
    let mut channel = Channel::open(Protocol::ROUTE)?;
    let mut rules: Vec<Rule> = Vec::new();
    for family in Family::ALL {
        let known = |m: &Message<'_>| if m.kind == kind::NEW_RULE { rule(m.body) } else { None };
        channel.dump(|encoder| wire::dump_rules(encoder, family), |m| rules.extend(known(m)))?;
    }
    Ok(Bypasses::new(&rules, table, |family, other| destinations(&mut channel, family, other)))
}

/// What a table has routes to, without what lies inside another one of them. `None` where some of
/// it goes on to the next rule.
fn destinations(channel: &mut Channel, family: Family, table: u32) -> Option<Vec<Prefix>> {
    let (mut all, mut thrown) = (BTreeSet::new(), false);
    let read = channel.dump(
        |encoder| wire::dump_routes(encoder, family, Some(table), None),
        |message| {
            let route = Some(message).filter(|m| m.kind == kind::NEW_ROUTE).and_then(|m| wire::route(m.body));
            // A kernel without strict checking sends all it has.
            if let Some(route) = route.filter(|r| r.table == table && r.prefix.family() == family) {
                thrown |= route.kind == Some(RouteType::Throw);
                if all.len() < MAX_ROUTES || route.prefix.len() == 0 {
                    all.insert(route.prefix);
                }
            }
        },
    );
    read.is_ok_and(|()| !thrown).then(|| all.into_iter().collect())
}
