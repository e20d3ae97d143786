"""Requests to object stores and web servers, through fsspec: repeated for a while, then explained.

Every function takes addresses without credentials. What is missing raises FileNotFoundError, as
on a disk; everything else that goes wrong is a StorageError, which says what to do.
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from vidkd.errors import UsageError, VidkdError
from vidkd.storage.addresses import scrub, user_of, with_query

Result = TypeVar("Result")

_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries, up to twice as long, so that many machines do not come back at once."""
_UNKNOWN = "the name of the server is unknown"
_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 30.0
_EXTRAS = {"s3": "s3", "gs": "gs", "http": "http", "https": "http", "hf": "hub"}
_CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "set HF_TOKEN, or run `hf auth login`",
    **dict.fromkeys(("http", "https"), "give them as in https://USER:PASSWORD@HOST/..."),
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
_IDENTITIES = ("ETag", "etag", "generation", "blob_id", "Last-Modified", "LastModified", "updated")


class StorageError(VidkdError):
    """A store cannot be reached, refuses, or does not do what was asked."""


class UnansweredError(StorageError):
    """A store gave no usable answer, however often it was asked."""


class NoRangesError(Exception):
    """The server gives files as a whole only."""


@dataclass(frozen=True)
class Info:
    """What a store says of a file.

    Attributes:
        size: bytes, or None when the server does not say.
        identity: differs for another content under the same address, as far as the store tells.
        modified: seconds since 1970; 0 when unknown.
        folder: there is no file of this name, but files below it.
    """

    size: int | None
    identity: str
    modified: float = 0.0
    folder: bool = False


def info(plain: str) -> Info:
    """Ask for a file's size and identity.

    Raises:
        FileNotFoundError: there is nothing.
        StorageError: the store does not answer, or refuses.
    """
    return _info(plain, _attempted(plain, lambda: _store(plain).info(_given(plain))))


def is_listed(plain: str) -> bool:
    """Say whether an address is that of a folder.

    Over HTTP that is a page of links without an ending such as ``.mp4``.
    """
    if plain.startswith("http"):
        if PurePosixPath(urlsplit(plain).path).suffix:
            return False
        return _attempted(plain, lambda: bool(_store(plain).isdir(_given(plain))))
    try:
        return info(plain).folder
    except FileNotFoundError:
        return False


def listed(plain: str, *, deep: bool = False) -> list[str]:
    """Return the addresses of what lies in a folder, sorted.

    Args:
        plain: the folder; there is nothing in one that does not exist.
        deep: all files below it, instead of its own files and folders.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    given = _given(plain) + ("/" if plain.startswith("http") else "")
    look = (lambda: _store(plain).find(given)) if deep else (lambda: _store(plain).ls(given, False))
    try:
        found = _attempted(plain, look)
    except FileNotFoundError:
        return []
    scheme = plain.partition("://")[0]
    names = (name if "://" in name else f"{scheme}://{name}" for name in found)
    names = (name.partition("?")[0] if plain.startswith("http") else name for name in names)
    if deep:
        names = (name for name in names if not name.endswith("/"))
    return sorted({name.rstrip("/") for name in names if name.startswith(f"{plain}/")} - {plain})


class Reader:
    """One file of a store, opened once and read by ranges.

    Args:
        plain: its address.
        known: what ``info`` said of it.
    """

    def __init__(self, plain: str, known: Info) -> None:
        self._plain, self._known = plain, known
        self._file: Any = None

    def read(self, start: int, end: int) -> bytes:
        """Return bytes ``start`` to ``end`` (exclusive), all of them.

        Raises:
            NoRangesError: the server gives files as a whole only.
            FileNotFoundError: the file is gone.
            StorageError: the store does not answer, or the file is another one meanwhile.
        """

        def fetch() -> bytes:
            if self._file is None:
                self._file = self._open()
            try:
                self._file.seek(start)
                data: bytes = self._file.read(end - start)
            except ValueError as error:
                raise NoRangesError from error
            if len(data) != end - start:
                if self._plain.startswith("hf"):  # which tells a cut answer in another way
                    raise changed(self._plain)
                raise ConnectionError("the answer is too short")
            return data

        try:
            return _attempted(self._plain, fetch)
        except FileExistsError:  # under the condition that it is still the same
            raise changed(self._plain) from None

    def _open(self) -> Any:
        options: dict[str, Any] = {"cache_type": "none"}
        if self._plain.startswith("http"):
            options |= {"size": self._known.size, "block_size": 1 << 20}
        file = _store(self._plain).open(_given(self._plain), "rb", **options)
        if not self._plain.startswith("http"):
            now = _info(self._plain, file.details)
            if (now.identity, now.size) != (self._known.identity, self._known.size):
                raise changed(self._plain)
        return file


def stream(plain: str) -> Iterator[bytes]:
    """Yield a whole file of a web server piece by piece, once.

    Raises:
        FileNotFoundError: there is nothing.
        StorageError: the server does not answer.
    """
    file = _attempted(plain, lambda: _store(plain).open(_given(plain), "rb", block_size=0))
    while data := _attempted(plain, functools.partial(file.read, 1 << 20), tries=1):
        yield data


def upload(local: Path, plain: str, *, first_wins: bool = False) -> bool:
    """Store a local file, which appears whole or not at all.

    Args:
        local: the file.
        plain: its address to be.
        first_wins: keep what is there already, where the store can decide that in one step.

    Returns:
        Whether it is this content that is stored now.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    options: dict[str, Any] = {"mode": "create"} if first_wins else {}
    if plain.startswith("s3"):
        options["max_concurrency"] = 2  # parts of 50 MB are kept in memory
    return _written(
        plain, lambda extra: _store(plain).put_file(str(local), plain, **extra), options
    )


def store(plain: str, data: bytes, *, first_wins: bool = False) -> bool:
    """Store a few bytes; see ``upload``."""
    options = {"mode": "create"} if first_wins else {}
    return _written(plain, lambda extra: _store(plain).pipe_file(plain, data, **extra), options)


def remove(plain: str) -> None:
    """Remove a file; nothing happens if there is none.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    try:
        _attempted(plain, lambda: _store(plain).rm_file(plain))
    except FileNotFoundError:
        return


def _written(plain: str, write: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> bool:
    if plain.startswith(("http", "hf")):
        kind = "a web server" if plain.startswith("http") else "the Hugging Face hub"
        raise UsageError(
            f"is an address of {kind}, which nothing can be written to",
            path=plain,
            remedy="give a path, or an address of an object store such as s3://BUCKET/NAME",
        )
    try:
        _attempted(plain, lambda: write(options))
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise _no_bucket(plain) from None
    except NotImplementedError:
        # A store without conditional writes: the last one wins.
        _attempted(plain, lambda: write({**options, "mode": "overwrite"}))
    return True


def _given(plain: str) -> str:
    """Return an address as requests take it."""
    if not plain.startswith("http"):
        return plain
    return quote(with_query(plain), safe="%/:=&?~+!$,;'@()*[]")


def _store(plain: str) -> Any:
    return _opened(plain.partition("://")[0], user_of(plain), os.getpid())


@functools.lru_cache(maxsize=16)
def _opened(scheme: str, user: tuple[str, str] | None, process: int) -> Any:
    """Return the file system of fsspec for a scheme, one for each process."""
    try:
        import fsspec

        # They write tracebacks and every try of what is explained here.
        for name in ("gcsfs", "huggingface_hub.utils._http"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if scheme == "gs":
            # Read when gcsfs is imported. What it adds serves zonal buckets alone, and asks
            # another service before every request.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme == "s3":
            seconds = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _SILENCE_SECONDS}
            options["config_kwargs"] = {**seconds, "retries": {"max_attempts": 0}}
            if user is not None:
                options |= {"key": user[0], "secret": user[1]}
        elif scheme in {"http", "https"}:
            import aiohttp

            limits = aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS
            )
            headers = {}
            if user is not None:
                word = base64.b64encode(":".join(user).encode()).decode()
                headers = {"headers": {"Authorization": f"Basic {word}"}}
            options |= {"client_kwargs": {"timeout": limits, **headers}, "encoded": True}
        found = fsspec.filesystem(scheme, **options)
    except ImportError:
        raise UsageError(
            f"{scheme}:// needs a package that is not installed",
            remedy=f"pip install 'vidkd[{_EXTRAS[scheme]}]'",
        ) from None
    if scheme == "s3":
        found.retries = 1  # the tries are counted here
    return found


def _info(plain: str, found: dict[str, Any]) -> Info:
    named = [str(found[name]) for name in _IDENTITIES if found.get(name)]
    lfs = found.get("lfs") or {}
    named += [str(lfs["sha256"])] if isinstance(lfs, dict) and lfs.get("sha256") else []
    size = found.get("size")
    identity = hashlib.sha256("\0".join([plain, str(size), *named[:1]]).encode()).hexdigest()[:32]
    changed = found.get("LastModified") or found.get("updated") or found.get("Last-Modified")
    return Info(size, identity, _seconds(changed), found.get("type") == "directory")


def _seconds(time_of_change: Any) -> float:
    if isinstance(time_of_change, str):
        try:
            time_of_change = datetime.fromisoformat(time_of_change)
        except ValueError:
            try:
                time_of_change = parsedate_to_datetime(time_of_change)
            except ValueError:
                return 0.0
    return time_of_change.timestamp() if isinstance(time_of_change, datetime) else 0.0


def _attempted(plain: str, action: Callable[[], Result], tries: int | None = None) -> Result:
    """Do something, again after failures that pass, and explain the last one."""
    if tries is None:
        # gcsfs and huggingface_hub repeat every request themselves, for half a minute.
        tries = 2 if plain.startswith(("gs:", "hf:")) else len(_PAUSES) + 1
    for number in range(tries):
        try:
            return action()
        except (VidkdError, NoRangesError):
            raise
        except Exception as error:
            why, final = _judged(plain, error)
            if final is not None:
                raise final from None  # the cause may quote the address with its signature
        if number + 1 == tries or (why == _UNKNOWN and number == 2):
            break
        time.sleep(_PAUSES[number] * random.uniform(1, 2))
    raise UnansweredError(
        why + (f", {number + 1} times in a row" if number else ""),
        path=plain,
        remedy="check the network and the address, then run the same command again",
    )


def _judged(plain: str, error: BaseException) -> tuple[str, Exception | None]:
    """Say what failed, and return what to raise at once; None for what may pass."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < 5:
        causes.append(cause)
        cause = cause.__cause__
    kinds = {kind.__name__ for item in causes for kind in type(item).__mro__}
    # What aiohttp cannot parse, because it was cut, it calls a bad request.
    status, code = (None, "") if "HttpProcessingError" in kinds else _answer(causes)
    said = " ".join(filter(None, (str(status or ""), code)))
    scheme = plain.partition("://")[0]
    if isinstance(error, FileExistsError) or status == 412 or code == "PreconditionFailed":
        return "", FileExistsError(errno.EEXIST, "is there already", plain)
    if isinstance(error, NotImplementedError) or status == 501:
        return "", NotImplementedError()
    if "GatedRepoError" in kinds:
        return "", StorageError(
            "is open only to those who accepted its conditions",
            path=plain,
            remedy=f"accept them on its page at the hub, then {_CREDENTIALS['hf']}",
        )
    if code == "NoSuchBucket" or "RepositoryNotFoundError" in kinds:
        return "", _no_bucket(plain)
    if kinds & _NO_CREDENTIALS:
        remedy = _CREDENTIALS.get(scheme, "check the credentials")
        return "", StorageError("no credentials were found", path=plain, remedy=remedy)
    if status in {401, 403} or (status is None and "PermissionError" in kinds):
        return "", StorageError(
            f"access is denied ({said or 'no permission'})",
            path=plain,
            remedy="check that it exists and that your credentials may use it"
            + (f": {_CREDENTIALS[scheme]}" if scheme in _CREDENTIALS else ""),
        )
    if "FileExpired" in kinds or status == 416:
        return "", changed(plain)
    if status == 404 or (
        status is None and causes[-1:] == [error] and "FileNotFoundError" in kinds
    ):
        return "", FileNotFoundError(errno.ENOENT, "does not exist", plain)
    if status is not None and (status >= 500 or status in {408, 425, 429, 409}):
        return f"the server answered {said}", None
    if status is not None:
        return "", StorageError(
            f"the server answered {said}", path=plain, remedy="check the address and its region"
        )
    if any("Timeout" in kind for kind in kinds):
        return "no answer came in time", None
    if kinds & {"gaierror", "ClientConnectorDNSError"}:
        return _UNKNOWN, None
    if "OfflineModeIsEnabled" in kinds:
        return "", StorageError("HF_HUB_OFFLINE is set", path=plain, remedy="unset it")
    if kinds & {"EndpointConnectionError", "ClientConnectorError", "ConnectError"}:
        return "the server cannot be reached", None
    if kinds & {"OSError", "ClientError", "HTTPClientError", "HTTPException", "TransportError"}:
        return "the connection broke", None
    text = " ".join(scrub(str(error)).split())
    return "", StorageError(
        f"failed ({type(error).__name__}: {text})", path=plain, remedy="check the address"
    )


def _answer(causes: list[BaseException]) -> tuple[int | None, str]:
    """Return the status and the code that a server answered, whatever library tells them."""
    for item in causes:
        if type(item) is OSError and str(item).startswith("Forbidden: "):  # gcsfs
            return 403, ""
        response = getattr(item, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            code = str(response.get("Error", {}).get("Code", ""))
            return (
                status or (int(code) if code.isdigit() else None)
            ), code if code.isalpha() else ""
        for value in (
            getattr(response, "status_code", None),
            getattr(item, "status", None) or getattr(item, "code", None),
        ):
            if isinstance(value, int | str) and str(value).isdigit() and 100 <= int(value) < 600:
                return int(value), ""
    return None, ""


def _no_bucket(plain: str) -> StorageError:
    if plain.startswith("hf"):
        problem = "there is no such repository"
        remedy = f"check its name; if it is private, {_CREDENTIALS['hf']}"
    else:
        problem, remedy = "there is no such bucket", "check its name, or make it"
    return StorageError(problem, path=plain, remedy=remedy)


def changed(plain: str) -> StorageError:
    """Return the error for a file that is another one meanwhile."""
    return StorageError(
        "changed while it was read",
        path=plain,
        remedy="run the same command again when nobody writes to it",
    )
