"""Uploads in parts to S3, and the removal of those that nobody will finish."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from packmule.jobs.storage.owners import FORGOTTEN
from packmule.units import MIB

PART, PARTS_AT_ONCE = 8 * MIB, 8
"""The size of a part in bytes, and how many of them are sent, and in memory, at once."""

MOST_PARTS = 10_000
"""Parts that S3 takes of one file."""


def upload(system: Any, local: Path, key: str) -> None:
    """Send a file by the s3fs `system`; it appears whole or not at all.

    s3fs would wait for a whole round of parts before it begins the next.
    """
    size = local.stat().st_size
    if size <= PART:
        system.put_file(str(local), key)
        return
    bucket, name, _ = system.split_path(key)
    target = {"Bucket": bucket, "Key": name}
    kind = {"ContentType": found} if (found := guess_type(name)[0]) else {}
    target["UploadId"] = system.call_s3("create_multipart_upload", **target, **kind)["UploadId"]
    length = max(PART, -(-size // MOST_PARTS))
    try:
        with local.open("rb") as file, ThreadPoolExecutor(PARTS_AT_ONCE) as senders:

            def send(number: int) -> dict[str, Any]:
                part = os.pread(file.fileno(), length, (number - 1) * length)
                sent = system.call_s3("upload_part", **target, PartNumber=number, Body=part)
                return {"PartNumber": number, "ETag": sent["ETag"]}

            parts = list(senders.map(send, range(1, -(-size // length) + 1)))
        system.call_s3("complete_multipart_upload", **target, MultipartUpload={"Parts": parts})
    except BaseException:
        with suppress(Exception):  # else `abort_forgotten` does it
            system.call_s3("abort_multipart_upload", **target)
        raise


def abort_forgotten(system: Any, root: str) -> int:
    """Abort uploads below `root`, a bucket with a prefix, that began more than a day ago; how many."""
    bucket, _, prefix = root.partition("/")
    old = [each for each in _unfinished(system, bucket, prefix and f"{prefix}/") if _age(each) > FORGOTTEN]
    for each in old:
        system.call_s3("abort_multipart_upload", Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"])
    return len(old)


def _unfinished(system: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    marks: dict[str, str] = {}
    while True:
        found = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **marks)
        yield from found.get("Uploads", ())
        if not found.get("IsTruncated"):
            return
        marks = {"KeyMarker": found["NextKeyMarker"], "UploadIdMarker": found["NextUploadIdMarker"]}


def _age(upload: dict[str, Any]) -> float:
    return time.time() - float(upload["Initiated"].timestamp())
