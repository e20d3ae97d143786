// The page: puts data, timeline, video and corrections together.
import { Edits } from "./edits.js";
import { regroup, unpackScores } from "./regroup.js";
import { Page, Server } from "./source.js";
import { Timeline, clock } from "./timeline.js";

const COLOURS = ["#d98324", "#5b7fd6", "#a45fb5", "#2e9c9c", "#c25b76", "#8a7a3c"];
const KEYS = [
  ["Space", "play or pause"],
  ["← →", "one frame back or on (Shift: one second)"],
  ["↑ ↓", "previous or next segment"],
  ["A", "accept the detection"],
  ["R, Delete", "reject the detection, delete the label"],
  ["[ ]", "start or end of the segment is now"],
  ["N", "new label from here, of the chosen class"],
  ["L", "change the label's class"],
  ["+ − 0", "zoom in, out, whole video"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["PgUp PgDn", "previous or next video"],
  ["?", "these keys"],
];
const $ = (id) => document.getElementById(id);
const embedded = $("content");
const source = embedded ? new Page(JSON.parse(embedded.textContent)) : new Server();
const view = {
  duration: 1, start: 0, end: 1, time: 0, rate: 25, rows: [], models: [], selected: null, draft: null, row: null,
};
let index, current, edits, detections = [], dense = [], shown = [], opening = 0, saving = Promise.resolve();
let revision = 0, poll = 0, playable = false, stillTimer = 0;

const video = $("video");
const timeline = new Timeline(
  { ruler: $("ruler"), tracks: $("tracks"), tall: $("tall"), canvas: $("canvas") }, view,
  { seek, select, move, add, row: (label) => { view.row = label; timeline.draw(); } },
);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- Videos

function listVideos() {
  const wanted = $("find-video").value.toLowerCase();
  const order = $("sort-videos").value;
  const videos = index.videos.filter((item) => item.id.toLowerCase().includes(wanted));
  if (order === "detections") videos.sort((a, b) => b.detections - a.detections);
  if (order === "labels") videos.sort((a, b) => a.labels - b.labels);
  $("video-count").textContent = videos.length;
  $("video-list").replaceChildren(...videos.map(videoEntry));
}

const thumbnails = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    thumbnails.unobserve(target);
    target.src = target.dataset.address;
  }
}, { rootMargin: "100px" });

function counted(item) {
  const counts = [item.subset, `${item.detections} detections`, `${item.labels} labels`];
  if (!item.file) counts.push("no video file");
  return counts.filter(Boolean).join(" · ");
}

function videoEntry(item) {
  const head = element("button", { title: item.id }, element("strong", { textContent: item.id }),
    element("span", { className: "quiet", textContent: counted(item) }));
  head.addEventListener("click", () => open(item.number));
  const entry = element("div", { className: "entry" }, head);
  entry.setAttribute("role", "listitem");
  entry.dataset.number = item.number;
  if (current?.number === item.number) entry.classList.add("current");
  if (item.file && item.best.length) {
    const strip = element("div", { className: "strip" });
    for (const [start, end, label] of item.best) {
      const picture = element("img", { alt: "", loading: "lazy" });
      picture.dataset.address = source.picture(item.number, (start + end) / 2);
      thumbnails.observe(picture);
      const button = element("button", { title: `${label} ${clock(start)} – ${clock(end)}` }, picture,
        element("span", { textContent: label }));
      button.addEventListener("click", () => open(item.number, start));
      strip.append(button);
    }
    entry.append(strip);
  }
  return entry;
}

async function open(number, second = 0) {
  if (current?.number === number) { seek(second); return; }
  const mine = ++opening;
  await saving;
  let data;
  try {
    data = await source.video(number);
  } catch (error) { notice(error.message); return; }
  if (mine !== opening) return;
  current = data;
  revision = data.revision;
  edits = new Edits(data);
  dense = data.models.map(() => null);
  Object.assign(view, {
    duration: Math.max(data.duration, 0.1), rate: data.rate, start: 0, end: Math.max(data.duration, 0.1),
    time: second, selected: null, draft: null,
    models: data.models.map(({ name }, m) => ({ name, colour: COLOURS[m % COLOURS.length], shown: true })),
  });
  $("title").textContent = data.id;
  document.title = `${data.id} · vidkd view`;
  for (const entry of document.querySelectorAll(".entry"))
    entry.classList.toggle("current", Number(entry.dataset.number) === number);
  document.querySelector(".entry.current")?.scrollIntoView({ block: "nearest" });
  legend();
  refresh();
  load(mine);
  ticked();
  await Promise.all(data.models.map(async (model, m) => {
    if (!model.dense) return;
    const buffer = await source.scores(number, m);
    if (buffer && mine === opening) { dense[m] = unpackScores(buffer); refresh(); }
  }));
}

async function load(mine) {
  clearTimeout(poll);
  playable = false;
  video.removeAttribute("src");
  video.load();
  video.hidden = true;
  $("still").hidden = true;
  if (!current.file) { notice(current.problem ?? "There is no file of this video; give its folder with --videos"); return; }
  let state;
  try {
    state = await source.state(current.number);
  } catch (error) { if (mine === opening) notice(error.message); return; }
  if (mine !== opening) return;
  if (state.ready) {
    notice("");
    playable = true;
    video.hidden = false;
    video.src = source.media(current.number);
    video.playbackRate = Number($("speed").value);
    video.currentTime = view.time;
    return;
  }
  if (state.problem) notice(state.problem);
  else {
    notice(`Preparing the video for the browser: ${Math.round((state.progress ?? 0) * 100)} %. Pictures can be looked at meanwhile`);
    poll = setTimeout(() => load(mine), 400);
  }
  still();
}

/** While there is nothing to play, single pictures show what is at the current second. */
function still() {
  clearTimeout(stillTimer);
  if (playable || !current?.file || source.alone) return;
  stillTimer = setTimeout(() => {
    $("still").src = source.picture(current.number, view.time, "large");
    $("still").hidden = false;
  }, 60);
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// ---- What is shown

function refresh() {
  if (!current) return;
  const threshold = Number($("threshold").value);
  const anyDense = current.models.some((model) => model.dense);
  $("regroup").disabled = !anyDense;
  $("regroup-label").classList.toggle("quiet", !anyDense);
  const grouping = $("regroup").checked && anyDense;
  detections = current.models.map((model, m) => {
    let items = model.segments ?? [];
    if (dense[m] && (grouping || model.segments === null))
      items = regroup(dense[m], Math.max(threshold, 0.01)).map(([start, end, k, score]) => [start, end, model.classes[k], score]);
    else items = items.filter((item) => item[3] >= threshold);
    return items.map(([start, end, label, score]) => {
      const item = { start, end, label, score, model: model.name };
      item.decision = edits.decision(item);
      return item;
    });
  });
  const rows = new Map();
  const row = (label) => {
    if (!rows.has(label))
      rows.set(label, { label, truth: [], items: view.models.map(() => []), curves: [], best: 0 });
    return rows.get(label);
  };
  for (const label of index.classes) row(label);
  for (const item of edits.labels) row(item.label).truth.push(item);
  detections.forEach((items, m) => {
    if (!view.models[m].shown) return;
    for (const item of items) {
      const own = row(item.label);
      own.items[m].push(item);
      own.best = Math.max(own.best, item.score);
    }
  });
  current.models.forEach((model, m) => model.classes.forEach((label, k) => {
    if (dense[m] && view.models[m].shown)
      row(label).curves[m] = { borders: dense[m].borders, scores: dense[m].scores, rows: dense[m].rows, offset: k * dense[m].rows };
  }));
  const wanted = $("find-class").value.toLowerCase();
  const used = $("only-used").checked;
  const found = (item) => item.truth.length || item.items.some((items) => items.length);
  view.rows = [...rows.values()].filter((item) =>
    item.label.toLowerCase().includes(wanted) && (!used || wanted || found(item)));
  const order = $("sort-classes").value;
  if (order === "name") view.rows.sort((a, b) => a.label.localeCompare(b.label));
  if (order === "score") view.rows.sort((a, b) => b.best - a.best);
  const byStart = (a, b) => a.start - b.start || a.end - b.end;
  for (const item of view.rows) {
    item.truth.sort(byStart);
    for (const items of item.items) items.sort(byStart);
  }
  keepSelection();
  listSegments();
  inspector();
  $("undo").disabled = !edits.past.length;
  $("redo").disabled = !edits.future.length;
  $("classes").replaceChildren(...[...rows.keys()].map((value) => element("option", { value })));
  timeline.draw();
}

/** Detections are made anew, so the one that is selected is found again by what it says. */
function keepSelection() {
  const old = view.selected;
  if (!old) return;
  const all = old.model ? detections.flat() : edits.labels;
  view.selected = all.includes(old) ? old
    : all.find((item) => item.model === old.model && item.start === old.start && item.end === old.end && item.label === old.label) ?? null;
}

function listSegments() {
  const labels = new Set(view.rows.map((item) => item.label));
  shown = [...edits.labels, ...detections.filter((_, m) => view.models[m].shown).flat()].filter((item) => labels.has(item.label));
  const order = $("sort-segments").value;
  shown.sort((a, b) => a.start - b.start || a.end - b.end);
  if (order === "score") shown.sort((a, b) => (b.score ?? 2) - (a.score ?? 2));
  if (order === "class") shown.sort((a, b) => a.label.localeCompare(b.label));
  $("segment-count").textContent = shown.length;
  $("accept-all").disabled = !shown.some((item) => item.model && !item.decision);
  const few = shown.slice(0, 500);
  $("segments").replaceChildren(...few.map((item) => {
    const mark = element("i");
    mark.style.background = item.model ? view.models.find((model) => model.name === item.model).colour : "var(--truth)";
    const line = element("div", { className: `segment ${item.decision ?? ""}` }, mark,
      element("span", { textContent: (item.decision === "accepted" ? "✓ " : "") + item.label }),
      element("time", { textContent: `${clock(item.start)} – ${clock(item.end)}` }),
      element("b", { textContent: item.model ? item.score.toFixed(2) : "label" }));
    line.setAttribute("role", "option");
    line.item = item;
    line.setAttribute("aria-selected", item === view.selected);
    line.addEventListener("click", () => { select(item); seek(item.start); });
    return line;
  }));
  if (shown.length > few.length)
    $("segments").append(element("p", { className: "quiet", textContent: `and ${shown.length - few.length} more: filter them` }));
}

function inspector() {
  const item = view.selected;
  const box = $("selected");
  if (!item) {
    box.replaceChildren(element("p", { className: "quiet", textContent: "Choose a segment to accept, reject or change it; N starts a label here." }));
    return;
  }
  const name = element("input", { type: "text", value: item.label, id: "label" });
  name.setAttribute("list", "classes");
  name.setAttribute("aria-label", "Class");
  name.addEventListener("change", () => {
    if (name.value.trim() && name.value !== item.label) move(item, { label: name.value.trim() });
  });
  const border = (which) => {
    const input = element("input", { type: "number", value: item[which].toFixed(3), step: (1 / view.rate).toFixed(4), min: 0, id: `border-${which}` });
    input.setAttribute("aria-label", which);
    input.addEventListener("change", () => {
      const values = { start: item.start, end: item.end, [which]: Number(input.value) };
      if (input.value !== "" && values.start >= 0 && values.start < values.end) move(item, values);
      else input.value = item[which].toFixed(3);
    });
    return input;
  };
  const action = (text, run, main = false) => {
    const button = element("button", { textContent: text, className: main ? "main" : "" });
    button.addEventListener("click", run);
    return button;
  };
  const origin = item.model
    ? `${item.model} · score ${item.score.toFixed(3)}${item.decision ? ` · ${item.decision}` : ""}` : "label";
  box.replaceChildren(
    element("div", { className: "quiet", textContent: origin }),
    element("div", { className: "row" }, name),
    element("div", { className: "row" }, border("start"), "–", border("end"), "s"),
    element("div", { className: "row" }, ...(item.model
      ? [action("Accept", accept, true), action("Reject", reject)]
      : [action("Delete", reject)]),
    action("Play it", () => { seek(item.start); stopAt = item.end; video.play(); })),
  );
}

function legend() {
  const parts = [element("span", {}, element("i"), " labels")];
  parts[0].firstChild.style.background = "var(--truth)";
  view.models.forEach((model) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => { model.shown = box.checked; refresh(); });
    const mark = element("i");
    mark.style.background = model.colour;
    parts.push(element("label", {}, box, mark, model.name));
  });
  $("legend").replaceChildren(...parts);
}

// ---- Corrections

function changed(selected = view.selected) {
  view.selected = selected;
  refresh();
  if (selected) timeline.reveal(view.rows.findIndex((row) => row.label === selected.label));
  const number = current.number, own = current, content = edits.content();
  $("saved").className = "quiet";
  $("saved").textContent = "saving…";
  saving = saving.then(async () => {
    try {
      const next = await source.save(number, { ...content, revision, duration: own.duration });
      if (own === current) revision = next;
      $("saved").textContent = source.alone ? "kept in this browser" : `saved to ${index.save}`;
      const entry = index.videos.find((item) => item.number === number);
      if (entry) {
        entry.labels = content.labels.length;
        const line = document.querySelector(`.entry[data-number="${number}"] .quiet`);
        if (line) line.textContent = counted(entry);
      }
    } catch (error) {
      $("saved").className = "bad";
      $("saved").textContent = `not saved: ${error.message}`;
    }
  });
}

function move(item, values) {
  if (!item.model) changed(edits.change(item, values));
  else changed(edits.decide([item], "accepted", values));
}

function add(label, start, end) {
  const item = { start, end, label, score: null };
  edits.add(item);
  view.row = label;
  changed(item);
}

function accept() {
  const item = view.selected;
  if (!item?.model) return;
  edits.decide([item], "accepted");
  changed();
}

function reject() {
  const item = view.selected;
  if (!item) return;
  if (item.model) { edits.decide([item], "rejected"); changed(); }
  else { edits.remove(item); changed(null); }
}

function step(which) {
  if (edits[which]()) changed();
}

// ---- Time

let stopAt = Infinity;

function seek(second) {
  stopAt = Infinity;
  view.time = Math.min(Math.max(second, 0), view.duration);
  if (playable) {
    // One seek at a time: the next goes to where the pointer is by then.
    if (!video.seeking) video.currentTime = view.time;
  } else still();
  ticked();
}

video.addEventListener("seeked", () => {
  if (Math.abs(video.currentTime - view.time) > 0.5 / view.rate && video.paused) video.currentTime = view.time;
});

function ticked() {
  $("clock").textContent = `${clock(view.time)} / ${clock(view.duration, 0)}`;
  timeline.follow(view.time);
  timeline.draw();
  address();
}

let addressTimer = 0;
function address() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    const place = source.alone ? "" : `video=${encodeURIComponent(current.id)}&`;
    history.replaceState(null, "", `#${place}t=${view.time.toFixed(2)}`);
  }, 250);
}

function running() {
  if (!video.paused && !video.seeking) {
    view.time = Math.min(video.currentTime, view.duration);
    if (view.time >= stopAt) { video.pause(); stopAt = Infinity; }
    ticked();
  }
  requestAnimationFrame(running);
}

function play() {
  if (!playable) return;
  if (video.paused) video.play(); else video.pause();
}

for (const name of ["play", "pause"])
  video.addEventListener(name, () => { $("play").textContent = video.paused ? "Play" : "Pause"; });
video.addEventListener("pause", () => {
  if (video.seeking || !playable) return;
  view.time = Math.min(video.currentTime, view.duration);
  ticked();
});
video.addEventListener("error", () => {
  if (!video.hasAttribute("src")) return;
  playable = false;
  video.hidden = true;
  notice(source.alone ? "The video beside this page cannot be played; are both in one folder?" : "The browser cannot play this video");
  still();
});

// ---- Choosing

function select(item) {
  view.selected = item;
  if (item) {
    view.row = item.label;
    timeline.reveal(view.rows.findIndex((row) => row.label === item.label));
  }
  inspector();
  for (const line of $("segments").children) {
    const own = line.item === item;
    line.setAttribute("aria-selected", own);
    if (own) line.scrollIntoView({ block: "nearest" });
  }
  timeline.draw();
}

function neighbour(direction) {
  if (!shown.length) return;
  let place = shown.indexOf(view.selected);
  if (place < 0) {
    place = direction > 0 ? shown.findIndex((item) => item.start >= view.time) : shown.findLastIndex((item) => item.start < view.time);
    if (place < 0) return;
  } else place = Math.min(Math.max(place + direction, 0), shown.length - 1);
  select(shown[place]);
  seek(shown[place].start);
}

function otherVideo(direction) {
  const entries = [...document.querySelectorAll(".entry")];
  const place = entries.findIndex((entry) => entry.classList.contains("current"));
  const next = entries[place + direction];
  if (next) open(Number(next.dataset.number));
}

function frameStep(frames) {
  video.pause();
  // The middle of a frame, so that rounding never shows its neighbour.
  seek((Math.floor(view.time * view.rate + 1e-3) + frames + 0.5) / view.rate);
}

function border(which) {
  const item = view.selected;
  if (!item) return;
  const second = timeline.frame(view.time);
  const values = { start: item.start, end: item.end, [which]: second };
  if (values.start < values.end) move(item, values);
}

const ACTIONS = {
  " ": play,
  ArrowLeft: (event) => (event.shiftKey ? seek(view.time - 1) : frameStep(-1)),
  ArrowRight: (event) => (event.shiftKey ? seek(view.time + 1) : frameStep(1)),
  ArrowUp: () => neighbour(-1),
  ArrowDown: () => neighbour(1),
  a: accept, Enter: accept, r: reject, Delete: reject, Backspace: reject,
  "[": () => border("start"),
  "]": () => border("end"),
  n: () => {
    const label = view.row ?? view.rows[0]?.label ?? index.classes[0] ?? "action";
    const start = timeline.frame(Math.min(view.time, view.duration - 1 / view.rate));
    add(label, start, timeline.frame(Math.min(view.duration, start + 1)));
  },
  l: () => { $("label")?.select(); },
  "+": () => timeline.zoom(0.5), "=": () => timeline.zoom(0.5), "-": () => timeline.zoom(2),
  0: () => timeline.show(0, view.duration),
  PageUp: () => otherVideo(-1),
  PageDown: () => otherVideo(1),
  Escape: () => select(null),
  "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if ($("keys").open || !current) return;
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select");
  if (typing) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.id === "label")) event.target.blur();
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    event.preventDefault();
    step(event.shiftKey ? "redo" : "undo");
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y") { event.preventDefault(); step("redo"); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target.matches("button, input") && [" ", "Enter"].includes(event.key);
  const onRange = event.target.matches("input[type=range]") && event.key.startsWith("Arrow");
  const run = ACTIONS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!run || onButton || onRange) return;
  event.preventDefault();
  run(event);
});

// ---- Start

function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const second = Math.max(0, Number(wanted.get("t")) || 0);
  const id = wanted.get("video");
  const found = index.videos.find((item) => item.id === id) ?? (current ? null : index.videos[0]);
  if (found) return open(found.number, second);
  if (current && (!id || source.alone)) seek(second);
  return null;
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  timeline.draw();
  try { localStorage.setItem("vidkd theme", name); } catch { /* nothing is kept */ }
}

async function start() {
  document.body.classList.toggle("alone", source.alone);
  $("download").hidden = !source.alone;
  try { if (localStorage.getItem("vidkd theme")) theme(localStorage.getItem("vidkd theme")); } catch { /* as the system */ }
  $("key-table").replaceChildren(...KEYS.map(([keys, what]) =>
    element("tr", {}, element("td", {}, element("kbd", { textContent: keys })), element("td", { textContent: what }))));
  $("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    theme(now === "dark" ? "light" : "dark");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.draw());
  $("help").addEventListener("click", () => $("keys").showModal());
  $("undo").addEventListener("click", () => step("undo"));
  $("redo").addEventListener("click", () => step("redo"));
  $("play").addEventListener("click", play);
  video.addEventListener("click", play);
  $("speed").addEventListener("change", () => { video.playbackRate = Number($("speed").value); });
  $("zoom-in").addEventListener("click", () => timeline.zoom(0.5));
  $("zoom-out").addEventListener("click", () => timeline.zoom(2));
  $("zoom-all").addEventListener("click", () => timeline.show(0, view.duration));
  $("accept-all").addEventListener("click", () => {
    edits.decide(shown.filter((item) => item.model && !item.decision), "accepted");
    changed();
  });
  $("download").addEventListener("click", download);
  $("threshold").addEventListener("input", () => {
    $("threshold-value").textContent = Number($("threshold").value).toFixed(2);
    refresh();
  });
  for (const id of ["regroup", "only-used", "sort-classes"]) $(id).addEventListener("change", refresh);
  $("find-class").addEventListener("input", refresh);
  $("sort-segments").addEventListener("change", listSegments);
  $("find-video").addEventListener("input", listVideos);
  $("sort-videos").addEventListener("change", listVideos);
  window.addEventListener("hashchange", follow);
  try {
    index = await source.index();
  } catch (error) { notice(error.message); return; }
  listVideos();
  await follow();
  requestAnimationFrame(running);
  document.documentElement.dataset.ready = "yes";
}

function download() {
  const classes = [...new Set([...index.classes, ...edits.labels.map((item) => item.label)])];
  const annotations = edits.labels.map(({ start, end, label }) => ({ segment: [start, end], label }));
  const entry = { subset: "", duration: current.duration, fps: current.rate, annotations };
  const content = { version: "vidkd 1", classes, database: Object.fromEntries([[current.id, entry]]) };
  const link = element("a", {
    href: URL.createObjectURL(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" })),
    download: `${current.id.replaceAll(/[^\p{L}\p{N}._-]+/gu, "_")}.corrected.json`,
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

/** For tests and the console. */
window.vidkd = { view, regroup, unpackScores, get edits() { return edits; }, get detections() { return detections; }, timeline };
start();
