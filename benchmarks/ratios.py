"""Ours against its peers, in ratios that can be compared from one change to the next.

    python benchmarks/ratios.py [--avx2] [--keep] [--output FILE]

Runs the smaller benchmarks, each of which interleaves both sides, and two workers beside one. It
says how many times as fast ours is, the least and the most of its rounds, and what was kept in
`ratios.json` for the same kernels of PyTorch (AVX2, AVX512, ...). A ratio of which a tenth is
gone is named, and whether the rounds differ by as much, as on a busy machine. ``--keep`` makes
this run the one that later runs are held against; do that on a quiet machine. ``--avx2`` has
every library compute as on a processor without AVX-512. Takes two minutes on two quiet cores; with
``--rounds 1`` one. When it is told to end, it shows what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
KEPT = FOLDER / "ratios.json"
LOSS = 0.1
"""Share of a ratio that may be lost before it is named."""
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2",
    "NUMBA_CPU_NAME": "haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # that of PyTorch and that of OpenVINO
    "OPENCV_CPU_DISABLE": "AVX512-SKX",
}
"""Environment in which the libraries use no AVX-512."""

Ratio = dict[str, float]


def result(*command: object) -> Any:
    """Return what a command prints as JSON."""
    arguments = [sys.executable, *map(str, command), "--json"]
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def ratio(value: float, *range_: float) -> Ratio:
    """Return a ratio with the least and the most of its rounds."""
    names = ("ratio", "least", "most")
    return {k: round(v, 3) for k, v in zip(names, (value, *sorted(range_)), strict=True)}


def flow(rounds: int) -> dict[str, Ratio]:
    found = result(FOLDER / "tvl1.py", "--short-side", 128, "--pairs", 4 * rounds)
    return {"TV-L1 to OpenCV, one core": ratio(found["ratio"], *found["ratio range"])}


def network(rounds: int) -> dict[str, Ratio]:
    options = ("--crops", 112, "--batches", 1, "--rounds", 2 * rounds + 1)
    rows = result(FOLDER / "i3d.py", *options)["results"]
    rows = {row["variant"]: row for row in rows}
    names = {
        "ours": "I3D",
        "int8 to 1 %": "I3D in 8 bits to 1 %",
        "int8 throughout": "I3D in 8 bits throughout",
    }
    found = {}
    ours, shares = rows["ours"], {}
    for variant, name in names.items():
        if variant not in rows:
            continue
        row = rows[variant]
        fastest = row["ratio_of_fastest"]
        found[f"{name} to the plain network"] = ratio(row["ratio"], row["ratio"], fastest)
        if row is not ours:
            to_ours = ours["ms_per_snippet"] / row["ms_per_snippet"]
            fastest = ours["fastest_ms"] / row["fastest_ms"]
            found[f"{name} to float32"] = ratio(to_ours, to_ours, fastest)
        share = row["share_of_limit"]
        shares[f"{name}, share of a matrix product"] = ratio(share, share, share)
    return found | shares


def extraction(rounds: int) -> dict[str, Ratio]:
    whole = result(FOLDER / "extraction.py", "--rounds", rounds, "--crop", 112)
    found = {}
    for kind in ("wall", "cpu"):
        given = whole[f"{kind}_ratio"]
        name = f"extract-features to the obvious script, {kind} time"
        found[name] = ratio(given["median"], given["least"], given["most"])
    return found


def workers(rounds: int) -> dict[str, Ratio]:
    """Return two workers on two cores to one worker on one, by the seconds of each video.

    The first video of a worker is left out, in which it starts.
    """
    from extraction import clips

    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return {}
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        videos = clips(folder / "videos", 4 + rounds)
        commands = {
            "extract-flow": ("--short-side", 128, "--backend", "numba"),
            "extract-features": ("--modality", "rgb", "--crop", 112, "--device", "cpu"),
        }
        for name, options in commands.items():
            seconds = []
            for count in (1, 2):
                os.sched_setaffinity(0, cores[:count])
                cache = folder / f"{name}{count}"
                call = ("-m", "vidkd", name, *videos, "--cache", cache, "--workers", count)
                times = sorted(video["seconds"] for video in result(*call, *options))
                seconds.append(times[:-count])
            one, two = seconds
            found[f"{name}, two workers to one"] = ratio(
                2 * statistics.median(one) / statistics.median(two),
                2 * one[0] / two[-1],
                2 * one[-1] / two[0],
            )
        os.sched_setaffinity(0, cores)
    return found


def measure(rounds: int) -> dict[str, Ratio]:
    """Return how many times as fast as its peer each part is, by name."""
    from vidkd.console import log

    found = {}
    for part in (flow, network, extraction, workers):
        try:
            found |= part(rounds)
        except subprocess.CalledProcessError as error:
            log(f"{part.__name__}: not measured, for {Path(error.cmd[1]).name} failed")
        except KeyboardInterrupt:
            log(f"{part.__name__}: out of time")
            break
    return found


def lost(now: dict[str, Ratio], before: dict[str, Ratio]) -> list[str]:
    """Return a line for every ratio of which a tenth is gone, or that is not there any more."""
    lines = []
    for name, kept in before.items():
        least = (1 - LOSS) * kept["ratio"]
        if name not in now:
            lines.append(f"not measured: {name}: was {kept['ratio']:.2f}")
        elif now[name]["ratio"] < least:
            beyond = now[name]["most"] < least
            why = (
                "" if beyond else " (the rounds differ by as much: measure again when it is quiet)"
            )
            lines.append(f"slower: {name}: {now[name]['ratio']:.2f}, was {kept['ratio']:.2f}{why}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--avx2", action="store_true", help="Use no AVX-512.")
    parser.add_argument("--keep", action="store_true", help="Hold later runs against this one.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write this run as JSON.")
    options = parser.parse_args()
    if options.avx2:
        os.environ.update(AVX2)  # before the import of torch
    from vidkd.console import emit_table, log
    from vidkd.files import write_json
    from vidkd.pipeline.machine import describe_machine

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine, load = describe_machine(), os.getloadavg()[0]
    now = measure(options.rounds)
    every = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    kept = every.get(machine["kernels"], {"machine": machine, "ratios": {}})
    before, place = kept["ratios"], kept["machine"]
    emit_table(
        f"{machine['processor']}, {machine['kernels']}, {machine['cores']} cores, load {load:.1f}",
        ("", "ratio", "least", "most", "kept"),
        [
            (
                name,
                *(f"{value:.2f}" for value in row.values()),
                f"{before[name]['ratio']:.2f}" if name in before else "",
            )
            for name, row in now.items()
        ],
    )
    for line in lost(now, before):
        log(line)
    if (place["processor"], place["cores"]) != (machine["processor"], machine["cores"]):
        log(f"what is kept is of another machine: {place['processor']}, {place['cores']} cores")
    if not before:
        log(f"nothing is kept for {machine['kernels']} yet; --keep does that")
    record = {"machine": {**machine, "load": round(load, 1)}, "ratios": now}
    if options.output:
        write_json(options.output, record)
    if options.keep:
        write_json(KEPT, {**every, machine["kernels"]: record})


if __name__ == "__main__":
    main()
