"""What the Hugging Face Hub refuses, as one line for the user."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require

_LOG_IN = "`hf auth login`, or set HF_TOKEN"


@contextmanager
def telling_of(repo: str, revision: str | None = None) -> Iterator[None]:
    """Raise every error of the block as a `LightsaeError` that names the repository.

    Args:
        repo: The repository that is read or written.
        revision: The revision that was asked for.

    Raises:
        LightsaeError: In place of what huggingface_hub or its transport raises.
        MissingExtraError: If huggingface_hub is not installed.
    """
    require("huggingface_hub.errors", extra="hub")
    try:
        yield
    except LightsaeError:
        raise
    except Exception as error:  # the library raises whatever its transports do
        raise LightsaeError(f"{repo}: {_explained(error, repo, revision)}") from error


def _explained(error: Exception, repo: str, revision: str | None) -> str:
    errors = require("huggingface_hub.errors", extra="hub")
    constants = require("huggingface_hub.constants", extra="hub")
    endpoint = constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"is gated: ask for access at {endpoint}/{repo}, then {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such repository at {endpoint}; if it is private: {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}"
    if isinstance(error, errors.HFValidationError):
        return reason(error)
    if status == 401:
        return f"{endpoint} does not know the token: {_LOG_IN}"
    if status == 403:
        return f"the token may not do this at {endpoint}; one that may: {_LOG_IN}"
    if constants.HF_HUB_OFFLINE:
        return "is not in the cache, and HF_HUB_OFFLINE is set"
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = "" if error.__cause__ is None else f" ({reason(error.__cause__)})"
        return f"is not in the cache, and {endpoint} cannot be reached{cause}"
    return f"{endpoint}: {reason(error.__cause__ or error)}"
