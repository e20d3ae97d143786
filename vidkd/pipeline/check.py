"""What a recipe names is looked up before any work begins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from vidkd.annotations import READERS
from vidkd.distillation.objective import loss_weights
from vidkd.errors import UsageError, VidkdError
from vidkd.evaluation import PROTOCOLS
from vidkd.networks import find_card
from vidkd.networks.temporal import FILTERS
from vidkd.recipe import DistillationSettings, Modality, Pipeline, given_or
from vidkd.storage import StorageError
from vidkd.streams import STREAMS


def check_recipe(recipe: Pipeline, cache: Path) -> None:
    """Refuse a recipe that names an unknown stream, encoder, filter, loss, protocol or format.

    Args:
        recipe: to be checked.
        cache: features that it holds need no encoder: they may have been imported.

    Raises:
        UsageError: there is no such thing; the message has the key, and the names that there are.
        StorageError: the cache is in a store that cannot be reached, or refuses.
    """
    for key, find in _names(recipe, cache):
        try:
            find()
        except StorageError:
            raise  # of the cache, not of the name
        except VidkdError as error:
            raise UsageError(
                f"recipe {recipe.name}, {key}: {error.problem}", remedy=error.remedy
            ) from error


def _names(recipe: Pipeline, cache: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every key of a recipe that holds a name, and the look-up of that name."""
    settings, find = recipe.benchmark, functools.partial
    for modality in recipe.encoders:
        yield "encoders", find(STREAMS.__getitem__, modality)
        yield f"encoders.{modality}", find(_encoder, recipe, modality, cache)
    yield "student", find(_student, recipe.student)
    yield "filter.kind", find(FILTERS.__getitem__, recipe.filter.kind)
    for kind in settings.filters:
        yield "benchmark.filters", find(FILTERS.__getitem__, kind)
    yield "distillation", find(loss_weights, recipe.distillation)
    for method in settings.methods:
        key = f"benchmark.methods, {method.name}"
        values = {**recipe.distillation.model_dump(), **method.distillation}
        yield key, find(loss_weights, DistillationSettings.model_validate(values))
        for modality in method.teachers or ():
            yield key, find(STREAMS.__getitem__, modality)
        for kind in filter(None, (method.filter, method.teacher_filter)):
            yield key, find(FILTERS.__getitem__, kind)
    yield "evaluation.frame_protocol", find(_protocol, recipe.evaluation.frame_protocol, "frame")
    yield "evaluation.event_protocol", find(_protocol, recipe.evaluation.event_protocol, "event")
    if recipe.data is not None:
        yield "data.format", find(_format, recipe.data.format)
    for split in settings.splits:
        yield f"benchmark.splits, {split.name}", find(_format, split.format)


def _encoder(recipe: Pipeline, modality: Modality, cache: Path) -> None:
    stream, encoder = STREAMS[modality], recipe.encoders[modality]
    imported = cache / "features" / stream.folder(encoder.name)
    if not stream.trained_by_recipe and not imported.is_dir():
        card = find_card(encoder.name)
        crop = encoder.given_crop or card.crop
        stream.check(card, recipe.frames, crop, given_or(recipe.snippet, card.snippet))


def _student(modality: Modality) -> None:
    if not STREAMS[modality].from_rgb:
        names = ", ".join(name for name in STREAMS if STREAMS[name].from_rgb)
        raise UsageError(
            f"{modality} is not made of RGB frames alone", remedy=f"give one of {names}"
        )


def _protocol(name: str, kind: str) -> None:
    if PROTOCOLS[name].kind != kind:
        names = ", ".join(key for key in PROTOCOLS if PROTOCOLS[key].kind == kind)
        raise UsageError(f"{name!r} does not compare {kind}s", remedy=f"give one of {names}")


def _format(name: str) -> None:
    if name != "auto":
        _ = READERS[name]
