"""Models of the Hugging Face hub where the hub cannot be reached: from the cache, or an error."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.errors import LightsaeError

_WAIT = 5.0  # seconds for a connection


@contextmanager
def hub_or_cache(options: ModelOptions) -> Iterator[None]:
    """Within it, a model is taken from the cache at once if the hub cannot be reached.

    Without it the hub's client tries each request for most of a minute. Behind a proxy only the
    proxy can tell, so nothing is changed there.

    Args:
        options: The model, which a library knows by name.

    Raises:
        LightsaeError: If the hub cannot be reached and the cache lacks the model.
    """
    why = _unreachable() if _may_ask(options) else None
    if why is None:
        yield
        return
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except LightsaeError as error:
        if not _asked_the_hub(error):
            raise
        raise LightsaeError(
            f"model.name {options.name}: is not in the cache, and {constants.ENDPOINT} cannot be "
            f"reached ({why}){_hint(options)}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = False


def _may_ask(options: ModelOptions) -> bool:
    """Whether building the model may need the hub."""
    name = str(options.name)
    if options.library == "transformers":
        return not Path(name).exists()
    if ":" in name:
        return not name.startswith("local-dir:")
    fetches = options.pretrained and options.weights is None
    return fetches and options.library != "torchvision"


def _hint(options: ModelOptions) -> str:
    """What needs no download."""
    if options.library == "transformers":
        return "; a folder that save_pretrained wrote needs no download"
    if ":" in str(options.name):
        return ""
    return "; model.weights FILE and model.pretrained false need no download"


def _unreachable() -> str | None:
    """Why no connection to the hub can be made; None if there is one, or none is to be tried."""
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import constants

    url = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or url.hostname is None or {url.scheme, "all"} & set(getproxies()):
        return None
    port = url.port or {"http": 80}.get(url.scheme, 443)
    try:
        socket.create_connection((url.hostname, port), timeout=_WAIT).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _asked_the_hub(error: BaseException | None) -> bool:
    """Whether an error comes of a file that is neither in the cache nor to be fetched."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        error = error.__cause__ or error.__context__
    return False
