"""Tables of named parts: those that come with vidkd, and those that installed packages add.

A package adds a part through an entry point (docs/extending.md shows one of each group):

    [project.entry-points."vidkd.losses"]
    my-loss = "my_package.my_module:my_loss"
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from vidkd.errors import UsageError, VidkdError

Part = TypeVar("Part")


class Table(Mapping[str, Part], Generic[Part]):
    """Parts of one kind by name; those of other packages are imported when they are asked for.

    Args:
        group: of the entry points, such as ``vidkd.losses``.
        kind: what one of them is called in messages, such as ``loss``.
        own: the parts of vidkd itself; no other package can replace one of them.
    """

    def __init__(self, group: str, kind: str, own: Mapping[str, Part]) -> None:
        self.group = group
        self.kind = kind
        self._own = dict(own)
        self._loaded: dict[str, Part] = {}

    @functools.cached_property
    def _added(self) -> dict[str, EntryPoint]:
        found = {point.name: point for point in entry_points(group=self.group)}
        if taken := sorted(found.keys() & self._own.keys()):
            point = found[taken[0]]
            raise VidkdError(
                f"{point.value} wants to be the {self.kind} {taken[0]!r}, which vidkd has itself",
                remedy="rename it in the package that adds it, or uninstall that package",
            )
        return found

    def __getitem__(self, name: str) -> Part:
        """Return the part called ``name``.

        Raises:
            UsageError: there is none; the message lists the names.
            VidkdError: the package that adds it cannot be imported.
        """
        if name in self._own:
            return self._own[name]
        if name in self._loaded:
            return self._loaded[name]
        if name not in self._added:
            raise UsageError(
                f"there is no {self.kind} {name!r}", remedy=f"give one of {', '.join(self)}"
            )
        point = self._added[name]
        try:
            part: Part = point.load()
        except Exception as error:  # whatever the other package does when it is imported
            raise VidkdError(
                f"the {self.kind} {name!r} cannot be loaded from {point.value}"
                f" ({type(error).__name__}: {error})",
                remedy="update or uninstall the package that adds it",
            ) from error
        # Losses are looked up in every step, and an entry point imports each time it is loaded.
        self._loaded[name] = part
        return part

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._added

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from sorted(self._added)

    def __len__(self) -> int:
        return len(self._own) + len(self._added)
