//! What a connection is sent: a send cursor that reads from the ring of its outbox [SE-4].

use std::sync::Arc;

use super::conversation::Conversation;
use super::frames::frame_of;
use super::outbox::Outbox;
use super::{Output, Sent, Server, Timer, live_of};
use crate::mark;
use crate::recovery::{Instant, LivenessAction};
use crate::session::conversation::Row;
use crate::session::wire::{Body, ServerFrame};
use crate::session::{CloseCode, ConnectionId, Identity, Name};

impl Server {
    // ---- outboxes ----------------------------------------------------------------------------

    /// Gives a frame to one client, if it has an outbox.
    pub(super) fn push_to(&mut self, now: Instant, identity: &Identity, body: Body) {
        let Some(outbox) = self.outboxes.get_mut(identity) else { return };
        outbox.push(now, body);
        if let Some((conn, _)) = outbox.live {
            let exhausted = outbox.is_exhausted();
            self.pump(now, conn);
            if exhausted {
                mark!("session.numbers_used_up");
                self.close(now, conn, CloseCode::RESUME, "the outbox has used up its numbers");
            }
        }
    }

    /// The identities of a conversation that have an outbox.
    pub(super) fn identities(&self, principal: &Arc<str>) -> Vec<Identity> {
        let clients = self.conversations.get(principal).map(|it| &it.clients);
        let identity =
            |client: &Name| Identity { principal: principal.clone(), client: client.clone() };
        clients.into_iter().flatten().map(identity).collect()
    }

    /// The open connections of a conversation.
    pub(super) fn live(&self, principal: &Arc<str>) -> Vec<ConnectionId> {
        let live = |identity| live_of(&self.outboxes, &identity).map(|(conn, _)| conn);
        self.identities(principal).into_iter().filter_map(live).collect()
    }

    /// Gives a row to every client of its conversation.
    pub(super) fn push_row(&mut self, now: Instant, principal: &Arc<str>, row: &Row) {
        for identity in self.identities(principal) {
            self.push_to(now, &identity, frame_of(row));
        }
    }

    /// Tells every connection that has caught up, and has room, something that may be lost.
    pub(super) fn tell(&mut self, now: Instant, principal: &Arc<str>, body: &Body) {
        for conn in self.live(principal) {
            let connection = &self.connections[&conn];
            let last = self.outboxes.get(&connection.identity).map(Outbox::last);
            let caught_up = connection.status.is_some() && last == Some(connection.position);
            match caught_up && !connection.window_is_full(&self.config) {
                true => self.send(now, conn, ServerFrame { seq: 0, body: body.clone() }),
                false => mark!("session.ephemeral_left_out"),
            }
        }
    }

    pub(super) fn drop_outbox(&mut self, identity: &Identity) {
        let Some(outbox) = self.outboxes.remove(identity) else { return };
        self.idle.remove(&(outbox.idle_since, identity.clone()));
        if let Some(conversation) = self.conversations.get_mut(&identity.principal) {
            conversation.clients.remove(&identity.client);
        }
        self.forget_unused(&identity.principal);
    }

    pub(super) fn forget_unused(&mut self, principal: &Arc<str>) {
        if self.conversations.get(principal).is_some_and(Conversation::is_unused) {
            self.conversations.remove(principal);
        }
    }

    /// Drops what is too old: frames, and outboxes that nobody came back for [SE-7].
    pub(super) fn prune(&mut self, now: Instant) {
        let outboxes: Vec<Identity> = self.outboxes.keys().cloned().collect();
        for identity in outboxes {
            let Some(outbox) = self.outboxes.get_mut(&identity) else { continue };
            outbox.prune_age(now);
            if let Some((conn, _)) = outbox.live {
                self.pump(now, conn);
            }
        }
        while let Some((since, identity)) = self.idle.first().cloned()
            && now >= since + self.config.idle_max
        {
            mark!("session.idle_outbox_dropped");
            self.drop_outbox(&identity);
        }
        if !self.outboxes.is_empty() {
            self.timers.set(Timer::Prune, now + self.config.prune_every);
        }
    }

    // ---- the pump ----------------------------------------------------------------------------

    /// Sends what may be sent now.
    pub(super) fn pump(&mut self, now: Instant, conn: ConnectionId) {
        while self.pump_one(now, conn) {}
    }

    /// One step; `false` when there is nothing more to do until something happens.
    pub(super) fn pump_one(&mut self, now: Instant, conn: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        if connection.since.is_some() {
            return false;
        }
        let Some(outbox) = self.outboxes.get(&connection.identity) else { return false };
        let Some(conversation) = self.conversations.get(&connection.identity.principal) else {
            return false;
        };
        let next = connection.position + 1;
        let status = Some(conversation.status());
        let is_behind = next <= outbox.last();
        // Once after the replay or the history [SE-6b], and again whenever it has changed.
        let status_is_due = match connection.status {
            None => connection.position >= connection.caught_up_at,
            known => !is_behind && known != status,
        };
        if !(status_is_due || is_behind) || connection.has_to_wait(&self.config) {
            return false;
        }
        let frame = if status_is_due {
            connection.status = status;
            ServerFrame { seq: 0, body: Body::Status(conversation.status()) }
        } else if let Some(body) = outbox.get(next) {
            connection.position = next;
            ServerFrame { seq: next, body: body.clone() }
        } else {
            mark!("session.evicted_before_sent");
            let reason = "the client does not keep up";
            self.close(now, conn, CloseCode::RESUME, reason);
            return false;
        };
        self.send(now, conn, frame);
        true
    }

    pub(super) fn send(&mut self, now: Instant, conn: ConnectionId, frame: ServerFrame) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if connection.in_flight.is_empty() {
            self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall);
        }
        let (bytes, is_ping) = (frame.body.cost(), matches!(frame.body, Body::Ping { .. }));
        connection.in_flight.push_back(Sent { bytes, is_ping });
        connection.in_flight_bytes += bytes;
        self.outputs.push_back(Output::Send { conn, frame });
    }

    pub(super) fn written(&mut self, now: Instant, conn: ConnectionId, frames: usize) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        for sent in connection.in_flight.drain(..frames.min(connection.in_flight.len())) {
            connection.in_flight_bytes -= sent.bytes;
            if sent.is_ping {
                connection.liveness.on_ping_written(now);
            }
        }
        match connection.in_flight.is_empty() {
            true => self.timers.stop(Timer::WriteStall(conn)),
            false => self.timers.set(Timer::WriteStall(conn), now + self.config.write_stall),
        }
        self.arm_liveness(conn);
        self.pump(now, conn);
    }

    pub(super) fn heard(&mut self, now: Instant, conn: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.liveness.on_inbound(now);
            self.arm_liveness(conn);
        }
    }

    pub(super) fn arm_liveness(&mut self, conn: ConnectionId) {
        let deadline = self.connections.get(&conn).and_then(|it| it.liveness.deadline());
        if let Some(at) = deadline {
            self.timers.set(Timer::Liveness(conn), at);
        }
    }

    pub(super) fn check_liveness(&mut self, now: Instant, conn: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        match connection.liveness.handle_timeout(now) {
            LivenessAction::None => {}
            LivenessAction::SendPing => {
                let sent = Some(connection.position);
                self.send(now, conn, ServerFrame { seq: 0, body: Body::Ping { sent } });
            }
            LivenessAction::Dead => {
                mark!("session.silent_client_closed");
                let reason = "nothing was heard from the client";
                return self.close(now, conn, CloseCode::SILENT, reason);
            }
        }
        self.arm_liveness(conn);
    }
}
