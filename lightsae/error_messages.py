"""Error messages of other libraries, shortened to one line."""

import re
from ast import literal_eval
from traceback import walk_tb

_LONGEST = 300
_FRAMES = (
    "Does not validate against any", "Subtypes:", "Errors:", "Given value",
    "Subclass types expect one of:", "a class path (str)", "a dict with", "a dict without",
)  # fmt: skip
_ALTERNATIVE = re.compile(r"Expected an? [^.:]*|Not a valid subclass of \w+")
_PARTS_OF_A_CLASS = {"class_path", "init_args", "dict_kwargs"}


def one_line(message: str) -> str:
    """What a message says, without the frames that jsonargparse puts around each level of a value.

    Args:
        message: Any text.

    Returns:
        One line that says nothing twice; of the alternatives that a value could have been, only
        those that say why not, or all where none does.

    Example:
        >>> print(one_line(\"\"\"Parser key "model":
        ...   Does not validate against any of the Union subtypes
        ...   Errors:
        ...     - Problem with given class_path 'SAEModule':
        ...         Option 'dsae' is not accepted
        ...     - Expected a <class 'NoneType'>
        ...   Given value type: <class 'dict'>\"\"\"))
        Parser key "model": Problem with given class_path 'SAEModule': Option 'dsae' is not accepted
    """
    lines = [re.sub(r"^-(\s+|$)", "", line.strip()) for line in message.splitlines()]
    lines += [f"{key} stands beside class_path, expected in init_args" for key in _beside(lines)]
    lines = [line for line in lines if line and not line.startswith(_FRAMES)]
    telling = [line for line in lines if not _ALTERNATIVE.fullmatch(line)]
    text = ""
    said = lines if not telling or telling[-1].endswith(":") else telling
    for line in dict.fromkeys(said):
        text += line if not text else f" {line}" if text.endswith((":", ",")) else f"; {line}"
    return re.sub(r"<class '([\w.]+)'>", r"\1", text)


def _beside(lines: list[str]) -> list[str]:
    """Keys of the value that stand beside a class path, where nothing else may."""
    given = next((line for line in lines if line.startswith("Given value: ")), "Given value: None")
    try:
        value = literal_eval(given.removeprefix("Given value: "))
    except (ValueError, SyntaxError):
        return []
    values = value if isinstance(value, list) else [value]
    classes = [one for one in values if isinstance(one, dict) and "class_path" in one]
    return [str(key) for one in classes for key in one if key not in _PARTS_OF_A_CLASS]


def raised_in(error: BaseException, package: str) -> bool:
    """Whether a package raised an error itself, not what it called.

    Example:
        >>> import json
        >>> try:
        ...     json.loads("what")
        ... except ValueError as error:
        ...     raised_in(error, "json"), raised_in(error, "yaml")
        (True, False)
    """
    frames = list(walk_tb(error.__traceback__))
    name = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return name.partition(".")[0] == package


def reason(error: BaseException) -> str:
    """An exception's kind and message on one line, not too long.

    Example:
        >>> reason(KeyError("image"))
        "KeyError: 'image'"
        >>> reason(AssertionError())
        'AssertionError'
    """
    text = one_line(str(error))
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
