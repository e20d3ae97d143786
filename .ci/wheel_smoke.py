"""Try the plain wheel: what `pip install .` gives, without the tools of developers.

Builds the wheel and installs it into an empty environment, at the versions that requirements.txt
pins but with no other packages than those the wheel itself asks for. It is under 15 MB, and the
package index will take it. There, every command shows its
help, `vidkd doctor` finds nothing broken, and a small `run` and `benchmark` go from rendered videos
to their tables and figures, on encoders with random weights.

Run it with the Python of an environment made by `make setup`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Inside the repository, so that uv can link to its cache instead of copying gigabytes.
FOLDER = ROOT / ".wheel-smoke"
LARGEST = 15_000_000
"""Bytes of the wheel."""
PYTHON = FOLDER / "env" / "bin" / "python"
VIDKD = FOLDER / "env" / "bin" / "vidkd"

RECIPE = """
name: tiny
description: the whole chain at the smallest size
synth: {videos: 6, seconds: 5, width: 96, height: 72, frame_rate: 10, seed: 3}
frames: {short_side: 48}
snippet: {length: 16, stride: 8}
encoders:
  rgb: {name: i3d-rgb-kinetics400, crop: 48}
  flow: {name: i3d-flow-inflated, crop: 48}
filter: {channels: 16, layers: 2}
optimiser: {epochs: 3, batch_size: 2}
teachers: [flow]
benchmark: {tables: [3], figures: [3, 4, 5, 6, 7]}
"""

RANDOM_WEIGHTS = """
from pathlib import Path
from vidkd.networks import save_weights
from vidkd.networks.i3d import I3D
from vidkd.networks.weights import state_sha256

for name, channels in (("i3d-rgb-kinetics400", 3), ("i3d-flow-inflated", 2)):
    state = I3D(channels, 400).state_dict()
    state = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    header = {"network": "i3d", "card": name, "weights_sha256": state_sha256(state)}
    save_weights(Path("models") / f"{name}.safetensors", state, header)
"""

NAMES_OF_COMMANDS = """
from vidkd.cli.commands import OTHER_NAMES, PANELS, load_command

print()
for name in sorted([*OTHER_NAMES, *(name for panel in PANELS.values() for name in panel)]):
    print(name)
    for child in sorted(getattr(load_command(name), "commands", {})):
        print(name, child)
"""


def call(*command: object, cwd: Path = FOLDER) -> str:
    """Run a command and return its standard output; end with all it said if it fails."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }
    environment["VIDKD_MODELS"] = str(FOLDER / "models")
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def install() -> None:
    """Build the wheel and install it, with what it depends on, into an empty environment."""
    uv = Path(sys.executable).with_name("uv")
    call(uv, "build", "--quiet", "--wheel", "--out-dir", FOLDER / "dist", cwd=ROOT)
    call(sys.executable, "-m", "venv", FOLDER / "env")
    [wheel] = (FOLDER / "dist").glob("*.whl")
    assert wheel.stat().st_size < LARGEST, f"{wheel.name} has {wheel.stat().st_size} bytes"
    call(sys.executable, "-m", "twine", "check", "--strict", wheel)
    pins = ("--constraint", ROOT / "requirements.txt")
    call(uv, "pip", "install", "--quiet", "--python", PYTHON, *pins, wheel)
    call(uv, "pip", "check", "--python", PYTHON)


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    install()
    print("wheel: installed without extras")

    names = call(PYTHON, "-c", NAMES_OF_COMMANDS).splitlines()
    with ThreadPoolExecutor() as pool:
        helps = pool.map(lambda name: call(VIDKD, *name.split(), "--help"), names)
        assert all("Usage: vidkd" in text for text in helps)
    print(f"wheel: {len(names)} commands show their help")

    (FOLDER / "models").mkdir()
    call(PYTHON, "-c", RANDOM_WEIGHTS)
    states = {check["state"] for check in json.loads(call(VIDKD, "doctor", "--json"))}
    assert states <= {"ok", "optional"}, states
    print("wheel: doctor finds nothing broken")

    (FOLDER / "tiny.yaml").write_text(RECIPE)
    options = ("--workers", 1, "--device", "cpu", "--json")
    results = json.loads(call(VIDKD, "run", "tiny.yaml", "--output", "run", *options))
    assert len(results["rows"]) == 4, results["rows"]
    cache = ("--cache", "run/cache")
    call(VIDKD, "benchmark", "tiny.yaml", "--output", "benchmark", *cache, *options)
    pictures = sorted(
        path.name for path in (FOLDER / "benchmark" / "pictures").glob("figure-*.png")
    )
    assert [name.split("-")[1] for name in pictures] == ["3", "4", "5", "6", "7"], pictures
    print("wheel: run and benchmark end with their tables and figures")

    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
