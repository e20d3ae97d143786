"""The model zoo: from a model card to an encoder that is ready to run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from vidkd.errors import UsageError, WeightsError
from vidkd.extensions import Table
from vidkd.files import atomic_path, resources, sha256, write_text
from vidkd.hub import is_hub_name, resolved
from vidkd.networks.device import select_device
from vidkd.networks.encoders import (
    EncoderFamily,
    EncoderNetwork,
    inception_i3d,
    pytorchvideo,
    torchvision,
    transformers_hub,
)
from vidkd.networks.i3d_inference import keep_freed_memory
from vidkd.networks.weights import (
    checked_sha256,
    load_weights,
    read_header,
    save_weights,
    state_sha256,
)
from vidkd.recipe import ModelCard, Precision, model_cards

ENCODERS: Table[EncoderFamily] = Table(
    "vidkd.encoders",
    "encoder network",
    {
        "i3d": inception_i3d.FAMILY,
        "pytorchvideo": pytorchvideo.FAMILY,
        "torchvision": torchvision.FAMILY,
        "transformers": transformers_hub.FAMILY,
    },
)
"""Who builds the networks of cards, by their field ``network``."""

DEFAULT_ENCODER = "i3d-rgb-kinetics400"
TRAINED_ENCODER = "encoder.safetensors"
"""The file of a fine-tuned encoder in its run folder."""


def card_names() -> list[str]:
    """Return the names of the cards that travel with vidkd and with installed packages."""
    return [*model_cards(), *(name for family in ENCODERS.values() for name in family.names)]


def zoo_card(name: str) -> ModelCard | None:
    """Return the card called ``name`` that travels with vidkd or an installed package, or None."""
    if (card := model_cards().get(name)) is not None:
        return card
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
        load_weights(path)  # whole, before it is kept
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
        return trained_card(path, load_weights(path)[1])
    card = zoo_card(name)
    if card is None:
        raise UsageError(
            f"there is no model {name!r}",
            remedy=f"give a name of `vidkd models list`, such as {DEFAULT_ENCODER}, or a run folder"
            " of `vidkd train-encoder`",
        )
    return card


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


class Encoder(nn.Module):
    """A frozen encoder in evaluation mode, ready to run on its device.

    Args:
        card: the model card.
        network: trained, or quantised.
        device: where it is to run; a quantised network runs on the CPU only.
        classes: labels of the logits; by default those of the card.
        precision: ``float32``, or ``float16`` for a trained network.
        weights_sha256: hash of the weights when it is known.
        replaces: see below.

    Attributes:
        card: the model card.
        weights_sha256: hash of the weights' names, shapes and values; it identifies what computed
            a feature whatever file the weights came from.
        classes: labels of the logits in order, or None when the network has no such head.
        device: where it runs.
        precision: ``float32``, ``float16`` or ``int8``.
        replaces: hashes of other weights in whose place the user asked for these: those of the
            float32 network that was quantised, or of the quantised network.
        batch_size: snippets per call that run well on the device. On a CPU more than two only
            spill the caches.
    """

    def __init__(
        self,
        card: ModelCard,
        network: EncoderNetwork,
        device: torch.device,
        classes: tuple[str, ...] | None = None,
        *,
        precision: Literal["float32", "float16"] = "float32",
        weights_sha256: str | None = None,
        replaces: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.card = card
        self.weights_sha256 = weights_sha256 or state_sha256(
            {n: v for n, v in network.state_dict().items() if not n.endswith("batches_tracked")}
        )
        self.classes = (class_names(card) if classes is None else classes) or None
        self.device = device
        self.replaces = replaces
        self.batch_size = 2 if device.type == "cpu" else 32
        if device.type == "cpu":
            keep_freed_memory()
        self._type = torch.float16 if precision == "float16" else torch.float32
        self.precision = network.precision if network.precision == "int8" else precision
        self.network = network.inference().to(device, self._type)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute features and logits in one pass.

        Args:
            x: (B, C, T, S, S) float on any device, normalised as the card says (for I3D in
                [-1, 1]); C = 3 for RGB, 2 for flow; T and S such as the card allows.

        Returns:
            features (B, D), and logits (B, K) or None without classes, both float32.
        """
        if x.ndim != 5 or x.shape[1] != self.card.in_channels:
            raise ValueError(
                f"{self.card.name} expects (B, {self.card.in_channels}, T, S, S), "
                f"got {tuple(x.shape)}"
            )
        x = x.to(self.device, self._type)
        if self.device.type == "cpu":
            features, logits = self.network(x)
        else:
            # cuDNN would round to TF32, which is off by 1e-3: features are to be the same
            # everywhere.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                features, logits = self.network(x)
        return features.float(), None if logits is None else logits.float()

    def features(self, x: Tensor) -> Tensor:
        """Map clips (B, C, T, S, S) to features (B, D)."""
        return self(x)[0]

    def logits(self, x: Tensor) -> Tensor:
        """Map clips (B, C, T, S, S) to logits (B, K).

        Raises:
            UsageError: the network has no classes.
        """
        logits = self(x)[1]
        if logits is None:
            raise UsageError(
                f"{self.card.name} has no classes of its own",
                remedy="give a trained student with --model",
            )
        return logits


@dataclass(frozen=True)
class _Stored:
    """A weights file that was read and checked."""

    card: ModelCard
    state: dict[str, Tensor]
    path: Path
    weights_sha256: str
    classes: tuple[str, ...] | None
    """Labels of the logits; None to take those of the card."""


def load_network(name: str) -> tuple[EncoderNetwork, ModelCard]:
    """Load the trainable network of a card, on the CPU and in evaluation mode.

    Args:
        name: of a model card, or the path of a fine-tuned encoder.

    Raises:
        UsageError: there is no such model, or it is quantised.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    stored = _read(name)
    if stored.card.quantisation is not None:
        raise UsageError(
            f"{name} is quantised: it can be run, but not trained or quantised again",
            remedy=f"give {stored.card.quantisation.of}, of which it was made",
        )
    return _network(stored), stored.card


def _network(stored: _Stored) -> EncoderNetwork:
    return ENCODERS[stored.card.network].build(stored.card, stored.state, stored.path)


def _read(name: str) -> _Stored:
    """Read the weights called ``name`` and check that they are what the file says."""
    trained = trained_file(name)
    card = find_card(name)
    path = trained or weights_path(card)
    remedy = "train, quantise or copy it again" if trained else f"run `vidkd models fetch {name}`"
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} are not on this machine", path=path, remedy=remedy
        )
    state, header = load_weights(path)
    if header["network"] != card.network or header.get("card") != card.name:
        raise WeightsError(
            f"holds {header.get('card') or header['network']}, not {name}",
            path=path,
            remedy=remedy,
        )
    digest = checked_sha256(state, header, path, remedy)
    classes = tuple(map(str, header.get("classes") or ())) if trained else None
    return _Stored(card, state, path, digest, classes)


def save_encoder(
    path: Path,
    state: Mapping[str, Tensor],
    card: ModelCard,
    card_file: Path | None = None,
    **about: Any,
) -> str:
    """Write the weights of an encoder with what `load_encoder` needs to know.

    Args:
        path: the file.
        state: what the family of the card builds its network of.
        card: its card.
        card_file: where a card that does not travel with vidkd is written for people to read;
            it is then in the header too.
        about: more for the header.

    Returns:
        the hash of the weights, as the provenance of features will have it.
    """
    digest = state_sha256(state)
    fields = card.model_dump(mode="json")
    header = {
        "format": 1,
        "network": card.network,
        "card": card.name,
        "modality": card.modality,
        "in_channels": card.in_channels,
        **({} if card_file is None else {"model_card": fields}),
        **about,
        "weights_sha256": digest,
    }
    save_weights(path, state, header)
    if card_file is not None:
        text = yaml.safe_dump({**fields, "weights_sha256": digest}, sort_keys=False)
        write_text(card_file, text)
    return digest


def quantised_name(name: str) -> str:
    """Return the name that the quantised form of an encoder has unless another one is given."""
    return f"{find_card(name).name}-int8"


def load_encoder(
    name: str = DEFAULT_ENCODER,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Encoder:
    """Load an encoder of the zoo for inference.

    Args:
        name: of a model card (``vidkd models list``), the path of a fine-tuned or quantised
            encoder, or the name of one in the models folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` takes the encoder as it is. ``int8`` takes its quantised form,
            ``NAME-int8`` in the models folder, which runs on the CPU; ``float32`` takes the
            encoder that a quantised one was made of; ``float16`` needs a GPU.

    Raises:
        UsageError: there is no such model or device, or the device has no such precision.
        WeightsError: its weights were not fetched yet, the file is damaged, or the encoder has no
            such form on this machine.
        VidkdError: it is quantised, and OpenVINO is not installed.
    """
    target = device if isinstance(device, torch.device) else select_device(device)
    stored = _read(name)
    replaces: tuple[str, ...] = ()
    quantised = stored.card.quantisation is not None
    if precision != "auto" and quantised != (precision == "int8"):
        other = _other_form(name, stored)
        stored, replaces = other, (stored.weights_sha256,)
    if stored.card.quantisation is not None:
        if device != "auto" and target.type != "cpu":
            raise UsageError(
                f"int8 runs on the CPU, not on {target}",
                remedy="give --device cpu, or another --precision",
            )
        target = torch.device("cpu")
    elif precision == "float16" and target.type == "cpu":
        raise UsageError(
            "float16 is for GPUs: on a CPU it would be slower than float32",
            remedy="give --precision float32 or int8",
        )
    return Encoder(
        stored.card,
        _network(stored),
        target,
        stored.classes,
        precision="float16" if precision == "float16" else "float32",
        weights_sha256=stored.weights_sha256,
        replaces=replaces,
    )


def _other_form(name: str, stored: _Stored) -> _Stored:
    """Return the quantised form of a float32 encoder, or the float32 form of a quantised one."""
    made = stored.card.quantisation
    if made is None:
        path = models_folder() / f"{quantised_name(name)}.safetensors"
        if not path.is_file():
            raise WeightsError(
                f"{name} has no int8 form on this machine",
                path=path,
                remedy=f"run `vidkd models quantise {name} VIDEO...` on your training videos",
            )
        other = _read(str(path))
        agree = (
            other.card.quantisation is not None
            and other.card.quantisation.of_sha256 == stored.weights_sha256
        )
    else:
        other = _read(made.of)
        agree = other.weights_sha256 == made.of_sha256
    if not agree:
        raise WeightsError(
            f"{other.card.name} has other weights than those that belong to {stored.card.name}",
            path=other.path,
            remedy="quantise the encoder again",
        )
    return other
