"""The rows of the tables, and the trained runs they need, each named once.

``vidkd run`` makes one table, with a teacher for each stream that the recipe names. ``vidkd
benchmark`` makes those of Dai et al. 2021: 1 the losses, 2 other methods of distillation, 3 the
streams per split of the videos, 4 the temporal filters, 5 the teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Generic, TypeVar

from vidkd.distillation.objective import loss_weights
from vidkd.errors import UsageError
from vidkd.pipeline.layout import file_name
from vidkd.recipe import DistillationSettings, FilterSettings, Modality, Pipeline
from vidkd.recipe.benchmark import BaselineWeights, MethodSettings
from vidkd.recipe.choices import FilterKind
from vidkd.recipe.paper import PAPER_TEACHERS
from vidkd.streams import RGB, STREAMS

LOSSES = tuple(loss_weights(DistillationSettings()))
"""The paper's losses: those that are on unless a recipe says otherwise."""
BASELINES = tuple(BaselineWeights.model_fields)
"""The losses of other methods."""
METHODS: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("logits", ("logits",), None),
    ("logits + features", ("logits", "mars"), None),
    ("hallucination", ("hallucination",), "hallucination"),
    ("MARS", ("mars",), "mars"),
    ("graph distillation (representation)", ("graph",), None),
    ("graph distillation (representation + logits)", ("graph", "graph_logits"), None),
)
"""Rows of Table 2: title, losses, and under which name the paper's number is known."""


@dataclass(frozen=True)
class Run:
    """One filter to train, with any seed.

    Attributes:
        slug: its name in file names; two runs that differ never share it.
        modality: what it sees.
        filter: the temporal filter.
        teachers: of the same seed.
        distillation: None without teachers.
        trained: False for a teacher that keeps its first, random weights.
        split: name of the split of the videos; empty for the recipe's own.
    """

    slug: str
    modality: Modality
    filter: FilterSettings
    teachers: tuple[Run, ...] = ()
    distillation: DistillationSettings | None = None
    trained: bool = True
    split: str = ""

    def __hash__(self) -> int:
        # Not of the settings, which may hold weights by the names of losses.
        return hash((self.slug, self.split))

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What must be in the cache to train it."""
        found = [self.modality, *(m for teacher in self.teachers for m in teacher.modalities)]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        cells: what stands in its leading columns.
        runs: the runs whose logits are averaged.
        paper: under which name the paper's number of this row is known, if it is.
        name: in file names; empty for the names of its runs.
        fused: weigh the runs as is best on validation, instead of all alike, into one file.
    """

    cells: tuple[str, ...]
    runs: tuple[Run, ...]
    paper: str | None = None
    name: str = ""
    fused: bool = False

    @property
    def inputs(self) -> str:
        """What it sees at run time."""
        if self.fused:
            made = " and ".join(
                STREAMS[run.modality].contents for run in self.runs if run.modality != RGB.name
            )
            return f"{RGB.name} ({made} from it)" if made else RGB.name
        return " + ".join(run.modality for run in self.runs)

    @property
    def slug(self) -> str:
        """The name in file names."""
        return self.name or "+".join(run.slug for run in self.runs)

    @property
    def split(self) -> str:
        """Name of the split of the videos; empty for the recipe's own."""
        return self.runs[0].split


Row = TypeVar("Row")


@dataclass(frozen=True)
class Table(Generic[Row]):
    """One table, of planned rows or of rows with their numbers.

    Attributes:
        key: such as ``table-1``.
        title: what it compares.
        columns: heads of the leading columns.
        rows: in the paper's order.
        left_out: rows that the recipe cannot make, each with the reason.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()


@dataclass
class _Builder:
    """Makes runs of one recipe, the same one whenever it is asked for."""

    recipe: Pipeline
    split: str = ""
    known: dict[str, Run] = field(default_factory=dict)

    @property
    def teachers(self) -> tuple[Modality, ...]:
        """The teacher of Tables 1 to 4: the recipe's first."""
        return self.recipe.teachers[:1]

    def filter(self, kind: FilterKind | None) -> FilterSettings:
        own = self.recipe.filter
        if kind is None or kind == own.kind:
            return own
        return own.model_copy(update={"kind": kind, "layers": None})

    def _made(self, slug: str, **fields: object) -> Run:
        if self.split:
            slug = f"{file_name(self.split)}-{slug}"
        run = Run(slug=slug, split=self.split, **fields)  # type: ignore[arg-type]
        known = self.known.setdefault(slug, run)
        if known != run:
            raise UsageError(
                f"two different rows would be called {slug!r}", remedy="rename one of the methods"
            )
        return known

    def _suffix(self, kind: FilterKind | None) -> str:
        return "" if kind in {None, self.recipe.filter.kind} else f"-{kind}"

    def single(self, modality: Modality, kind: FilterKind | None = None) -> Run:
        """Return vanilla RGB, of the student's stream, or the teacher of another modality."""
        name = "vanilla-rgb" if modality == self.recipe.student else f"teacher-{modality}"
        return self._made(name + self._suffix(kind), modality=modality, filter=self.filter(kind))

    def untrained(self, modality: Modality) -> Run:
        """Return a teacher that was never trained."""
        slug = f"untrained-{modality}"
        return self._made(slug, modality=modality, filter=self.filter(None), trained=False)

    def student(
        self,
        teachers: Sequence[Run],
        settings: DistillationSettings,
        kind: FilterKind | None = None,
        name: str | None = None,
    ) -> Run:
        """Return an RGB student of these teachers."""
        if name is None:
            shown = "-".join(loss.replace("_", "-") for loss in loss_weights(settings)) or "nothing"
            suffix, prefix = self._suffix(kind), f"{file_name(self.split)}-" if self.split else ""
            of = "-".join(
                teacher.slug.removeprefix(prefix).removeprefix("teacher-").removesuffix(suffix)
                for teacher in teachers
            )
            name = f"student-{shown}-of-{of}{suffix}"
        for known in self.known.values():
            same = (known.teachers, known.distillation) == (tuple(teachers), settings)
            if same and known.filter == self.filter(kind):
                return known
        return self._made(
            name,
            modality=self.recipe.student,
            filter=self.filter(kind),
            teachers=tuple(teachers),
            distillation=settings,
        )

    def augmented(
        self, modalities: Sequence[Modality] | None = None, kind: FilterKind | None = None
    ) -> Run:
        """Return the paper's student: all losses of the recipe."""
        teachers = [self.single(item, kind) for item in modalities or self.teachers]
        return self.student(teachers, self.recipe.distillation, kind)

    def only(self, weights: dict[str, float]) -> Run:
        """Return a student with these losses and no others."""
        own = dict.fromkeys((*LOSSES, *BASELINES), 0.0)
        own |= {name: weight for name, weight in weights.items() if name in own}
        added = {name: weight for name, weight in weights.items() if name not in own}
        settings = self.recipe.distillation.model_copy(update={**own, "losses": added})
        return self.student([self.single(item) for item in self.teachers], settings)

    def method(self, method: MethodSettings) -> Run:
        """Return a student that the recipe describes by what is different."""
        values = {**self.recipe.distillation.model_dump(), **method.distillation}
        settings = DistillationSettings.model_validate(values)
        kind = method.teacher_filter or method.filter
        teachers = [self.single(item, kind) for item in method.teachers or self.teachers]
        return self.student(teachers, settings, method.filter, f"method-{file_name(method.name)}")


def models_table(recipe: Pipeline) -> Table[TableRow]:
    """Return the table of ``vidkd run``: every teacher, vanilla RGB, their fusion, the student.

    Without teachers it is vanilla RGB alone.
    """
    builder = _Builder(recipe)
    known = "+".join(sorted(recipe.teachers, reverse=True))
    teachers = tuple(builder.single(item) for item in recipe.teachers)
    vanilla = builder.single(recipe.student)
    rows: list[tuple[str, tuple[Run, ...], str | None]] = [
        *((f"{run.modality} teacher", (run,), _paper("teacher", run.modality)) for run in teachers),
        ("vanilla RGB", (vanilla,), "vanilla"),
    ]
    if teachers:
        student = builder.student(teachers, recipe.distillation, name="augmented-rgb")
        fused = "two-stream" if len(teachers) == 1 else "late fusion"
        rows += [
            (fused, (vanilla, *teachers), _paper("two-stream", known)),
            ("augmented RGB", (student,), _paper("augmented", known)),
        ]
    made = [TableRow((name,), runs, paper, file_name(name)) for name, runs, paper in rows]
    for modalities in recipe.fused:
        name = " + ".join(STREAMS[item].label for item in modalities)
        runs = tuple(builder.single(item) for item in modalities)
        # The student stays last: a detection by it is shown.
        made.insert(-1, TableRow((name,), runs, None, file_name(name), fused=True))
    return Table("models", recipe.name, ("model",), tuple(made))


def build_tables(recipe: Pipeline, numbers: Sequence[int] | None = None) -> list[Table[TableRow]]:
    """Return the tables that a recipe's benchmark asks for.

    Args:
        recipe: with its section ``benchmark``.
        numbers: of the tables, instead of the recipe's.

    Raises:
        UsageError: there is no teacher, or two methods have the same name.
    """
    if not recipe.teachers:
        raise UsageError("the recipe has no teacher", remedy="name one under `teachers`")
    builder = _Builder(recipe)
    makers = {
        1: _losses,
        2: _methods_of_others,
        3: _streams,
        4: _filters,
        5: _teachers,
    }
    wanted = recipe.benchmark.tables if numbers is None else tuple(numbers)
    tables = [makers[number](builder) for number in sorted(set(wanted))]
    own = _own_rows(builder)
    return [*tables, *([own] if own.rows else [])]


def all_runs(tables: Sequence[Table[TableRow]]) -> list[Run]:
    """Return every run the tables need, teachers before their students, each once."""
    runs = (run for table in tables for row in table.rows for run in row.runs)
    return list({item.slug: item for run in runs for item in (*run.teachers, run)}.values())


def _losses(builder: _Builder) -> Table[TableRow]:
    on = loss_weights(builder.recipe.distillation)
    names = (*LOSSES, *(name for name in on if name not in (*LOSSES, *BASELINES)))
    rows = [TableRow(("",) * len(names), (builder.single(builder.recipe.student),), "vanilla")]
    for count in range(1, len(names) + 1):
        for chosen in combinations(names, count):
            if all(name in on for name in chosen):
                marks = tuple("x" if name in chosen else "" for name in names)
                run = builder.only({name: on[name] for name in chosen})
                paper = {("atomic",): "atomic", LOSSES: "augmented"}.get(chosen)
                rows.append(TableRow(marks, (run,), paper))
    off = tuple(f"rows with the {name} loss: its weight is 0" for name in names if name not in on)
    heads = tuple(name.removesuffix("_context") for name in names)
    return Table("table-1", "Table 1: the losses", heads, tuple(rows), off)


def _methods_of_others(builder: _Builder) -> Table[TableRow]:
    weights = builder.recipe.benchmark.baselines.model_dump()
    rows = [
        TableRow((title,), (builder.only({name: weights[name] for name in losses}),), paper)
        for title, losses, paper in METHODS
    ]
    atomic = builder.recipe.distillation.atomic
    if atomic > 0:
        rows.append(TableRow(("atomic (ours)",), (builder.only({"atomic": atomic}),), "atomic"))
    return Table("table-2", "Table 2: methods of distillation", ("method",), tuple(rows))


def _streams(builder: _Builder) -> Table[TableRow]:
    recipe = builder.recipe
    rows: list[TableRow] = []
    for split in ("", *(item.name for item in recipe.benchmark.splits)):
        part = _Builder(recipe, split, builder.known)
        name = split or recipe.benchmark.split or recipe.dataset or recipe.name
        (modality,) = part.teachers
        teacher, vanilla = part.single(modality), part.single(recipe.student)
        rows += [
            TableRow(
                (name, f"{STREAMS[modality].label} teacher"),
                (teacher,),
                _paper("teacher", modality),
            ),
            TableRow((name, "vanilla RGB"), (vanilla,), "vanilla"),
            TableRow((name, "two-stream"), (vanilla, teacher), _paper("two-stream", modality)),
            TableRow((name, "augmented RGB"), (part.augmented(),), _paper("augmented", modality)),
        ]
    return Table("table-3", "Table 3: streams", ("videos", "model"), tuple(rows))


def _filters(builder: _Builder) -> Table[TableRow]:
    rows: list[TableRow] = []
    (modality,) = builder.teachers
    for kind in builder.recipe.benchmark.filters:
        vanilla, teacher = (
            builder.single(builder.recipe.student, kind),
            builder.single(modality, kind),
        )
        rows += [
            TableRow((kind, "vanilla RGB"), (vanilla,)),
            TableRow((kind, "two-stream"), (vanilla, teacher)),
            TableRow((kind, "augmented RGB"), (builder.augmented(kind=kind),)),
        ]
    return Table("table-4", "Table 4: temporal filters", ("filter", "model"), tuple(rows))


def _teachers(builder: _Builder) -> Table[TableRow]:
    recipe = builder.recipe
    others = recipe.encoders.keys() - {recipe.student}.union(*PAPER_TEACHERS)
    choices = [*PAPER_TEACHERS, *((item,) for item in recipe.encoders if item in others)]
    vanilla = builder.single(recipe.student)
    rows: list[TableRow] = []
    left_out: list[str] = []
    for modalities in choices:
        name = " + ".join(STREAMS[item].label for item in modalities)
        lacking = [item for item in modalities if item not in recipe.encoders]
        if lacking:
            left_out.append(f"{name}: the recipe has no encoder for {' and '.join(lacking)}")
            continue
        teachers = tuple(builder.single(item) for item in modalities)
        known = "+".join(modalities)
        rows += [
            TableRow((name, "teacher"), teachers, _paper("teacher", known)),
            TableRow((name, "vanilla RGB"), (vanilla,), "vanilla"),
            TableRow((name, "two-stream"), (vanilla, *teachers), _paper("two-stream", known)),
            TableRow((name, "augmented RGB"), (builder.augmented(modalities),),
                     _paper("augmented", known)),
        ]  # fmt: skip
    return Table("table-5", "Table 5: teachers", ("teacher", "model"), tuple(rows), tuple(left_out))


def _own_rows(builder: _Builder) -> Table[TableRow]:
    recipe = builder.recipe
    rows: list[TableRow] = []
    left_out: list[str] = []
    (modality,) = builder.teachers
    for control in recipe.benchmark.controls:
        if control == "untrained-teacher":
            teacher, name = (
                builder.untrained(modality),
                f"untrained {STREAMS[modality].label} teacher",
            )
        else:
            teacher, name = builder.single(recipe.student), "RGB teacher (vanilla)"
        run = builder.student([teacher], recipe.distillation)
        rows.append(TableRow((f"control: student of an {name}",), (run,)))
    for method in recipe.benchmark.methods:
        lacking = [m for m in method.teachers or () if m not in recipe.encoders]
        if lacking:
            left_out.append(f"{method.name}: the recipe has no encoder for {' and '.join(lacking)}")
        else:
            rows.append(TableRow((method.name,), (builder.method(method),)))
    title = "Further methods and controls"
    return Table("further", title, ("method",), tuple(rows), tuple(left_out))


def _paper(name: str, teachers: str) -> str | None:
    """Return under which name the paper has a row's number: for flow, and once for both."""
    first, *_, both = ("+".join(names) for names in PAPER_TEACHERS)
    if teachers == first:
        return name
    return f"augmented-{both}" if (name, teachers) == ("augmented", both) else None
