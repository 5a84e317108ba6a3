//! Writes the options of both sides, under the names by which they are read.

use serde_json::{Map, Value};

use super::{Text, duration, json};
use crate::plan::{
    AgentOptions, ClientOptions, ControllerOptions, ServerOptions, SessionClientOptions,
    SessionServerOptions,
};

fn durations((from, to): (u64, u64)) -> String {
    format!("{}..{}", duration(from).trim_end_matches('"'), duration(to).trim_start_matches('"'))
}

pub(super) fn server(text: &mut Text, options: &ServerOptions) {
    text.key("extension", options.extension);
    text.key("ring", options.ring);
    text.key("resync-grace", duration(options.resync_grace_ms));
    text.key("window-frames", options.window_frames);
    text.key("write-stall", duration(options.write_stall_ms));
    text.key("silence", duration(options.silence_ms));
    if let Some(keep) = options.retain_events {
        text.key("retain-events", keep);
    }
    text.key("page-events", options.page_events);
    text.key("commit", duration(options.commit_ms));
}

pub(super) fn client(text: &mut Text, options: &ClientOptions) {
    text.key("extension", options.extension);
    text.key("start", if options.from_beginning { "\"beginning\"" } else { "\"live\"" });
    text.key("ping-every", duration(options.ping_every_ms));
    text.key("pong-timeout", duration(options.pong_timeout_ms));
    text.key("reconnect", durations(options.reconnect_ms));
    text.key("queue-events", options.queue_events);
    text.key("offers", options.offers_max);
    text.key("open-handler", duration(options.open_handler_ms));
    text.key("handler", duration(options.handler_ms));
}

pub(super) fn controller(text: &mut Text, options: &ControllerOptions) {
    text.key("extension", options.extension);
    text.key("silence", duration(options.silence_ms));
    text.key("redelivery", durations(options.redelivery_ms));
    text.key("deliveries", options.deliveries);
    text.key("commit", duration(options.commit_ms));
}

pub(super) fn agent(text: &mut Text, options: &AgentOptions) {
    text.key("extension", options.extension);
    text.key("parallel", options.parallel);
    text.key("queue", options.queue);
    text.key("handshake", duration(options.handshake_ms));
    text.key("ping-every", duration(options.ping_every_ms));
    text.key("pong-timeout", duration(options.pong_timeout_ms));
    text.key("reconnect", durations(options.reconnect_ms));
    text.key("ack-timeout", duration(options.ack_timeout_ms));
    text.key("window", options.window);
    text.key("page", options.page);
    text.key("chunk-bytes", options.chunk_bytes);
    text.key("flush", duration(options.flush_ms));
    text.key("buffer-bytes", options.buffer_bytes);
    text.key("hello-max", options.hello_max);
    text.key("fallback", duration(options.fallback_ms));
    text.key("spool-bytes", options.spool_bytes);
    text.key("reserve-bytes", options.reserve_bytes);
    text.key("finished", options.finished);
    text.key("commit", duration(options.commit_ms));
    text.key("rsa", options.rsa);
}

pub(super) fn session_server(text: &mut Text, options: &SessionServerOptions) {
    text.key("extension", options.extension);
    text.key("ring", options.ring);
    text.key("ring-bytes", options.ring_bytes);
    text.key("ring-age", duration(options.ring_age_ms));
    text.key("prune-every", duration(options.prune_every_ms));
    text.key("idle", duration(options.idle_max_ms));
    text.key("outboxes", options.outboxes);
    text.key("ping-every", duration(options.ping_every_ms));
    text.key("window-frames", options.window_frames);
    text.key("write-stall", duration(options.write_stall_ms));
    text.key("history-messages", options.history_messages);
    text.key("history-bytes", options.history_bytes);
    text.key("queue", options.queue);
    text.key("turns", options.turns);
    text.key("inputs", options.inputs);
    text.key("text-bytes", options.text_bytes);
    text.key("retain-rows", options.retain_rows);
    text.key("commit", duration(options.commit_ms));
}

pub(super) fn session_client(text: &mut Text, options: &SessionClientOptions) {
    text.key("extension", options.extension);
    text.key("shared-id", options.shared_id);
    text.key("connect", duration(options.connect_ms));
    text.key("ping-every", duration(options.ping_every_ms));
    text.key("reconnect", durations(options.reconnect_ms));
    text.key("ack-every", duration(options.ack_every_ms));
    text.key("ack-timeout", duration(options.ack_timeout_ms));
    text.key("in-flight", options.in_flight);
    text.key("base-grace", duration(options.base_grace_ms));
    text.key("messages", options.messages);
    text.key("answer", duration(options.answer_ms));
    text.key("commit", duration(options.commit_ms));
}

pub(super) fn custom(text: &mut Text, options: &Map<String, Value>) {
    for (name, value) in options {
        text.key(name, json(value));
    }
}
