"""Training curves of one or several runs, from their ``metrics.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from vidkd.errors import UsageError
from vidkd.report.segments import PALETTE
from vidkd.report.timeline import INK, plain, save

_WEIGHTED = "_weighted"
_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))


def read_metrics(run: str | Path) -> dict[str, np.ndarray]:
    """Read the columns of a run's ``metrics.csv``.

    Args:
        run: a run folder, or the file itself.

    Raises:
        UsageError: there is no such file, or it is not a table of numbers with epochs.
    """
    path = Path(run)
    if path.is_dir():
        path = path / "metrics.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        if "epoch" not in columns:
            raise ValueError("no column `epoch`")
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", path=path, remedy="give the folder of a run"
        ) from error
    except (ValueError, TypeError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise UsageError(
            "is not a run's table of metrics", path=path, remedy="give the folder of a run"
        ) from error
    return columns


def draw_curves(path: str | Path, runs: Sequence[str | Path]) -> None:
    """Draw the training curves of runs into one picture, atomically.

    Left the classification loss (training solid, validation dotted), then the validation frame
    mAP with its best epoch marked, then, if a run was distilled, its weighted loss terms.

    Args:
        path: the picture to write (PNG, PDF or SVG by its ending).
        runs: run folders; each is called by the name of its folder.

    Raises:
        UsageError: a run has no readable metrics.
        VidkdError: the picture cannot be written.
    """
    tables = {Path(run).resolve().name: read_metrics(run) for run in runs}
    if len(tables) < len(runs):
        tables = {str(run): read_metrics(run) for run in runs}
    distilled = {
        name: table
        for name, table in tables.items()
        if any(column.endswith(_WEIGHTED) for column in table)
    }
    panels = 3 if distilled else 2
    figure = Figure(figsize=(5.2 * panels, 4.1), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    colours = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(tables)}
    for name, table in tables.items():
        _losses(axes[0], table, colours[name], name)
        _validation(axes[1], table, colours[name], name)
    _style(axes[0], "classification loss (solid: training, dotted: validation)")
    _style(axes[1], "validation frame mAP, % (dot: best epoch)")
    # Room for the numbers above the best epochs.
    axes[1].set_ylim(0, 1.12 * axes[1].dataLim.y1 if np.isfinite(axes[1].dataLim.y1) else 1)
    if distilled:
        _terms(axes[2], distilled)
        _style(axes[2], "weighted terms of the loss, training")
        axes[2].set_yscale("log")
        axes[2].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[2].yaxis.set_minor_formatter(NullFormatter())
    handles, names = axes[0].get_legend_handles_labels()
    if len(tables) > 1:
        figure.legend(
            handles, names, loc="outside lower center", ncols=min(4, len(names)), frameon=False
        )
    else:
        figure.suptitle(next(iter(tables)), color=INK, fontweight="bold")
    save(figure, path)


def _losses(axes: Axes, table: dict[str, np.ndarray], colour: str, name: str) -> None:
    for column, style in (("classification", "-"), ("validation_classification", ":")):
        if column in table:
            label = name if column == "classification" else None
            axes.plot(
                table["epoch"], table[column], style, color=colour, linewidth=1.6, label=label
            )


def _validation(axes: Axes, table: dict[str, np.ndarray], colour: str, name: str) -> None:
    if "validation_map" not in table or not np.isfinite(table["validation_map"]).any():
        return
    values = 100 * table["validation_map"]
    best = int(np.nanargmax(values))
    axes.plot(table["epoch"], values, color=colour, linewidth=1.6, label=name)
    axes.plot(table["epoch"][best], values[best], "o", color=colour, markersize=5)
    axes.annotate(
        f"{values[best]:.1f}", (table["epoch"][best], values[best]), xytext=(0, 6),
        textcoords="offset points", ha="center", fontsize=8, color=colour,
    )  # fmt: skip


def _terms(axes: Axes, tables: dict[str, dict[str, np.ndarray]]) -> None:
    terms = sorted({c for table in tables.values() for c in table if c.endswith(_WEIGHTED)})
    for number, (name, table) in enumerate(tables.items()):
        style = _STYLES[number % len(_STYLES)]
        suffix = f" ({name})" if len(tables) > 1 else ""
        if "classification" in table:
            axes.plot(
                table["epoch"], table["classification"], color=INK, linewidth=1.6,
                linestyle=style, label=f"classification{suffix}",
            )  # fmt: skip
        for term in terms:
            # A logarithmic axis cannot show the zeros of a term that is switched off.
            if term in table and (table[term] > 0).any():
                axes.plot(
                    table["epoch"], np.where(table[term] > 0, table[term], np.nan),
                    color=PALETTE[terms.index(term) % len(PALETTE)], linewidth=1.4,
                    linestyle=style,
                    label=term.removesuffix(_WEIGHTED).replace("_", " ") + suffix,
                )  # fmt: skip
    axes.legend(frameon=False, fontsize=8)


def _style(axes: Axes, title: str) -> None:
    plain(axes, title)
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.margins(y=0.1)
