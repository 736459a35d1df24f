"""What a mail says: checked once, its files read once, then rendered for one recipient or for thousands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from packmule.jobs.email.letter import Attachment, Content, InvalidMessage, Letter, check_cid
from packmule.jobs.email.message.addresses import parse
from packmule.jobs.email.message.allowed import PLACE, custom, labels, unsubscribing
from packmule.jobs.email.message.compose import Frame, people
from packmule.jobs.email.message.headers import checked
from packmule.jobs.email.message.verp import return_path as path_for
from packmule.jobs.email.templating.rendering import Renderer, check_name
from packmule.jobs.storage import Storage

Addresses = str | Sequence[str] | None


class Rendered(NamedTuple):
    """A mail's subject and content with somebody's variables."""

    subject: str
    content: Content


@dataclass(frozen=True)
class Draft:
    """A mail without its recipients and variables. `attachments` have been read.

    >>> from packmule.jobs.email.templating.rendering import Renderer
    >>> draft = Draft(Renderer(), "mule@example.org", "For {{ name }}", template="welcome")
    >>> draft.letter("ada@example.com", variables={"name": "Ada"}, key="welcome:7").message.subject
    'For Ada'
    """

    renderer: Renderer
    sender: str
    subject: str
    body: str | None = None
    html: str | None = None
    template: str | None = None
    attachments: tuple[Attachment, ...] = ()
    reply_to: Addresses = None
    headers: Mapping[str, str] | None = None
    unsubscribe: str | Sequence[str] | None = None
    return_path: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """Check that the content has one source."""
        _check_source(self.body, self.html, self.template)

    def render(self, variables: Mapping[str, Any] | None = None) -> Rendered:
        """The subject and the content with `variables`.

        The subject is text unless there are a template or variables. Styles of the HTML are inlined, and a
        mail that has HTML only gets a text made from it. Raises `InvalidTemplate`.
        """
        check_variables(variables, self.template, self.subject)
        given = variables or {}
        is_template = (self.template is not None or variables is not None) and "{{" in self.subject
        subject = self.renderer.subject(self.subject, given) if is_template else self.subject
        if self.template is None:
            return Rendered(subject, self._fixed)
        return Rendered(subject, _finished(self.renderer.content(self.template, given)))

    @cached_property
    def _fixed(self) -> Content:
        """The content without a template."""
        return _finished(Content(self.body, self.html))

    @cached_property
    def _frame(self) -> Frame:
        return Frame(
            self.sender,
            reply_to=listed(self.reply_to),
            attachments=self.attachments,
            headers=self.headers,
            unsubscribe=self.unsubscribe,
            return_path=self.return_path,
            tags=self.tags,
            metadata=self.metadata,
        )

    def letter(
        self,
        to: Addresses,
        cc: Addresses = None,
        bcc: Addresses = None,
        *,
        variables: Mapping[str, Any] | None = None,
        rendered: Rendered | None = None,
        key: str | None = None,
        unsubscribe: str | Sequence[str] | None = None,
    ) -> Letter:
        """The mail for some recipients; `unsubscribe` is a link of their own, in place of the draft's.

        Raises `InvalidTemplate`, `InvalidAddress` or `InvalidMessage`.
        """
        subject, content = rendered or self.render(variables)
        return self._frame.letter(
            content, subject, listed(to), listed(cc), listed(bcc), unsubscribe=unsubscribe, key=key
        )

    def with_files(
        self,
        storage: Storage,
        max_bytes: int,
        attachments: Sequence[str] | None = None,
        images: Mapping[str, str] | None = None,
    ) -> Draft:
        """The draft with files from the storage: `attachments`, and the HTML's `images` by their cid.

        Raises `InvalidMessage`, before anything is read, if they have more than `max_bytes` in total, and
        `StorageError`.
        """
        wanted: list[tuple[str | None, str]] = [(None, path) for path in attachments or ()]
        wanted.extend((images or {}).items())
        total = sum(storage.size(path) for _, path in wanted)
        if total > max_bytes:
            raise InvalidMessage(
                f"the attachments have {total:,} bytes in total, over the limit of {max_bytes:,}; "
                "send a link, or raise PACKMULE_MAX_ATTACHMENT_BYTES"
            )
        files = tuple(
            Attachment(PurePosixPath(path).name, storage.read_bytes(path, max_bytes=max_bytes), cid)
            for cid, path in wanted
        )
        return replace(self, attachments=(*self.attachments, *files))


def check(
    to: Addresses,
    subject: str,
    body: str | None = None,
    *,
    html: str | None = None,
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
    cc: Addresses = None,
    bcc: Addresses = None,
    reply_to: Addresses = None,
    sender: str | None = None,
    images: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    unsubscribe: str | Sequence[str] | None = None,
    return_path: str | None = None,
    tags: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    **_others: Any,
) -> None:
    """Refuse a call of the email job that no mail can come of, before it is enqueued.

    What only a worker can see (the template's file, the attachments) is not looked at. Raises
    `InvalidMessage`, `InvalidAddress` or `InvalidTemplate`.
    """
    _check_source(body, html, template)
    check_variables(variables, template, subject)
    if template is not None:
        check_name(template)
    checked("subject", subject)
    everybody = people(listed(to), listed(cc), listed(bcc), listed(reply_to))
    if sender is not None:
        parse(sender)
    if return_path is not None:
        path_for(return_path, tuple(mailbox.spec for mailbox in everybody[0]))
    if images and html is None and template is None:
        raise InvalidMessage("images are shown by the HTML of a mail, and this mail has none")
    for cid in images or ():
        check_cid(cid)
    custom(headers or {})
    unsubscribing(unsubscribe)
    count = sum(len(listed(each)) for each in (to, cc, bcc))
    if count != 1 and any(PLACE in url for url in listed(unsubscribe)):
        raise InvalidMessage(f"an unsubscribe link with {PLACE} is for one recipient: send each a mail")
    labels(tags or (), metadata)


def listed(addresses: Addresses) -> Sequence[str]:
    """One address, several or none, as a list."""
    return [addresses] if isinstance(addresses, str) else addresses or []


def _finished(content: Content) -> Content:
    """The content with a text, made of its HTML if it has none, and with the styles of its HTML inlined."""
    if content.html is None:
        return content
    from packmule.jobs.email.message.css import inlined  # noqa: PLC0415  some workers send texts only
    from packmule.jobs.email.message.plaintext import plaintext  # noqa: PLC0415

    text = plaintext(content.html) if content.text is None else content.text
    return Content(text, inlined(content.html).html)


def _check_source(body: str | None, html: str | None, template: str | None) -> None:
    if (template is None) == (body is None and html is None):
        raise InvalidMessage("give either a template, or a body and/or html")


def check_variables(variables: Mapping[str, Any] | None, template: str | None, subject: str) -> None:
    """Refuse variables that nothing of a mail can use. Raises `InvalidMessage`."""
    if template is None and variables and "{{" not in subject:
        raise InvalidMessage(
            "variables need a template, or a subject with {{ }}; body and html are sent as they are"
        )
