"""The page of a model on the hub: ``README.md`` with a head in YAML, as the hub reads it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from vidkd import __version__
from vidkd.hub import CARD, PREFIX
from vidkd.networks.cards import zoo_card
from vidkd.sharing.model import SharedModel

_TASKS = {
    "student": "video-classification",
    "encoder": "video-classification",
    "pose detector": "keypoint-detection",
}
"""The closest of the tasks that the hub knows; it has none for detection in time."""


def command(model: SharedModel, repo: str) -> str:
    """Return the command that uses a model of the hub, with the hash that it has now."""
    digest = next(iter(model.digests.values()))[1]
    name = f"'{PREFIX}{repo}#sha256={digest}'"
    if model.kind == "student" and all(card for _, card in model.encoders):
        return f"vidkd detect VIDEO.mp4 --model {name} --output actions.json"
    if model.kind == "student":
        return f"vidkd detect --features FEATURES.h5 --model {name} --output actions.json"
    if model.kind == "pose detector":
        return f"vidkd extract-pose VIDEOS --cache CACHE --detector {name}"
    assert model.card is not None
    return (
        f"vidkd extract-features VIDEOS --cache CACHE --modality {model.card.modality}"
        f" --encoder {name}"
    )


def model_card(model: SharedModel, repo: str, licence: str | None, data: str | None) -> str:
    """Write the page.

    Args:
        model: what is shared.
        repo: ``OWNER/NAME``.
        licence: as the hub calls it, such as ``mit``; None where the owner does not say.
        data: what the model was trained on, in the owner's words.
    """
    head = {
        **({"license": licence} if licence else {}),
        "library_name": "vidkd",
        "pipeline_tag": _TASKS[model.kind],
        "tags": ["vidkd", *_tags(model)],
        **({"base_model": bases} if (bases := _bases(model)) else {}),
        **({"metrics": ["map"], "model-index": [_index(model, repo)]} if model.results else {}),
    }
    sections = {
        "Use": _use(model, repo),
        "Classes": _classes(model),
        "Data": _data(model, data),
        "Results": _results(model),
        "How it was made": _table(_made(model)),
        "Licence": _licence(model, licence),
        "Files": _files(model),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items() if body)
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n# {_text(repo.partition('/')[2])}\n\n{_about(model)}\n\n{text}\n"


def _about(model: SharedModel) -> str:
    if model.kind == "student":
        count = f"{len(model.classes)} action{'s' * (len(model.classes) != 1)}"
        streams = " and ".join(dict.fromkeys(item["modality"] for item in model.students))
        several = f" {len(model.students)} fused students" if len(model.students) > 1 else ""
        seen = "the RGB frames alone" if streams == "rgb" else f"{streams}, made of the RGB frames"
        who = several.strip().capitalize() or "A student"
        verb = "find" if several else "finds"
        return f"{who} of vidkd that {verb} {count} in long, untrimmed video from {seen}."
    if model.card is not None:
        return f"An encoder of vidkd: {_text(model.card.description)}."
    return "A pose detector of vidkd (LCR-Net++ style): people with 13 joints in 2D and 3D."


def _tags(model: SharedModel) -> list[str]:
    if model.kind == "student":
        teachers = any(item["teachers"] for item in model.students)
        extra = ["knowledge-distillation"] if teachers else []
        return ["action-detection", "temporal-action-localization", *extra]
    return ["pose-estimation"] if model.kind == "pose detector" else ["feature-extraction"]


def _bases(model: SharedModel) -> list[str]:
    """Return the models of the hub that the encoders were made of."""
    cards = [model.card, *(card for _, card in model.encoders)]
    made = [c.source for c in cards if c is not None and c.network == "transformers"]
    return sorted({source for source in made if re.fullmatch(r"[\w.-]+/[\w.-]+", source)})


def _use(model: SharedModel, repo: str) -> str:
    extra = "hub,transformers" if _needs(model, "transformers") else "hub"
    return (
        f"```\npip install 'vidkd[{extra}]'\n{command(model, repo)}\n```\n\nThe hash is that of"
        f" `{next(iter(model.files))}`: another file is refused. Without it, whatever the hub has"
        " now is taken. All files are safetensors; no code of this model runs."
    )


def _needs(model: SharedModel, network: str) -> bool:
    cards = [model.card, *(card for _, card in model.encoders)]
    return any(card is not None and card.network == network for card in cards)


def _classes(model: SharedModel) -> str:
    return ", ".join(map(_text, model.classes))


def _data(model: SharedModel, data: str | None) -> str:
    own = [item["training_data"] for item in model.students] or [model.header.get("training_data")]
    rows = []
    for item in own:
        for key, value in (item if isinstance(item, dict) else {}).items():
            if not isinstance(value, dict):
                rows.append((key.replace("_", " "), _value(value)))
    said = _text(data) if data else ""
    return "\n\n".join(part for part in (said, _table(dict.fromkeys(rows))) if part)


def _results(model: SharedModel) -> str:
    rows = []
    for item in model.results:
        protocol = f"{item['protocol']}, {item.get('subset') or 'all videos'}"
        note = f"{item.get('videos')} videos, {item.get('segments')} segments"
        rows += [(protocol, name, f"{100 * value:.1f}", note) for name, value in _metrics(item)]
    notes = "In per cent. What each protocol measures: docs/protocols.md of vidkd."
    parts = [f"{_table(rows, ('protocol', 'measure', 'value', 'on'))}\n\n{notes}"] if rows else []
    training = model.training or {}
    score = training.get("validation_map")
    if isinstance(score, float):
        parts.append(
            f"In training, on validation videos ({training.get('validation_videos', '?')}), which"
            f" chose the epoch: mAP {100 * score:.1f}."
        )
    detector = (model.header.get("training_data") or {}).get("validation")
    if isinstance(detector, dict):
        parts.append(_table((key, _value(value)) for key, value in detector.items()))
    return "\n\n".join(parts) or "None are known."


def _metrics(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the mAP of a result, by tIoU where it is one of events, as shares."""
    found = result["map"]
    for name, value in found.items() if isinstance(found, dict) else [("", found)]:
        if isinstance(value, int | float):
            yield (f"event mAP@{name}" if name else "frame mAP"), float(value)


def _index(model: SharedModel, repo: str) -> dict[str, Any]:
    return {
        "name": repo.partition("/")[2],
        "results": [
            {
                "task": {"type": _TASKS[model.kind], "name": "temporal action detection"},
                "dataset": {
                    "name": f"own videos, {item.get('subset') or 'all'}",
                    "type": f"sha256-{str(item.get('ground_truth_sha256'))[:16]}",
                },
                "metrics": [
                    {"type": "map", "name": f"{name} ({item['protocol']})", "value": value}
                    for name, value in _metrics(item)
                ],
            }
            for item in model.results
        ],
    }


def _made(model: SharedModel) -> list[tuple[str, str]]:
    rows = []
    for item in model.students:
        frames, snippet, kind = item["frames"], item["snippet"], item["filter"]
        teachers = "; ".join(item["teachers"]) or "none"
        rows += [
            ("stream", item["modality"]),
            ("encoder", f"{item['encoder']} (weights {item['encoder_sha256'][:12]})"),
            ("temporal filter", f"{kind['kind']}, {kind['channels']} channels"),
            ("teachers", teachers),
            (
                "frames",
                f"{frames['short_side']} pixels, crop {item['crop']}, "
                + (f"{frames['frame_rate']} frames/s" if frames["frame_rate"] else "all of them"),
            ),
            ("snippets", f"{snippet['length']} frames, every {snippet['stride']}"),
        ]
    if (card := model.card) is not None:
        rows += [
            ("network", card.network),
            ("features", f"{card.feature_dim} of {card.modality}"),
            ("made of", card.source),
            ("hash of the weights", str(model.header.get("weights_sha256"))),
        ]
    if model.kind == "pose detector":
        rows += [(key, _value(value)) for key, value in dict(model.header["settings"]).items()]
        rows.append(("hash of the weights", str(model.header.get("weights_sha256"))))
    rows.append(("written by", f"vidkd {__version__}"))
    return rows


def _licence(model: SharedModel, licence: str | None) -> str:
    parts = [f"Of these files: {licence or 'its owner does not say; ask before you use it'}."]
    for name, text in model.licences.items():
        comes = "not in these files, fetched by vidkd" if zoo_card(name) else "in these files"
        parts.append(f"Of the network {_text(name)} ({comes}): {_text(text)}.")
    if model.non_commercial(held=False):
        parts.append("**Not for commercial use**, since a network that it needs is not.")
    return "\n\n".join(parts)


def _files(model: SharedModel) -> str:
    rows = [(name, size, digest) for name, (size, digest) in model.digests.items()]
    return _table(rows, ("file", "bytes", "SHA-256")) + f"\n\nAnd `{CARD}`, this page."


def _table(rows: Iterable[Sequence[object]], columns: Sequence[str] = ("what", "value")) -> str:
    """Write a table of Markdown, or nothing without rows."""
    lines = [f"| {' | '.join(_text(str(cell)) for cell in row)} |" for row in rows]
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *lines]) if lines else ""


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(text: str) -> str:
    """Write a name of the user's in Markdown, as text and nothing else, on one line."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
    return escaped.replace(r"\_", "_") if re.fullmatch(r"[\w .,:;()%/-]*", text) else escaped
