"""Processor time of one mail: built from its texts, and rendered from a template too, beside email.policy.

    python benchmarks/mail_message.py [mails a round]

`plain` is a text of 2 kB, `alternative` has HTML of 7 kB beside it, `other letters` is a German one with an
attachment. `templated` renders the shipped template and a subject, makes a mail of both, and includes what
the allowance of a template costs. `one of many` is `plain` in a bulk send, with a subject of its own.
Each figure is the least of seven rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP

from harness import arguments, machine, table

from packmule.jobs.email.letter import Attachment, Content
from packmule.jobs.email.message.compose import compose
from packmule.jobs.email.message.css import inlined
from packmule.jobs.email.message.draft import Draft
from packmule.jobs.email.message.plaintext import plaintext
from packmule.jobs.email.templating.rendering import Renderer

ROUNDS = 7
TEXT = "A line of a mail, as long as such lines are.\n" * 45
PARAGRAPH = '<p style="color:red">A paragraph, as long as they are in mails.</p>'
HTML = f"<html><body>{PARAGRAPH * 100}</body></html>"
GERMAN = TEXT.replace("lines", "Zeilen für Übermüdete")
FILE = Attachment("Übersicht.csv", b"a;b\r\n" * 2_000)


def by_library(subject: str, to: str, content: Content, files: tuple[Attachment, ...] = ()) -> bytes:
    """What `email.policy.SMTP` takes for the same mail."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = "Mule <mule@example.org>", to, subject
    message.set_content(content.text or "")
    if content.html:
        message.add_alternative(content.html, subtype="html")
    for each in files:
        message.add_attachment(each.content, maintype="text", subtype="csv", filename=each.name)
    return message.as_bytes()


def ours(subject: str, to: str, content: Content, files: tuple[Attachment, ...] = ()) -> bytes:
    """The same mail, by hand."""
    return compose(
        content, subject=subject, sender="Mule <mule@example.org>", to=[to], attachments=files, key=to
    ).content


def cost(mails: int, one: Callable[[str], object]) -> float:
    """Microseconds of processor time of `one` mail."""
    least = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for number in range(mails):
            one(f"Ada <ada{number}@example.com>")
        least = min(least, (time.process_time() - began) / mails)
    return least * 1e6


def main(mails: int) -> None:
    """Measure and print."""
    print(f"{machine('jinja2', 'css-inline')}; {mails} mails a round\n")
    kinds = {
        "plain": ("Your order", Content(TEXT, None), ()),
        "alternative": ("Your order", Content(TEXT, HTML), ()),
        "other letters": ("Grüße, und danke für Ihre Bestellung", Content(GERMAN, HTML), (FILE,)),
    }
    rows = []
    for name, (subject, content, files) in kinds.items():
        by_hand = cost(mails, lambda to, s=subject, c=content, f=files: ours(s, to, c, f))
        library = cost(mails // 10, lambda to, s=subject, c=content, f=files: by_library(s, to, c, f))
        rows.append((name, f"{by_hand:,.0f}", f"{library:,.0f}"))
    draft = Draft(Renderer(), "mule@example.org", "Welcome, {{ name }}", template="welcome")
    templated = cost(mails, lambda to: draft.letter(to, variables={"name": to}, key=to))
    rows.append(("templated", f"{templated:,.0f}", ""))
    one = Draft(Renderer(), "mule@example.org", "Welcome, {{ name }}", TEXT)
    rows.append(
        ("one of many", f"{cost(mails, lambda to: one.letter(to, variables={'name': to}, key=to)):,.0f}", "")
    )
    rows.append(("text of the HTML", f"{cost(mails, lambda _: plaintext(HTML)):,.0f}", ""))
    styled = f"<style>p {{ margin: 0 }} p:hover {{ color: blue }}</style>{HTML}"
    rows.append(("its styles inlined", f"{cost(mails, lambda to: inlined(styled + to)):,.0f}", ""))
    table(("CPU µs a mail", "ours", "email.policy"), rows)


if __name__ == "__main__":
    main(*map(int, arguments(1000)))
