"""What a failure says, on one line."""

from lightsae.messages import one_line

_LONGEST = 300


def told(error: BaseException) -> str:
    """An exception's kind and message on one line, not too long.

    Example:
        >>> told(KeyError("image"))
        "KeyError: 'image'"
        >>> told(AssertionError())
        'AssertionError'
    """
    text = one_line(str(error))
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
