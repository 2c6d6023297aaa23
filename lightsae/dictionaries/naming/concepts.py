"""Lists of concepts in text files, with a hierarchy where the file has one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.interop.files.safe_files import read_bounded

_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class ConceptList:
    """Names of concepts, and which more general ones each belongs to.

    Attributes:
        names: Different names, in the order of the file.
        parents: Of a name, or of a parent that is no name itself, its parents, the main one first;
            what has none is not there.

    Raises:
        LightsaeError: If there are none, a name is there twice, or a concept is above itself.

    Example:
        >>> found = ConceptList(["cat", "dog", "oak"], {"cat": ["animal"], "dog": ["animal"]})
        >>> found.ancestors("cat"), found.rolled_up(["dog", None, "oak"], level=0)
        (['animal'], ['animal', None, 'oak'])
    """

    names: list[str]
    parents: Mapping[str, list[str]]

    def __post_init__(self) -> None:
        for name, above in self.parents.items():
            if not above:
                raise LightsaeError(f"parents of {name!r} are none, expected one or leave it out")
        if not self.names:
            raise LightsaeError("there are no concepts")
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise LightsaeError(f"{name!r} is there twice")
            seen.add(name)
        _require_no_circle(self.parents)

    def ancestors(self, name: str) -> list[str]:
        """Everything above a concept, the nearest first, each once.

        Args:
            name: A name or a parent; what has no parents has no ancestors.
        """
        found: dict[str, None] = {}
        level = list(self.parents.get(name, []))
        while level:
            fresh = [each for each in level if each not in found]
            found |= dict.fromkeys(fresh)
            level = [above for each in fresh for above in self.parents.get(each, [])]
        return list(found)

    def path(self, name: str) -> list[str]:
        """The way from the root to a concept along main parents, both ends included."""
        way = [name]
        while way[-1] in self.parents:
            way.append(self.parents[way[-1]][0])
        return way[::-1]

    def rolled_up(self, names: Iterable[str | None], level: int) -> list[str | None]:
        """Each name replaced by the concept at a level of its path; nearer ones stay.

        Args:
            names: Such as the `names` of latents; None stays None.
            level: Steps below the root, which is at 0.

        Raises:
            LightsaeError: If the level is negative.
        """
        if level < 0:
            raise LightsaeError(f"level is {level}, expected at least 0")
        return [None if name is None else self.path(name)[: level + 1][-1] for name in names]


def read_concepts(path: str | Path) -> ConceptList:
    r"""Read a text file: a concept on each line, behind a tab what it belongs to, if anything.

    UTF-8, with or without a byte-order mark; lines may end as on Windows. Empty lines and those
    that begin with # are skipped, spaces around names too. `name<TAB>parent` on several lines
    gives a name several parents, as WordNet has them; the first is the main one. A parent needs no
    line of its own: it is a concept only if it has one. The same line twice is refused.

    Args:
        path: The file.

    Raises:
        LightsaeError: If it cannot be read, is not UTF-8, or a line is not as said; the line is
            told.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "concepts.txt"
        >>> _ = path.write_text("# animals\ncat\tfeline\nfeline\tanimal\n")
        >>> found = read_concepts(path)
        >>> found.names, found.ancestors("cat")
        (['cat', 'feline'], ['feline', 'animal'])
    """
    path = Path(path)
    try:
        text = read_bounded(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LightsaeError(f"{path} is not UTF-8: byte {error.start}") from error
    seen: dict[tuple[str, str], int] = {}
    parents: dict[str, list[str]] = {}
    # Not splitlines: a name may hold what Unicode takes for the end of a line.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, parent = _entry(line, f"{path}:{number}")
        if (name, parent) in seen:
            before = seen[name, parent]
            raise LightsaeError(f"{path}:{number}: {name!r} stands in line {before} already")
        seen[name, parent] = number
        if parent:
            parents.setdefault(name, []).append(parent)
    names = list(dict.fromkeys(name for name, _ in seen))
    try:
        return ConceptList(names, parents)
    except LightsaeError as error:
        raise LightsaeError(f"{path}: {error}") from error


def _entry(line: str, where: str) -> tuple[str, str]:
    """Name and parent of a line."""
    name, parent = (part.strip() for part in line.partition("\t")[::2])
    if "\t" in parent:
        raise LightsaeError(f"{where}: more than one tab, expected NAME or NAME<TAB>PARENT")
    if not name or ("\t" in line and not parent):
        raise LightsaeError(f"{where}: a tab without a name on each side")
    return name, parent


def _require_no_circle(parents: Mapping[str, list[str]]) -> None:
    """Walk up from every concept, each once."""
    done: set[str] = set()
    for start in parents:
        stack, way = [(start, iter(parents[start]))], {start}
        while stack and start not in done:
            name, above = stack[-1]
            following = next(above, None)
            if following is None:
                done.add(name)
                way.discard(name)
                stack.pop()
            elif following in way:
                raise LightsaeError(f"{following!r} is above itself in the hierarchy")
            elif following in parents and following not in done:
                way.add(following)
                stack.append((following, iter(parents[following])))
