// Sends a video, follows its job, and shows what was found. The job is in the address (#ID), so
// that the page can be left and loaded again.

const at = (id) => document.getElementById(id);
let about = { largest: Infinity };
let shown = "";
let upload = null;

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = `${String(Math.floor(tenths / 600) % 60).padStart(2, "0")}:` +
    `${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
  return tenths >= 36000 ? `${Math.floor(tenths / 36000)}:${rest}` : rest;
}

function show(name, text, share) {
  at("job").hidden = false;
  if (name !== null) at("name").textContent = name;
  at("state").textContent = text;
  at("progress").hidden = share === undefined;
  if (share === null) at("progress").removeAttribute("value");
  else if (share !== undefined) at("progress").value = share;
}

function clear() {
  for (const id of ["page", "result", "segments"]) at(id).hidden = true;
  at("segments").tBodies[0].replaceChildren();
}

async function problem(answer) {
  try {
    const content = await answer.json();
    return typeof content.detail === "string" ? content.detail : "the request makes no sense";
  } catch {
    return `the server answered with ${answer.status}`;
  }
}

function send(file) {
  clear();
  shown = "";
  history.replaceState(null, "", "/");
  if (file.size > about.largest) {
    show(file.name, `The video has more than ${Math.round(about.largest / 1e6)} MB.`);
    return;
  }
  // XMLHttpRequest, since fetch does not say how much was sent.
  upload?.abort();
  const request = upload = new XMLHttpRequest();
  request.open("POST", `/jobs?name=${encodeURIComponent(file.name.slice(-300))}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.upload.onprogress = (event) =>
    show(file.name, "Sending", event.lengthComputable ? event.loaded / event.total : null);
  request.onerror = () => show(file.name, "The server broke off, or is not there.");
  request.onload = () => {
    upload = null;
    let content = {};
    try { content = JSON.parse(request.responseText); } catch { /* said below */ }
    if (request.status === 202) location.hash = content.id;
    else show(file.name, `Not taken: ${content.detail ?? request.status}.`);
  };
  show(file.name, "Sending", null);
  request.send(file);
}

async function fetchAddress(url) {
  clear();
  const answer = await fetch("/jobs", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ url }),
  });
  if (answer.status === 202) location.hash = (await answer.json()).id;
  else show(url, `Not taken: ${await problem(answer)}.`);
}

async function follow(id) {
  clear();
  shown = id;
  while (shown === id) {
    let wait = 1000;
    try {
      const answer = await fetch(`/jobs/${id}`);
      if (shown !== id) return;
      if (answer.status === 404) {
        show("", "There is no such job; finished ones are removed after a while.");
        return;
      }
      const job = await answer.json();
      if (job.state === "failed") {
        show(job.name, `Failed: ${job.problem}.`);
        return;
      }
      if (job.state === "done") {
        if (at("segments").hidden) await result(id, job);
        at("page").hidden = !job.page;
        at("page").href = `/jobs/${id}/page`;
        if (job.page || !about.pages) return;
        wait = 2000;
      } else {
        const before = job.position ? `${job.position} before it` : "it is next";
        const text = { fetching: "Fetching", queued: `Waiting, ${before}`, running: "Working" };
        show(job.name, text[job.state], job.state === "running" ? job.progress : null);
      }
    } catch {
      show(null, "The server does not answer; trying again.", null);
      wait = 3000;
    }
    await new Promise((resume) => setTimeout(resume, wait));
  }
}

async function result(id, job) {
  const answer = await fetch(`/jobs/${id}/result`);
  if (!answer.ok || shown !== id) return;
  const found = Object.values((await answer.json()).results)[0];
  const count = found.length === 1 ? "1 action" : `${found.length} actions`;
  show(job.name, found.length ? `${count} in ${clock(job.duration)}` :
    "No action reaches the threshold.");
  at("result").hidden = false;
  at("result").href = `/jobs/${id}/result`;
  at("result").download = `${job.name}.json`;
  at("segments").hidden = !found.length;
  for (const item of found) {
    const row = at("segments").tBodies[0].insertRow();
    const cells = [item.label, clock(item.segment[0]), clock(item.segment[1]),
      item.score.toFixed(2)];
    for (const text of cells) row.insertCell().textContent = text;
  }
}

at("file").onchange = () => { if (at("file").files[0]) send(at("file").files[0]); };
at("address").onsubmit = (event) => { event.preventDefault(); fetchAddress(at("url").value); };
at("remove").onclick = async () => {
  upload?.abort();
  if (shown) await fetch(`/jobs/${shown}`, { method: "DELETE" });
  shown = "";
  history.replaceState(null, "", "/");
  at("file").value = "";
  at("job").hidden = true;
};
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
}
window.onhashchange = () => { if (location.hash.length > 1) follow(location.hash.slice(1)); };

about = await (await fetch("/about")).json();
const some = about.classes.slice(0, 12).join(", ");
at("about").textContent = `${about.model} knows ${about.classes.length} actions: ${some}` +
  `${about.classes.length > 12 ? ", ..." : ""}. Up to ${Math.round(about.largest / 1e6)} MB and ` +
  `${about.minutes} minutes.`;
at("address").hidden = !about.urls;
window.onhashchange();
