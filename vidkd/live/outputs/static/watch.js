// Everything is asked for in short requests: a browser opens six connections to a server at most,
// for all its windows together, so that pictures that never end would stop each other.

const POLL = 500, BETWEEN_PICTURES = 60, KEPT = 100, SILENT = 3;
const cards = new Map(), events = new Map();
let since = 0, told = 0, run;
const byId = (id) => document.getElementById(id);
const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };
const seconds = (value) => value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(1)} s`;
const clock = (value) => new Date(value).toLocaleTimeString([], { hour12: false });

function duration(value) {
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(value / 60), rest = String(Math.floor(value % 60)).padStart(2, "0");
  return minutes < 60 ? `${minutes}:${rest} min` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")} h`;
}

class Card {
  constructor(source) {
    this.node = byId("source").content.firstElementChild.cloneNode(true);
    this.image = this.node.querySelector("img");
    this.image.alt = `live picture of ${source.source}`;
    this.rates = [];
    byId("sources").append(this.node);
    this.number = source.number;
    this.film();
  }

  async film() {
    for (;;) {
      if (!document.hidden && (this.live || (this.there && !this.image.src))) {
        const next = new Image();
        next.src = `/live/${this.number}.jpg?${Date.now()}`;
        try { await next.decode(); this.image.src = next.src; } catch { /* the next one may come */ }
      }
      await new Promise((done) => setTimeout(done, this.live ? BETWEEN_PICTURES : POLL));
    }
  }

  show(source) {
    const find = (name) => this.node.querySelector(name);
    const waiting = source.time === null, silent = source.silent > SILENT;
    this.there = !waiting;
    this.live = !waiting && !silent;
    this.node.classList.toggle("live", this.live);
    text(find(".name"), source.source);
    find(".name").title = source.source;
    find(".notice").hidden = this.live;
    text(find(".notice"), waiting ? "waiting for the first picture" : `no picture for ${duration(source.silent)}`);
    const now = performance.now();
    this.rates = [...this.rates.filter(([when]) => now - when < 5000), [now, source.frames]];
    const [[when, frames]] = this.rates;
    const rate = now > when ? 1000 * (source.frames - frames) / (now - when) : null;
    text(find(".rate"), rate === null ? "" : `${rate.toFixed(1)} frames/s`);
    const parts = [];
    if (source.delay_p50 !== null && source.delay_p50 !== undefined) {
      parts.push(`delay ${seconds(source.delay_p50)}, 99 % below ${seconds(source.delay_p99)}`);
    }
    if (source.skipped_snippets) parts.push(`${source.skipped_snippets} snippets skipped`);
    if (source.skipped_frames) parts.push(`${source.skipped_frames} frames skipped`);
    if (source.reconnects) parts.push(`${source.reconnects} reconnects`);
    text(find(".counts"), parts.join(" · ") || "no scores yet");
    const open = new Set(source.open.map((event) => event.label));
    const body = find("tbody");
    while (body.rows.length > source.scores.length) body.deleteRow(-1);
    source.scores.forEach(([label, score, colour], number) => {
      let row = body.rows[number];
      if (!row) {
        row = body.insertRow();
        row.append(...[0, 1, 2].map(() => document.createElement("td")));
        row.cells[1].append(document.createElement("meter-bar"));
        row.cells[1].firstChild.append(document.createElement("span"));
      }
      row.classList.toggle("open", open.has(label));
      text(row.cells[0], label);
      row.cells[0].title = label;
      const bar = row.cells[1].firstChild.firstChild;
      bar.style.width = `${100 * Math.min(Math.max(score, 0), 1)}%`;
      bar.style.background = colour;
      text(row.cells[2], score.toFixed(2));
    });
  }
}

function take(event) {
  since = Math.max(since, event.id);
  const key = `${event.number} ${event.source}`;
  let entry = events.get(key);
  if (!entry) {
    const node = document.createElement("li");
    for (const [tag, name] of [["i"], ["span", "label"], ["b"], ["small"]]) {
      const part = document.createElement(tag);
      if (name) part.className = name;
      node.append(part);
    }
    entry = { node, certain: false };
    events.set(key, entry);
    byId("events").prepend(node);
    told += 1;
    if (events.size > KEPT) {
      const [oldest, { node: last }] = events.entries().next().value;
      last.remove();
      events.delete(oldest);
    }
  }
  entry.certain ||= event.state === "certain";
  entry.event = event;
  const [mark, label] = entry.node.children;
  mark.style.background = event.colour;
  text(label, event.label);
  label.title = event.label;
}

function drawEvents() {
  for (const { node, event, certain } of events.values()) {
    const ended = event.end !== null, begun = Date.parse(event.started);
    node.classList.toggle("now", !ended);
    node.classList.toggle("short", ended && !certain);
    const [, , score, detail] = node.children;
    text(score, event.score.toFixed(2));
    const long = ended ? event.end - event.start : Math.max(0, (Date.now() - begun) / 1000);
    const state = ended ? (certain ? "" : ", too short to count") : (certain ? ", goes on" : ", not certain yet");
    text(detail, `${clock(begun)} · ${duration(long)}${state} · ${event.source}`);
    detail.title = detail.textContent;
  }
  byId("none").hidden = events.size > 0;
  text(byId("count"), told ? String(told) : "");
}

async function poll() {
  try {
    const answer = await fetch(`/api/now?since=${since}`, { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const state = await answer.json();
    run ??= state.run;
    if (state.run !== run) location.reload();  // another watch has begun
    for (const source of state.sources) {
      if (!cards.has(source.source)) cards.set(source.source, new Card(source));
      cards.get(source.source).show(source);
    }
    state.events.forEach(take);
    drawEvents();
    text(byId("contact"), `${state.sources.length} source${state.sources.length === 1 ? "" : "s"}`);
    byId("contact").className = "";
    document.documentElement.dataset.ready = "";
  } catch {
    for (const card of cards.values()) { card.live = false; card.node.classList.remove("live"); }
    text(byId("contact"), "The watch does not answer. It may have ended; this page goes on when it is back.");
    byId("contact").className = "bad";
  }
  setTimeout(poll, POLL);
}
poll();
