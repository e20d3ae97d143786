// Where the page's data comes from: the server, or the page itself when it is one file.

export class Server {
  alone = false;

  async index() { return read("/api/index"); }
  async video(number) { return read(`/api/video/${number}`); }

  async scores(number, model) {
    const answer = await fetch(`/api/video/${number}/scores/${model}`);
    return answer.ok ? answer.arrayBuffer() : null;
  }

  async state(number) { return read(`/api/video/${number}/state`); }
  media(number) { return `/api/video/${number}/media`; }
  picture(number, second, size = "small") {
    return `/api/video/${number}/picture?t=${second.toFixed(3)}&size=${size}`;
  }

  async save(number, content) {
    const answer = await fetch(`/api/video/${number}/labels`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found.revision;
  }
}

/** One file: everything is inside, and changes stay in this browser until they are downloaded. */
export class Page {
  alone = true;

  constructor(content) {
    this.content = content;
    this.key = `vidkd ${location.pathname}`;
  }

  async index() { return this.content.index; }

  async video() {
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(this.key));
    } catch { /* a browser that keeps nothing for files */ }
    return { ...this.content.video, ...(kept ?? {}) };
  }

  async scores() {
    if (!this.content.scores) return null;
    return Uint8Array.from(atob(this.content.scores), (c) => c.charCodeAt(0)).buffer;
  }

  async state() { return { ready: true }; }
  media() { return this.content.media; }
  picture() { return null; }

  async save(number, { labels, reviewed }) {
    localStorage.setItem(this.key, JSON.stringify({ labels, reviewed }));
    return 0;
  }
}

async function read(address) {
  const answer = await fetch(address);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}
