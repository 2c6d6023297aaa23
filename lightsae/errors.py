"""`LightsaeError`, the base of every error that is meant for the user."""


class LightsaeError(ValueError):
    """Something given by the user is wrong; the message says what, where and what was expected.

    The command line prints it as one line and exits with status 1.

    Example:
        >>> raise LightsaeError("k = 9 is larger than d_sae = 8")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: k = 9 is larger than d_sae = 8
    """
