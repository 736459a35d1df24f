"""Faults of far stores: what their libraries raise, in a plain line that says what to do."""

from __future__ import annotations

import errno
import tempfile

from packmule.errors import Unavailable
from packmule.jobs.storage.store import NO_SPACE, StorageError, StorageFull
from packmule.plain_text import plain

FAILING = frozenset({errno.EBUSY, errno.EREMOTEIO})
"""What s3fs makes of answers such as 500 and 503."""

WITHOUT_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"})
UNREACHED = frozenset(
    ["EndpointConnectionError", "HTTPClientError", "ClientConnectionError", "ClientPayloadError",
     "ConnectionError", "TimeoutError"]
)  # fmt: skip
"""Classes of botocore, aiohttp and Python, by name: a store may be used without the libraries of another."""

SERVERS_FAULT = 500
REFUSALS, GONE = (401, 403), (404, 410)


class StorageUnavailable(StorageError, Unavailable):
    """A far storage can't be reached, or fails at the moment: the same may work later."""

    exit_code = Unavailable.exit_code


def fault(action: str, error: Exception) -> StorageError:
    """The error to raise if `action`, such as "can't read a.txt in s3://files", has met `error`."""
    names = {each.__name__ for each in type(error).__mro__}
    number, status = getattr(error, "errno", None), getattr(error, "status", 0)
    text = f"{plain(' '.join(str(error).split())) or type(error).__name__:.300}"
    if names & UNREACHED:
        return StorageUnavailable(f"{action}: it can't be reached ({text}): check its address, or try later")
    if number in FAILING or status >= SERVERS_FAULT:
        return StorageUnavailable(f"{action}: it is busy or fails ({text}): try again later")
    if number in NO_SPACE:
        where = f"{tempfile.gettempdir()} of this host"
        return StorageFull(f"{action}: {where} has no space for it: free some, or set TMPDIR")
    if is_without_bucket(error):
        text = "the bucket does not exist: create it, or correct PACKMULE_STORAGE"
    elif isinstance(error, PermissionError) or status in REFUSALS:
        text = f"access is denied ({text}): check the credentials, and what they may do there"
    elif names & WITHOUT_CREDENTIALS:
        text = (
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or give this host a role"
        )
    return StorageError(f"{action}: {text}")


def is_missing(error: OSError) -> bool:
    """Whether a file is missing. If it is the bucket, or a web server is away, fsspec raises the same."""
    cause = error.__cause__
    is_said = cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) in GONE
    return is_said and not is_without_bucket(error)


def is_without_bucket(error: Exception) -> bool:
    """Whether an object store says that the bucket is missing."""
    return "bucket does not exist" in str(error)
