"""Models of the Hugging Face hub, by names: ``hf:OWNER/NAME[@REVISION][#sha256=HASH]``.

Wherever a model is a path, such a name stands for the folder that the model was downloaded to. Only
files of a few fixed names are ever asked for, safetensors and the model's page, so that nothing
of a model can run, and no name of a file comes from the hub.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError, WeightsError
from vidkd.files import sha256

PREFIX = "hf:"
MODEL_FILES = {
    "weights.safetensors": "student",
    "detector.safetensors": "pose detector",
    "encoder.safetensors": "encoder",
}
"""What the files of a model are called, as in run folders, and what a model is whose first one it
is: that of a student may have its encoder too."""
CARD = "README.md"
LARGEST_FILE = 4 << 30
"""Bytes; more is refused before it is downloaded."""
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_TIMEOUT = 20.0
_NAME = re.compile(r"(?P<repo>[^@#]+)(@(?P<revision>[^#]+))?(#sha256=(?P<sha256>.*))?")


@dataclass(frozen=True)
class HubName:
    """A model of the hub.

    Attributes:
        repo: ``OWNER/NAME``.
        revision: a branch, tag or commit; None for the main branch.
        sha256: what the file of the model must have; None for any.
    """

    repo: str
    revision: str | None = None
    sha256: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Read ``OWNER/NAME[@REVISION][#sha256=HASH]``, with or without ``hf:``.

        Raises:
            UsageError: it is not that.
        """
        match = _NAME.fullmatch(text.removeprefix(PREFIX))
        name = cls(**match.groupdict()) if match else cls("")
        parts = name.repo.split("/")
        if len(parts) != 2 or not all(re.fullmatch(r"\w([\w.-]*\w)?", part) for part in parts):
            raise UsageError(
                f"{text!r} is no model of the hub", remedy="write hf:OWNER/NAME or"
                " hf:OWNER/NAME@REVISION, as its address ends"
            )  # fmt: skip
        digest = name.sha256 and name.sha256.lower()
        if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise UsageError(
                f"{digest!r} is no SHA-256", remedy="give the 64 digits that `sha256sum` prints"
            )
        return cls(name.repo, name.revision, digest)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return PREFIX + self.repo + revision + (f"#sha256={self.sha256}" if self.sha256 else "")


def is_hub_name(path: str | Path) -> bool:
    """Return whether this is a model of the hub rather than a path."""
    return str(path).startswith(PREFIX)


def resolved(path: str | Path) -> Path:
    """Return the folder of a model of the hub, downloaded unless it is here; paths stay paths.

    Raises:
        UsageError: it is no name of a model.
        WeightsError: the model cannot be downloaded, or has another hash than the name says.
    """
    return download(HubName.parse(str(path))) if is_hub_name(path) else Path(path)


def main_file(folder: Path) -> Path | None:
    """Return the file that says what a model is; None where a folder holds no model."""
    return next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)


def library() -> Any:
    """Return huggingface_hub.

    Raises:
        VidkdError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise VidkdError(
            "the hub needs huggingface_hub", remedy="pip install 'vidkd[hub]'"
        ) from error
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    return huggingface_hub


@functools.cache
def download(name: HubName) -> Path:
    """Download a model into the hub's cache and return its folder; once in a process.

    Without a network the copy of before is used, and that is said.

    Raises:
        WeightsError: the model cannot be downloaded, holds nothing of vidkd, or has another hash.
    """
    hub = library()
    if re.fullmatch(r"[0-9a-f]{40}", name.revision or "") and (folder := _cached(name)):
        return _checked(folder, name)  # a commit never changes
    with explained(str(name)):
        try:
            info = hub.HfApi().model_info(
                name.repo, revision=name.revision, files_metadata=True, timeout=_TIMEOUT
            )
        except Exception as error:
            if not _unreachable(error) or (folder := _cached(name)) is None:
                raise
            log(
                f"note: {name}: the hub cannot be reached; using the copy on this machine"
                f" (commit {folder.name[:12]})"
            )
            return _checked(folder, name)
        if info.id != name.repo:
            log(f"note: {name.repo} is now called {info.id}")
        listed = {item.rfilename: item for item in info.siblings or ()}
        wanted = [item for item in MODEL_FILES if item in listed]
        if not wanted:
            raise _no_model(name, listed)
        for item in wanted:
            if (listed[item].size or 0) > LARGEST_FILE:
                raise WeightsError(
                    f"{item} has {listed[item].size} bytes, more than a model can have",
                    path=str(name),
                    remedy="check the name",
                )
        folder = Path(
            hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=[CARD, *wanted])
        )
    return _checked(folder, name)


def _cached(name: HubName) -> Path | None:
    """Return the folder of a model that was downloaded before."""
    hub = library()
    try:
        folder = hub.snapshot_download(
            name.repo,
            revision=name.revision,
            allow_patterns=[CARD, *MODEL_FILES],
            local_files_only=True,
        )
    except hub.errors.LocalEntryNotFoundError:
        return None
    return Path(folder) if main_file(Path(folder)) else None


def _checked(folder: Path, name: HubName) -> Path:
    path = main_file(folder)
    assert path is not None
    if name.sha256 is not None and (found := sha256(path)) != name.sha256:
        raise WeightsError(
            f"{path.name} has SHA-256 {found}, and {name.sha256} was asked for",
            path=f"{PREFIX}{name.repo}",
            remedy="do not use it unless you know why it changed: ask its owner, or name the"
            " revision that you trust with @REVISION",
        )
    return folder


def _no_model(name: HubName, listed: dict[str, Any]) -> WeightsError:
    if "config.json" in listed:
        remedy = f"if it is a model of transformers, `vidkd models fetch {name.repo}` makes an"
        return WeightsError(
            "holds no model of vidkd", path=str(name), remedy=f"{remedy} encoder of it"
        )
    shown = ", ".join(sorted(listed)[:5]) or "nothing"
    return WeightsError(
        f"holds no model of vidkd, but {shown}",
        path=str(name),
        remedy=f"a model has {' or '.join(MODEL_FILES)}; other formats are never read",
    )


def _unreachable(error: Exception) -> bool:
    """Return whether the hub did not answer, or not as itself."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return status >= 500 or status == 429
    return isinstance(error, (OSError, errors.HTTPError))


@contextlib.contextmanager
def explained(name: str, kind: type[VidkdError] = WeightsError) -> Iterator[None]:
    """Say in our words what the hub refuses. The library's messages may hold addresses and more.

    Args:
        name: of the model, for the error.
        kind: of the error.
    """
    from huggingface_hub import errors

    page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/"
    try:
        yield
    except VidkdError:
        raise
    except errors.GatedRepoError as error:
        problem = "is gated: its owner lets in those who ask"
        remedy = f"ask on its page ({page}{HubName.parse(name).repo}), then {LOGIN}"
        raise kind(problem, path=name, remedy=remedy) from error
    except errors.RepositoryNotFoundError as error:
        problem = "is not on the hub, or is private"
        raise kind(
            problem, path=name, remedy=f"check the name; if it is private, {LOGIN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        problem = "has no such revision"
        raise kind(problem, path=name, remedy="give a branch, a tag or a commit") from error
    except errors.EntryNotFoundError as error:
        problem = "lacks a file that it lists"
        raise kind(problem, path=name, remedy="try again, or ask its owner") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in {401, 403}:
            problem = "the hub refuses the token" if status == 401 else "you may not do this"
            raise kind(problem, path=name, remedy=LOGIN + ", as one who may") from error
        problem = f"the hub answered with {status}"
        raise kind(problem, path=name, remedy="try again later") from error
    except (OSError, errors.HTTPError) as error:
        problem = "the hub cannot be reached"
        if isinstance(error, errors.OfflineModeIsEnabled):
            problem += " (HF_HUB_OFFLINE is set)"
        remedy = "check the network"
        if kind is WeightsError:
            problem += ", and there is no copy on this machine"
            remedy += ", or copy the model's folder here and give its path"
        raise kind(problem, path=name, remedy=remedy) from error
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise kind(f"the hub refuses this ({reason})", path=name, remedy="mend that") from error
