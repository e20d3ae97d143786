"""What all settings have in common: the base class, the checks, and reading them from YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from vidkd.errors import UsageError
from vidkd.storage import RemotePath, as_path


@dataclass(frozen=True)
class Option:
    """What a setting is on the command line, where ``vidkd.cli.options`` makes an option of it.

    The text below a field is the help of its option, up to the first empty line.

    Attributes:
        name: of the option, such as ``--filter``, or ``--view/--no-view``; for nested settings
            what the names of their options begin with. Default: the name of the field.
        unit: what the value is measured in, or what it is, such as ``PIXELS`` or ``DIR``.
        common: ``--help`` shows the option, and not only ``--help-all``.
        table: entry point group of the table whose keys the value is one of.
        panel: heading under which help shows it. Default: the title of its class.
    """

    name: str | None = None
    unit: str | None = None
    common: bool = False
    table: str | None = None
    panel: str | None = None


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _with_addresses(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if not _holds_paths(field.annotation):
            return value
        if isinstance(value, list | tuple):
            return tuple(map(_address_or_same, value))
        return _address_or_same(value)


def _address_or_same(value: Any) -> Any:
    """Return an address as a path, and all else as it is: JSON has no paths."""
    if not isinstance(value, str | Path):
        return value
    found = as_path(value)
    return found if isinstance(found, RemotePath) else value


def _holds_paths(annotation: Any) -> bool:
    return annotation is Path or any(map(_holds_paths, get_args(annotation)))


Model = TypeVar("Model", bound=BaseModel)


def load_yaml(path: str | Path, model: type[Model]) -> Model:
    """Read and validate one YAML file.

    Raises:
        UsageError: the file is missing, is not YAML, or does not fit the schema; the message
            names the key.
    """
    import yaml  # a tenth of the time that `vidkd --help` takes

    path = as_path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(
            f"cannot be read ({reason})", path=path, remedy="check the path and the name"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError("is not valid YAML", path=path, remedy=reason) from error
    return validated(model, data, "does not fit the schema", path)


def validated(model: type[Model], data: Any, problem: str, path: Path | None = None) -> Model:
    """Return settings made of ``data``.

    Raises:
        UsageError: ``problem``, about the file at ``path`` if given, and which key to correct.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UsageError(problem, path=path, remedy=f"correct {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Put a validation error into one line: which key, and what is wrong with it."""
    return ", ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'the whole file'} ({item['msg']})"
        for item in error.errors()
    )
