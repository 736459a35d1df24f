"""Mails that are written by hand: what Python's own parser reads of them is what was put in."""

import os
import re
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packmule.jobs.email import InvalidAddress, InvalidMessage, address
from packmule.jobs.email.letter import Attachment, Content, Mailbox
from packmule.jobs.email.message.compose import MAX_RECIPIENTS, Frame, compose
from packmule.jobs.email.message.draft import Draft
from packmule.jobs.email.message.headers import of_addresses, of_text
from packmule.jobs.email.message.verp import recipient_of, return_path
from packmule.jobs.email.templating.rendering import Renderer
from packmule.jobs.storage import Storage

LANGUAGES = {
    "German": "Grüße aus Köln: Ihre Bestellung über 3 Gläser wurde verschickt – danke für Ihre Geduld!",
    "French": "Votre commande n° 42 a été expédiée à l'adresse « 5, rue de l'Église » 🎉",
    "Russian": "Ваш заказ отправлен и скоро будет у вас, спасибо за покупку в нашем магазине",
    "Ukrainian": "Ваше замовлення вже їде до вас 🚚 дякуємо, що обрали нас",
    "Greek": "Η παραγγελία σας εστάλη και θα φτάσει σε λίγες ημέρες",
    "Polish": "Zażółć gęślą jaźń – zamówienie wysłane",
    "Czech": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "Turkish": "Siparişiniz yola çıktı, İstanbul'dan sevgiler",
    "Vietnamese": "Đơn hàng của bạn đã được gửi đi",
    "Hungarian": "Árvíztűrő tükörfúrógép 🙂 megérkezett",
    "Icelandic": "Kæmi ný öxi hér, ykist þjófum nú bæði víl og ádrepa",
    "Japanese": "ご注文の商品を発送いたしました。お届けまで今しばらくお待ちください。",
    "Chinese": "您的订单已发货，请注意查收，感谢您的购买 🎁",
    "Korean": "주문하신 상품이 발송되었습니다. 감사합니다.",
    "Arabic": "تم شحن طلبك وسيصل قريبا شكرا لك",
    "Hebrew": "ההזמנה שלך נשלחה ותגיע בקרוב 📦",
    "Persian": "سفارش شما ارسال شد",
    "Hindi": "आपका ऑर्डर भेज दिया गया है, धन्यवाद",
    "Thai": "คำสั่งซื้อของคุณถูกจัดส่งแล้ว",
    "Georgian": "თქვენი შეკვეთა გაიგზავნა 👩‍👩‍👧",
    "English": "Your order has been sent; it takes a while, and so does this subject, which is rather long",
}

EXAMPLES = int(os.environ.get("MAIL_EXAMPLES", "400"))
"""Generated mails; 10,000 take some minutes."""

line = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=300) | st.sampled_from(
    [
        *LANGUAGES.values(),
        "a" * 1500,
        "ü" * 1500,
        "word " * 100,
        "=?utf-8?q?x?=",
        "a  b   c",
        " lead",
        "trail ",
    ]
)
name = line.map(lambda text: text.strip()[:200].strip())
local = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9]{1,20})?", fullmatch=True)
spec = st.builds(
    lambda before, after: f"{before}@{after}", local, st.sampled_from(["example.org", "ex_a.xn--p1ai"])
)
mailbox = st.builds(Mailbox, name, spec)
body = st.text(st.characters(exclude_categories=["Cs"]), max_size=2_000) | st.sampled_from(
    [".", "..\n.", "From x", "x" * 5_000, "é" * 5_000, " \n \t\n", "=3D=", "a \r b\r\n c\n", "\n\n\n", ""]
)
file_name = line.map(lambda text: text.strip()[:120].strip() or "a")
files = st.lists(st.builds(Attachment, file_name, st.binary(max_size=500)), max_size=3)


def lines_of(text):
    """A text as a mail has it: lines end with a line feed, the last too."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else f"{text}\n"


def text_of(part):
    """The text of a part, whose lines end with CRLF on the way."""
    return part.get_content().replace("\r\n", "\n")


def header(raw, field):
    """A header as mail readers without Python's newer parser read it."""
    return str(make_header(decode_header(message_from_bytes(raw)[field].replace("\r\n", ""))))


def people(raw, field):
    shown = message_from_bytes(raw).get(field, "").replace("\r\n", "")
    return (
        [(str(make_header(decode_header(known))), where) for known, where in getaddresses([shown])]
        if shown
        else []
    )


def written(mailbox):
    escaped = mailbox.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{mailbox.spec}>' if mailbox.name else mailbox.spec


def check_form(content):
    """What every server takes: ASCII, lines of at most 998 bytes that end with CRLF, none of them bare."""
    assert content.isascii()
    assert content.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content)
    assert max(map(len, content.split(b"\r\n"))) <= 998
    head = content.partition(b"\r\n\r\n")[0]
    assert all(each.strip() for each in head.split(b"\r\n")), "a folded line of blanks ends the head for some"
    assert all(len(each) <= 76 for each in head.split(b"\r\n") if b"=?utf-8?" in each)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    subject=line,
    sender=mailbox,
    to=st.lists(mailbox, min_size=1, max_size=4),
    cc=st.lists(mailbox, max_size=2),
    reply_to=st.lists(mailbox, max_size=1),
    text=st.none() | body,
    html=st.none() | body,
    files=files,
    extra=line,
)
def test_a_mail_parses_back_equal(subject, sender, to, cc, reply_to, text, html, files, extra):
    letter = compose(
        Content(text, html),
        subject=subject,
        sender=written(sender),
        to=[written(each) for each in to],
        cc=[written(each) for each in cc],
        reply_to=[written(each) for each in reply_to],
        attachments=files,
        headers={"X-Extra": extra},
        key="k",
    )
    check_form(letter.content)
    assert letter.is_dotless == (b"\r\n." not in letter.content)
    mail = message_from_bytes(letter.content, policy=policy.default)
    assert mail["subject"] in {subject, subject.strip(" ")}
    assert header(letter.content, "subject") in {subject, subject.strip(" ")}
    assert header(letter.content, "x-extra") in {extra, extra.strip(" ")}
    for field, expected in (("from", [sender]), ("to", to), ("cc", cc), ("reply-to", reply_to)):
        assert people(letter.content, field) == [tuple(each) for each in expected]
        assert [each.addr_spec for each in (mail[field].addresses if expected else ())] == [
            each.spec for each in expected
        ]
    assert mail["message-id"] == letter.message_id
    assert parsedate_to_datetime(mail["date"]).tzinfo is not None
    plain, rich = mail.get_body(("plain",)), mail.get_body(("html",))
    if text is not None or html is None:
        assert text_of(plain) == lines_of(text or "")
    if html is not None:
        assert text_of(rich) == lines_of(html)
    parts = list(mail.iter_attachments()) if files else []
    assert [(part.get_filename(), part.get_payload(decode=True)) for part in parts] == [
        (each.name, each.content) for each in files
    ]
    assert [defect for part in mail.walk() for defect in part.defects] == []


@pytest.mark.parametrize(
    "field", ["Subject", "X-Campaign", "Comments", "Keywords", "Organization", "Thread-Topic"]
)
@pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)
def test_words_of_any_language_keep_their_spaces_in_any_header(text, field):
    for said in (text, f"{text} {text}", f"Re: {text}", text.replace(" ", "  "), text.replace(" ", "")):
        raw = f"{of_text(field, said)}\r\n\r\n".encode()
        check_form(raw)
        assert message_from_bytes(raw, policy=policy.default)[field] == said
        assert header(raw, field) == said
        both = [Mailbox(said, "a@example.org"), Mailbox("", "b@example.org")]
        raw = f"{of_addresses('To', both)}\r\n\r\n".encode()
        check_form(raw)
        assert people(raw, "to") == [(said, "a@example.org"), ("", "b@example.org")]


def corpus():
    """The real mails with which CPython tests its parser, as far as one has a sender and recipients."""
    data = pytest.importorskip("test.test_email", reason="this Python comes without its tests")
    return sorted((Path(data.__file__).parent / "data").glob("msg_*.txt"))


def test_real_mails_that_are_taken_apart_and_sent_anew_parse_back_equal():
    sent = 0
    for path in corpus():
        given = message_from_bytes(path.read_bytes(), policy=policy.default)
        try:
            bodies = [given.get_body((kind,)) for kind in ("plain", "html")]
            texts = [None if part is None else part.get_content() for part in bodies]
            kept = (
                [
                    Attachment(part.get_filename() or f"part-{number}", part.get_payload(decode=True) or b"")
                    for number, part in enumerate(given.iter_attachments())
                ]
                if given.is_multipart()
                else []
            )
            letter = compose(
                Content(*texts),
                subject=str(given["subject"] or ""),
                sender=str(given["from"]),
                to=[str(each) for each in given["to"].addresses],
                attachments=kept,
            )
        except (AttributeError, KeyError, LookupError, InvalidAddress, InvalidMessage, UnicodeError):
            continue  # made to be broken, or without a recipient
        sent += 1
        check_form(letter.content)
        again = message_from_bytes(letter.content, policy=policy.default)
        assert again["subject"] == (given["subject"] or ""), path.name
        for field in ("from", "to"):
            assert [(each.display_name, each.addr_spec.lower()) for each in again[field].addresses] == [
                (each.display_name, each.addr_spec.lower()) for each in given[field].addresses
            ], path.name
        for kind, text in zip(("plain", "html"), texts, strict=True):
            if text is not None:
                assert text_of(again.get_body((kind,))) == lines_of(text), path.name
        assert [
            (part.get_filename(), part.get_payload(decode=True)) for part in again.iter_attachments()
        ] == [(each.name, each.content) for each in kept], path.name
    assert sent >= 15


def composed(**changes):
    call = {"subject": "s", "sender": "mule@example.org", "to": ["ada@example.com"], "key": "k"} | changes
    return compose(call.pop("content", Content("t", None)), **call)


def test_mails_of_one_frame_differ_in_all_that_is_their_own():
    frame = Frame("mule@example.org", unsubscribe="https://example.org/all", headers={"X-Kind": "news"})
    first, again = Content("one", None), Content("two\n.\n", "<p>two</p>")
    letters = [
        frame.letter(content, subject, [to], unsubscribe=way, key=to)
        for content, subject, to, way in (
            (first, "s1", "ada@example.com", None),
            (Content("one", None), "s2", "bob@example.com", "https://example.org/bob"),
            (again, "s3", "jörg@example.com", None),
            (first, "s4", "eve@example.com", None),
        )
    ]
    mails = [message_from_bytes(each.content, policy=policy.default) for each in letters]
    assert [each["subject"] for each in mails] == ["s1", "s2", "s3", "s4"]
    assert [each["x-kind"] for each in mails] == ["news"] * 4
    assert [each["list-unsubscribe"].split("/")[-1] for each in mails] == ["all>", "bob>", "all>", "all>"]
    bodies = [text_of(each.get_body(("plain",))) for each in mails]
    assert bodies == [lines_of(each) for each in ("one", "one", "two\n.", "one")]
    assert [each.is_dotless for each in letters] == [True, True, False, True]
    assert [each.needs_utf8 for each in letters] == [False, False, True, False]
    assert len({each.message_id for each in letters}) == 4


def test_a_mail_says_that_it_was_sent_by_itself_unless_told_otherwise():
    assert message_from_bytes(composed().content)["auto-submitted"] == "auto-generated"
    told = message_from_bytes(composed(headers={"Auto-Submitted": "no"}).content)
    assert told.get_all("auto-submitted") == ["no"]


def test_one_click_unsubscribing_has_both_headers():
    ways = ["https://example.org/u?t=" + "x" * 400, "mailto:leave@example.org?subject=leave"]
    mail = message_from_bytes(composed(unsubscribe=ways).content, policy=policy.default)
    assert mail["list-unsubscribe"].replace(" ", "") == f"<{ways[0]}>,<{ways[1]}>"
    assert mail["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    assert "list-unsubscribe-post" not in message_from_bytes(composed(unsubscribe=ways[1]).content)


@pytest.mark.parametrize(
    "unsubscribe",
    ["http://example.org/u", "https://example.org/u>\r\nBcc: b@example.org", "https://exämple.org",
     "javascript:x",
     "mailto:nobody", "https://example.org/a,b", "https://u:p@example.org/", "https://" + "x" * 1000],
)  # fmt: skip
def test_an_unfit_unsubscribe_link_is_refused(unsubscribe):
    with pytest.raises((InvalidMessage, InvalidAddress)):
        composed(unsubscribe=unsubscribe)


@pytest.mark.parametrize(
    "name",
    ["Bcc", "To", "From", "Sender", "Subject", "Date", "Message-ID", "Content-Type", "MIME-Version",
     "Return-Path", "Received", "DKIM-Signature", "Resent-To", "List-Unsubscribe", "X-Envelope-To", "X A",
     "X-Ä", "X:", "", "X-" * 40,
     "X-A\r\nBcc"],
)  # fmt: skip
def test_a_header_that_is_not_allowed_is_refused_by_name(name):
    with pytest.raises(InvalidMessage):
        composed(headers={name: "x"})


@pytest.mark.parametrize("value", ["a\r\nBcc: b@example.org", "a\nb", "a\x00b", "\ud800", "x" * 2001])
def test_a_headers_value_is_one_line(value):
    with pytest.raises(InvalidMessage):
        composed(headers={"X-A": value})


def test_headers_that_are_tokens_are_never_encoded():
    value = " ".join(f"<{number}.{'x' * 40}@example.org>" for number in range(8))
    mail = composed(headers={"References": value, "In-Reply-To": "<1@example.org>"})
    check_form(mail.content)
    assert message_from_bytes(mail.content)["references"].replace("\r\n", "") == value
    with pytest.raises(InvalidMessage, match="must be ASCII words"):
        composed(headers={"In-Reply-To": "<ä@example.org>"})


def test_images_are_shown_by_the_html_and_beside_its_text():
    image = Attachment("logo.png", b"\x89PNG", cid="logo")
    letter = composed(
        content=Content("t", '<img src="cid:logo">'), attachments=[image, Attachment("a.pdf", b"%PDF")]
    )
    mail = message_from_bytes(letter.content, policy=policy.default)
    assert [part.get_content_type() for part in mail.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html",
        "image/png",
        "application/pdf",
    ]  # fmt: skip
    shown = next(part for part in mail.walk() if part.get_content_type() == "image/png")
    assert (shown["content-id"], shown.get_content_disposition()) == ("<logo>", "inline")
    with pytest.raises(InvalidMessage, match="no part of the HTML shows the image logo"):
        composed(content=Content("t", "<p>"), attachments=[image])
    with pytest.raises(InvalidMessage, match="this mail has none"):
        composed(attachments=[image])


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path):
    storage = Storage(str(tmp_path))
    with (tmp_path / "film.mp4").open("wb") as film:
        film.truncate(2 << 30)
    storage.read_bytes = None  # which would be called
    draft = Draft(Renderer(), "mule@example.org", "s", "t")
    with pytest.raises(InvalidMessage, match=r"2,147,483,648 bytes in total, over the limit of 25,000,000"):
        draft.with_files(storage, 25_000_000, ["film.mp4"])


def test_ten_thousand_recipients_in_one_mail_are_refused_in_words():
    everybody = [f"{number}@example.org" for number in range(10_000)]
    with pytest.raises(
        InvalidMessage, match=r"10,000 addresses, over the limit of 500: .*a mail of their own"
    ):
        composed(to=everybody)
    letter = composed(to=everybody[:MAX_RECIPIENTS])
    check_form(letter.content)
    assert [where for _, where in people(letter.content, "to")] == everybody[:MAX_RECIPIENTS]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('"john doe"@example.org', '"john doe"@example.org'),
        ('"ada"@example.org', "ada@example.org"),
        ('Ada <"a@b"@example.org>', 'Ada <"a@b"@example.org>'),
        ('"a\\"b"@example.org', '"a\\"b"@example.org'),
        ('"x <y>" <a@example.org>', '"x <y>" <a@example.org>'),
        ("a@ex_ample.org", "a@ex_ample.org"),
        ("a@_dmarc.example.org", "a@_dmarc.example.org"),
        ("o'brien+tag/x=y@sub.example.org", "o'brien+tag/x=y@sub.example.org"),
        ("дима@почта.рф", "дима@xn--80a1acny.xn--p1ai"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("a@EXAMPLE.ORG", "a@example.org"),
    ],
)
def test_addresses_are_judged_as_mail_servers_do(text, shown):
    assert address(text) == shown
    assert address(shown) == shown


@pytest.mark.parametrize(
    "text",
    ['""@example.org', '"a"b@example.org', '"a\r\nb"@example.org', "a@127.0.0.1", "a@1.2.3.4", "a@-x.org",
     "a@x-.org", "a@" + "x" * 64 + ".org", "a b@example.org", "a@b@example.org", '"unclosed@example.org',
     "a@ex ample.org"],
)  # fmt: skip
def test_what_no_server_takes_is_no_address(text):
    with pytest.raises(InvalidAddress):
        address(text)


def test_a_return_path_names_the_recipient_and_is_read_back():
    pattern = "bounces+{to}@example.org"
    for recipient in ("ada@example.com", "a=b@example.com", "o'brien+x@ex_a.org"):
        path = return_path(pattern, (recipient,))
        assert recipient_of(pattern, path) == recipient
        assert address(path) == path
        assert composed(to=[recipient], return_path=pattern).sender == path
    assert return_path(pattern, ("a@example.com", "b@example.com")) == "bounces@example.org"
    assert return_path(pattern, (f"{'x' * 60}@example.com",)) == "bounces@example.org"
    for other in ("bounces@example.org", "bounces+x@example.org", "bounces+a=b@evil.org", "x", "", "a" * 999):
        assert recipient_of(pattern, other) is None


def test_a_second_copy_has_the_id_of_the_first_and_the_key_of_another_has_another():
    ids = [
        composed(key=key, subject=subject).message_id for key, subject in (("a", "s"), ("a", "t"), ("b", "s"))
    ]
    assert ids[0] == ids[1] != ids[2]
