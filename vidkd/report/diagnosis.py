"""The pictures and the page of a diagnosis (``vidkd.evaluation.diagnosis``)."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from vidkd.evaluation.detad import ERRORS, KINDS
from vidkd.evaluation.diagnosis import Diagnosis
from vidkd.evaluation.reliability import Reliability
from vidkd.files import atomic_path, write_text
from vidkd.report.segments import clock
from vidkd.report.timeline import INK, plain

COLOURS = dict(
    zip(KINDS, ("#10b981", "#8b5cf6", "#3b82f6", "#f59e0b", "#ec4899", "#9ca3af"), strict=True)
)
EXPLAINED = {
    "double": "a better detection already has this action",
    "wrong border": "the right class, but the borders fit too badly",
    "wrong class": "the borders fit an action of another class",
    "both": "touches an action of another class, and the borders fit badly",
    "background": "no action is there",
    "missed": "an action that no detection found",
}
_LISTED = 5000
"""Errors on the page; the JSON has all of them."""
_Error = tuple[str, str, str, float, float, float | None, str]
"""Kind, class, video, start, end, score and what it was compared with."""
_NAMES = 24
"""Classes that a confusion matrix can name; of more, those with the most errors are shown."""


def pictures(found: Diagnosis) -> dict[str, tuple[str, Figure]]:
    """Return by file name the caption and the figure of everything that can be drawn."""
    made = {
        "kinds": (
            "What the detections are, down the ranking of each class (G: its number of events),"
            " and the mAP gained when one kind of error is taken away.",
            _kinds(found),
        ),
        "events": (
            "Which events are missed, and how well those of one bin alone are found"
            " (normalised mAP, which does not depend on how many there are).",
            _events(found),
        ),
        "confusion-segments": (
            "Events (rows) and detections at the threshold (columns).",
            _confusion(found.segment_confusion, found.classes),
        ),
        "confusion-frames": (
            f"The same in moments: {found.frames}.",
            _confusion(found.frame_confusion, found.classes),
        ),
    }
    reliable = {
        "detections": found.segment_reliability,
        "dense scores": found.frame_reliability,
    }
    known = {name: item for name, item in reliable.items() if item is not None}
    if known:
        made["reliability"] = (
            "How often scores are right; on the diagonal a score is a probability. Dots without"
            " a line rest on fewer than ten scores.",
            _reliability(known),
        )
    return made


def write_diagnosis(
    folder: Path, found: Diagnosis, *, title: str, address: str = "http://127.0.0.1:8765/"
) -> None:
    """Write the pictures and ``index.html``, which needs no other file.

    Args:
        folder: where to.
        found: the diagnosis.
        title: the result's name.
        address: of the viewer, which the errors link to as ``#video=ID&t=SECONDS``.

    Raises:
        VidkdError: a file cannot be written.
    """
    shown = []
    for name, (caption, figure) in pictures(found).items():
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=130, facecolor="white")
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(data.getvalue())
        text = base64.b64encode(data.getvalue()).decode()
        shown.append(
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{text}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    write_text(folder / "index.html", _page(found, title, address, "\n".join(shown)))


def _kinds(found: Diagnosis) -> Figure:
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    base = np.zeros(len(found.profile))
    places = np.arange(1, len(base) + 1)
    for number, kind in enumerate(KINDS):
        share = 100 * np.nan_to_num(found.profile[:, number])
        left.bar(places, share, 0.8, bottom=base, color=COLOURS[kind], label=kind)
        base += share
    left.set_xticks(places, [f"{n}G" for n in places])
    plain(left, "detections by rank in their class, %")
    figure.legend(loc="outside lower center", ncols=len(KINDS), frameon=False, fontsize=8)
    gains = [100 * found.impact[kind] for kind in ERRORS]
    right.barh(range(len(ERRORS)), gains, color=[COLOURS[kind] for kind in ERRORS])
    right.set_yticks(range(len(ERRORS)), ERRORS)
    right.invert_yaxis()
    for number, gain in enumerate(gains):
        right.annotate(
            f"{gain:+.1f}", (max(gain, 0), number), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    right.set_xlim(min(0, *gains), max(1, *gains) * 1.2)
    plain(right, f"points of mAP gained (now {100 * found.map:.1f})")
    return figure


def _events(found: Diagnosis) -> Figure:
    names = list(found.characteristics)
    figure = Figure(figsize=(3.4 * len(names), 5.4), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False, sharey="row")
    for column, name in enumerate(names):
        bins = [item for item in found.characteristics[name] if item.events]
        places = np.arange(len(bins))
        labels = [f"{item.name}\n({item.events})" for item in bins]
        for shift, (text, colour, missed) in enumerate(
            (
                ("by all detections", "#3b82f6", [item.missed for item in bins]),
                ("at the threshold", "#f59e0b", [item.missed_at_threshold for item in bins]),
            )
        ):
            share = [
                100 * m / b.events if b.events else 0 for m, b in zip(missed, bins, strict=True)
            ]
            axes[0][column].bar(places + 0.4 * shift - 0.2, share, 0.4, color=colour, label=text)
        axes[1][column].bar(
            places, [100 * np.nan_to_num(item.normalised_map) for item in bins], color="#10b981"
        )
        for row, title in ((0, "missed, %"), (1, "normalised mAP, %")):
            axes[row][column].set_xticks(places, labels, rotation=30, ha="right")
            plain(axes[row][column], f"{title}, by {name}")
    axes[0][0].legend(frameon=False, fontsize=8)
    return figure


def _confusion(table: np.ndarray, classes: Sequence[str]) -> Figure:
    names = [*classes, "nothing"]
    if len(names) > _NAMES:
        wrong = table.sum(axis=0) + table.sum(axis=1) - 2 * np.diag(table)
        chosen = sorted(np.argsort(-wrong[:-1], kind="stable")[: _NAMES - 1].tolist())
        chosen.append(len(classes))
        table, names = table[np.ix_(chosen, chosen)], [names[k] for k in chosen]
    side = 2.6 + 0.42 * len(names)
    figure = Figure(figsize=(side, side * 0.85), layout="constrained")
    axes = figure.subplots()
    total = table.sum(axis=1, keepdims=True)
    share = np.divide(table, total, out=np.zeros(table.shape), where=total > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(table), strict=True):
        axes.annotate(
            f"{table[row, column]:.0f}", (column, row), ha="center", va="center", fontsize=7,
            color="white" if share[row, column] > 0.6 else INK,
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylabel("true", fontsize=9, color=INK)
    axes.set_xlabel("detected", fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    return figure


def _reliability(known: dict[str, Reliability]) -> Figure:
    figure = Figure(figsize=(4.4 * len(known), 4.2), layout="constrained")
    for axes, (name, item) in zip(
        figure.subplots(1, len(known), squeeze=False)[0], known.items(), strict=True
    ):
        enough = item.count >= 10
        axes.plot((0, 1), (0, 1), ":", color="#9ca3af")
        axes.plot(item.score[enough], item.correct[enough], "-", color="#3b82f6")
        axes.plot(item.score, item.correct, "o", color="#3b82f6", markersize=4)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("mean score of the bin", fontsize=9, color=INK)
        axes.set_ylabel("share that is right", fontsize=9, color=INK)
        plain(axes, f"{name}: expected calibration error {item.error:.3f}")
    return figure


def _page(found: Diagnosis, title: str, address: str, figures: str) -> str:
    rows: list[_Error] = []
    for item in found.detections:
        if item.score >= found.threshold and item.kind in ERRORS:
            event = f"{item.event[0]} {_span(*item.event[1:])}" if item.event else ""
            rows.append(
                (item.kind, item.label, item.video, item.start, item.end, item.score, event)
            )
    for miss in found.missed():
        event = "" if miss.score is None else "found below the threshold"
        rows.append(("missed", miss.label, miss.video, miss.start, miss.end, miss.score, event))
    number = {kind: sum(row[0] == kind for row in rows) for kind in (*ERRORS, "missed")}
    listed = "\n".join(_row(row, address) for row in rows[:_LISTED])
    more = f"<p>The first {_LISTED} of {len(rows)} errors.</p>" if len(rows) > _LISTED else ""
    counts = found.counts(seen=True)
    boxes = "".join(
        f'<label title="{EXPLAINED[kind]}"><input type="checkbox" checked value="{kind}">'
        f"{kind} ({number[kind]})</label>"
        for kind in number
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found.notes)
    return _TEMPLATE.format(
        title=html.escape(title),
        style=_STYLE,
        map=f"{100 * found.map:.1f}",
        tiou=f"{found.tiou:g}",
        threshold=f"{found.threshold:.3g}",
        right=counts[KINDS[0]],
        wrong=sum(counts[kind] for kind in ERRORS),
        events=len(found.events),
        missed=number["missed"],
        figures=figures,
        notes=f"<ul>{notes}</ul>" if notes else "",
        boxes=boxes,
        rows=listed,
        more=more,
        script=_SCRIPT,
        address=html.escape(address),
    )


def _row(row: _Error, address: str) -> str:
    kind, label, video, start, end, score, event = row
    text: Callable[[str], str] = html.escape
    colour = COLOURS.get(kind, "#ef4444")
    link = f"{address}#video={quote(video, safe='')}&t={max(start, 0):.2f}"
    shown = "" if score is None else f"{score:.3f}"
    return (
        f'<tr data-kind="{kind}"><td><i style="background:{colour}"></i>'
        f"{kind}<td>{text(label)}<td>{text(video)}"
        f'<td data-value="{start}"><a target="vidkd-view" href="{text(link)}">'
        f"{_span(start, end)}</a>"
        f'<td data-value="{-1 if score is None else score}">{shown}<td>{text(event)}'
    )


def _span(start: float, end: float) -> str:
    return f"{clock(start)} to {clock(end)}"


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1f2937;max-width:1080px}
body{margin:24px auto;padding:0 16px}
h1{font-size:22px} h2{font-size:18px;margin-top:32px} figure{margin:16px 0} img{max-width:100%}
figcaption{color:#4b5563;font-size:13px} table{border-collapse:collapse;width:100%;font-size:13px}
td,th{padding:3px 8px;border-bottom:1px solid #e5e7eb;text-align:left} th{cursor:pointer}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid #3b82f6}
i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
label{margin-right:14px;white-space:nowrap} a{color:#1d4ed8}
"""
_SCRIPT = """
const body = document.querySelector('tbody');
document.querySelectorAll('input').forEach(box => box.onchange = () => {
  const on = new Set([...document.querySelectorAll('input:checked')].map(b => b.value));
  for (const row of body.rows) row.hidden = !on.has(row.dataset.kind);
});
document.querySelectorAll('th').forEach((head, n) => head.onclick = () => {
  const down = head.ariaSort === 'ascending';
  document.querySelectorAll('th').forEach(h => h.ariaSort = null);
  head.ariaSort = down ? 'descending' : 'ascending';
  const value = row => row.cells[n].dataset.value ?? row.cells[n].textContent;
  const rows = [...body.rows].sort((a, b) =>
    value(a).localeCompare(value(b), undefined, {numeric: true}) * (down ? -1 : 1));
  if (rows[0]?.cells[n].dataset.value !== undefined)
    rows.sort((a, b) => (value(a) - value(b)) * (down ? -1 : 1));
  body.append(...rows);
});
"""
_TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: where it goes wrong</title><style>{style}</style>
<h1>{title}: where it goes wrong</h1>
<p>mAP {map} at a tIoU of {tiou}. At scores from {threshold}: {right} detections are right and
{wrong} wrong; {missed} of {events} events are missed.</p>
{notes}
<h2>Pictures</h2>
{figures}
<h2>Every error at scores from {threshold}</h2>
<p>Times open the video there, at {address}, while <code>vidkd view</code> runs.</p>
<p>{boxes}</p>
<table><thead><tr><th><button>kind</button><th><button>class</button><th><button>video</button>
<th><button>time</button><th><button>score</button>
<th><button>event that it was compared with</button>
</thead><tbody>
{rows}
</tbody></table>{more}
<script>{script}</script></html>
"""
