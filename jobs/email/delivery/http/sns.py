"""Amazon's SNS, which brings the events of SES: its certificates, and the subscription of a topic.

The topic's ARN is ours to know, and says which host of AWS is asked: what a request names chooses none.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

from packmule.errors import Unavailable, UsageError
from packmule.jobs.email.delivery.http.client import Answer, Api

_ARN = re.compile(
    r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]+)+-\d{1,2}):\d{12}:[A-Za-z0-9_.-]{1,256}"
)
_PEM = re.compile(r"/SimpleNotificationService-[A-Za-z0-9]{1,100}\.pem")
_OK = 200
MOST_PEMS = 20

_pems: dict[str, bytes] = {}


class InvalidTopic(UsageError, ValueError):
    """What is said to be the ARN of a topic is none."""


class NotConfirmed(Unavailable):
    """SNS did not take the confirmation of a subscription."""


def host_of(topic: str) -> str:
    """The host of SNS in the region of a topic. Raises `InvalidTopic`.

    >>> host_of("arn:aws:sns:eu-west-1:123456789012:mail")
    'sns.eu-west-1.amazonaws.com'
    """
    found = _ARN.fullmatch(topic)
    if found is None:
        raise InvalidTopic("give the ARN of a topic, such as arn:aws:sns:eu-west-1:123456789012:mail")
    return f"sns.{found[2]}.amazonaws.com" + (".cn" if found[1] == "aws-cn" else "")


def pem_at(topic: str, url: Any) -> bytes | None:
    """The certificate at a URL, if SNS in the region of `topic` has it. Raises `Unavailable`."""
    host = host_of(topic)
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        return None
    if (parts.scheme, parts.netloc) != ("https", host) or not _PEM.fullmatch(parts.path):
        return None
    name = f"{host}{parts.path}"
    if name not in _pems:
        answer = _asked(host, parts.path)
        if answer.status != _OK:
            return None
        if len(_pems) >= MOST_PEMS:
            _pems.clear()
        _pems[name] = answer.body
    return _pems[name]


def confirm(topic: str, token: str) -> None:
    """Confirm that a topic's notifications are wanted here. Raises `NotConfirmed`."""
    query = f"Action=ConfirmSubscription&TopicArn={quote(topic, safe='')}&Token={quote(token, safe='')}"
    answer = _asked(host_of(topic), f"/?{query}")
    if answer.status != _OK:
        raise NotConfirmed(f"SNS refused to confirm the subscription of {topic}: status {answer.status}")


def _asked(host: str, path: str) -> Answer:
    api = Api(f"https://{host}")
    try:
        return api.get(path)
    finally:
        api.close()
