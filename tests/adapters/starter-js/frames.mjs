// The frames of the event-stream protocol, sections 3 and 6: what comes out is well formed.

const SEQUENCE_MAX = Number.MAX_SAFE_INTEGER;
const GAPLESS = ['up_to_date', 'replay'];
const VERDICTS = [...GAPLESS, 'too_old', 'ahead', 'other_epoch', 'unknown'];
/** Types that only a client sends, or nobody. */
const FOREIGN = ['error', 'ping', 'resync', 'subscribe', 'unsubscribe'];

/** A frame that is to be ignored. */
export class Malformed extends Error {}

function check(holds, problem) {
  if (!holds) throw new Malformed(problem);
}

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isNumber = (value, least) => Number.isSafeInteger(value) && value >= least;
const isEpoch = (value) => typeof value === 'string' && /^[\x21-\x7e]{1,128}$/.test(value);
const isRange = ({ from, to }) => isNumber(from, 1) && isNumber(to, from);
const areLost = (lost) => Array.isArray(lost) && lost.every((it) => isObject(it) && isRange(it));

/** Whether something after the cursor could not be supplied. */
export const isGap = (verdict) => !GAPLESS.includes(verdict);

/** Reads a text frame of a server. */
export function parse(text) {
  let frame;
  try {
    frame = JSON.parse(text);
  } catch (error) {
    throw new Malformed(`no JSON: ${error.message}`);
  }
  check(isObject(frame), 'no JSON object');
  const { type, lost = [] } = frame;
  check(typeof type === 'string' && type !== '', 'no `type`');
  check(!FOREIGN.includes(type), `the type \`${type}\` is not a server's`);
  switch (type) {
    case 'pong':
      check([frame.sent ?? 0, frame.head ?? 0].every((it) => isNumber(it, 0)), 'bad `pong`');
      return frame;
    case 'stream':
      check(isEpoch(frame.epoch) && isNumber(frame.oldest, 0) && isNumber(frame.head, 0), 'bad `stream`');
      return frame;
    case 'resync_begin':
      check(isEpoch(frame.epoch) && VERDICTS.includes(frame.verdict), 'bad `resync_begin`');
      check(isNumber(frame.from, 1) && isNumber(frame.to, frame.from - 1), 'bad `resync_begin`');
      check(areLost(lost), 'bad `lost`');
      return { ...frame, lost };
    case 'resync_ack':
      for (const name of ['last_seen_seq', 'current_seq', 'replayed']) {
        check(isNumber(frame[name], 0), `bad \`${name}\``);
      }
      check(typeof frame.gap_detected === 'boolean', 'bad `gap_detected`');
      return frame;
    case 'gap':
      check(isEpoch(frame.epoch) && isRange(frame), 'bad `gap`');
      return frame;
    default: {
      const { agent_seq: sequence = null } = frame;
      check(sequence === null || isNumber(sequence, 1), `\`agent_seq\` is above ${SEQUENCE_MAX} or no number`);
      const id = typeof frame.id === 'string' ? frame.id : null;
      return { type: 'event', event: { sequence, key: id && `${type} ${id}`, id, text } };
    }
  }
}
