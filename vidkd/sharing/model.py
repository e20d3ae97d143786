"""What of a run goes to the hub: its files, and what is known of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.detection.fusion import load_models
from vidkd.detection.scorers import encoder_file
from vidkd.errors import UsageError, VidkdError
from vidkd.files import sha256
from vidkd.hub import MODEL_FILES, is_hub_name, main_file
from vidkd.networks.cards import find_card, trained_card, trained_file, weights_path, zoo_card
from vidkd.networks.fusion_weights import NETWORK as FUSION
from vidkd.networks.fusion_weights import load_fusion
from vidkd.networks.weights import checked_sha256, load_weights
from vidkd.pose.detector import NETWORK as DETECTOR
from vidkd.pose.detector import detector_file, load_network
from vidkd.recipe import ModelCard, pose_detector_cards

_NON_COMMERCIAL = re.compile(
    r"non.?commercial|not for commercial|\bnc\b|research only", re.IGNORECASE
)


@dataclass(frozen=True)
class SharedModel:
    """A model as it goes to the hub.

    Attributes:
        kind: a value of ``vidkd.hub.MODEL_FILES``.
        name: what it is called here.
        files: by their names there; the first says what the model is.
        header: of that file.
        students: headers of the student, or of all that a fused file holds; none for others.
        encoders: of the students, by name; None where vidkd has no such network.
        card: of an encoder; None for others.
        results: what ``evaluate --json`` wrote, one for each protocol.
        training: ``result.json`` of the run.
    """

    kind: str
    name: str
    files: dict[str, Path]
    header: dict[str, Any]
    students: tuple[dict[str, Any], ...] = ()
    encoders: tuple[tuple[str, ModelCard | None], ...] = ()
    card: ModelCard | None = None
    results: tuple[dict[str, Any], ...] = ()
    training: dict[str, Any] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """What it tells apart; nothing for pose detectors."""
        return tuple(map(str, self.header.get("classes") or ()))

    @property
    def digests(self) -> dict[str, tuple[int, str]]:
        """Bytes and SHA-256 of every file."""
        return {name: (path.stat().st_size, sha256(path)) for name, path in self.files.items()}

    @property
    def licences(self) -> dict[str, str]:
        """The licence of each network that the model is or needs, by its name."""
        cards = dict(self.encoders) | ({self.card.name: self.card} if self.card else {})
        found = {name: _licence(card) for name, card in cards.items() if card}
        if self.kind == "pose detector" and (own := pose_detector_cards().get(self.name)):
            found[own.name] = own.licence
        return found

    def non_commercial(self, *, held: bool) -> list[str]:
        """Return which of these may not be used commercially; ``held``: and are in the files."""
        inside = {self.name, *([self.card.name] if self.card else [])}
        if "encoder.safetensors" in self.files or self.header.get("network") == FUSION:
            inside |= {name for name, _ in self.encoders if zoo_card(name) is None}
        return [
            name
            for name, licence in self.licences.items()
            if is_non_commercial(licence) and (name in inside or not held)
        ]


def is_non_commercial(licence: str) -> bool:
    """Return whether a licence, by its name or its text, is for non-commercial use."""
    return _NON_COMMERCIAL.search(licence) is not None


def _licence(card: ModelCard) -> str:
    """Return the licence of a network, with that of the one it was made of."""
    text, seen = card.licence, {card.name}
    while match := re.match(r"as ([\w.-]+)", card.licence):
        try:
            card = find_card(match[1])
        except VidkdError:
            break  # the network it was made of is not on this machine
        if card.name in seen:
            break
        seen.add(card.name)
        text += f" ({card.name}: {card.licence})"
    return text


def read_model(source: Path, results: Sequence[Path] = ()) -> SharedModel:
    """Read a run folder, a file, or a model of this machine by its name, and check all of it.

    Args:
        source: what to share.
        results: files of ``evaluate --json``; by default what ``vidkd run`` measured.

    Raises:
        UsageError: there is no such model, or it is one that comes with vidkd.
        WeightsError: a file is damaged.
    """
    if is_hub_name(source):
        raise UsageError("is on the hub", path=source, remedy="give the model of this machine")
    path = main_file(source) if source.is_dir() else source
    if zoo_card(str(source)) is not None:
        path = weights_path(find_card(str(source)))
    if path is None or not path.is_file():
        named = trained_file(str(source))
        if named is None and str(source) in pose_detector_cards():
            named = detector_file(str(source))
        if named is None:
            raise UsageError(
                "there is no model to share",
                path=source,
                remedy=f"give a run folder with {' or '.join(MODEL_FILES)}, or such a file",
            )
        path = named
    state, header = load_weights(path)
    if zoo_card(str(header.get("card"))) is not None:
        raise UsageError(
            "comes from its makers, not from you",
            path=path,
            remedy=f"say `vidkd models fetch {header['card']}` to those who need it",
        )
    network = header["network"]
    run = path.absolute().parent
    training = _json(run / "result.json")
    name = run.name if path.name in MODEL_FILES else path.stem
    if network == DETECTOR:
        load_network(path)
        files = {"detector.safetensors": path}
        return SharedModel("pose detector", str(header["card"]), files, header, training=training)
    if "model_card" in header:
        card = trained_card(path, header)
        checked_sha256(state, header, path, "train or copy it again")
        files = {"encoder.safetensors": path}
        return SharedModel("encoder", card.name, files, header, card=card, training=training)
    files = {"weights.safetensors": path}
    if network == FUSION:
        students = load_fusion(path)[0]
        held = {s.header.encoder: s.encoder[1] for s in students if s.encoder is not None}
        cards = {name: trained_card(path, own) for name, own in held.items()}
    else:
        students = load_models([path]).students
        cards = {}
        if (encoder := encoder_file(students[0])) is not None:
            files["encoder.safetensors"] = encoder
            cards = {students[0].header.encoder: find_card(str(encoder))}
    encoders = {s.header.encoder: cards.get(s.header.encoder) for s in students}
    found = [_json(item) or {} for item in results] or [
        {**result, "subset": result.get("subset") or item.parent.name}
        for item in sorted((run.parents[1] / "evaluation" / name).glob("*/metrics.json"))
        for result in (_json(item) or {}).values()
        if isinstance(result, dict)
    ]
    for item, result in zip(results, found, strict=False):
        if not isinstance(result.get("protocol"), str) or "map" not in result:
            remedy = "give what `vidkd evaluate --json` printed"
            raise UsageError("holds no result of an evaluation", path=item, remedy=remedy)
    return SharedModel(
        "student",
        name,
        files,
        header,
        tuple(student.header.model_dump(mode="json") for student in students),
        tuple((item, card or zoo_card(item)) for item, card in encoders.items()),
        results=tuple(item for item in found if "protocol" in item and "map" in item),
        training=training,
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
