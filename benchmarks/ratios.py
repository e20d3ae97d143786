"""Ours against its peers, in ratios that can be compared from one change to the next.

    python benchmarks/ratios.py [--output FILE] [--against benchmarks/ratios.json]

Runs the smaller benchmarks, each of which interleaves both sides in one run, and writes one JSON:
how many times as fast ours is, the spread over rounds, and the machine. With ``--against``, every
ratio that lost a tenth or more is named; the spread must agree, so that a busy machine does not
cry wolf. Records are kept by the kernels that PyTorch takes (AVX2, AVX512, ...): with
``--keep`` this run's become those of the file. Takes two minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from vidkd.console import emit_table, log
from vidkd.files import write_json
from vidkd.pipeline.machine import describe_machine

FOLDER = Path(__file__).parent
LOSS = 0.1
"""Share of a ratio that may be lost before it is named."""


def result(script: str, *options: str) -> Any:
    """Return what a benchmark says as JSON."""
    command = [sys.executable, str(FOLDER / script), *options, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def ratio(value: float, least: float, most: float) -> dict[str, float]:
    return {"ratio": round(value, 3), "least": round(least, 3), "most": round(most, 3)}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Return how many times as fast as its peer each part is, by name."""
    found = {}
    flow = result("tvl1.py", "--short-side", "128", "--pairs", str(4 * rounds))
    found["TV-L1 against OpenCV, 171x128"] = ratio(flow["ratio"], *flow["ratio range"])
    log("TV-L1: done")
    network = result("i3d.py", "--crops", "112", "--batches", "1", "--rounds", str(2 * rounds + 1))
    rows = {row["variant"]: row for row in network["results"]}
    for variant in ("ours", "int8 to 1 %"):
        if variant in rows:
            row = rows[variant]
            both = sorted((row["ratio"], row["ratio_of_fastest"]))
            name = "I3D" if variant == "ours" else "I3D, 8 bits to 1 %,"
            found[f"{name} against the plain network, crop 112"] = ratio(row["ratio"], *both)
    found["I3D, share of a matrix product"] = ratio(
        rows["ours"]["share_of_limit"], *[rows["ours"]["share_of_limit"]] * 2
    )
    log("I3D: done")
    whole = result("extraction.py", "--rounds", str(rounds), "--crop", "112")
    for kind in ("wall", "cpu"):
        given = whole[f"{kind}_ratio"]
        found[f"extract-features against the obvious script, {kind} time"] = ratio(
            given["median"], given["least"], given["most"]
        )
    return found


def lost(now: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[str]:
    """Return the names of ratios of which a tenth is gone, beyond what the rounds differ by."""
    return [
        name
        for name, kept in before.items()
        if name in now and max(now[name]["ratio"], now[name]["most"]) < (1 - LOSS) * kept["ratio"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="FILE")
    parser.add_argument("--keep", action="store_true", help="Make this run the one of --against.")
    options = parser.parse_args()
    machine = describe_machine()
    now = measure(options.rounds)
    kept = json.loads(options.against.read_text()) if options.against else {}
    before = kept.get(machine["kernels"], {}).get("ratios", {})
    emit_table(
        f"{machine['processor']}, {machine['kernels']}, {machine['cores']} cores",
        ("ours against", "ratio", "least", "most", "before"),
        [
            (name, *(f"{value:.2f}" for value in row.values()), f"{before[name]['ratio']:.2f}")
            if name in before
            else (name, *(f"{value:.2f}" for value in row.values()), "")
            for name, row in now.items()
        ],
    )
    for name in lost(now, before):
        log(f"slower: {name}: {now[name]['ratio']:.2f}, was {before[name]['ratio']:.2f}")
    record = {"machine": machine, "ratios": now}
    if options.output:
        write_json(options.output, record)
    if options.keep and options.against:
        write_json(options.against, {**kept, machine["kernels"]: record})


if __name__ == "__main__":
    main()
