"""A task whose ``build`` gives the widths that ``slim.json`` describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from converters.loading import FULL_WIDTH, SLIM_MARK, LoadedTask
from converters.slim.description import Slim, Width, bad_slim, groups_of, read, read_state
from converters.slim.groups import Group
from converters.slim.narrow import narrow
from converters.slim.network import width_key
from converters.supernet.reshape import crop, shorten


def with_slim(task: LoadedTask, path: Path) -> LoadedTask:
    """The same task with the widths and weights of a slimming.

    Args:
        task: that was slimmed.
        path: of ``slim.json``; its weights lie beside it.

    Raises:
        TaskError: ``task.bad-slim``.
        ContractError: the document does not decode.
    """
    path = path.absolute()
    slim = read(path)
    if slim.task != task.name:
        raise bad_slim(path, f"describes the task {slim.task!r}, not {task.name!r}")
    widths = tuple(width.width for width in slim.widths)
    return replace(
        task,
        ref=f"{task.ref}{SLIM_MARK}{path}",
        task=_Slimmed(task.task, slim, path),
        widths=widths,
    )


class _Slimmed:
    """The user's task; only what it builds differs."""

    def __init__(self, task: Any, slim: Slim, path: Path) -> None:
        self._task, self._slim, self._path = task, slim, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build(self, width: float = FULL_WIDTH) -> nn.Module:
        """The module of a width with its weights."""
        module: nn.Module = self._task.build()
        state = read_state(self._slim, self._path)
        groups = groups_of(self._slim)
        try:
            module.load_state_dict(state[width_key(FULL_WIDTH)])
            if width == FULL_WIDTH:
                return module
            return _narrowed(module, groups, self._width(width), state[width_key(width)])
        except (RuntimeError, KeyError, IndexError, AttributeError) as error:
            raise bad_slim(
                self._path, f"does not fit what build() of this task returns ({error})"[:300]
            ) from error

    def _width(self, width: float) -> Width:
        return next(item for item in self._slim.widths if item.width == width)


def _narrowed(
    module: nn.Module, groups: tuple[Group, ...], width: Width, own: dict[str, Any]
) -> nn.Module:
    small = narrow(module, groups, width.kept)
    crop(small, width.kernels)
    shorten(small, width.depths)
    small.load_state_dict({**small.state_dict(), **own})
    return small
