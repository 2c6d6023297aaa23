"""Files of torch.save that name classes of other libraries, read without calling any of them.

A pickle is a program for a small stack machine (PEP 307, 3154). This one has no instruction that
imports or calls: a class or function becomes its `Name`, a call of it a `Record` of the name and
the arguments. Only what torch itself writes for a tensor is understood, and built here.
"""

import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.interop.files.safe_files import require_stored
from lightsae.interop.files.torch_storages import Storage, Storages, rebuilt_tensor

MAX_PROGRAM_BYTES = 64 * 2**20


class Name(NamedTuple):
    """A class or function that a file names; nothing is imported.

    Attributes:
        module: Such as "torch.nn.modules.linear".
        name: Such as "Linear".
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Record:
    """What a file would have built by a call.

    Attributes:
        made_by: The class or function.
        arguments: Of the call.
        state: What it would have been given afterwards, mostly its attributes.
        items: Elements or pairs it would have been given, of lists and mappings.
    """

    made_by: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.named}>"

    @property
    def named(self) -> str:
        """Name of the class or function; of what a call gave there is none."""
        return str(self.made_by) if isinstance(self.made_by, Name) else "the result of a call"


def read_inert(path: Path) -> Any:
    """What torch.save wrote, with tensors as such and objects as records.

    Args:
        path: A zip file of torch.save.

    Returns:
        Plain values, tensors, `Name` and `Record`; an OrderedDict is a dict, a parameter a tensor.

    Raises:
        LightsaeError: One line that begins with the path, if it cannot be read.

    Example:
        >>> import tempfile
        >>> import torch
        >>> path = Path(tempfile.mkdtemp()) / "linear.pt"
        >>> torch.save(torch.nn.Linear(2, 3), path)
        >>> linear = read_inert(path)
        >>> str(linear.made_by), linear.state["_parameters"]["weight"].shape
        ('torch.nn.modules.linear.Linear', torch.Size([3, 2]))
    """
    require_stored(path)
    try:
        if not zipfile.is_zipfile(path):
            path.stat()
            raise LightsaeError("not a zip file of torch.save: load it with torch, save it again")
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except LightsaeError as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise LightsaeError(f"{path} cannot be read: {error.strerror or reason(error)}") from error
    except Exception as error:  # a damaged program fails in as many ways as there are instructions
        raise LightsaeError(f"{path} cannot be read: {reason(error)}") from error


def _read(archive: zipfile.ZipFile) -> Any:
    programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise LightsaeError(f"it has {len(programs)} parts named data.pkl, expected one")
    program = archive.getinfo(programs[0])
    if program.file_size > MAX_PROGRAM_BYTES:
        raise LightsaeError(f"its data.pkl has {program.file_size} bytes")
    storages = Storages(archive, programs[0].removesuffix("/data.pkl"))
    return _Machine(storages.named).run(archive.read(program))


_MARK = object()


class _Machine:
    """The stack machine of pickle without imports and calls."""

    def __init__(self, storage: Callable[[Any], Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storage = storage

    def run(self, program: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _PUSHES:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _EMPTY:
                self.stack.append(_EMPTY[opcode.name]())
            elif opcode.name in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME"):
                raise LightsaeError(f"its pickle has the instruction {opcode.name}")
        raise LightsaeError("its pickle has no end")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        last = max(place for place, value in enumerate(self.stack) if value is _MARK)
        found = self.stack[last + 1 :]
        del self.stack[last:]
        return found

    def take(self, count: int) -> list[Any]:
        found = self.stack[-count:]
        if len(found) < count or any(value is _MARK for value in found):
            raise LightsaeError("its pickle takes more than it has given")
        del self.stack[-count:]
        return found

    def drop(self, count: int) -> None:
        del self.stack[-count:]

    def drop_to_mark(self) -> None:
        self.since_mark()

    def remember(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else int(place)] = self.stack[-1]

    def call(self) -> None:
        self.push(_called(*self.take(2)))

    def call_with_keywords(self) -> None:
        callee, arguments, _ = self.take(3)
        self.push(Record(callee, arguments))

    def name(self) -> None:
        match self.take(2):
            case [str(module), str(name)]:
                self.push(Name(module, name))
            case _:
                raise LightsaeError("its pickle has a name that is no text")

    def build(self) -> None:
        (state,) = self.take(1)
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(_key(value) for value in values)
        else:
            (target.items if isinstance(target, Record) else target).extend(values)

    def set_items(self, values: list[Any]) -> None:
        pairs = zip(values[::2], values[1::2], strict=True)
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(pairs)
        else:
            target.update((_key(key), value) for key, value in pairs)

    def keep_storage(self) -> None:
        (key,) = self.take(1)
        self.push(self.storage(key))


def _called(callee: Any, arguments: Any) -> Any:
    """What a call of torch's own functions for tensors gives; the record of any other."""
    named = str(callee) if isinstance(callee, Name) else ""
    if named == "collections.OrderedDict" and arguments == ():
        return {}
    if named == "torch._utils._rebuild_tensor_v2":
        return rebuilt_tensor(arguments)
    if named == "torch._utils._rebuild_parameter":
        return arguments[0]
    return Record(callee, arguments)


def _key(value: Any) -> Any:
    """A key of a mapping: hashing nested tuples may take for ever."""
    if isinstance(value, (str, int, float, bytes, Name)) or value is None:
        return value
    raise LightsaeError(f"its pickle has a key of type {type(value).__name__}")


_PUSHES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push({_key(one) for one in machine.since_mark()}),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "GLOBAL": lambda machine, named: machine.push(Name(*named.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.name(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "NEWOBJ_EX": lambda machine, _: machine.call_with_keywords(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.keep_storage(),
    "BINPUT": lambda machine, place: machine.remember(place),
    "LONG_BINPUT": lambda machine, place: machine.remember(place),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "BINGET": lambda machine, place: machine.push(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.push(machine.memo[place]),
    "POP": lambda machine, _: machine.drop(1),
    "POP_MARK": lambda machine, _: machine.drop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
}
