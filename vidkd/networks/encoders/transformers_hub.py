"""Encoders of Hugging Face's transformers: any ``AutoModel`` for video, or for images.

`adopt` reads a folder or a model of the hub once (safetensors only, no code of its own) and makes a
card of its configuration; from then on the weights lie in the models folder like all others.
Image encoders see every frame of a clip alone, and their vectors are averaged.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidkd.errors import VidkdError, WeightsError
from vidkd.networks.encoders import EncoderFamily, EncoderNetwork, fill
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings

Pooling = Literal["mean", "cls", "pooler"]

_STEPS = {"videomae": 4, "timesformer": 32, "vivit": 2, "vjepa2": 2}
"""Frames at 30 frames/s from one of a clip to the next, as in the training on Kinetics-400; for
V-JEPA 2, which was trained at several rates, about four seconds for 64 frames."""
_LICENCES = {
    "vjepa2": "Apache-2.0",
    "videomae": "CC-BY-NC-4.0 (not for commercial use)",
    "timesformer": "CC-BY-NC-4.0 (not for commercial use)",
    "siglip_vision_model": "Apache-2.0",
    "siglip2_vision_model": "Apache-2.0",
    "clip_vision_model": "MIT",
    "dinov3_vit": "DINOv3 License",
}
"""Of the weights that the makers of these networks published, for folders that do not say."""
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise VidkdError(
            "this encoder needs transformers", remedy="pip install 'vidkd[transformers]'"
        ) from error
    return transformers


class Tokens(EncoderNetwork):
    """A transformer whose tokens are pooled to one vector.

    Args:
        model: takes (B, T, C, S, S), or (B, C, S, S) for image encoders.
        card: says how to pool.
        classes: of a classifier on the vector; 0 for none.
    """

    def __init__(self, model: nn.Module, card: ModelCard, classes: int) -> None:
        super().__init__()
        config: Any = model.config
        self.model, self.pooling = model, card.pooling
        self.width: int = config.hidden_size
        self.classifier = nn.Linear(self.width, classes) if classes else None
        self.dropout = nn.Dropout(0.0)
        self._video = _frames(config) is not None
        self._input = str(model.main_input_name)
        # V-JEPA 2 predicts tokens for its own training only.
        known = inspect.signature(model.forward).parameters
        self._options = {"skip_predictor": True} if "skip_predictor" in known else {}
        self._first = _has_cls(model) + int(getattr(config, "num_register_tokens", 0) or 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map clips (B, C, T, S, S) to features (B, D) and logits (B, K) or None."""
        frames = x.transpose(1, 2)
        if self._video:
            features = self._vectors(frames)
        else:
            features = self._vectors(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)
        logits = None if self.classifier is None else self.classifier(self.dropout(features))
        return features, logits

    def _vectors(self, pixels: Tensor) -> Tensor:
        output = self.model(**{self._input: pixels}, **self._options)
        if self.pooling == "pooler":
            pooled: Tensor = output.pooler_output
            return pooled
        tokens: Tensor = output.last_hidden_state
        return tokens[:, 0] if self.pooling == "cls" else tokens[:, self._first :].mean(1)

    def stages(self) -> dict[str, nn.Module]:
        """Return the parts of the model, and its list of layers one by one."""
        found: dict[str, nn.Module] = {}
        layers = next((m for m in self.model.modules() if isinstance(m, nn.ModuleList)), None)
        for name, module in self.model.named_modules():
            if layers is not None and module is layers:
                found |= {f"{name}.{number}": layer for number, layer in enumerate(layers)}
            elif name.rpartition(".")[2] == "embeddings":
                found[name] = module
        return found

    def replace_classifier(self, classifier: nn.Linear, dropout: float) -> None:
        """Put another classifier in place, behind dropout of that probability in training."""
        self.classifier, self.dropout = classifier, nn.Dropout(dropout)


class Transformers(EncoderFamily):
    """See the module."""

    def build(
        self, card: ModelCard, state: Mapping[str, Tensor], path: str | Path
    ) -> EncoderNetwork:
        library = _library()
        config = dict(card.config or {})
        kind = config.pop("model_type", "")
        try:
            made = library.AutoConfig.for_model(kind, **config)
            model = library.AutoModel.from_config(made, trust_remote_code=False)
        except (ValueError, TypeError, KeyError) as error:
            raise WeightsError(
                f"is a {kind!r}, which this version of transformers cannot build",
                path=path,
                remedy="update transformers",
            ) from error
        classes = len(state.get("classifier.bias", ()))
        return fill(Tokens(model, card, classes), card, state, path)

    def adopt(self, source: str, name: str) -> tuple[ModelCard, dict[str, Tensor]] | None:
        if not (Path(source) / "config.json").is_file() and not re.fullmatch(
            r"[\w.-]+/[\w.-]+", source
        ):
            return None
        library = _library()
        loading: Any = {"trust_remote_code": False}
        try:
            config = library.AutoConfig.from_pretrained(source, **loading)
            model, report = library.AutoModel.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, **loading
            )
            facts = _preprocessor(source)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{source} is not a model that transformers can read from safetensors ({reason})",
                remedy="check the name, the network and the format, or give a local folder",
            ) from error
        both = hasattr(config, "vision_config")
        if both:
            config, model = config.vision_config, model.vision_model
        pooling: Pooling = "pooler" if both else "cls" if _has_cls(model) else "mean"
        absent = sorted(report["missing_keys"])
        for key in absent:
            if pooling == "pooler" or "pooler" not in key:
                raise WeightsError(f"{source} has no tensor {key}", remedy="get it again")
        with torch.no_grad():  # what no checkpoint has is random: it is not used, but is hashed
            for key, value in model.named_parameters():
                if key in absent:
                    value.zero_()
        card = _card(source, name, config, facts, pooling)
        state = {f"model.{key}": value.float() for key, value in model.state_dict().items()}
        return card, state


def _frames(config: Any) -> int | None:
    """Return the number of frames that a video network takes; None for image encoders."""
    return getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)


def _has_cls(model: nn.Module) -> bool:
    names = (name.rpartition(".")[2] for name, _ in model.named_parameters())
    return any(name in {"cls_token", "class_embedding"} for name in names)


def _preprocessor(source: str) -> dict[str, Any]:
    """Return the settings of the preprocessor, and ``license`` of the README; {} for none."""
    from transformers.utils import cached_file

    facts: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            facts |= json.loads(Path(path).read_text(encoding="utf-8"))
    path = cached_file(source, "README.md", _raise_exceptions_for_missing_entries=False)
    if path is not None:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^license:\s*(\S.*)$", text, re.MULTILINE):
            facts["license"] = found[1].strip()
    return facts


def _side(size: Any) -> int | None:
    """Return the shorter side that a preprocessor's size asks for."""
    if isinstance(size, int):
        return size
    if not isinstance(size, dict):
        return None
    sides = size.get("shortest_edge") or min(size.get("height", 0), size.get("width", 0))
    return int(sides) or None


def _card(
    source: str, name: str, config: Any, facts: dict[str, Any], pooling: Pooling
) -> ModelCard:
    kind, frames = str(config.model_type), _frames(config)
    crop = _side(getattr(config, "image_size", None) or getattr(config, "crop_size", None) or 224)
    assert crop is not None
    if isinstance(getattr(config, "image_size", None), list | tuple):
        crop = int(config.image_size[0])
    # An image encoder sees four frames of the sixteen that a row stands for.
    length, step = (frames, _STEPS.get(kind, 4)) if frames else (4, 4)
    mean, deviation = facts.get("image_mean"), facts.get("image_std")
    licence = facts.get("license") or _LICENCES.get(kind) or "not said; see its source"
    return ModelCard(
        name=name,
        network="transformers",
        architecture=kind,
        config={**json.loads(config.to_json_string(use_diff=True)), "model_type": kind},
        modality="rgb",
        description=f"{kind} from {source}, {'clips' if frames else 'frame by frame'}",
        feature_dim=config.hidden_size,
        in_channels=3,
        frames=FrameSettings(
            short_side=max(crop, _side(facts.get("size")) or 0, 32), frame_rate=30
        ),
        snippet=SnippetSettings(length=length, step=step, stride=16, window=16),
        crop=crop,
        lengths=(length, length) if frames else (1, 256),
        crops=(crop, crop),
        mean=tuple(mean or _IMAGENET[0]),
        deviation=tuple(deviation or _IMAGENET[1]),
        pooling=pooling,
        weights=(),
        licence=str(licence),
        source=source,
    )


FAMILY = Transformers()
