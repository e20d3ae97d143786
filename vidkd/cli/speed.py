"""``vidkd speed``: where the time goes on the user's own video and machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.extract import OF_CARD
from vidkd.cli.options import BatchSize, Crop, Device, Json, argument, option, with_settings
from vidkd.console import emit_json, emit_table, log
from vidkd.errors import UsageError
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings, given_or
from vidkd.recipe.choices import STUDENT_STREAM

if TYPE_CHECKING:
    from vidkd.pipeline.speed import Speed


@with_settings
def speed(
    video: Annotated[Path, argument("A video like those to be extracted.", "VIDEO")],
    frames: Annotated[FrameSettings, OF_CARD],
    snippet: Annotated[SnippetSettings, OF_CARD],
    modality: Annotated[
        str,
        option(
            "rgb or another stream of RGB frames: decode, transform, encode, write; flow: decode, "
            "TV-L1, write.",
            "STREAM",
        ),
    ] = STUDENT_STREAM,
    encoder: Annotated[str | None, option("As in extract-features.", "NAME")] = None,
    crop: Crop = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    seconds: Annotated[
        float, option("How much of the video to use; it is held in memory.", "SECONDS", min=0.1)
    ] = 20.0,
    rounds: Annotated[int, option("How often everything is timed.", "ROUNDS", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """Time every stage of an extraction alone, and all of them together, on one video.

    Nothing is kept. Prints the median of the rounds, what limits the whole, and how far from that
    limit it is (see docs/performance.md).
    """
    from vidkd.streams import STREAMS, Flow

    stream = STREAMS[modality]
    if isinstance(stream, Flow):
        from vidkd.pipeline.speed import flow_speed

        found = flow_speed(video, frames, FlowSettings(), seconds=seconds, rounds=rounds)
    elif stream.artefact is not None:
        raise UsageError(f"the time of {modality} is not measured", remedy="give rgb or flow")
    else:
        from vidkd.networks import select_device
        from vidkd.pipeline.speed import feature_speed

        name = encoder or stream.default_encoder()
        stream.fetch_encoder(name)
        network = stream.load_encoder(name, str(select_device(device)), "auto")
        card = network.card
        frames, snippet = given_or(frames, card.frames), given_or(snippet, card.snippet)
        crop = crop or card.crop
        stream.check(card, frames, crop, snippet)
        size = batch_size or stream.batch_sizes[network.device.type != "cpu"]
        found = feature_speed(
            video, stream, network, frames, snippet, crop, size, seconds=seconds, rounds=rounds
        )
    if as_json:
        emit_json(found.to_json())
    else:
        _print(found)


def _print(speed: Speed) -> None:
    rows = {**speed.stages, "whole": speed.whole}
    shares, machine = speed.shares(), speed.machine
    emit_table(
        f"{speed.video.name}: {speed.frames} frames, {speed.processors} processors",
        ("stage", "seconds", "fastest", "slowest", "processor s", "frames/s", "of the limit"),
        [
            (
                name,
                f"{times.seconds:.3f}",
                f"{min(times.wall):.3f}",
                f"{max(times.wall):.3f}",
                f"{sum(times.processor) / len(times.processor):.3f}",
                f"{speed.frames / times.seconds:.0f}",
                f"{shares[name]:.0%}" if name in shares else "",
            )
            for name, times in rows.items()
        ],
    )
    found = speed.to_json()
    log(
        f"slowest stage: {speed.slowest}; the whole takes {found['whole_to_slowest_stage']:.2f}"
        f" times as long. Its limit is {speed.limit:.3f} s, the longer of the slowest stage and all"
        " processor time shared by the processors"
    )
    if speed.product is not None:
        log(
            f"limits: a matrix product of {speed.product:.0f} GFLOP/s for the network, a copy of"
            f" {speed.bandwidth:.0f} GB/s for the transform"
        )
    log(
        f"{machine['processor']}, {', '.join(machine['instruction_sets'])}; kernels of PyTorch:"
        f" {machine['kernels']}; {machine['threads']} threads"
    )
