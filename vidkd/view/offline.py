"""One file that shows a result from disk beside its video, without a server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from vidkd.detection.detector import DetectionResult
from vidkd.detection.segments import cell_borders
from vidkd.errors import VidkdError
from vidkd.files import write_text
from vidkd.view.playable import DIRECT, make, way
from vidkd.view.project import pack_scores
from vidkd.view.server import read_static

_MODULES = ("regroup.js", "edits.js", "source.js", "timeline.js", "app.js")
_CURVES = 40
"""Classes whose scores go into the page, besides those with segments; Kinetics has 400."""


def write_page(
    path: Path, result: DetectionResult, report: Callable[[float], None] = lambda share: None
) -> Path | None:
    """Write a page that shows a detection.

    Args:
        path: the page. The video is found from there by its relative path.
        result: what was found.
        report: is told the share of a copy that is done.

    Returns:
        The copy of the video beside the page that browsers play, or None where they play it as it
        is.

    Raises:
        VidkdError: a file cannot be written.
    """
    media, copy = result.info.path, None
    kind = way(media)
    if kind != DIRECT:
        media = copy = path.with_name(f"{path.stem}.mp4")
        if copy.exists() and copy.samefile(result.info.path):
            raise VidkdError(
                "would need a copy of its video under the video's own name",
                path=path,
                remedy="give --page another name",
            )
        make(result.info.path, copy, kind, report)
    write_text(path, _page(result, os.path.relpath(media.resolve(), path.resolve().parent)))
    return copy


def _page(result: DetectionResult, media: str) -> str:
    used = {item.label for item in result.segments}
    order = np.argsort(-result.scores.max(axis=0, initial=0.0), kind="stable")
    best = set(order[:_CURVES].tolist())
    kept = [k for k, name in enumerate(result.classes) if k in best or name in used]
    classes = [result.classes[k] for k in kept]
    scores = pack_scores(result.scores[:, kept], cell_borders(result.pts))
    name = Path(result.model).name
    content: dict[str, Any] = {
        "index": {
            "classes": classes,
            "models": [name],
            "save": "",
            "videos": [{"id": result.video_id, "number": 0, "best": [], "file": True}],
        },
        "video": {
            "id": result.video_id,
            "number": 0,
            "duration": result.duration,
            "rate": float(result.info.frame_rate),
            "file": Path(media).name,
            "models": [
                {
                    "name": name,
                    "classes": classes,
                    "dense": True,
                    "segments": [
                        [item.start, item.end, item.label, item.score] for item in result.segments
                    ],
                }
            ],
            "truth": [],
            "labels": [],
            "reviewed": [],
            "revision": 0,
        },
        "scores": base64.b64encode(scores).decode(),
        "media": quote(media.replace(os.sep, "/"), errors="surrogateescape"),
    }
    return one_file(content)


def one_file(content: dict[str, Any]) -> str:
    """Return the page as one file with its content inside, which no name in it can break out of."""
    script = "\n".join(
        re.sub(
            r"^export ", "", re.sub(r"^import .*\n", "", read_static(name), flags=re.M), flags=re.M
        )
        for name in _MODULES
    )
    style = read_static("style.css")
    # In a script element only "<" can end it or begin a comment; JSON may write it as an escape.
    data = json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
    )
    page = read_static("index.html")
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
    )
    page = page.replace('<link rel="stylesheet" href="/style.css">', f"<style>{style}</style>")
    page = page.replace('<script type="module" src="/app.js"></script>', "")
    return page.replace(
        "</body>",
        f'<script type="application/json" id="content">{data}</script>\n'
        f'<script type="module">{script}</script>\n</body>',
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
