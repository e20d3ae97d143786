"""What this machine lets the process use: processor cores and instruction sets."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# What the kernels of this package and of its libraries differ by; all from /proc/cpuinfo.
_X86 = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
}
_ARM = {"asimd": "NEON", "asimddp": "dot product", "i8mm": "I8MM", "bf16": "BF16", "sve": "SVE"}


def cores(root: Path = _CGROUPS, group: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many processor cores this process may use.

    The least of its affinity (as ``taskset`` sets it) and the quota of processor time of its
    control groups (as containers and SLURM set it), a part of a core counting as one.

    Args:
        root: where the control groups are mounted.
        group: the kernel's list of the groups of this process.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    try:
        lines = group.read_text(encoding="utf-8").splitlines()
    except OSError:
        return allowed
    for _, names, place in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        # Version 2 has one tree without a name, version 1 a tree for each controller.
        if names and "cpu" not in names.split(","):
            continue
        folder = root if not names else root / names
        own = folder / place.strip("/")
        # In a container the path of the group may be the host's, and only the root is there. The
        # quota of a group holds for all groups in it.
        for part in (own, *own.parents):
            allowed = min(allowed, math.ceil(_quota(part)))
            if part == folder:
                break
    return max(allowed, 1)


def _quota(folder: Path) -> float:
    """Return how many cores the processes of one control group may use together."""
    try:
        if (folder / "cpu.max").is_file():
            given, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            given, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip()
                for name in ("quota", "period")
            )
        return float(given) / float(period) if given not in {"max", "-1"} else 1e9
    except (OSError, ValueError):
        return 1e9


def processor(information: Path = Path("/proc/cpuinfo")) -> tuple[str, list[str]]:
    """Return the processor's name and the instruction sets that matter here, by name.

    Args:
        information: the kernel's description of the processor; empty sets where there is none.
    """
    facts: dict[str, str] = {}
    try:
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    flags = set(f"{facts.get('flags', '')} {facts.get('Features', '')}".split())
    known = _ARM if "asimd" in flags else _X86
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, [called for flag, called in known.items() if flag in flags]
