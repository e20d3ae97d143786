"""Options from settings: every field of a settings class becomes an option of a command.

A command takes settings as parameters, and :func:`with_settings` replaces each by its options:

    @with_settings
    def train_teacher(job: Annotated[TrainingJob, Fields(defaults={"modality": "flow"})]): ...

Name, default, unit, bounds and help are those of the field. What is typed is converted and checked
by the settings themselves, so that a value means the same on the command line and in a recipe.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperCommand

from vidkd.errors import UsageError
from vidkd.recipe.choices import Precision
from vidkd.recipe.settings import Option, Settings
from vidkd.storage import as_path, without_credentials


def option(help: str, unit: str | None = None, names: tuple[str, ...] = (), **more: Any) -> Any:
    """Return an option, by default called as its parameter, whose value is in a ``unit``."""
    return typer.Option(*names, help=help, metavar=unit, **more)


def flag(name: str, help: str, **more: Any) -> Any:
    """Return an option without a value."""
    return typer.Option(name, help=help, metavar="", **more)


def argument(help: str, unit: str, **more: Any) -> Any:
    """Return an argument, which the usage shows as ``unit``."""
    return typer.Argument(help=help, metavar=unit, **more)


Json = Annotated[bool, flag("--json", "Print the result as JSON.", rich_help_panel="Run")]

Device = Annotated[str, option("Where to compute: auto, cpu, cuda or cuda:N.", "DEVICE")]

EncoderPrecision = Annotated[
    Precision,
    option(
        "Arithmetic of the encoder: int8, on a CPU, needs `vidkd models quantise`; float16 is for "
        "GPUs; auto is what the encoder was made for."
    ),
]

BatchSize = Annotated[
    int | None, option("Snippets at a time. Default: by the device.", "SNIPPETS", min=1)
]

Crop = Annotated[
    int | None,
    option("Side of the square the encoder sees. Default: that of the encoder's card.", "PIXELS"),
]

SkipMissing = Annotated[bool, flag("--skip-missing", "Leave out videos that have no features.")]


@dataclass(frozen=True)
class Fields:
    """Which fields of a settings class are options of a command, and how.

    Attributes:
        without: fields that are no options; of nested settings as ``subsets.unlabelled``.
        defaults: of this command, where they are not those of the class.
        required: fields that have to be given although the class has a default.
        decided_by: what sets the fields that are not given, for the help; "" for the class.
    """

    without: tuple[str, ...] = ()
    defaults: Mapping[str, Any] | None = None
    required: tuple[str, ...] = ()
    decided_by: str = ""


@dataclass(frozen=True)
class Setting:
    """One field as an option.

    Attributes:
        path: names of the fields that lead to it.
        info: what pydantic knows of it.
        option: how it is declared.
        name: of the option, such as ``--filter`` or ``--view/--no-view``.
        panel: heading under which help shows it.
        default: what it is when it is not given; ``...`` if it has to be.
        decided_by: see `Fields`.
    """

    path: tuple[str, ...]
    info: FieldInfo
    option: Option
    name: str
    panel: str
    default: Any
    decided_by: str = ""

    @functools.cached_property
    def type(self) -> Any:
        """The type of the value, without None and without annotations."""
        return _bare(self.info.annotation)

    @property
    def key(self) -> str:
        """The name of the option as a name of Python."""
        return self.name.split("/")[0].strip("-").replace("-", "_")

    @property
    def repeated(self) -> bool:
        """Whether it may be given several times: paths, and names with a number each."""
        kind, items = get_origin(self.type), get_args(self.type)
        return kind is dict or (kind is tuple and _bare(items[0]) in {str, Path})

    def names(self) -> list[str]:
        """The values it can have, where it is one of several names; else nothing."""
        if self.option.table is not None:
            own = [self.default] if isinstance(self.default, str) else []
            return list(dict.fromkeys([*own, *_table(self.option.table)]))
        return list(get_args(self.type)) if get_origin(self.type) is Literal else []

    def given(self, typed: Any) -> Any:
        """Return what the settings are given for what was typed.

        Raises:
            UsageError: it is not NAME=NUMBER where it should be.
        """
        kind = get_origin(self.type)
        if kind is dict:
            pairs = [item.partition("=") for item in typed]
            if not all(name and number for name, _, number in pairs):
                raise UsageError(f"{self.name} {typed[0]} is not NAME=NUMBER")
            return {name: number for name, _, number in pairs}
        return typed.split(",") if kind is tuple and not self.repeated else typed

    def help(self, names: Iterable[str] = (), others: Mapping[str, Setting] | None = None) -> str:
        """Return the help of the option, as markup of Rich.

        Args:
            names: the values that it can have, if they are to be listed.
            others: the same option in other settings of the command, by what those are called.
        """
        text = " ".join((self.info.description or "").split("\n\n")[0].replace("``", "").split())
        own = self.decided_by or _shown(self.default)
        facts = [
            _bounds(self.info),
            "one of " + ", ".join(names) if names else "",
            f"default: {own}" if own else "",
            *(
                f"for {called}: {_shown(other.default)}"
                for called, other in (others or {}).items()
                if own and _shown(other.default) not in {own, ""}
            ),
        ]
        tail = "; ".join(filter(None, facts))
        return text.replace("[", "\\[") + (f" [dim]\\[{tail}][/dim]" if tail else "")


class Options:
    """The options of one parameter that holds settings.

    Args:
        models: the settings class; with several, the one whose fields of a single possible value
            (``modality: Literal["pose"]``) agree with what is given, else the first.
        fields: which fields are options.
    """

    def __init__(self, models: tuple[type[Settings], ...], fields: Fields) -> None:
        self._models = models
        self._fields = fields
        self._settings = {model: list(settings_of(model, fields)) for model in models}
        self.by_key: dict[str, dict[type[Settings], Setting]] = {}
        for model, settings in self._settings.items():
            for setting in settings:
                known = self.by_key.setdefault(setting.key, {})
                if model in known:
                    raise TypeError(f"{model.__name__} has two options {setting.name}")
                known[model] = setting

    def names(self, key: str) -> list[str]:
        """Return the values that an option can have, where they are names; else nothing."""
        found = (setting.names() for setting in self.by_key[key].values())
        return list(dict.fromkeys(name for names in found for name in names))

    def in_table(self, key: str) -> bool:
        """Whether an option is one of these, and its value a name in a table."""
        return any(setting.option.table for setting in self.by_key.get(key, {}).values())

    def help(self, key: str, *, names: bool = False) -> str:
        """Return the help of an option, with the names that it takes from a table if asked to."""
        first, *others = self.by_key[key].values()
        called = [_called(model) for model in self.by_key[key]]
        listed = self.names(key) if names else ()
        return first.help(listed, dict(zip(called[1:], others, strict=True)))

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yield the parameter that Typer makes an option of, for each; None when not given."""
        for key, known in self.by_key.items():
            first = next(iter(known.values()))
            flag = first.type is bool
            kind: Any = bool if flag else list[str] if first.repeated else str
            required = first.default is ... and self._models[0] in known
            unit = first.option.unit or _UNITS.get(first.type, "N,N,...")
            named = self.in_table(key) or get_origin(first.type) is Literal
            if not self.in_table(key) and first.option.unit is None:
                unit = "|".join(self.names(key)) or unit
            option = typer.Option(
                first.name,
                help=self.help(key),
                metavar="" if flag else unit,
                hidden=not (first.option.common or required),
                rich_help_panel=first.panel,
                show_default=False,
                autocompletion=self._completion(key) if named else None,
            )
            yield inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else None,
                annotation=Annotated[kind if required else kind | None, option],
            )

    def _completion(self, key: str) -> Callable[[str], list[str]]:
        def complete(incomplete: str) -> list[str]:
            return [name for name in self.names(key) if name.startswith(incomplete)]

        return complete

    def build(self, typed: Mapping[str, Any]) -> Settings:
        """Return the settings of what was typed; None and empty lists were not.

        Raises:
            UsageError: a value does not fit; the message names its option.
        """
        typed = {key: value for key, value in typed.items() if value not in (None, [], ())}
        model = next(filter(lambda item: _agrees(item, typed), self._models[1:]), self._models[0])
        foreign = [key for key in typed if model not in self.by_key[key]]
        if foreign:
            names = ", ".join(next(iter(self.by_key[key].values())).name for key in foreign)
            raise UsageError(f"{_called(model)} has no {names}", remedy="leave it out")
        data: dict[str, Any] = dict(self._fields.defaults or {})
        for key, value in typed.items():
            setting = self.by_key[key][model]
            place = data
            for part in setting.path[:-1]:
                place = place.setdefault(part, {})
            place[setting.path[-1]] = setting.given(value)
        try:
            return model.model_validate(data)
        except ValidationError as error:
            raise UsageError(
                ", ".join(_problem(item, self._settings[model]) for item in error.errors()),
                remedy="see --help-all",
            ) from error


def with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter of a command that holds settings by their options."""
    signature = inspect.signature(function, eval_str=True)
    derived: dict[str, Options] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        models, fields = _settings_in(parameter.annotation)
        if models:
            derived[parameter.name] = Options(models, fields)
            parameters += derived[parameter.name].parameters()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def command(**values: Any) -> None:
        for name, options in derived.items():
            values[name] = options.build({key: values.pop(key) for key in options.by_key})
        values.pop("help_all", None)
        function(**values)

    parameters.sort(key=lambda item: _attribute(item, "rich_help_panel") == "Run")
    hidden = sum(bool(_attribute(item, "hidden")) for item in parameters)
    if hidden:
        parameters.append(_help_all(hidden))
    known = {parameter.name: parameter for parameter in parameters}
    if len(known) < len(parameters):
        raise TypeError(f"{function.__name__} has two options of one name")
    command.__signature__ = signature.replace(parameters=[*parameters])  # type: ignore[attr-defined]
    command.__annotations__ = {name: item.annotation for name, item in known.items()}
    command.options = tuple(derived.values())  # type: ignore[attr-defined]
    return command


class Command(TyperCommand):
    """A command whose paths may be addresses, and whose help lists the names in tables of parts.

    These take an import of each.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, after the credentials in its addresses were put aside.

        A ``Path`` would garble them. Options that are text get theirs back.
        """
        cleaned, self._typed = without_credentials(args)
        return super().parse_args(ctx, cleaned)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        for name, value in ctx.params.items():
            several = isinstance(value, list | tuple)
            ctx.params[name] = [*map(self._meant, value)] if several else self._meant(value)
        return super().invoke(ctx)

    def _meant(self, value: Any) -> Any:
        if isinstance(value, Path):
            return as_path(value)
        return self._typed.get(value, value) if isinstance(value, str) else value

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        for item in self.get_params(ctx):
            if getattr(item, "is_flag", False):
                item.metavar = ""
            if item.name == "help" and "help_all" in {other.name for other in self.params}:
                item.rich_help_panel = "Help"  # type: ignore[attr-defined]
            elif (
                not hasattr(self.callback, "options")
                and getattr(item, "rich_help_panel", None) == "Run"
            ):
                item.rich_help_panel = None  # type: ignore[attr-defined]
            for options in getattr(self.callback, "options", ()):
                if options.in_table(item.name) and not item.hidden:  # type: ignore[attr-defined]
                    item.help = options.help(item.name, names=True)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        for item in context.command.params:
            item.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit


def _help_all(hidden: int) -> inspect.Parameter:
    option = typer.Option(
        "--help-all",
        is_eager=True,
        expose_value=False,
        callback=_show_all,
        help=f"Show {hidden} more options and exit.",
        metavar="",
        rich_help_panel="Help",
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("help_all", kind, default=False, annotation=Annotated[bool, option])


def settings_of(
    model: type[Settings],
    fields: Fields | None = None,
    path: tuple[str, ...] = (),
    prefix: str = "",
) -> Iterator[Setting]:
    """Yield every field of settings, and of those nested in them, as an option."""
    fields = fields or Fields()
    defaults = fields.defaults or {}
    for name, info in model.model_fields.items():
        if ".".join((*path, name)) in fields.without:
            continue
        option = next((item for item in info.metadata if isinstance(item, Option)), Option())
        nested = _bare(info.annotation)
        if isinstance(nested, type) and issubclass(nested, Settings):
            inner = Fields(without=fields.without)
            yield from settings_of(nested, inner, (*path, name), option.name or prefix)
            continue
        default = defaults.get(name, None if info.default is PydanticUndefined else info.default)
        called = option.name or "--" + "-".join(filter(None, [prefix, name.replace("_", "-")]))
        if nested is bool and default is True and "/" not in called:
            called += f"/--no-{called[2:]}"
        yield Setting(
            (*path, name),
            info,
            option,
            called,
            option.panel or model.model_config.get("title") or "Options",
            ... if info.is_required() or name in fields.required else default,
            fields.decided_by,
        )


def numbers(text: str | None, option: str, example: str) -> list[float] | None:
    """Return the numbers of an option N,N,...; None if it was not given.

    Raises:
        UsageError: they are not numbers.
    """
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{option} {text} is not a list of numbers", remedy=f"give such as {option} {example}"
        ) from error


def _settings_in(annotation: Any) -> tuple[tuple[type[Settings], ...], Fields]:
    fields = Fields()
    if get_origin(annotation) is Annotated:
        found = [item for item in get_args(annotation)[1:] if isinstance(item, Fields)]
        fields = found[0] if found else fields
        annotation = get_args(annotation)[0]
    items = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    models = tuple(i for i in items if isinstance(i, type) and issubclass(i, Settings))
    return models, fields


def _bare(annotation: Any) -> Any:
    """Return a type without what it is annotated with, and without None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    kinds = [item for item in get_args(annotation) if item is not NoneType]
    if NoneType in get_args(annotation) and len(kinds) == 1:
        return _bare(kinds[0])
    return annotation


def _agrees(model: type[Settings], typed: Mapping[str, Any]) -> bool:
    single = {
        name: info.default
        for name, info in model.model_fields.items()
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1
    }
    return bool(single) and all(typed.get(name) == value for name, value in single.items())


def _attribute(parameter: inspect.Parameter, name: str) -> Any:
    """Return what Typer is told about a parameter."""
    return next(
        (getattr(i, name) for i in get_args(parameter.annotation) if hasattr(i, name)), None
    )


def _called(model: type[Settings]) -> str:
    """What the settings are for, in a few words."""
    return model.model_config.get("title") or model.__name__


_UNITS: dict[Any, str] = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def _bounds(info: FieldInfo) -> str:
    """Return the range of a number in words."""
    limit: dict[str, float] = {}
    for item in info.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(item, name):
                limit[name] = getattr(item, name)
    low = f"{limit['ge']:g}" if "ge" in limit else f"above {limit['gt']:g}" if "gt" in limit else ""
    if "le" in limit or "lt" in limit:
        high = f"{limit['le']:g}" if "le" in limit else f"below {limit['lt']:g}"
        return f"{low} to {high}".strip()
    return f"at least {low}" if "ge" in limit else low


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else ""
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "" if default is None or default is ... or default == {} else str(default)


def _problem(error: Any, settings: Iterable[Setting]) -> str:
    """Put a validation error into words, with the name of the option."""
    loc = tuple(error["loc"])
    found = [setting for setting in settings if loc[: len(setting.path)] == setting.path]
    message = str(error["msg"]).removeprefix("Value error, ")
    if not found:
        return message
    name = found[0].name.split("/")[0]
    if error["type"] == "missing":
        few = len(loc) > len(found[0].path)
        return f"{name} has too few values" if few else f"{name} is missing"
    if message.startswith("Input "):
        return f"{name} {error['input']} {message.removeprefix('Input ')}"
    return f"{name}: {message}"


def _table(group: str) -> Iterable[str]:
    """Return the names in a table of parts; what holds it is imported only now."""
    if group == "vidkd.filters":
        from vidkd.networks.temporal import FILTERS

        return FILTERS
    if group == "vidkd.losses":
        from vidkd.distillation.objective import LOSSES
        from vidkd.recipe.training import DistillationSettings

        # The others have an option each.
        return [name for name in LOSSES if name not in DistillationSettings.model_fields]
    if group == "vidkd.streams":
        from vidkd.streams import STREAMS

        return STREAMS
    from vidkd.annotations import READERS

    return READERS
