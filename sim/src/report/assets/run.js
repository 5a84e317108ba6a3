(() => {
  const run = JSON.parse(document.getElementById('data').textContent);
  const { rows, hosts, arrows, bands, findings } = run;

  // Sizes, in pixels.
  const ROW = 22, IDLE = 30, LINK = 16, OVERSCAN = 12;
  // How much room the words need; with less, the lanes move together.
  const WORDS = 340;
  // From how much virtual time without a record on the time is said to be idle.
  const IDLE_MS = 1000;
  const SIGNS = { step: '!!', life: '–', send: '→', receive: '←', drop: '×', store: '▪', app: '●', mark: '#' };
  const KINDS = {
    step: 'step of the plan', life: 'process or connection', send: 'frame leaves', receive: 'frame arrives',
    drop: 'swallowed by a fault', store: 'store', app: 'application', mark: 'mark: the code reached a place that matters',
  };
  const LINK_TROUBLE = new Set(['partition', 'half_open', 'weak']);

  const $ = (id) => document.getElementById(id);
  const timeline = $('timeline'), details = $('details'), map = $('map');
  const input = document.querySelector('#search input'), hits = document.querySelector('#search output');

  /** An element with a class and children, which may be text. Nothing is ever parsed as HTML. */
  function el(name, className, ...children) {
    const it = document.createElement(name);
    if (className) it.className = className;
    it.append(...children.filter((child) => child !== null));
    return it;
  }
  function svg(name, attributes, ...children) {
    const it = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const key in attributes) it.setAttribute(key, attributes[key]);
    it.append(...children);
    return it;
  }
  const seconds = (ms) => `${Math.floor(ms / 1000)}.${String(ms % 1000).padStart(3, '0')}`;
  function span(ms) {
    if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
    if (ms < 3600000) return `${Math.floor(ms / 60000)} min ${Math.round(ms / 1000) % 60} s`;
    return `${Math.floor(ms / 3600000)} h ${Math.round(ms / 60000) % 60} min`;
  }

  // Where everything stands from left to right: the clients, the network, the server, who asks it.
  const clients = hosts.filter((host) => host.side === 'client').length;
  const net = {};
  let place, width, TIME;
  function arrange() {
    put(84, 30, 14);
    const tight = timeline.clientWidth - width < WORDS;
    $('stage').classList.toggle('tight', tight);
    if (tight) put(60, 11, 6);
  }
  function put(time, LANE, GAP) {
    TIME = time;
    let right = TIME + 16;
    place = hosts.map(() => ({}));
    hosts.forEach((host, index) => {
      if (index === clients) {
        net.left = right;
        net.right = right + Math.max(LANE * 2, 54, clients * LINK + LANE);
        right = net.right + GAP;
      }
      const it = place[index];
      it.left = right;
      const lanes = { client: ['app', 'store', 'process'], server: ['process', 'store', 'app'], workload: ['app'] }[host.side];
      for (const lane of lanes) {
        if (lane === 'process' || host.side === 'workload' || host[lane]) {
          it[lane] = right + LANE / 2;
          right += LANE;
        }
      }
      it.process ??= it.app;
      // The name has to fit.
      const missing = host.name.length * (LANE < 20 ? 6.6 : 7.5) - (right - it.left);
      if (missing > 0) {
        for (const lane of ['app', 'store', 'process']) if (it[lane] !== undefined) it[lane] += missing / 2;
        right += missing;
      }
      it.right = right;
      right += GAP;
    });
    width = right;
  }
  const linkX = (host) => (net.left + net.right) / 2 + (host - (clients - 1) / 2) * LINK;
  const laneOf = { app: 'app', store: 'store' };
  const xOf = (row) => {
    const it = place[row.h];
    return it[laneOf[row.k]] ?? it.process;
  };

  // What led to what. `effects` is the reverse of what the rows say.
  const effects = rows.map(() => []);
  rows.forEach((row, index) => (row.c ?? []).forEach((cause) => effects[cause].push(index)));
  function pastOf(index) {
    const past = new Uint8Array(rows.length);
    const open = [index];
    while (open.length) {
      const at = open.pop();
      if (past[at]) continue;
      past[at] = 1;
      for (const cause of rows[at].c ?? []) if (!past[cause]) open.push(cause);
    }
    return past;
  }
  const arrowsOf = new Map();
  for (const arrow of arrows) {
    for (const end of new Set([arrow.from, arrow.to])) {
      if (end === undefined) continue;
      if (!arrowsOf.has(end)) arrowsOf.set(end, []);
      arrowsOf.get(end).push(arrow);
    }
  }

  const state = {
    selected: findings.length ? findings[0].row : 0,
    /** The row whose causal past stands out, and that past. */
    focus: null,
    past: null,
    onlyPast: false,
    marks: true,
    query: '',
    found: [],
  };

  // From top to bottom: rows, what happens between them, and the findings.
  let items = [], yOf = [], height = 0;
  function layOut() {
    items = [];
    yOf = new Array(rows.length).fill(-1);
    let y = 8, last = 0;
    const after = new Map();
    for (const finding of findings) {
      if (!after.has(finding.row)) after.set(finding.row, []);
      after.get(finding.row).push(finding);
    }
    rows.forEach((row, index) => {
      const hidden = (!state.marks && row.k === 'mark') || (state.onlyPast && state.past && !state.past[index]);
      if (!hidden) {
        if (items.length && row.t - last >= IDLE_MS) {
          items.push({ what: 'idle', ms: row.t - last, y, h: IDLE });
          y += IDLE;
        }
        const first = !items.length || row.t !== last;
        last = row.t;
        yOf[index] = y + ROW / 2;
        items.push({ what: 'row', index, first, y, h: ROW });
        y += ROW;
      } else {
        // Arrows and bands still need to know where it would be.
        yOf[index] = y;
      }
      const here = after.get(index);
      if (here) {
        const h = findingHeight(here[0]);
        items.push({ what: 'finding', here, y, h });
        y += h;
      }
    });
    height = y + 24;
    space.style.height = `${height}px`;
  }
  /** One line, or two if it is long. */
  function findingHeight(finding) {
    const room = timeline.clientWidth - width - 14;
    return finding.message.length * 8.2 + 40 > room ? 56 : 36;
  }
  /** The first item that ends below a height. */
  function itemAt(y) {
    let low = 0, high = items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (items[middle].y + items[middle].h < y) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  /** Where a virtual time is. */
  function yOfTime(ms) {
    let low = 0, high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].t < ms) low = middle + 1;
      else high = middle;
    }
    return low < rows.length ? yOf[low] : height;
  }

  const space = el('div', '');
  space.id = 'space';
  const drawing = svg('svg', { 'aria-hidden': 'true' });
  timeline.append(space);

  function tone(index) {
    if (!state.past) return '';
    return state.past[index] ? ' past' : ' rest';
  }
  function text(content) {
    const query = state.query;
    if (!query) return [content];
    const parts = [], lower = content.toLowerCase();
    let from = 0;
    for (let at; (at = lower.indexOf(query, from)) >= 0; from = at + query.length) {
      parts.push(content.slice(from, at), el('mark', '', content.slice(at, at + query.length)));
    }
    return [...parts, content.slice(from)];
  }
  function nameOf(row) {
    return row.h === undefined ? '' : row.l > 1 ? `${hosts[row.h].name}.${row.l}` : hosts[row.h].name;
  }
  function drawRow({ index, first, y }) {
    const row = rows[index];
    const gap = el('span', 'gap');
    gap.style.width = `${width - TIME}px`;
    const it = el('div', `row ${row.k}${tone(index)}${index === state.selected ? ' selected' : ''}`,
      el('span', first ? 'at' : 'at same', seconds(row.t)), gap,
      el('span', 'host', nameOf(row)),
      el('span', 'text', el('span', 'sign', SIGNS[row.k]), ...text(row.x)));
    it.style.top = `${y}px`;
    it.id = `e${run.first + index}`;
    it.dataset.index = index;
    it.setAttribute('role', 'option');
    it.setAttribute('aria-selected', index === state.selected);
    return it;
  }
  function drawItem(item) {
    if (item.what === 'row') return drawRow(item);
    if (item.what === 'idle') {
      const gap = el('span', 'gap');
      gap.style.width = `${width - TIME}px`;
      const it = el('div', 'idle', el('span', 'at', '⋮'), gap, el('span', 'why', `nothing happens for ${span(item.ms)}`));
      it.style.top = `${item.y}px`;
      return it;
    }
    const [finding, ...others] = item.here;
    const gap = el('span', 'gap');
    gap.style.width = `${width - TIME}px`;
    const it = el('div', 'finding', el('span', 'at', seconds(finding.at_ms)), gap,
      el('span', 'what', el('span', 'cross', '×'), finding.message,
        others.length ? el('span', 'others', ` and ${others.length} more`) : null));
    it.style.top = `${item.y}px`;
    it.style.height = `${item.h}px`;
    it.title = finding.message;
    it.dataset.finding = findings.indexOf(finding);
    return it;
  }

  /** Draws lines, bands and arrows between two heights. */
  function draw(top, bottom) {
    const y = (value) => Math.max(top - 40, Math.min(bottom + 40, value)) - top;
    const out = [svg('defs', {},
      pattern('hatch-down', 6), pattern('hatch-half', 7))];
    out.push(svg('rect', { class: 'net', x: net.left, y: 0, width: net.right - net.left, height: bottom - top }));
    for (const it of place) {
      for (const lane of ['app', 'store', 'process']) {
        if (it[lane] === undefined || (lane === 'app' && it.app === it.process)) continue;
        const x = it[lane];
        out.push(svg('line', { class: lane === 'process' ? 'life-line' : 'side-line', x1: x, x2: x, y1: 0, y2: bottom - top }));
      }
    }
    for (const band of bands) {
      const host = hosts.findIndex((host) => host.name === band.host);
      const from = yOfTime(band.from_ms), to = yOfTime(band.to_ms);
      if (host < 0 || to < top || from > bottom) continue;
      const ofLink = LINK_TROUBLE.has(band.kind) && host < clients;
      const left = ofLink ? linkX(host) - LINK / 2 + 1 : place[host].left - 2;
      const wide = ofLink ? LINK - 2 : place[host].right - place[host].left + 4;
      out.push(svg('rect', { class: `band ${band.kind}`, x: left, width: wide, y: y(from), height: Math.max(4, y(to) - y(from)), rx: 3 }));
    }
    for (let at = itemAt(top); at < items.length && items[at].y < bottom; at++) {
      const item = items[at];
      if (item.what === 'idle') {
        const middle = item.y + item.h / 2 - top;
        let path = `M ${TIME + 4} ${middle}`;
        for (let x = TIME + 4, up = true; x < width - 8; x += 6, up = !up) path += ` l 6 ${up ? -5 : 5}`;
        out.push(svg('path', { class: 'zigzag', d: path }));
      }
    }
    for (const arrow of arrows) {
      const start = yOf[arrow.from ?? arrow.to], end = yOf[arrow.to ?? arrow.from];
      if (end < top - 60 || start > bottom + 60) continue;
      out.push(...drawArrow(arrow, start - top, end - top));
    }
    for (let at = itemAt(top); at < items.length && items[at].y < bottom; at++) {
      const item = items[at];
      if (item.what === 'row') out.push(...drawDot(item.index, item.y + ROW / 2 - top));
    }
    return out;
  }
  function pattern(id, size) {
    return svg('pattern', { id, width: size, height: size, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      svg('line', { class: id, x1: 0, y1: 0, x2: 0, y2: size }));
  }
  function drawDot(index, y) {
    const row = rows[index], cls = `dot ${row.k}${tone(index)}`;
    if (row.h === undefined) {
      const x = TIME + 6;
      return [
        svg('line', { class: `stepline${tone(index)}`, x1: x, x2: width - 6, y1: y, y2: y }),
        svg('path', { class: cls, d: `M ${x - 5} ${y} l 5 -5 l 5 5 l -5 5 z` }),
      ];
    }
    const x = xOf(row);
    switch (row.k) {
      case 'store': return [svg('rect', { class: cls, x: x - 4, y: y - 4, width: 8, height: 8, rx: 1 })];
      case 'app': return [svg('circle', { class: cls, cx: x, cy: y, r: 4.5 })];
      case 'life': return [svg('circle', { class: cls, cx: x, cy: y, r: 4 })];
      case 'mark': return [svg('circle', { class: cls, cx: x, cy: y, r: 2 })];
      case 'drop': return [svg('path', { class: cls, d: `M ${x - 4} ${y - 4} l 8 8 m 0 -8 l -8 8` })];
      default: return [svg('circle', { class: cls, cx: x, cy: y, r: 2.5 })];
    }
  }
  function drawArrow(arrow, start, end) {
    const past = state.past && state.past[arrow.from ?? arrow.to] && state.past[arrow.to ?? arrow.from];
    const selected = arrow.from === state.selected || arrow.to === state.selected;
    const cls = `${arrow.how}${state.past ? (past ? ' past' : ' rest') : ''}${selected ? ' selected' : ''}`;
    const from = arrow.from === undefined ? null : rows[arrow.from];
    const to = arrow.to === undefined ? null : rows[arrow.to];
    const x1 = from ? place[from.h].process : linkX(arrow.link);
    const x2 = to && arrow.how !== 'dropped' ? place[to.h].process : linkX(arrow.link);
    if (arrow.how === 'lost') end = start + ROW * 0.8;
    const out = [svg('line', { class: `arrow ${cls}`, x1, x2, y1: start, y2: end })];
    if (arrow.how === 'dropped' || arrow.how === 'lost') {
      out.push(svg('path', { class: `cross ${cls}`, d: `M ${x2 - 4} ${end - 4} l 8 8 m 0 -8 l -8 8` }));
    } else {
      const angle = Math.atan2(end - start, x2 - x1) * 180 / Math.PI;
      out.push(svg('path', { class: `head ${cls}`, d: 'M 0 0 l -8 -3.5 l 0 7 z', transform: `translate(${x2} ${end}) rotate(${angle})` }));
    }
    return out;
  }

  let drawn = null;
  function render() {
    drawn = null;
    const top = Math.max(0, timeline.scrollTop - OVERSCAN * ROW);
    const bottom = Math.min(height, timeline.scrollTop + timeline.clientHeight + OVERSCAN * ROW);
    const nodes = [];
    for (let at = itemAt(top); at < items.length && items[at].y < bottom; at++) nodes.push(drawItem(items[at]));
    drawing.setAttribute('width', width);
    drawing.setAttribute('height', bottom - top);
    drawing.style.top = `${top}px`;
    drawing.replaceChildren(...draw(top, bottom));
    space.replaceChildren(drawing, ...nodes);
    timeline.setAttribute('aria-activedescendant', `e${run.first + state.selected}`);
    drawMap();
  }
  function soon() {
    drawn ??= requestAnimationFrame(render);
  }

  /** The whole run at a glance: steps, drops, findings, and what is in view. */
  function drawMap() {
    const scale = devicePixelRatio, w = map.clientWidth, h = map.clientHeight;
    if (map.width !== w * scale || map.height !== h * scale) {
      map.width = w * scale;
      map.height = h * scale;
    }
    const context = map.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, w, h);
    const style = getComputedStyle(document.documentElement);
    const probe = getComputedStyle(map);
    const k = h / Math.max(height, 1);
    context.fillStyle = probe.color;
    context.globalAlpha = 0.12;
    context.fillRect(0, timeline.scrollTop * k, w, Math.max(6, timeline.clientHeight * k));
    context.globalAlpha = 1;
    const colour = (name) => resolve(style, name);
    const ticks = { step: [colour('--step'), 1, 6], drop: [colour('--bad'), 7, 8] };
    rows.forEach((row, index) => {
      const tick = ticks[row.k];
      if (!tick || yOf[index] < 0) return;
      context.fillStyle = tick[0];
      context.fillRect(tick[1], yOf[index] * k, tick[2], 1.5);
    });
    context.fillStyle = colour('--bad');
    for (const item of items) if (item.what === 'finding') context.fillRect(0, item.y * k - 1, w, 4);
  }
  /** The value of a colour for a canvas, which does not know `light-dark()`. */
  const swatch = el('span', '');
  swatch.hidden = true;
  document.body.append(swatch);
  function resolve(_, name) {
    swatch.style.color = `var(${name})`;
    return getComputedStyle(swatch).color;
  }

  function heads() {
    const at = (node, left, wide) => {
      node.style.left = `${left}px`;
      if (wide) node.style.width = `${wide}px`;
      return node;
    };
    const out = [at(el('div', 'time', 'seconds'), TIME - 56), at(el('div', 'words', 'what happened'), width + ($('stage').classList.contains('tight') ? 0 : 92))];
    hosts.forEach((host, index) => {
      const it = place[index];
      const middle = (it.left + it.right) / 2, wide = it.right - it.left + 10;
      out.push(at(el('div', 'host', host.name), middle - wide / 2, wide));
      if (it.app) out.push(at(el('div', 'lane', 'app'), it.app - 16, 32));
      if (it.store) out.push(at(el('div', 'lane', 'store'), it.store - 16, 32));
      if (it.process !== it.app) out.push(at(el('div', 'lane', 'net'), it.process - 13, 26));
    });
    out.push(at(el('div', 'host', 'network'), net.left - 10, net.right - net.left + 20));
    // Each client's link has a column of its own there.
    for (let host = 0; host < clients && clients > 1; host++) {
      out.push(at(el('div', 'lane', hosts[host].name.replace(/^.*-/, '')), linkX(host) - LINK / 2, LINK));
    }
    $('heads').replaceChildren(...out);
  }

  /** What a row says, where it came from and how everything stood. */
  function tell(index) {
    const row = rows[index];
    const out = [el('h2', '', nameOf(row) || 'the world', el('span', 'dim', KINDS[row.k]), el('span', 'at', `${seconds(row.t)} s`))];
    const here = findings.filter((finding) => finding.row === index);
    for (const finding of here.slice(0, FINDINGS_MAX)) {
      out.push(el('p', 'finding-text', `× ${finding.message}`, el('span', 'dim', ` ${finding.checker}`)));
    }
    if (here.length > FINDINGS_MAX) out.push(el('p', 'dim', `and ${here.length - FINDINGS_MAX} more findings here`));
    out.push(el('p', 'mono', row.x));
    if (row.s) out.push(el('p', 'mono dim', row.s));
    if (row.w) out.push(el('pre', '', pretty(row.w)));
    for (const arrow of arrowsOf.get(index) ?? []) {
      if (arrow.how === 'lost') out.push(el('p', 'dim', 'This frame never arrived: its connection ended first.'));
    }
    const on = bands.filter((band) => band.from_ms <= row.t && row.t < band.to_ms);
    if (on.length) {
      out.push(el('h3', '', 'In force'));
      for (const band of on) out.push(el('p', '', `${band.host}: ${band.what}`, el('span', 'dim', ` (${seconds(band.from_ms)} to ${seconds(band.to_ms)} s)`)));
    }
    list(out, 'Came from', row.c ?? []);
    list(out, 'Led to', effects[index]);
    out.push(el('h3', '', 'How everything stood'), stateTable(index));
    details.replaceChildren(...out);
  }
  const LIST_MAX = 12, FINDINGS_MAX = 5;
  function list(out, title, indices) {
    if (!indices.length) return;
    out.push(el('h3', '', title));
    for (const index of indices.slice(0, LIST_MAX)) {
      const row = rows[index];
      const jump = el('button', 'jump', el('span', 'at', `${seconds(row.t)} `), `${nameOf(row)} ${SIGNS[row.k]} ${row.x}`);
      jump.type = 'button';
      jump.title = row.x;
      jump.addEventListener('click', () => select(index, true));
      out.push(jump);
    }
    if (indices.length > LIST_MAX) out.push(el('p', 'dim', `and ${indices.length - LIST_MAX} more`));
  }
  function pretty(whole) {
    try {
      return JSON.stringify(JSON.parse(whole), null, 2);
    } catch {
      return whole;
    }
  }
  /** The newest word of each host's store and application at a row. */
  function stateTable(index) {
    const table = el('table', '');
    hosts.forEach((host, place) => {
      for (const kind of ['life', 'store', 'app']) {
        let at = index;
        while (at >= 0 && !(rows[at].h === place && rows[at].k === kind)) at--;
        if (at < 0) continue;
        const head = kind === 'life' ? host.name : `  ${kind}`;
        table.append(el('tr', at === index ? 'changed' : '', el('th', '', head), el('td', '', rows[at].x)));
      }
    });
    return table;
  }

  function focusOn(index) {
    state.focus = index;
    state.past = index === null ? null : pastOf(index);
    if (state.onlyPast || index === null) layOut();
  }
  function isHidden(index) {
    return (!state.marks && rows[index].k === 'mark') || (state.onlyPast && state.past && !state.past[index]);
  }
  /** Moves a row into view: where a share of what is seen is above it. */
  function reveal(index, share) {
    const y = yOf[index], view = timeline.clientHeight;
    const below = findings.some((finding) => finding.row === index) ? 56 : 0;
    if (share !== undefined) timeline.scrollTop = y - view * share;
    else if (y - 2 * ROW < timeline.scrollTop) timeline.scrollTop = y - 2 * ROW;
    else if (y + below + 2 * ROW > timeline.scrollTop + view) timeline.scrollTop = y + below + 2 * ROW - view;
  }
  function select(index, jump) {
    state.selected = index;
    reveal(index, jump && (yOf[index] < timeline.scrollTop || yOf[index] > timeline.scrollTop + timeline.clientHeight) ? 0.5 : undefined);
    tell(index);
    history.replaceState(null, '', `#e${run.first + index}`);
    soon();
  }
  function move(by) {
    let index = state.selected;
    do index += by; while (index >= 0 && index < rows.length && isHidden(index));
    if (index >= 0 && index < rows.length) select(index);
  }
  function toViolation() {
    if (!findings.length) return;
    // The next one, if this one is already looked at.
    const known = findings.findIndex((finding) => finding.row === state.selected && finding.row === state.focus);
    const finding = findings[(known + 1) % findings.length];
    focusOn(finding.row);
    state.selected = finding.row;
    reveal(finding.row, 0.6);
    select(finding.row);
  }
  function relayOut() {
    const offset = yOf[state.selected] - timeline.scrollTop;
    layOut();
    if (isHidden(state.selected)) move(1);
    timeline.scrollTop = yOf[state.selected] - offset;
    soon();
  }
  function search(query, forward) {
    state.query = query.toLowerCase();
    state.found = [];
    if (state.query) {
      rows.forEach((row, index) => {
        if (!isHidden(index) && `${nameOf(row)} ${row.x}`.toLowerCase().includes(state.query)) state.found.push(index);
      });
    }
    if (!state.found.length) {
      hits.textContent = state.query ? 'nothing' : '';
      return soon();
    }
    const next = forward > 0
      ? state.found.find((index) => index > state.selected) ?? state.found[0]
      : forward < 0
        ? state.found.findLast((index) => index < state.selected) ?? state.found.at(-1)
        : state.found.find((index) => index >= state.selected) ?? state.found[0];
    hits.textContent = `${state.found.indexOf(next) + 1} of ${state.found.length}`;
    select(next, true);
  }

  const keys = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    g: () => select(0, true), G: () => select(rows.length - 1, true),
    PageDown: () => page(1), PageUp: () => page(-1),
    Enter: () => { focusOn(state.focus === state.selected ? null : state.selected); soon(); },
    Escape: () => { state.onlyPast = false; focusOn(null); search('', 0); input.value = ''; relayOut(); },
    v: toViolation, n: () => search(input.value, 1), N: () => search(input.value, -1),
    m: () => { state.marks = !state.marks; relayOut(); },
    p: () => { if (!state.past) focusOn(state.selected); state.onlyPast = !state.onlyPast; relayOut(); },
    t: switchTheme, '/': () => { input.focus(); input.select(); },
  };
  function page(by) {
    timeline.scrollTop += by * (timeline.clientHeight - 2 * ROW);
    const y = timeline.scrollTop + timeline.clientHeight / 2;
    const near = items.slice(itemAt(y)).find((item) => item.what === 'row') ?? items.findLast((item) => item.what === 'row');
    if (near) select(near.index);
  }
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === input) {
      if (event.key === 'Enter') { search(input.value, event.shiftKey ? -1 : 1); event.preventDefault(); }
      if (event.key === 'Escape') { input.value = ''; search('', 0); timeline.focus(); }
      return;
    }
    if (event.target instanceof HTMLButtonElement && event.key === 'Enter') return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  input.addEventListener('input', () => search(input.value, 0));
  timeline.addEventListener('scroll', soon, { passive: true });
  timeline.addEventListener('click', (event) => {
    const row = event.target.closest('.row'), finding = event.target.closest('.finding');
    if (row) select(Number(row.dataset.index));
    if (finding) { focusOn(findings[finding.dataset.finding].row); select(state.focus); }
  });
  timeline.addEventListener('dblclick', (event) => { if (event.target.closest('.row')) keys.Enter(); });
  timeline.addEventListener('mouseover', (event) => {
    const row = event.target.closest('.row');
    if (row) tell(Number(row.dataset.index));
  });
  timeline.addEventListener('mouseleave', () => tell(state.selected));
  map.addEventListener('pointerdown', (event) => {
    const go = (event) => { timeline.scrollTop = event.offsetY / map.clientHeight * height - timeline.clientHeight / 2; };
    go(event);
    map.setPointerCapture(event.pointerId);
    map.onpointermove = go;
    map.onpointerup = () => { map.onpointermove = null; };
  });
  addEventListener('resize', () => { arrange(); heads(); relayOut(); reveal(state.selected); });
  addEventListener('theme', soon);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', soon);
  for (const more of document.querySelectorAll('.more')) more.addEventListener('toggle', soon);

  arrange();
  heads();
  if (findings.length) focusOn(findings[0].row);
  layOut();
  const linked = Number(/^#e(\d+)$/.exec(location.hash)?.[1] ?? NaN) - run.first;
  if (linked >= 0 && linked < rows.length) state.selected = linked;
  if (rows.length) {
    if (findings.length || state.selected) reveal(state.selected, 0.6);
    tell(state.selected);
  }
  timeline.focus({ preventScroll: true });
  render();
  // How long it took from the first byte, for whoever measures it.
  document.documentElement.dataset.ready = Math.round(performance.now());
})();
