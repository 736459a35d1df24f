"""Signatures of requests to AWS, version 4, for services that sign their path, host, time and body."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

_ALGORITHM = "AWS4-HMAC-SHA256"


def signed(
    access_key: str,
    secret: str,
    region: str,
    service: str,
    host: str,
    path: str,
    body: bytes,
    now: float | None = None,
) -> Mapping[str, str]:
    """The headers that sign a POST of JSON without a query.

    >>> sorted(signed("AKIA", "secret", "eu-west-1", "ses", "email.example", "/v2", b"{}", 0.0))
    ['Authorization', 'Content-Type', 'Host', 'X-Amz-Date']
    """
    at = time.gmtime(time.time() if now is None else now)
    stamp, day = time.strftime("%Y%m%dT%H%M%SZ", at), time.strftime("%Y%m%d", at)
    named = "content-type;host;x-amz-date"
    canonical = "\n".join(
        [
            "POST",
            path,
            "",
            "content-type:application/json",
            f"host:{host}",
            f"x-amz-date:{stamp}",
            "",
            named,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    return {
        "Content-Type": "application/json",
        "Host": host,
        "X-Amz-Date": stamp,
        "Authorization": (
            f"{_ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={named}, Signature={signature}"
        ),
    }
