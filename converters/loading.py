"""From ``path.py:Task`` to a checked task object."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from converters.schemes import supported_scheme
from converters.settings import LAYER_KINDS, LayerKind
from converters.task import REQUIRED, REQUIRED_GENERIC, Preprocess
from converters.usercode import LIMIT_S, user_code
from edge_sdk.contracts.audio import EnhanceSpec, SoundInfo
from edge_sdk.contracts.topics import check_name
from edge_sdk.errors import ConfigError, EdgeError, TaskError
from edge_sdk.suggest import did_you_mean

MAX_LABELS = 100_000
MAX_SIDE_PX = 8192
DEFAULT_TOLERANCE = 0.1
FULL_WIDTH = 1.0

MARK = "#pixels"
"""At the end of a reference: the task with its normalisation folded in (:mod:`converters.fold`)."""

SLIM_MARK = "#slim="
"""Before the path of a ``slim.json`` in a reference: its widths (:mod:`converters.slim.task`)."""

Kind = Literal["classification", "generic"]
Described = TypeVar("Described", EnhanceSpec, SoundInfo)
_NO_IMAGE = Preprocess(color="gray", mean=(0.0,), std=(1.0,))


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task whose declared members have been checked; its methods have not run yet."""

    ref: str
    """``path.py:Class`` with an absolute path."""
    path: Path
    task: Any
    name: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    resolutions: tuple[tuple[int, int], ...]
    schemes: tuple[str, ...]
    """The task's own choice; empty when it leaves it to the profiles."""
    kind: Kind = "classification"
    tolerance: float = DEFAULT_TOLERANCE
    """See :attr:`converters.task.GenericTask.tolerance`."""
    states: tuple[tuple[int, int], ...] = ()
    """(input, output) positions of a streaming module, where the output comes back as the input."""
    sequence_steps: int = 0
    """See :attr:`converters.task.GenericTask.sequence_steps`."""
    integers: tuple[LayerKind, ...] = ()
    """See :attr:`converters.task.GenericTask.integers`."""
    sound: SoundInfo | None = None
    """How the module listens, if it does."""
    enhance: EnhanceSpec | None = None
    """How the module cleans speech, if it does."""
    width: float = FULL_WIDTH
    """Share of the full network's channels that the module is built with."""
    widths: tuple[float, ...] = (FULL_WIDTH,)
    """What the task can build, the full width first."""
    folded: Preprocess | None = None
    """Normalisation that the module is to do itself, see :mod:`converters.fold`."""

    @property
    def channels(self) -> int:
        """Channels of the input: 1 for gray, 3 for RGB."""
        return 1 if self.preprocess.color == "gray" else 3


def load_task(ref: str, *, width: float = FULL_WIDTH) -> LoadedTask:
    """Load a user's model file.

    Args:
        ref: ``path.py:Class``.
        width: one of the task's widths, which its module is to be built with.

    Raises:
        TaskError: one of the slugs on docs/errors/task.md.
    """
    plain, _, slim = ref.removesuffix(MARK).partition(SLIM_MARK)
    path, class_name = _split(plain)
    kind = _class_in(_import(path), class_name, path)
    with user_code(path, f"{class_name}()", limit_s=LIMIT_S):
        task = kind()
    what = _kind(task, path)
    required = REQUIRED_GENERIC if what == "generic" else REQUIRED
    missing = [name for name in required if not hasattr(task, name)]
    if missing:
        raise TaskError(
            "member-missing",
            f"{class_name} in {path} lacks {', '.join(missing)}.",
            _member_hint(missing[0], task),
        )
    loaded = LoadedTask(
        ref=f"{path}:{class_name}",
        path=path,
        task=task,
        name=_name(task, path),
        labels=_labels(task, path) if what == "classification" else (),
        preprocess=_preprocess(task, path) if hasattr(task, "preprocess") else _NO_IMAGE,
        resolutions=_resolutions(task, path),
        schemes=_schemes(task, path),
        kind=what,
        tolerance=_tolerance(task, path),
        states=_states(task, path),
        sequence_steps=_sequence_steps(task, path),
        integers=_integers(task, path),
        sound=_described(task, path, "sound", SoundInfo),
        enhance=_described(task, path, "enhance", EnhanceSpec),
        width=width,
        widths=_widths(task, path),
    )
    if slim:
        from converters.slim.task import with_slim  # which needs LoadedTask

        loaded = with_slim(loaded, Path(slim))
    if not ref.endswith(MARK):
        return loaded
    from converters.fold import with_folding  # which needs LoadedTask

    return with_folding(loaded)


def _split(ref: str) -> tuple[Path, str]:
    file, colon, class_name = ref.rpartition(":")
    if not colon or not class_name.isidentifier():
        raise TaskError(
            "bad-reference",
            f"{ref!r} does not name a class in a Python file.",
            "Write it as path/to/file.py:ClassName.",
        )
    path = Path(file).expanduser()
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.py")) if path.name else []
        raise TaskError(
            "file-missing",
            f"There is no file {path}.",
            did_you_mean(path.name, near) if near else "Check the path.",
        )
    return path.resolve(), class_name


def _import(path: Path) -> Any:
    """Run the file as a module of its own; its folder joins the import path for its siblings."""
    spec = importlib.util.spec_from_file_location(f"edge_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TaskError(
            "not-python",
            f"{path} is not a Python source file.",
            "Give a file whose name ends in .py.",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        with user_code(path, f"Importing {path.name}", limit_s=LIMIT_S):
            spec.loader.exec_module(module)
    except EdgeError as error:
        sys.modules.pop(spec.name, None)
        raise _import_error(error, path) from error
    return module


def _import_error(error: EdgeError, path: Path) -> EdgeError:
    """Name the two failures of an import that deserve their own hint."""
    cause = error.__cause__
    if isinstance(cause, SyntaxError):
        return TaskError(
            "syntax-error",
            f"{cause.filename or path}:{cause.lineno}: {cause.msg}.",
            "Correct the Python syntax there.",
        )
    if isinstance(cause, UnicodeDecodeError):
        return TaskError(
            "not-python", f"{path} is not UTF-8 text: {cause.reason}.", "Give a Python source file."
        )
    if isinstance(cause, ModuleNotFoundError):
        return TaskError(
            "import-missing",
            f"{error.cause.removesuffix('.')} (needed by {path}).",
            f"Install the package that provides {cause.name}.",
        )
    return error


def _class_in(module: Any, class_name: str, path: Path) -> Any:
    kind = getattr(module, class_name, None)
    if isinstance(kind, type):
        return kind
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    raise TaskError(
        "class-missing",
        f"{path} has no class {class_name}.",
        did_you_mean(class_name, own) if own else "The file defines no class at all.",
    )


def _member_hint(missing: str, task: object) -> str:
    own = [name for name in dir(task) if not name.startswith("_") and name not in REQUIRED]
    hint = did_you_mean(missing, own) if own else ""
    suggestion = f" {hint}" if hint.startswith("Did") else ""
    return f"The protocol is converters/task.py:Task; examples/digits shows one.{suggestion}"


def _invalid(path: Path, what: str, hint: str) -> TaskError:
    return TaskError("member-invalid", f"{path}: {what}", hint)


def _name(task: Any, path: Path) -> str:
    try:
        return check_name(str(task.name), "task name")
    except ConfigError as error:
        raise _invalid(path, error.cause, error.hint) from error


def _labels(task: Any, path: Path) -> tuple[str, ...]:
    labels = task.labels
    good = (
        isinstance(labels, list | tuple)
        and 2 <= len(labels) <= MAX_LABELS
        and all(isinstance(label, str) and label for label in labels)
        and len(set(labels)) == len(labels)
    )
    if not good:
        raise _invalid(
            path,
            f"labels must be at least two different strings, got {_short(labels)}.",
            'For example labels = ("cat", "dog").',
        )
    return tuple(labels)


def _preprocess(task: Any, path: Path) -> Preprocess:
    value = task.preprocess
    channels = {"gray": 1, "rgb": 3}
    if not isinstance(value, Preprocess):
        raise _invalid(
            path,
            f"preprocess is {type(value).__name__}, not Preprocess.",
            "from converters.task import Preprocess",
        )
    if not (
        len(value.mean) == len(value.std) == channels.get(value.color, -1)
        and all(std > 0 for std in value.std)
    ):
        raise _invalid(
            path,
            f"preprocess needs one mean and one positive std per channel of {value.color!r}.",
            "Gray has one channel, rgb three; the unit is pixels, 0 to 255.",
        )
    return value


def _resolutions(task: Any, path: Path) -> tuple[tuple[int, int], ...]:
    found = getattr(task, "resolutions", ((1, 1),))
    good = isinstance(found, list | tuple) and found and all(map(_is_size, found))
    if not good or len(set(map(tuple, found))) != len(found):
        raise _invalid(
            path,
            f"resolutions must be different (height, width) pairs, got {_short(found)}.",
            "For example resolutions = ((32, 32), (24, 24)), the full one first.",
        )
    return tuple((int(height), int(width)) for height, width in found)


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(side, int) and 1 <= side <= MAX_SIDE_PX for side in value)
    )


def _kind(task: Any, path: Path) -> Kind:
    found = getattr(task, "kind", "classification")
    if found == "classification":
        return "classification"
    if found == "generic":
        return "generic"
    raise _invalid(
        path,
        f"kind is {_short(found)}.",
        'Write kind = "generic", or leave it out for classification.',
    )


def _widths(task: Any, path: Path) -> tuple[float, ...]:
    found = getattr(task, "widths", (FULL_WIDTH,))
    good = isinstance(found, list | tuple) and all(
        isinstance(width, int | float) and not isinstance(width, bool) and 0 < width <= 1
        for width in found
    )
    if not good or not found or float(found[0]) != FULL_WIDTH or len(set(found)) != len(found):
        raise _invalid(
            path,
            f"widths must be different shares of the full width, got {_short(found)}.",
            "For example widths = (1.0, 0.75, 0.5), the full one first.",
        )
    return tuple(map(float, found))


def _tolerance(task: Any, path: Path) -> float:
    found = getattr(task, "tolerance", DEFAULT_TOLERANCE)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 < found <= 1:
        raise _invalid(
            path,
            f"tolerance must be a share over 0 and up to 1, got {_short(found)}.",
            "For example tolerance = 0.1: an error of a tenth of the output's size.",
        )
    return float(found)


def _states(task: Any, path: Path) -> tuple[tuple[int, int], ...]:
    found = getattr(task, "states", ())
    good = isinstance(found, list | tuple) and all(map(_is_pair, found))
    if not good or len({pair[0] for pair in found}) != len(found):
        raise _invalid(
            path,
            f"states must be pairs (input, output) of different inputs, got {_short(found)}.",
            "For example states = ((1, 1),): output 1 comes back as input 1, counted from 0.",
        )
    return tuple((before, after) for before, after in found)


def _sequence_steps(task: Any, path: Path) -> int:
    found = getattr(task, "sequence_steps", 0)
    whole = isinstance(found, int) and not isinstance(found, bool)
    if not whole or found < 0 or (found and not getattr(task, "states", ())):
        raise _invalid(
            path,
            f"sequence_steps must be a number of steps in a task with states, got {_short(found)}.",
            "Leave it out where samples do not follow on each other.",
        )
    return int(found)


def _integers(task: Any, path: Path) -> tuple[LayerKind, ...]:
    found = getattr(task, "integers", ())
    if not isinstance(found, list | tuple) or any(kind not in LAYER_KINDS for kind in found):
        raise _invalid(
            path,
            f"integers must be some of {', '.join(LAYER_KINDS)}, got {_short(found)}.",
            'For example integers = ("linear",): a mixed file has the rest in float32.',
        )
    return tuple(found)


def _described(task: Any, path: Path, name: str, kind: type[Described]) -> Described | None:
    found = getattr(task, name, None)
    if found is None or isinstance(found, kind):
        return found
    raise _invalid(
        path,
        f"{name} is {_short(found)}.",
        f"Give an edge_sdk.contracts.audio.{kind.__name__}, or leave it out.",
    )


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(place, int) and place >= 0 for place in value)
    )


def _schemes(task: Any, path: Path) -> tuple[str, ...]:
    schemes = getattr(task, "schemes", ())
    if not isinstance(schemes, list | tuple):
        raise _invalid(path, "schemes must be a tuple of names.", 'schemes = ("static_wi8_ai8",)')
    for scheme in schemes:
        supported_scheme(str(scheme))
    return tuple(map(str, schemes))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
