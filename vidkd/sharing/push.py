"""Uploading a model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.files import atomic_path, sha256
from vidkd.hub import CARD, LOGIN, MODEL_FILES, HubName, explained, library
from vidkd.sharing.card import command, model_card
from vidkd.sharing.model import SharedModel, is_non_commercial


def check_licence(model: SharedModel, licence: str | None) -> None:
    """Refuse a licence that the files cannot have, and say what a user of them should know.

    Raises:
        UsageError: the licence allows commercial use of weights whose own does not.
    """
    theirs = model.licences
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UsageError(
            f"{licence!r} is no licence as the hub names them",
            remedy="give one such as mit, apache-2.0, cc-by-4.0, cc-by-nc-4.0 or other",
        )
    held = model.non_commercial(held=True)
    if licence and held and not is_non_commercial(licence) and licence != "other":
        raise UsageError(
            f"holds weights of {held[0]}, whose licence is {theirs[held[0]]}",
            path=model.name,
            remedy="give --licence cc-by-nc-4.0, or another that forbids commercial use",
        )
    for name in model.non_commercial(held=False):
        log(f"warning: {name} is not for commercial use ({theirs[name]}); the page says so")
    if licence is None:
        log("note: no --licence; without one nobody else may use these files")


def push(
    model: SharedModel,
    repo: str,
    *,
    private: bool = False,
    licence: str | None = None,
    data: str | None = None,
    revision: str | None = None,
    keep_card: bool = False,
) -> dict[str, Any]:
    """Upload a model in one commit; the repository is made if it is not there.

    Args:
        model: what to share.
        repo: ``OWNER/NAME``.
        private: nobody else is to see it.
        licence: see `model_card`.
        data: see `model_card`.
        revision: the branch, which is made if it is not there; None for main.
        keep_card: leave the page that is there.

    Returns:
        ``repo``, ``commit``, ``url``, ``files`` by name with ``bytes`` and ``sha256``, and the
        command that uses it, ``use``.

    Raises:
        UsageError: the name or the licence is not one.
        VidkdError: the hub refuses, or the repository is public and was to be private.
    """
    name = HubName.parse(repo)
    if name.revision or name.sha256:
        raise UsageError(f"{repo!r} is no repository", remedy="give OWNER/NAME, and --branch")
    check_licence(model, licence)
    hub = library()
    if hub.get_token() is None:
        raise VidkdError("you are not logged in to the hub", remedy=LOGIN)
    digests = model.digests
    with explained(str(name), VidkdError):
        api = hub.HfApi(library_name="vidkd")
        api.create_repo(name.repo, private=private or None, exist_ok=True)
        info = api.model_info(name.repo)
        if private and not info.private:
            raise VidkdError(
                "is there already, and public; nothing was uploaded",
                path=str(name),
                remedy="make it private on its page, choose another name, or leave out --private",
            )
        if revision is not None:
            api.create_branch(name.repo, branch=revision, exist_ok=True)
            info = api.model_info(name.repo, revision=revision)
        there = {item.rfilename for item in info.siblings or ()}
        changes = [hub.CommitOperationAdd(item, path) for item, path in model.files.items()]
        if not keep_card or CARD not in there:
            page = model_card(model, name.repo, licence, data).encode()
            changes.append(hub.CommitOperationAdd(CARD, page))
        # An encoder of before would be taken for that of this student.
        stale = [item for item in MODEL_FILES if item in there and item not in model.files]
        changes += [hub.CommitOperationDelete(item) for item in stale]
        commit = api.create_commit(
            name.repo, changes, commit_message=f"Upload {model.name} with vidkd", revision=revision
        )
    return {
        "repo": name.repo,
        "commit": commit.oid,
        "url": f"{api.endpoint}/{name.repo}",
        "files": {item: {"bytes": size, "sha256": own} for item, (size, own) in digests.items()},
        "use": command(model, name.repo),
    }


def copy_model(folder: Path, output: Path) -> list[Path]:
    """Copy a downloaded model to a folder, whole or not at all; the hub's cache has links.

    Returns:
        the files written.

    Raises:
        UsageError: the folder holds something else.
        VidkdError: it cannot be written.
    """
    found = [path for name in (*MODEL_FILES, CARD) if (path := folder / name).is_file()]
    for path in found:
        target = output / path.name
        if path.name in MODEL_FILES and target.exists() and sha256(target) != sha256(path):
            raise UsageError(
                "exists, and is another file",
                path=target,
                remedy=f"choose another --output than {output}",
            )
    for path in reversed(found):
        with atomic_path(output / path.name) as temporary:
            shutil.copyfile(path, temporary)
    return found
