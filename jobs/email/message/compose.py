"""A mail in MIME: its headers, its parts and its envelope."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address, AddressHeader
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime, make_msgid
from hashlib import blake2b

from packmule.jobs.email.letter import Attachment, Content, InvalidMessage, Letter, Mailbox, Message
from packmule.jobs.email.message.addresses import UNFIT, on_the_wire, parse


def compose(
    content: Content,
    *,
    subject: str,
    sender: str,
    to: Sequence[str],
    cc: Sequence[str] = (),
    bcc: Sequence[str] = (),
    reply_to: Sequence[str] = (),
    attachments: Sequence[Attachment] = (),
    key: str | None = None,
) -> Letter:
    """Build the mail; recipients in `bcc` appear in its envelope only.

    The Message-ID depends only on `key`, the key of the send. If a job runs again after its outcome was lost,
    the second copy has the ID of the first, so that mail systems can suppress it and a person can recognise
    it. Without a key it is random.

    Raises `InvalidAddress`, and `InvalidMessage` for text that a header can't contain.
    """
    message = EmailMessage(policy=POLICY)
    author = parse(sender)
    readers = {"To": [parse(text) for text in to], "Cc": [parse(text) for text in cc]}
    hidden = [parse(text) for text in bcc]
    answers = [parse(text) for text in reply_to]
    recipients = tuple(dict.fromkeys(known.addr_spec for known in [*readers["To"], *readers["Cc"], *hidden]))
    if not recipients:
        raise InvalidMessage("a mail needs at least one address in to, cc or bcc")
    message["From"] = author
    for header, people in (*readers.items(), ("Reply-To", answers)):
        if people:
            message[header] = people
    message["Subject"] = _header("subject", subject)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = message_id = (
        f"<{blake2b(key.encode(errors='replace'), digest_size=16).hexdigest()}@{author.domain}>"
        if key is not None
        else make_msgid(domain=author.domain)
    )
    _fill(message, content, attachments)
    needs_utf8 = not all(
        known.username.isascii() for known in [author, *readers["To"], *readers["Cc"], *hidden, *answers]
    )
    return Letter(
        message_id,
        author.addr_spec,
        recipients,
        message.as_bytes(policy=POLICY.clone(utf8=needs_utf8)),
        needs_utf8,
        Message(
            subject,
            _mailbox(author),
            _mailboxes(readers["To"]),
            _mailboxes(readers["Cc"]),
            _mailboxes(hidden),
            _mailboxes(answers),
            content,
            tuple(attachments),
        ),
    )


def content_key(scope: str, subject: str, content: Content, attachments: Sequence[Attachment] = ()) -> str:
    """The key of a send that was given none: it depends on `scope`, a job's or a batch's id, and the content.

    The content is included because a job id may be reused (for a daily report), and the new mail must not be
    taken for a copy of the old one.
    """
    said = [scope, subject, content.text or "", content.html or ""]
    digest = blake2b("\0".join(said).encode(errors="replace"), digest_size=16)
    for attachment in attachments:
        digest.update(attachment.name.encode(errors="replace") + attachment.content)
    return digest.hexdigest()


def _mailbox(known: Address) -> Mailbox:
    return Mailbox(known.display_name, known.addr_spec)


def _mailboxes(people: Sequence[Address]) -> tuple[Mailbox, ...]:
    return tuple(map(_mailbox, people))


class _Policy(EmailPolicy):
    """The standard library's SMTP policy, except that headers of addresses have one address per line.

    Its own folding drops the quotes of a long name, and a comma in the name then starts a new address.
    """

    def fold_binary(self, name: str, value: str) -> bytes:
        if not isinstance(value, AddressHeader):
            return super().fold_binary(name, value)
        return f"{name}: {f',{self.linesep} '.join(map(on_the_wire, value.addresses))}{self.linesep}".encode()


# Bodies are encoded to ASCII, so that any server accepts them, whether or not it offers 8BITMIME.
POLICY = _Policy(linesep="\r\n", cte_type="7bit")


def _fill(message: EmailMessage, content: Content, attachments: Sequence[Attachment]) -> None:
    """Add the parts: the alternatives from plain to rich, then the attachments."""
    if content.text is not None:
        message.set_content(_encodable("text", content.text))
    if content.html is not None:
        if content.text is None:
            message.set_content(_encodable("HTML", content.html), subtype="html")
        else:
            message.add_alternative(_encodable("HTML", content.html), subtype="html")
    for attachment in attachments:
        maintype, subtype = _media_type(attachment.name)
        message.add_attachment(
            attachment.content,
            maintype=maintype,
            subtype=subtype,
            filename=_header("attachment's name", attachment.name),
        )


def _media_type(name: str) -> tuple[str, str]:
    guessed, encoding = mimetypes.guess_type(name)
    # A compressed table is not a table, and an attached mail must not be encoded as a mail.
    if guessed is None or encoding is not None or guessed.startswith(("message/", "multipart/")):
        guessed = "application/gzip" if encoding == "gzip" else "application/octet-stream"
    maintype, _, subtype = guessed.partition("/")
    return maintype, subtype


def _header(what: str, text: str) -> str:
    """`text`, checked: refusing line ends here keeps a value from becoming a second header."""
    if unfit := UNFIT.search(text):
        raise InvalidMessage(
            f"the {what} contains {unfit.group()!r} (at {unfit.start() + 1}); a header is one line of text"
        )
    return text


def _encodable(what: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(
            f"the {what} contains {text[error.start]!r}, a lone surrogate, which is half of a character"
        ) from None
    return text
