"""TLS: what is wrong with the files that a URL names, and what an error means to whoever wrote the URL."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""The options of a URL that name files."""

_OF_ANOTHER_NAME = {62, 64}
"""OpenSSL's codes for a certificate that doesn't fit the host's name or address."""

_OUT_OF_TIME = {9, 10}
"""Its codes for one that isn't valid yet, or no more."""

_WANTS_OURS = ("CERTIFICATE_REQUIRED", "ALERT_HANDSHAKE_FAILURE")
"""Reasons of servers that ask their clients for certificates."""

_NAME_OURS = "?ssl_certfile=/path/to/client.pem&ssl_keyfile=/path/to/client.key"


def fault_of_files(options: Mapping[str, str]) -> str | None:
    """Why the files in a URL's `options` can't be used; None if they can."""
    for option in FILES:
        if option in options:
            try:
                Path(options[option]).open("rb").close()
            except OSError as error:
                return f"its {option} {options[option]} can't be read: {error.strerror}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, own, key = (options.get(option) for option in FILES)
    try:
        if authorities:
            context.load_verify_locations(authorities)
    except ssl.SSLError:
        return f"its ssl_ca_certs {authorities} holds no certificates in PEM form"
    try:
        if own:
            context.load_cert_chain(own, key, password="")  # so that nobody is asked for one
    except ssl.SSLError:
        return f"its ssl_certfile {own} and its key don't fit together, or aren't in PEM form"
    return None


def meaning(error: ssl.SSLError) -> str:
    """What went wrong when a server was connected to by TLS, and the way out."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        fault = f"the server's certificate can't be verified ({said}): "
        if error.verify_code in _OF_ANOTHER_NAME:
            return (
                f"{fault}write a name that it is for, or ?ssl_check_hostname=false at the end of the URL to "
                "accept any name"
            )
        if error.verify_code in _OUT_OF_TIME:
            return f"{fault}renew it on the server, or set the clocks right"
        return (
            f"{fault}name its authority by ?ssl_ca_certs=/path/to/ca.pem at the end of the URL, or write "
            "?ssl_cert_reqs=none to verify nothing"
        )
    reason = error.reason or "it hung up"
    if any(each in reason for each in _WANTS_OURS):
        return f"the server wants a certificate of its clients ({reason}): add {_NAME_OURS} to the URL"
    if "UNKNOWN_CA" in reason:
        return "the server doesn't know the authority of the certificate in ssl_certfile"
    return (
        f"{reason}: does the server speak TLS there? If not, write redis:// in the place of rediss://. "
        f"If it wants a certificate of its clients, add {_NAME_OURS}"
    )
