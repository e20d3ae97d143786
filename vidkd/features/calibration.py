"""Quantising an encoder on a user's videos: which snippets, and the file that comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from vidkd.errors import UsageError, VideoError, VidkdError, WeightsError
from vidkd.networks.cards import class_names, models_folder, quantised_name, trained_file
from vidkd.networks.i3d import I3D
from vidkd.networks.i3d_inference import InferenceI3D
from vidkd.networks.i3d_int8 import GROUPS, Int8I3D
from vidkd.networks.quantise import Choice, calibrate, choose_precisions
from vidkd.networks.verify import generated_snippet
from vidkd.networks.weights import load_weights, state_sha256, without_counts
from vidkd.networks.zoo import load_network, save_encoder
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings
from vidkd.recipe.models import Quantisation, ReferenceOutput
from vidkd.streams import RGB
from vidkd.streams.encode import network_input
from vidkd.video import VideoFile, open_video, read_frames

SNIPPETS = 48
"""Snippets of calibration; half as many others choose the precisions."""
BUDGET = 0.01
REFERENCE_CHANNELS = 6
REFERENCE_TOLERANCE = 0.05
"""Other processors may round a value that lies between two levels the other way."""

Report = Callable[[float], None]


def calibration_snippets(
    videos: Sequence[VideoFile],
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    number: int,
    report: Report = lambda done: None,
) -> tuple[np.ndarray, list[str]]:
    """Take snippets evenly from the videos, and from each evenly over its length.

    Args:
        videos: any number; evenly chosen ones if they are more than ``number``.
        frames: resize and sampling, as in the extraction that is to follow.
        snippet: their length; the stride plays no part.
        crop: side of the square cut from the middle.
        number: of snippets wanted; short videos may give fewer.
        report: called with 1 for every video read.

    Returns:
        (N, length, crop, crop, 3) uint8, and the file names of the videos they are from.

    Raises:
        VideoError: a video cannot be decoded.
        VidkdError: frames are smaller than the crop.
    """
    chosen = [videos[k * len(videos) // number] for k in range(number)]
    wanted = {video.key: chosen.count(video) for video in chosen}
    images: list[np.ndarray] = []
    names = []
    for video in dict.fromkeys(chosen):
        with open_video(video.path) as opened:
            count, rate = wanted[video.key], frames.frame_rate or float(opened.frame_rate)
            need = snippet.length / rate
            duration = opened.duration or need
            for k in range(count):
                start = max(0.0, (duration - need) * (k + 0.5) / count)
                # A little more than a snippet, since the times of frames are rounded.
                part = read_frames(
                    opened,
                    short_side=frames.short_side,
                    frame_rate=frames.frame_rate,
                    start=start,
                    end=start + need + 1 / rate,
                )
                first = next(RGB.snippets(part, snippet, crop), None)
                if first is None and k == 0:
                    raise VideoError("holds no frames", path=video.path, remedy="check the file")
                if first is not None:
                    images.append(first.frames)
        names.append(video.path.name)
        report(1)
    return np.stack(images), names


def steps(videos: int, snippets: int) -> int:
    """Return how often ``quantise_encoder`` reports."""
    return min(videos, _with_choosing(snippets)) + len(GROUPS)


def _with_choosing(snippets: int) -> int:
    return snippets + max(1, snippets // 2)


def quantise_encoder(
    name: str,
    videos: Sequence[VideoFile],
    output: Path | None = None,
    *,
    called: str | None = None,
    frames: FrameSettings | None = None,
    crop: int | None = None,
    snippets: int = SNIPPETS,
    budget: float = BUDGET,
    overwrite: bool = False,
    report: Report = lambda done: None,
) -> tuple[Path, Choice]:
    """Quantise an RGB encoder and write it as an encoder of its own.

    Args:
        name: of a model card, or the path of a fine-tuned encoder.
        videos: those it is to be used on, or that the student is trained on.
        output: the file; by default ``CALLED.safetensors`` in the models folder.
        called: the name of the new encoder; ``NAME-int8`` by default.
        frames: resize and sampling; by default those of the encoder's card.
        crop: side of the square the encoder sees; by default that of the card.
        snippets: seen in calibration; half as many others choose the precisions.
        budget: largest relative error of the features.
        overwrite: replace an encoder of that name.
        report: called with 1 for every video read and every group of layers measured; see
            ``steps``.

    Returns:
        the file, and what was chosen.

    Raises:
        UsageError: there is no such encoder, it is not for RGB, or the budget cannot be met.
        WeightsError: its weights are missing, or there is another encoder of the new name.
        VideoError: a video cannot be decoded.
        VidkdError: OpenVINO is not installed, or the file cannot be written.
    """
    network, card = load_network(name)
    if not isinstance(network, I3D):
        raise UsageError(
            f"{card.name} has no 8-bit form", remedy="quantise an Inception-I3D, or use float32"
        )
    if card.modality != RGB.name:
        raise UsageError(f"{card.name} is not for RGB", remedy="give an encoder of RGB frames")
    if not videos:
        raise UsageError("there is no video to calibrate on", remedy="name some")
    called = called or quantised_name(name)
    path = output or models_folder() / f"{called}.safetensors"
    if path.exists() and not overwrite:
        raise WeightsError(
            "exists; students that were trained on its features would not fit another one",
            path=path,
            remedy="give --name for a second one, or --overwrite",
        )
    frames = frames or card.frames
    crop = crop or card.crop
    number = _with_choosing(snippets)
    images, names = calibration_snippets(videos, frames, card.snippet, crop, number, report)
    if len(images) < 3:
        raise VidkdError("the videos are too short to calibrate on", remedy="give more of them")
    inputs = [network_input(image[None], card, torch.device("cpu")) for image in images]
    # Every third one is kept for the choice, so that both parts have seen the same videos.
    choosing = inputs[2::3]
    calibrating = [x for k, x in enumerate(inputs) if k % 3 != 2]
    inference = InferenceI3D(network)
    choice = choose_precisions(
        inference, calibrate(inference, calibrating), choosing, budget, report
    )
    digest = state_sha256(choice.state)
    made = card.model_copy(
        update={
            "name": called,
            "description": f"{card.name} with 8-bit arithmetic, calibrated on {len(names)} videos",
            "classes": None,
            "frames": frames,
            "crop": crop,
            "weights": (),
            "licence": f"as {card.name}",
            "source": "vidkd models quantise",
            "reference": _reference(choice, inference.feature_layers, card, crop, digest),
            "quantisation": Quantisation(
                of=name,
                of_sha256=state_sha256(without_counts(network.state_dict())),
                float32_layers=choice.float32,
                relative_error=round(choice.error, 6),
                budget=budget,
                snippets=len(calibrating),
                snippets_sha256=hashlib.sha256(images.tobytes()).hexdigest(),
                videos=tuple(names),
            ),
        }
    )
    trained = trained_file(name)
    classes = class_names(card) if trained is None else load_weights(trained)[1].get("classes")
    save_encoder(
        path,
        choice.state,
        made,
        path.with_suffix(".yaml"),
        classes=list(classes or ()),
        sensitivities={group: round(choice.sensitivities[group], 6) for group in GROUPS},
    )
    return path, choice


def _reference(
    choice: Choice, feature_layers: Sequence[str], card: ModelCard, crop: int, digest: str
) -> ReferenceOutput:
    """Return what the quantised network computes here, for ``vidkd models verify``."""
    snippet = generated_snippet(card.in_channels, crop, card.snippet.length)
    features = Int8I3D(choice.state, feature_layers)(snippet)[0][0]
    channels = sorted(features.argsort(descending=True)[:REFERENCE_CHANNELS].tolist())
    return ReferenceOutput(
        weights_sha256=digest,
        crop=crop,
        features={channel: round(float(features[channel]), 5) for channel in channels},
        tolerance=REFERENCE_TOLERANCE,
    )
