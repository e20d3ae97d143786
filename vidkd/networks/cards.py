"""From the name of an encoder to its card and its weights file, without the import of torch.

A command that leaves the computing to other processes needs no more of an encoder than
:func:`described` tells, and begins a second earlier for it.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vidkd.errors import UsageError, WeightsError
from vidkd.files import atomic_path, resources, sha256
from vidkd.hub import is_hub_name, resolved
from vidkd.networks.stored import check_sha256, content_sha256, read_header, whole_header
from vidkd.recipe import ModelCard, Precision, model_cards

DEFAULT_ENCODER = "i3d-rgb-kinetics400"
BEST_ENCODER = "i3d-rgb-kinetics400-multilevel"
"""What new recipes take: the best measured (docs/experiments.md)."""
TRAINED_ENCODER = "encoder.safetensors"
"""The file of a fine-tuned encoder in its run folder."""


def card_names() -> list[str]:
    """Return the names of the cards that travel with vidkd and with installed packages."""
    from vidkd.networks.zoo import ENCODERS

    return [*model_cards(), *(name for family in ENCODERS.values() for name in family.names)]


def zoo_card(name: str) -> ModelCard | None:
    """Return the card called ``name`` that travels with vidkd or an installed package, or None."""
    if (card := model_cards().get(name)) is not None:
        return card
    from vidkd.networks.zoo import ENCODERS

    # In their order, so that other packages are imported only for what vidkd does not know.
    return next((f.card(name) for f in ENCODERS.values() if name in f.names), None)


def models_folder() -> Path:
    """Return where converted weights are kept: ``$VIDKD_MODELS``, or the user's cache folder."""
    chosen = os.environ.get("VIDKD_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vidkd" / "models"


def weights_path(card: ModelCard) -> Path:
    """Return where the converted weights of a card are kept, whether they are there or not."""
    return models_folder() / f"{card.name}.safetensors"


def trained_file(name: str) -> Path | None:
    """Return the weights file of a fine-tuned or quantised encoder; None if there is no such one.

    ``name`` is a run folder of ``vidkd train-encoder``, a file, the name that a file has in the
    models folder, or a model of the hub, which then lies there. The cards of the zoo come first.

    Raises:
        WeightsError: there is no such encoder on the hub, or another one has its name here.
    """
    if is_hub_name(name):
        return _adopted(resolved(name) / TRAINED_ENCODER, name)
    if zoo_card(name) is not None:
        return None
    path = Path(name)
    candidates = [path / TRAINED_ENCODER, path]
    if path.name == name:
        candidates.append(models_folder() / f"{name}.safetensors")
    return next((f for f in candidates if f.suffix == ".safetensors" and f.is_file()), None)


def _adopted(path: Path, name: str) -> Path:
    """Copy an encoder of the hub to the models folder, where what it made finds it by its name.

    Raises:
        WeightsError: it is no encoder, or its name is that of another.
    """
    card = str((read_header(path) or {}).get("card"))
    if not path.is_file() or not re.fullmatch(r"\w[\w.-]*", card):
        raise WeightsError("holds no encoder", path=name, remedy="give it with --model")
    kept = models_folder() / f"{card}.safetensors"
    if zoo_card(card) is not None or (kept.is_file() and sha256(kept) != sha256(path)):
        raise WeightsError(
            f"is called {card}, as another encoder on this machine is",
            path=name,
            remedy=f"set VIDKD_MODELS to another folder, or move {kept}",
        )
    if not kept.is_file():
        whole_header(path)  # or it is not kept
        with atomic_path(kept) as temporary:
            shutil.copyfile(path, temporary)
    return kept


def find_card(name: str) -> ModelCard:
    """Return the model card called ``name``, or that of a fine-tuned encoder (a path).

    Raises:
        UsageError: there is none.
        WeightsError: the fine-tuned encoder is damaged, or another kind of weights.
    """
    if (path := trained_file(name)) is not None:
        return trained_card(path, whole_header(path))
    card = zoo_card(name)
    if card is None:
        raise UsageError(
            f"there is no model {name!r}",
            remedy=f"give a name of `vidkd models list`, such as {DEFAULT_ENCODER}, or a run folder"
            " of `vidkd train-encoder`",
        )
    return card


def ensure_weights(name: str) -> Path:
    """Return the converted weights of a card, fetched first when they are not there yet.

    Those of a fine-tuned encoder, given by its path, are there already.

    Raises:
        UsageError: there is no such model.
        WeightsError: they cannot be fetched; the message says how to give them by hand.
    """
    if (trained := trained_file(name)) is not None:
        return trained
    card = find_card(name)
    path = weights_path(card)
    if path.is_file():
        return path
    from vidkd.networks.fetching import fetch

    return fetch(card)


def trained_card(path: Path, header: dict[str, Any]) -> ModelCard:
    """Return the card in the header of a fine-tuned encoder.

    Raises:
        WeightsError: it has none.
    """
    try:
        return ModelCard.model_validate(header["model_card"])
    except (KeyError, ValidationError) as error:
        raise WeightsError(
            "is not an encoder with a model card",
            path=path,
            remedy="give a run folder of `vidkd train-encoder`",
        ) from error


def class_names(card: ModelCard) -> tuple[str, ...] | None:
    """Return the labels of a card's logits in their order, or None when it has no label list."""
    if card.classes is None:
        return None
    text = (resources("models") / card.classes).read_text(encoding="utf-8")
    return tuple(text.splitlines())


def quantised_name(name: str) -> str:
    """Return the name that the quantised form of an encoder has unless another one is given."""
    return f"{find_card(name).name}-int8"


@dataclass(frozen=True)
class Described:
    """The weights file of an encoder, found whole, and what it says.

    Attributes:
        card: of the encoder.
        path: of the file.
        weights_sha256: hash of its tensors.
        classes: labels of the logits; None to take those of the card.
    """

    card: ModelCard
    path: Path
    weights_sha256: str
    classes: tuple[str, ...] | None

    @property
    def precision(self) -> str:
        """``int8`` for a quantised encoder, else ``float32``."""
        return "float32" if self.card.quantisation is None else "int8"

    @property
    def needs_no_library(self) -> bool:
        """Whether PyTorch alone runs it, so that loading it cannot fail for want of another."""
        return self.card.network == "i3d" and self.precision == "float32"


def described(name: str) -> Described:
    """Find the weights called ``name`` and check that they are what the file says.

    Raises:
        UsageError: there is no such model.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    trained = trained_file(name)
    card = find_card(name)
    path = trained or weights_path(card)
    remedy = "train, quantise or copy it again" if trained else f"run `vidkd models fetch {name}`"
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} are not on this machine", path=path, remedy=remedy
        )
    header = whole_header(path)
    if header["network"] != card.network or header.get("card") != card.name:
        raise WeightsError(
            f"holds {header.get('card') or header['network']}, not {name}",
            path=path,
            remedy=remedy,
        )
    digest = check_sha256(content_sha256(path), header, path, remedy)
    classes = tuple(map(str, header.get("classes") or ())) if trained else None
    return Described(card, path, digest, classes)


def described_in(name: str, precision: Precision) -> tuple[Described, tuple[str, ...]]:
    """Return the form of an encoder that a precision asks for; see ``vidkd.networks.load_encoder``.

    Returns:
        it, and the hashes of the weights in whose place it is taken.

    Raises:
        UsageError: there is no such model.
        WeightsError: as for :func:`described`, or there is no such form on this machine.
    """
    found = described(name)
    if precision == "auto" or (found.precision == "int8") == (precision == "int8"):
        return found, ()
    return _other_form(name, found), (found.weights_sha256,)


def _other_form(name: str, found: Described) -> Described:
    """Return the quantised form of a float32 encoder, or the float32 form of a quantised one."""
    made = found.card.quantisation
    if made is None:
        path = models_folder() / f"{quantised_name(name)}.safetensors"
        if not path.is_file():
            raise WeightsError(
                f"{name} has no int8 form on this machine",
                path=path,
                remedy=f"run `vidkd models quantise {name} VIDEO...` on your training videos",
            )
        other = described(str(path))
        agree = (
            other.card.quantisation is not None
            and other.card.quantisation.of_sha256 == found.weights_sha256
        )
    else:
        other = described(made.of)
        agree = other.weights_sha256 == made.of_sha256
    if not agree:
        raise WeightsError(
            f"{other.card.name} has other weights than those that belong to {found.card.name}",
            path=other.path,
            remedy="quantise the encoder again",
        )
    return other
