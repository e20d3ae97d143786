// What a person changes: labels and decisions on detections of one video, with undo and redo.

/** A label is {start, end, label, score}; a decision is kept under the key of its detection. */
export class Edits {
  constructor(state) {
    this.labels = state.labels.map(([start, end, label, score]) => ({ start, end, label, score }));
    this.reviewed = new Map(state.reviewed.map((item) => [decisionKey(...item), item]));
    this.past = [];
    this.future = [];
  }

  /** Replace labels and decisions; what was is one step of undo. */
  apply(labels, reviewed = this.reviewed) {
    this.past.push([this.labels, this.reviewed]);
    if (this.past.length > 500) this.past.shift();
    this.future = [];
    [this.labels, this.reviewed] = [labels, reviewed];
  }

  add(item) { this.apply([...this.labels, item]); }

  change(item, values) {
    const changed = { ...item, ...values };
    this.apply(this.labels.map((other) => (other === item ? changed : other)));
    return changed;
  }

  remove(item) { this.apply(this.labels.filter((other) => other !== item)); }

  /** Decide on detections at once; accepted ones become labels, changed by `values`. */
  decide(detections, decision, values = {}) {
    const reviewed = new Map(this.reviewed);
    const labels = [...this.labels];
    for (const item of detections) {
      const entry = [item.model, item.start, item.end, item.label, decision];
      const before = reviewed.get(decisionKey(...entry));
      if (before?.[4] === decision) continue;
      reviewed.set(decisionKey(...entry), entry);
      const { start, end, label } = item;
      if (decision === "accepted") labels.push({ start, end, label, score: null, ...values });
      else if (before) {
        const own = labels.findIndex((o) => o.start === start && o.end === end && o.label === label);
        if (own >= 0) labels.splice(own, 1);
      }
    }
    this.apply(labels, reviewed);
    return labels.at(-1);
  }

  decision(item) {
    return this.reviewed.get(decisionKey(item.model, item.start, item.end, item.label))?.[4];
  }

  undo() { return this.#step(this.past, this.future); }
  redo() { return this.#step(this.future, this.past); }

  #step(from, to) {
    const state = from.pop();
    if (!state) return false;
    to.push([this.labels, this.reviewed]);
    [this.labels, this.reviewed] = state;
    return true;
  }

  content() {
    const labels = this.labels.map((o) => [o.start, o.end, o.label, o.score ?? null]);
    return { labels, reviewed: [...this.reviewed.values()] };
  }
}

function decisionKey(model, start, end, label) {
  return JSON.stringify([model, start, end, label]);
}
