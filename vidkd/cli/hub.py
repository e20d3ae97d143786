"""``vidkd push`` and ``vidkd pull``: models to and from the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vidkd.cli.options import Json, argument, flag, option
from vidkd.console import emit_json, log
from vidkd.errors import UsageError


def push(
    source: Annotated[
        Path, argument("Run folder or file of a student, encoder or pose detector.", "RUN_OR_FILE")
    ],
    repo: Annotated[str, argument("Where it goes.", "OWNER/NAME")],
    private: Annotated[bool, flag("--private", "Make the repository private.")] = False,
    licence: Annotated[
        str | None,
        option(
            "Licence of the files, as the hub names it: mit, apache-2.0, cc-by-nc-4.0, ...",
            "ID",
            names=("--licence", "--license"),
        ),
    ] = None,
    data: Annotated[str | None, option("What it was trained on, for the page.", "TEXT")] = None,
    results: Annotated[
        list[Path] | None,
        option(
            "Output of `vidkd evaluate --json` for the page; repeat it. Default: what `vidkd run` "
            "measured.",
            "FILE.json",
        ),
    ] = None,
    branch: Annotated[str | None, option("Branch to commit to. Default: main.", "NAME")] = None,
    keep_card: Annotated[
        bool, flag("--keep-card", "Leave the page that the repository has.")
    ] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Print the page, and upload nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a page that says what it is.

    Others then use it with `--model hf:OWNER/NAME`. Log in first with `hf auth login`, or set
    HF_TOKEN.
    """
    from vidkd.hub import HubName
    from vidkd.sharing import model_card, read_model
    from vidkd.sharing.push import check_licence
    from vidkd.sharing.push import push as upload

    name = HubName.parse(repo)
    model = read_model(source, results or ())
    if dry_run:
        check_licence(model, licence)
        typer.echo(model_card(model, name.repo, licence, data), nl=False)
        return
    done = upload(
        model, repo, private=private, licence=licence, data=data, revision=branch,
        keep_card=keep_card,
    )  # fmt: skip
    if as_json:
        emit_json(done)
        return
    log(f"uploaded {', '.join(done['files'])} as commit {done['commit'][:12]}; to use it:")
    log(f"  {done['use']}")
    typer.echo(done["url"])


def pull(
    repo: Annotated[str, argument("A model of the hub.", "OWNER/NAME[@REVISION]")],
    sha256: Annotated[
        str | None, option("Refuse it unless its file has this hash.", "HASH", names=("--sha256",))
    ] = None,
    output: Annotated[
        Path | None,
        option(
            "Copy it to this folder. Default: encoders into the models folder, others stay in the "
            "cache of the hub.",
            "DIR",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a student, encoder or pose detector from the Hugging Face hub, and print its path.

    `--model hf:OWNER/NAME` does the same where a model is needed. Only safetensors are read, and
    no code of the model runs.
    """
    from vidkd.files import sha256 as digest_of
    from vidkd.hub import MODEL_FILES, HubName, download, main_file
    from vidkd.networks import trained_file
    from vidkd.sharing.model import read_model
    from vidkd.sharing.push import copy_model

    name = HubName.parse(repo)
    if sha256 is not None:
        if name.sha256 not in {None, sha256.lower()}:
            raise UsageError("two hashes are given", remedy="leave out one")
        name = HubName.parse(f"{replace(name, sha256=None)}#sha256={sha256}")
    folder = download(name)
    main = main_file(folder)
    assert main is not None
    model = read_model(main)
    kept = folder
    if output is not None:
        copy_model(folder, output)
        kept = output
    elif model.kind == "encoder":
        found = trained_file(str(name))
        assert found is not None
        kept = found
    for network, licence in model.licences.items():
        log(f"licence of {network}: {licence}")
    if as_json:
        files = [folder / item for item in MODEL_FILES if (folder / item).is_file()]
        emit_json(
            {
                "path": str(kept),
                "kind": model.kind,
                "commit": folder.name,
                "classes": list(model.classes),
                "files": {path.name: digest_of(path) for path in files},
            }
        )
        return
    log(f"{model.kind}, commit {folder.name[:12]}, {main.name} {digest_of(main)}")
    typer.echo(kept)
