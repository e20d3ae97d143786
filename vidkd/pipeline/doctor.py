"""What works on this machine, and how to fix what does not (``vidkd doctor``)."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vidkd.errors import VidkdError


@dataclass(frozen=True)
class Check:
    """The outcome of one check: ``state`` is ``ok``, ``optional`` (absent, and that is fine) or
    ``broken``."""

    name: str
    state: str
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """Try everything vidkd needs by using it once, and return one outcome for each."""
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("Python", _python, "install Python 3.11, 3.12 or 3.13"),
        ("torch and torchvision", _torch, "install the pair that requirements.txt pins"),
        ("video decode and encode", _video, "install PyAV again: pip install --force-reinstall av"),
        (
            "TV-L1 of OpenCV",
            _opencv,
            "remove every other OpenCV (pip list | grep opencv) and install "
            "opencv-contrib-python-headless again",
        ),
        ("TV-L1 of numba", _numba, "pass --backend opencv, which is slower"),
        ("HDF5 with zstd", _hdf5, "install h5py and hdf5plugin again"),
        ("processor", _processor, "use a processor of x86-64 with AVX2, or of Arm"),
        ("speed", _speed, "install the pair of torch and torchvision that requirements.txt pins"),
        ("memory", _memory, "close other programs; extraction needs about 2 GB per worker"),
        ("temporary folder", _temporary, "free some space, or set TMPDIR"),
        ("folder of weights", _weights_folder, "set VIDKD_MODELS to a folder that can be written"),
    ]
    outcomes = [_outcome(name, probe, remedy) for name, probe, remedy in checks]
    return [*outcomes, _pose_detector(), _gpu(), *_weights()]


def _outcome(name: str, probe: Callable[[], str], remedy: str) -> Check:
    try:
        return Check(name, "ok", probe())
    except Exception as error:  # a check reports every way in which the thing can fail
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Check(name, "broken", first[:160], remedy)


def _python() -> str:
    version = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise VidkdError(f"Python {version} is not supported")
    return version


def _torch() -> str:
    import torch
    import torchvision

    # A torchvision built for another torch imports, and fails at its first compiled operation.
    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    return f"{torch.__version__}, {torchvision.__version__}, {torch.get_num_threads()} threads"


def _video() -> str:
    from vidkd.video import VideoWriter, read_frames

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with VideoWriter(path, 64, 48, 10) as writer:
            for level in (40, 200):
                writer.write(np.full((48, 64, 3), level, np.uint8))
        levels = [int(frame.image.mean()) for frame in read_frames(path)]
    if len(levels) != 2 or levels[1] - levels[0] < 100:
        raise VidkdError(f"H.264 round trip gave {levels}")
    import av

    return f"PyAV {av.__version__}, H.264"


def _moving() -> tuple[np.ndarray, np.ndarray]:
    texture = np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)
    import cv2

    image = cv2.resize(texture, (96, 80), interpolation=cv2.INTER_CUBIC)
    return image, np.roll(image, 1, axis=1)


def _flow_with(backend: Literal["opencv", "numba"]) -> str:
    from vidkd.flow import flow_function

    previous, current = _moving()
    motion = float(np.median(flow_function(backend)(previous, current)[..., 0]))
    if abs(motion - 1) > 0.2:
        raise VidkdError(f"a shift of 1 pixel was measured as {motion:.2f}")
    return f"a shift of 1 pixel measured as {motion:.2f}"


def _opencv() -> str:
    return _flow_with("opencv")


def _numba() -> str:
    return _flow_with("numba")


def _hdf5() -> str:
    import h5py
    import hdf5plugin

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.h5"
        data = np.arange(1000)
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=data, **hdf5plugin.Zstd(clevel=1))
        with h5py.File(path) as file:
            if not np.array_equal(file["data"][...], data):
                raise VidkdError("a round trip changed the data")
    return f"h5py {h5py.__version__}, hdf5plugin {hdf5plugin.version}"


def _processor() -> str:
    from vidkd.pipeline.machine import describe_machine

    found = describe_machine()
    sets = ", ".join(found["instruction_sets"]) or "no known instruction sets"
    allowed = f"{found['cores']} of {os.cpu_count()} cores may be used"
    return f"{found['processor']}: {sets}; PyTorch uses {found['kernels']}; {allowed}"


def _speed() -> str:
    import torch

    from vidkd.pipeline.machine import copy_bandwidth, matrix_product

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    product, copied = matrix_product(device), copy_bandwidth(device)
    return f"matrix product {product:.0f} GFLOP/s, memory copy {copied:.0f} GB/s"


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if pages < 3:
        raise VidkdError(f"{pages:.1f} GiB in all")
    return f"{pages:.0f} GiB"


def _temporary() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    if free < 1:
        raise VidkdError(f"{free:.1f} GiB free in {tempfile.gettempdir()}")
    return f"{tempfile.gettempdir()}, {free:.0f} GiB free"


def _weights_folder() -> str:
    from vidkd.networks import models_folder

    folder = models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return str(folder)


def _pose_detector() -> Check:
    from vidkd.pose.detector import load_pose_detector
    from vidkd.recipe import pose_detector_cards
    from vidkd.recipe.models import DEFAULT_DETECTOR

    if DEFAULT_DETECTOR not in pose_detector_cards():
        return Check("pose detector", "optional", "none", "train one with vidkd pose train")

    def detect() -> str:
        detector = load_pose_detector(DEFAULT_DETECTOR, "cpu")
        (people,) = detector([np.full((192, 256, 3), 127, np.uint8)])
        if people:
            raise VidkdError(f"{detector.name} finds {len(people)} people in a grey picture")
        return detector.name

    return _outcome("pose detector", detect, "install vidkd again")


def _gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", "optional", "none", "not needed; a CUDA GPU makes features faster")
    return Check("GPU", "ok", torch.cuda.get_device_name())


def _weights() -> list[Check]:
    from vidkd.networks import models_folder
    from vidkd.recipe import model_cards

    outcomes = []
    for name in model_cards():
        if (models_folder() / f"{name}.safetensors").is_file():
            outcomes.append(Check(f"weights {name}", "ok", "fetched"))
        else:
            outcomes.append(
                Check(f"weights {name}", "optional", "not fetched", f"vidkd models fetch {name}")
            )
    return outcomes
