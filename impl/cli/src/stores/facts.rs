//! What a database says, and whether it agrees with itself.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};
use serde_json::{Map, Value, json};

use super::{Kind, Opened};

/// How many streams, conversations or problems are listed.
const LISTED_MAX: usize = 1_000;

const STREAMS: &str = "
SELECT agent, oldest, head, head - oldest + 1 AS events FROM streams ORDER BY agent";

const NEWEST_EPOCH: &str = "SELECT epoch FROM epochs ORDER BY ordinal DESC";

const ATTEMPTS: &str = "
SELECT agent, CASE state WHEN 0 THEN 'pending' WHEN 1 THEN 'delivered' WHEN 2 THEN 'received'
  WHEN 3 THEN 'running' WHEN 4 THEN 'discarded' WHEN 5 THEN 'interrupted' ELSE 'final' END AS state,
  count(*) AS attempts
FROM attempts GROUP BY agent, attempts.state ORDER BY agent, attempts.state";

const CONVERSATIONS: &str = "
SELECT principal, next_position, open_question,
  (SELECT count(*) FROM rows WHERE rows.conversation = conversations.conversation) AS rows
FROM conversations ORDER BY principal";

const AGENT_ATTEMPTS: &str = "
SELECT CASE status WHEN 0 THEN 'received' WHEN 1 THEN 'running' WHEN 2 THEN 'ended'
  ELSE 'settled' END AS state, count(*) AS attempts
FROM attempts GROUP BY status ORDER BY status";

const OUTBOX: &str = "
SELECT count(*) AS messages, coalesce(sum(length(data)), 0) AS bytes FROM outbox";

const OUTPUT: &str = "
SELECT count(*) AS pieces, coalesce(sum(length(data)), 0) AS bytes FROM output";

/// What a database holds, in numbers and names.
pub(crate) fn summary(opened: &Opened) -> Result<Value> {
    let connection = &opened.connection;
    let count = |table: &str| -> Result<i64> {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
    };
    let list = |sql: &str| list(connection, sql);
    let first = |sql: &str| -> Result<Value> {
        Ok(self::list(connection, sql)?.into_iter().next().unwrap_or(Value::Null))
    };
    Ok(match opened.kind {
        Kind::Events => json!({
            "epochs": count("epochs")?,
            "newest_epoch": first(NEWEST_EPOCH)?["epoch"],
            "streams": list(STREAMS)?,
        }),
        Kind::Tasks => json!({
            "tasks": count("tasks")?,
            "attempts": list(ATTEMPTS)?,
            "output": first(OUTPUT)?,
        }),
        Kind::Sessions => json!({ "conversations": list(CONVERSATIONS)? }),
        Kind::Agent => json!({
            "lives": count("lives")?,
            "attempts": list(AGENT_ATTEMPTS)?,
            "outbox": first(OUTBOX)?,
            "lost_runs": count("lost")?,
        }),
        Kind::InFlight => json!({
            "client": first("SELECT name FROM client")?["name"],
            "inputs": count("inputs")?,
        }),
    })
}

/// Each statement finds what must not be there, a line for each.
const EVENTS_WRONG: [&str; 5] = [
    "SELECT 'stream `' || agent || '`: ' || count(sequence) || ' events where there must be '
       || (head - oldest + 1)
     FROM streams LEFT JOIN events ON events.stream = streams.stream
       AND sequence BETWEEN oldest AND head
     GROUP BY streams.stream HAVING count(sequence) <> head - oldest + 1",
    "SELECT 'stream `' || agent || '`: event ' || sequence || ' is not from ' || oldest || ' to '
       || head
     FROM events JOIN streams USING (stream) WHERE sequence NOT BETWEEN oldest AND head",
    "SELECT 'stream `' || agent || '`: an epoch begins with ' || first || ', out of order'
     FROM lineage JOIN streams USING (stream)
     WHERE first NOT BETWEEN 1 AND head OR EXISTS (SELECT 1 FROM lineage AS later
       WHERE later.stream = lineage.stream AND later.ordinal > lineage.ordinal
       AND later.first <= lineage.first)",
    "SELECT 'stream `' || agent || '`: no epoch has event ' || oldest FROM streams
     WHERE head >= oldest AND NOT EXISTS (SELECT 1 FROM lineage
       WHERE lineage.stream = streams.stream AND first <= oldest)",
    "SELECT 'stream `' || agent || '`: the id `' || id || '` has number ' || event_keys.sequence
       || ', beyond ' || head
     FROM event_keys JOIN streams USING (stream) WHERE event_keys.sequence > head",
];

const TASKS_WRONG: [&str; 2] = [
    "SELECT 'attempt ' || task || '/' || id || ': its standard output has a hole' FROM attempts
     WHERE stdout_highest <> (SELECT count(*) FROM output
         WHERE output.attempt = attempts.attempt AND stream = 0 AND sequence <= stdout_highest)
       + (SELECT coalesce(sum(last - first + 1), 0) FROM lost
         WHERE lost.attempt = attempts.attempt AND stream = 0 AND last <= stdout_highest)",
    "SELECT 'attempt ' || task || '/' || id || ': its standard error has a hole' FROM attempts
     WHERE stderr_highest <> (SELECT count(*) FROM output
         WHERE output.attempt = attempts.attempt AND stream = 1 AND sequence <= stderr_highest)
       + (SELECT coalesce(sum(last - first + 1), 0) FROM lost
         WHERE lost.attempt = attempts.attempt AND stream = 1 AND last <= stderr_highest)",
];

const SESSIONS_WRONG: [&str; 1] =
    ["SELECT 'conversation of `' || principal || '`: row ' || position || ' is beyond the next, '
       || next_position
     FROM rows JOIN conversations USING (conversation) WHERE position >= next_position"];

/// What is wrong with a database, a line for each; nothing if it agrees with itself.
pub(crate) fn problems(opened: &Opened) -> Result<Vec<String>> {
    let connection = &opened.connection;
    let mut found: Vec<String> = lines(connection, "PRAGMA integrity_check")?;
    found.retain(|line| line != "ok");
    if !found.is_empty() {
        return Ok(found);
    }
    found = lines(
        connection,
        "SELECT 'a row of `' || \"table\" || '` refers to one of `' || parent || '` that is not there'
         FROM pragma_foreign_key_check",
    )?;
    let wrong: &[&str] = match opened.kind {
        Kind::Events => &EVENTS_WRONG,
        Kind::Tasks => &TASKS_WRONG,
        Kind::Sessions => &SESSIONS_WRONG,
        Kind::Agent | Kind::InFlight => &[],
    };
    for sql in wrong {
        found.extend(lines(connection, sql)?);
    }
    Ok(found)
}

fn lines(connection: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    statement.query_map([], |row| row.get(0))?.take(LISTED_MAX).collect()
}

/// The rows of a statement, each as an object.
fn list(connection: &Connection, sql: &str) -> Result<Vec<Value>> {
    let mut statement = connection.prepare(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows = statement.query_map([], |row| {
        let mut object = Map::new();
        for (i, name) in names.iter().enumerate() {
            let value = match row.get_ref(i)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
                ValueRef::Blob(bytes) => bytes.len().into(),
            };
            object.insert(name.clone(), value);
        }
        Ok(Value::Object(object))
    })?;
    rows.take(LISTED_MAX).collect()
}
