// The tracks on a canvas: only what is visible is drawn, at the resolution of the screen.

const NAMES = 150; // pixels for the names of classes
const EDGE = 6; // pixels around a border in which it can be dragged
const BAR = 13;
const GAP = 6;
const LANE = 23; // of a model: its curve, and its detections at the foot of it
const FOOT = 9;

export class Timeline {
  /**
   * @param elements {ruler, tracks, tall, canvas}
   * @param view {duration, start, end, time, rate, rows, models, selected, threshold, draft}; rows
   *   are {label, truth: [], items: [[]], curves: []}
   * @param on {seek, select, move, add, row}
   */
  constructor(elements, view, on) {
    Object.assign(this, elements);
    this.view = view;
    this.on = on;
    this.pending = false;
    new ResizeObserver(() => this.resize()).observe(this.tracks);
    this.tracks.addEventListener("scroll", () => this.draw());
    this.tracks.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.ruler.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.ruler.addEventListener("pointerdown", (event) => this.scrub(event, this.ruler));
  }

  get rowHeight() { return BAR + 3 + this.view.models.length * LANE + GAP; }
  get scale() { return (this.width - NAMES) / (this.view.end - this.view.start); }
  x(second) { return NAMES + (second - this.view.start) * this.scale; }
  second(x) { return this.view.start + (x - NAMES) / this.scale; }
  inside(second) { return Math.min(Math.max(second, 0), this.view.duration); }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.width = this.tracks.clientWidth;
    this.height = this.tracks.clientHeight;
    for (const [canvas, height] of [[this.canvas, this.height], [this.ruler, 44]]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.draw();
  }

  /** Draw before the next picture of the screen, however often it is called. */
  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      if (this.width > NAMES) this.paint();
    });
  }

  zoom(factor, around = this.view.time) {
    const { start, end, duration } = this.view;
    const span = Math.min(duration, Math.max(0.5, (end - start) * factor));
    const share = (around - start) / (end - start);
    this.show(around - Math.min(1, Math.max(0, share)) * span, span);
  }

  show(start, span = this.view.end - this.view.start) {
    this.view.start = Math.max(0, Math.min(start, this.view.duration - span));
    this.view.end = this.view.start + span;
    this.draw();
  }

  /** Keep a second visible. */
  follow(second) {
    const { start, end } = this.view;
    if (second < start || second > end) this.show(second - (end - start) * 0.1);
  }

  reveal(row) {
    if (row < 0) return;
    const top = row * this.rowHeight;
    const { scrollTop } = this.tracks;
    if (top < scrollTop) this.tracks.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + this.height)
      this.tracks.scrollTop = top + this.rowHeight - this.height;
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.002), this.second(event.offsetX));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.show(this.view.start + (event.deltaX || event.deltaY) / this.scale);
    }
  }

  /** What is below a point of the tracks: {row, lane, item, edge}. */
  hit(x, y) {
    const top = y + this.tracks.scrollTop;
    const row = Math.floor(top / this.rowHeight);
    const below = top - row * this.rowHeight - GAP / 2 - BAR - 3;
    const lane = below < 0 ? 0 : 1 + Math.floor(below / LANE);
    const content = this.view.rows[row];
    if (!content || lane > this.view.models.length || x < NAMES) return { row };
    const items = lane === 0 ? content.truth : content.items[lane - 1];
    let best = null;
    for (const item of items) {
      const [left, right] = [this.x(item.start), this.x(item.end)];
      if (x < left - EDGE || x > right + EDGE) continue;
      const near = Math.min(Math.abs(x - left), Math.abs(x - right));
      const within = x >= left && x <= right;
      // Of a narrow bar the middle third selects.
      const reach = Math.min(EDGE, Math.max(2, (right - left) / 3));
      let edge = null;
      if (near <= (within ? reach : EDGE)) edge = Math.abs(x - left) < Math.abs(x - right) ? "start" : "end";
      const rank = [item === this.view.selected ? 0 : 1, within ? 0 : 1, near];
      if (!best || rank < best.rank) best = { row, lane, item, edge, rank };
    }
    return best ?? { row, lane };
  }

  hover(event) {
    if (event.buttons) return;
    const found = this.hit(event.offsetX, event.offsetY);
    this.canvas.style.cursor = found.edge ? "ew-resize" : found.item ? "pointer" : "default";
    const { item } = found;
    this.canvas.title = item
      ? `${item.label}  ${item.start.toFixed(2)} – ${item.end.toFixed(2)} s` +
        (item.score == null ? "" : `  score ${item.score.toFixed(3)}`)
      : event.offsetX < NAMES ? (this.view.rows[found.row]?.label ?? "") : "";
  }

  press(event) {
    if (event.button !== 0) return;
    this.tracks.focus({ preventScroll: true });
    const found = this.hit(event.offsetX, event.offsetY);
    const row = this.view.rows[found.row];
    if (event.offsetX < NAMES) {
      if (row) this.on.row(row.label);
    } else if (event.shiftKey && row) this.addByDrag(event, row);
    else if (found.item && found.edge) this.moveByDrag(event, found);
    else if (found.item) {
      this.on.select(found.item);
      this.on.seek(this.inside(this.second(event.offsetX)));
    } else this.scrub(event, this.canvas);
  }

  drag(event, target, move, done = () => {}) {
    target.setPointerCapture(event.pointerId);
    const moved = (next) => move(this.inside(this.second(next.offsetX)));
    const up = () => {
      target.removeEventListener("pointermove", moved);
      target.removeEventListener("pointerup", up);
      target.removeEventListener("pointercancel", up);
      done();
    };
    target.addEventListener("pointermove", moved);
    target.addEventListener("pointerup", up);
    target.addEventListener("pointercancel", up);
  }

  scrub(event, target) {
    if (event.button !== 0) return;
    if (target === this.ruler && event.offsetY > 30) {
      const place = (x) => ((x - NAMES) / (this.width - NAMES)) * this.view.duration;
      const go = (x) => this.show(place(x) - (this.view.end - this.view.start) / 2);
      go(event.offsetX);
      this.drag(event, target, (second) => go(this.x(second)));
      return;
    }
    const go = (second) => this.on.seek(second);
    go(this.inside(this.second(event.offsetX)));
    this.drag(event, target, go);
  }

  frame(second) { return Math.round(second * this.view.rate) / this.view.rate; }

  moveByDrag(event, { item, edge }) {
    this.on.select(item);
    const draft = { item, start: item.start, end: item.end };
    let far = false;
    const from = event.offsetX;
    this.drag(event, this.canvas, (second) => {
      // A press that trembles is a click, not a change.
      if (!far && Math.abs(this.x(second) - from) < 3) return;
      far = true;
      const least = 1 / this.view.rate;
      if (edge === "start") draft.start = Math.max(0, Math.min(this.frame(second), item.end - least));
      else draft.end = Math.max(this.frame(second), item.start + least);
      this.view.draft = draft;
      this.on.seek(draft[edge]);
    }, () => {
      this.view.draft = null;
      if (far) this.on.move(item, { start: draft.start, end: draft.end });
      this.draw();
    });
  }

  addByDrag(event, row) {
    const from = this.frame(this.inside(this.second(event.offsetX)));
    const draft = { row: row.label, start: from, end: from };
    this.drag(event, this.canvas, (second) => {
      const to = this.frame(second);
      [draft.start, draft.end] = [Math.min(from, to), Math.max(from, to)];
      this.view.draft = draft;
      this.on.seek(to);
    }, () => {
      this.view.draft = null;
      if (draft.end > draft.start) this.on.add(row.label, draft.start, draft.end);
      this.draw();
    });
  }

  paint() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => this.colours[name];
    this.colours ??= {};
    for (const name of ["back", "card", "line", "text", "quiet", "accent", "truth", "bad", "chosen"]) {
      // Only a used value is resolved for the theme, so it is asked of an element's colour.
      this.probe ??= document.body.appendChild(document.createElement("i"));
      this.probe.hidden = true;
      this.probe.style.color = `var(--${name})`;
      this.colours[name] = getComputedStyle(this.probe).color;
    }
    this.font = style.fontFamily || "system-ui, sans-serif";
    this.tall.style.height = `${this.view.rows.length * this.rowHeight}px`;
    this.paintRuler(this.ruler.getContext("2d"), colour);
    this.paintTracks(this.canvas.getContext("2d"), colour);
  }

  paintRuler(pen, colour) {
    const { view, width } = this;
    pen.fillStyle = colour("back");
    pen.fillRect(0, 0, width, 44);
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "middle";
    const least = 80 / this.scale;
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    const step = steps.find((item) => item >= least) ?? 7200;
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("quiet");
    pen.beginPath();
    for (let n = Math.ceil(view.start / step - 1e-9); n * step <= view.end; n++) {
      const x = Math.round(this.x(n * step)) + 0.5;
      pen.moveTo(x, 20);
      pen.lineTo(x, 28);
      pen.fillText(clock(n * step, step < 1 ? 1 : 0), x + 3, 12);
    }
    pen.stroke();
    // The window on the whole video.
    const whole = width - NAMES;
    pen.fillStyle = colour("line");
    pen.fillRect(NAMES, 34, whole, 5);
    const left = NAMES + (view.start / view.duration) * whole;
    pen.fillStyle = colour("quiet");
    pen.fillRect(left, 34, Math.max(4, ((view.end - view.start) / view.duration) * whole), 5);
    pen.fillStyle = colour("accent");
    pen.fillRect(NAMES + (view.time / view.duration) * whole - 1, 32, 2, 9);
    const x = this.x(view.time);
    if (x >= NAMES && x <= width) {
      pen.beginPath();
      pen.moveTo(x - 5, 20); pen.lineTo(x + 5, 20); pen.lineTo(x, 28);
      pen.fill();
    }
  }

  paintTracks(pen, colour) {
    const { view, width, height } = this;
    pen.fillStyle = colour("card");
    pen.fillRect(0, 0, width, height);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "middle";
    const scroll = this.tracks.scrollTop;
    const first = Math.max(0, Math.floor(scroll / this.rowHeight));
    const last = Math.min(view.rows.length, Math.ceil((scroll + height) / this.rowHeight));
    for (let n = first; n < last; n++) this.paintRow(pen, colour, view.rows[n], n * this.rowHeight - scroll);
    if (!view.rows.length) {
      pen.fillStyle = colour("quiet");
      pen.fillText("No class to show: lower the threshold, or show all classes", NAMES, 24);
    }
    const x = Math.round(this.x(view.time)) + 0.5;
    if (x >= NAMES) {
      pen.strokeStyle = colour("accent");
      pen.beginPath(); pen.moveTo(x, 0); pen.lineTo(x, height); pen.stroke();
    }
  }

  paintRow(pen, colour, row, top) {
    const { view, width } = this;
    if (row.label === view.row) {
      pen.fillStyle = colour("chosen");
      pen.fillRect(0, top, NAMES - 6, this.rowHeight);
    }
    pen.fillStyle = colour("text");
    pen.save();
    pen.beginPath(); pen.rect(0, top, NAMES - 10, this.rowHeight); pen.clip();
    pen.fillText(row.label, 12, top + this.rowHeight / 2);
    pen.restore();
    pen.save();
    pen.beginPath(); pen.rect(NAMES, top, width - NAMES, this.rowHeight); pen.clip();
    view.models.forEach((model, m) => {
      const base = top + GAP / 2 + BAR + 3 + m * LANE;
      if (row.curves[m]) this.paintCurve(pen, row.curves[m], base, model.colour);
      this.paintItems(pen, colour, row.items[m], base, model.colour, false);
    });
    this.paintItems(pen, colour, row.truth, top + GAP / 2, colour("truth"), true);
    if (view.draft && (view.draft.row ?? view.draft.item.label) === row.label) {
      const { start, end } = view.draft;
      pen.strokeStyle = colour("text");
      pen.setLineDash([4, 3]);
      pen.strokeRect(this.x(start), top + GAP / 2, (end - start) * this.scale, BAR);
      pen.setLineDash([]);
    }
    pen.restore();
    pen.strokeStyle = colour("line");
    pen.beginPath();
    pen.moveTo(0, Math.round(top + this.rowHeight) - 0.5);
    pen.lineTo(width, Math.round(top + this.rowHeight) - 0.5);
    pen.stroke();
  }

  /** The highest score in each column of pixels, as an area. */
  paintCurve(pen, { borders, scores, offset, rows }, top, colour) {
    const { view } = this;
    let t = Math.max(0, firstAfter(borders, view.start) - 1);
    const tall = LANE - 4, bottom = top + tall;
    pen.beginPath();
    pen.moveTo(this.x(borders[t] ?? 0), bottom);
    while (t < rows && borders[t] <= view.end) {
      const x = this.x(borders[t]);
      let high = scores[offset + t];
      do {
        high = Math.max(high, scores[offset + t]);
        t++;
      } while (t < rows && this.x(borders[t + 1]) - x < 1);
      pen.lineTo(x, bottom - high * tall);
      pen.lineTo(this.x(borders[t]), bottom - high * tall);
    }
    pen.lineTo(this.x(borders[t] ?? borders[rows]), bottom);
    pen.fillStyle = colour;
    pen.globalAlpha = 0.25;
    pen.fill();
    // Where a column of pixels has several rows, an outline would be a thicket.
    if (this.scale * (borders[1] - borders[0]) > 1) {
      pen.strokeStyle = colour;
      pen.globalAlpha = 0.6;
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  paintItems(pen, colour, items, top, fill, truth) {
    const { view } = this;
    let covered = -Infinity;
    for (const item of items) {
      if (item.start > view.end) break;
      if (item.end < view.start) continue;
      const left = this.x(item.start);
      const right = Math.max(left + 2, this.x(item.end));
      if (right <= covered && right - left < 3 && item !== view.selected) continue;
      covered = Math.max(covered, right);
      const tall = truth ? BAR : FOOT, y = truth ? top : top + LANE - 4 - FOOT;
      pen.globalAlpha = truth ? 0.9 : item.decision === "rejected" ? 0.12 : 0.35 + 0.6 * Math.min(1, item.score ?? 1);
      pen.fillStyle = fill;
      pen.fillRect(left, y, right - left, tall);
      pen.globalAlpha = 1;
      if (right - left > 3) {
        pen.strokeStyle = fill;
        pen.strokeRect(Math.round(left) + 0.5, y + 0.5, Math.max(1, right - left - 1), tall - 1);
      }
      if (item.decision === "accepted" && right - left > 12) {
        pen.fillStyle = colour("card");
        pen.fillText("✓", left + 3, y + tall / 2);
      }
      if (item.decision === "rejected") {
        pen.strokeStyle = colour("bad");
        pen.beginPath(); pen.moveTo(left, y + tall / 2); pen.lineTo(right, y + tall / 2); pen.stroke();
      }
    }
    const item = view.selected;
    if (item && items.includes(item)) {
      pen.strokeStyle = colour("text");
      pen.lineWidth = 2;
      const left = this.x(item.start);
      const tall = truth ? BAR : FOOT;
      const y = truth ? top : top + LANE - 4 - FOOT;
      pen.strokeRect(left, y, Math.max(3, this.x(item.end) - left), tall);
      pen.lineWidth = 1;
    }
  }
}

function firstAfter(values, wanted) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function clock(second, digits = 2) {
  const whole = Math.max(0, second);
  const [h, m] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  const s = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}
