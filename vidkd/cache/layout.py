"""The layout of one cache file, and where it lies.

Layout (schema version 1): datasets ``data`` (T, ...) and ``pts`` (T, 2) float64 (start and end
second of every row); root attributes ``schema_version``, ``artefact``, ``source_name``,
``source_size``, ``source_sha256``, ``frame_rate`` (a fraction such as ``"30000/1001"``),
``frame_count``, ``settings`` and ``versions`` (JSON), ``encoder`` and ``weights_sha256`` (empty
when there is none), and ``sha256``: the hash of the bytes of ``data``, then of ``pts``, then of
name and bytes of each further dataset in the order of names, then of the provenance as JSON.
Poses have the further dataset ``tracks``; it has as many rows as ``data``. The attribute ``codec``
is ``zstd``: rows are compressed without loss.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, cast

from vidkd.cache.packs import names_below
from vidkd.cache.provenance import ARTEFACTS, Artefact, Provenance, Source
from vidkd.errors import UsageError
from vidkd.keys import KeyIndex

SCHEMA_VERSION = 1
DTYPES = frozenset({"uint8", "int16", "int32", "int64", "float16", "float32", "float64"})


def cache_path(cache: Path, artefact: str, key: str, encoder: str | None = None) -> Path:
    """Return where the artefact of one video lies: ``CACHE/{flow,pose,features/ENCODER}/KEY.h5``.

    Raises:
        UsageError: the key or the encoder's name would leave the folder.
    """
    parts = PurePosixPath(key).parts
    if not parts or ".." in parts or PurePosixPath(key).is_absolute():
        raise UsageError(f"the video key {key!r} is not a relative path", remedy="choose --root")
    if artefact not in ARTEFACTS:
        raise UsageError(
            f"there is no artefact {artefact!r}", remedy=f"give one of {', '.join(ARTEFACTS)}"
        )
    folder = cache / artefact
    if artefact == "features":
        if not encoder or encoder in {".", ".."} or "/" in encoder:
            raise UsageError(f"{encoder!r} is not the name of an encoder", remedy="name one")
        folder /= encoder
    # Appended, not with_suffix: a key such as "S001.front" keeps its dot.
    return folder / f"{key}.h5"


def cache_files(cache: Path, artefact: str, encoder: str | None = None) -> KeyIndex[Path]:
    """Return the finished files of one artefact in a cache or pack by the key of their video.

    Raises:
        UsageError: there is no such artefact, or the encoder's name would leave the folder.
    """
    folder = cache_path(cache, artefact, "any", encoder).parent
    found = {name.removesuffix(".h5"): folder / name for name in names_below(folder, cache)}
    found |= {
        path.relative_to(folder).as_posix().removesuffix(".h5"): path
        for path in folder.rglob("*.h5")
        if not path.name.startswith(".")  # still being written
    }
    return KeyIndex(dict(sorted(found.items())), folder)


def encoder_folders(cache: Path) -> list[str]:
    """Return the names of the folders of features in a cache or pack, sorted."""
    top = cache / "features"
    names = {name.partition("/")[0] for name in names_below(top, cache)}
    if top.is_dir():
        names |= {item.name for item in top.iterdir() if item.is_dir()}
    return sorted(names)


def canonical(provenance: Provenance) -> bytes:
    """Return the provenance as the bytes that are part of a file's hash."""
    return json.dumps(provenance.to_json(), sort_keys=True).encode()


def to_attributes(provenance: Provenance) -> dict[str, Any]:
    """Return the provenance as root attributes."""
    values = provenance.to_json()
    return {
        "artefact": values["artefact"],
        **{f"source_{name}": values["source"][name] for name in ("name", "size", "sha256")},
        "frame_rate": values["source"]["frame_rate"],
        "frame_count": values["source"]["frame_count"],
        "settings": json.dumps(values["settings"], sort_keys=True),
        "encoder": values["encoder"] or "",
        "weights_sha256": values["weights_sha256"] or "",
        "versions": json.dumps(values["versions"], sort_keys=True),
    }


def from_attributes(attributes: Mapping[str, Any]) -> Provenance:
    """Read the provenance back.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError: an attribute is missing or damaged.
    """
    artefact = as_text(attributes["artefact"])
    if artefact not in ARTEFACTS:
        raise ValueError(f"unknown artefact {artefact!r}")
    return Provenance(
        artefact=cast(Artefact, artefact),
        source=Source(
            name=as_text(attributes["source_name"]),
            size=int(attributes["source_size"]),
            sha256=as_text(attributes["source_sha256"]),
            frame_rate=Fraction(as_text(attributes["frame_rate"])),
            frame_count=int(attributes["frame_count"]),
        ),
        settings=_mapping(attributes["settings"]),
        encoder=as_text(attributes["encoder"]) or None,
        weights_sha256=as_text(attributes["weights_sha256"]) or None,
        versions=_mapping(attributes["versions"]),
    )


def _mapping(value: object) -> dict[str, Any]:
    parsed = json.loads(as_text(value))
    if not isinstance(parsed, dict):
        raise TypeError("not a mapping")
    return parsed


def as_text(value: object) -> str:
    """Return a text attribute, whichever way its writer stored it."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; HDF5's are long."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
