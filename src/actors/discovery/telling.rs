//! What this node says of itself, what the others say, and whom of them it takes for neighbours.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Context, Handler, MessageResult};

use super::messages::{ListRecords, RecordListing};
use super::swimming::unix_ms;
use super::{Discovery, LOGGED_MAX, Published};
use crate::membership::records::{AgedRecord, failing};
use crate::membership::topology::{is_neighbour, nearest};
use crate::membership::{Machine, Standing};
use crate::types::{Identity, Neighbours, NodeDescription, NodeRecord};
use crate::wire::headers::OUR_PROTOCOL_NUMBER;

impl Discovery {
    /// Tells the others what this node is and how busy, if that is news and it is time to look.
    pub(super) fn tell(&mut self, ctx: &Context<Self>) {
        let elapsed = self.start.elapsed();
        if !self.swimming.may_say(elapsed) {
            return;
        }
        let identity = self.kept.published.load().identity.clone();
        let software = self.settings.about.clone();
        let about = NodeDescription { name: identity.id, group: identity.group, ..software };
        let (load, saying) = (self.settings.said)();
        self.swimming.says(&about, load, &saying, elapsed, unix_ms());
        self.carry_out(ctx);
    }

    /// Looks who is nearest now, where that matters.
    pub(super) fn find_nearest(&mut self) {
        let Neighbours::Nearest(count) = self.neighbours else { return };
        let membership = self.kept.membership.borrow();
        let machines = membership.list().into_iter().map(|machine| {
            let measured = self.swimming.swim().and_then(|swim| swim.round_trip(machine.ip));
            let polled = Some(machine.ping).filter(|ping| !ping.is_zero());
            (machine.ip, measured.or(polled))
        });
        let found = nearest(count, machines, &self.nearest);
        if found != self.nearest {
            self.nearest = found;
            self.published = None;
        }
    }

    /// Publishes what has changed; `identity` is given when that has.
    pub(super) fn publish(&mut self, identity: Option<Identity>) {
        let membership = self.kept.membership.borrow();
        let versions = self.swimming.version(&membership);
        if identity.is_none() && self.published == Some(versions) {
            return;
        }
        self.published = Some(versions);
        let old = self.kept.published.load();
        let identity = identity.unwrap_or_else(|| old.identity.clone());
        let peers = self.swimming.peers(&membership, |machine| {
            is_neighbour(&self.neighbours, machine, &identity.group, &self.nearest)
        });
        if !peers.iter().map(|peer| &peer.host).eq(old.peers.iter().map(|peer| &peer.host)) {
            let hosts: Vec<&str> = peers.iter().take(LOGGED_MAX).map(|peer| &*peer.host).collect();
            tracing::info!(count = peers.len(), machines = ?hosts, "the machines that calls may go to changed");
        }
        if peers != old.peers || identity != old.identity {
            let failing = failing(&peers);
            self.kept.published.store(Arc::new(Published { identity, peers, failing }));
        }
        self.metrics.machines(
            membership.count(Standing::Alive),
            membership.count(Standing::Hearsay),
            membership.count(Standing::Dead),
        );
    }
}

/// What is known of a machine that has not said anything of itself, as those of v1.
fn unrecorded(machine: &Machine) -> AgedRecord {
    let about = NodeDescription {
        name: machine.is.name.clone(),
        group: machine.is.group.clone(),
        protocol: if machine.is.streams { OUR_PROTOCOL_NUMBER } else { 1 },
        tls_port: machine.is.tls_port,
        ..NodeDescription::default()
    };
    let record = Arc::new(NodeRecord { about: Some(about), ..NodeRecord::default() });
    AgedRecord { owner: machine.ip, record, about_age: None, load_age: None }
}

impl Handler<ListRecords> for Discovery {
    type Result = MessageResult<ListRecords>;

    fn handle(&mut self, _: ListRecords, _: &mut Self::Context) -> Self::Result {
        let (published, now) = (self.kept.published.load(), self.now().elapsed);
        let mut records: BTreeMap<_, _> = match self.swimming.swim() {
            Some(swim) => swim.records().all(now).into_iter().map(|r| (r.owner, r)).collect(),
            None => BTreeMap::new(),
        };
        let own = published
            .identity
            .ip
            .and_then(|ip| records.remove(&ip))
            .map(|aged| RecordListing { aged, own: true, neighbour: false, round_trip: None });
        let membership = self.kept.membership.borrow();
        let others = membership.list().into_iter().map(|machine| {
            let ip = machine.ip.to_string();
            RecordListing {
                aged: records.remove(&machine.ip).unwrap_or_else(|| unrecorded(machine)),
                own: false,
                neighbour: published.peers.iter().any(|peer| *peer.host == *ip),
                round_trip: self.swimming.swim().and_then(|swim| swim.round_trip(machine.ip)),
            }
        });
        let mut all: Vec<_> = own.into_iter().chain(others).collect();
        all.sort_by_cached_key(|listing| {
            let about = listing.aged.record.about.as_ref();
            (about.map(|about| about.name.clone()), listing.aged.owner.to_string())
        });
        MessageResult(all)
    }
}
