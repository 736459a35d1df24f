"""Styles of mails are inlined, and no HTML and no CSS can hold or kill the process that does it."""

import re
import socket
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packmule.jobs.email.message import css
from packmule.jobs.email.message.css import inlined
from packmule.jobs.email.message.draft import Draft
from packmule.jobs.email.message.tree import MAX_DEPTH, TreeSize, Unfit
from packmule.jobs.email.templating.rendering import Renderer

STYLE = "<style>p { color: red } div div { margin: 0 }</style>"


def test_a_rule_becomes_a_style_of_the_elements_that_it_fits():
    html = "<style>.k { color: red } p { margin: 0 }</style><p class=k style='padding: 0'>Grüße"

    assert '<body><p class="k" style="margin: 0;color: red;padding: 0">Grüße</p></body>' in inlined(html).html


@pytest.mark.parametrize(
    "rule",
    [
        "@media (max-width: 600px) { p { color: blue } }",
        "@font-face { font-family: x; src: url(https://example.org/x) }",
        "p:hover { color: blue; }",
        "#outlook a { padding: 0; }",
    ],
)
def test_what_only_a_style_element_can_say_stays_in_it(rule):
    found = inlined(f"<style>p {{ color: red }} {rule}</style><p>x")

    assert '<p style="color: red;">' in found.html
    assert rule in found.html


@pytest.mark.parametrize(
    "style",
    [
        '<style data-css-inline="ignore">i { color: red }</style>',
        '<style media="print">i { color: red }</style>',
        "<style type=\"text/css\" media='only screen and (max-width: 600px)'>i { color: red }</style>",
    ],
)
def test_a_style_that_is_to_be_ignored_or_for_other_media_stays_whole(style):
    beside = inlined(f"{STYLE}{style}<p><i>x</i>").html

    assert "i { color: red }</style>" in beside
    assert '<p style="color: red;"><i>x</i>' in beside
    assert inlined(f"{style}<p><i>x</i>") == (f"{style}<p><i>x</i>", "")


@pytest.mark.parametrize("media", ["screen", "all", "ALL", ""])
def test_a_style_for_screens_is_inlined(media):
    assert '<p style="color: red;">' in inlined(f'<style media="{media}">p {{ color: red }}</style><p>x').html


def test_html_without_styles_stays_as_it_is_to_the_byte():
    for html in ("<p>x<b>y</p>\r\n", "<!-- <style>p {}</style> --><P>x", ""):
        assert inlined(html) == (html, "")


def test_what_outlook_reads_keeps_its_meaning():
    strict = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1.dtd">'
    hidden = "<!--[if mso]><style>p { color: blue }</style><![endif]-->"
    shown = "<!--[if !mso]><!--><b>x</b><!--<![endif]-->"

    found = inlined(f"{strict}<p>{STYLE}{hidden}<![if !mso]><b>x</b><![endif]>").html

    assert found.startswith(strict)
    assert hidden in found
    assert shown in found
    assert shown in inlined(f"{STYLE}<p>{shown}").html


def test_nothing_is_loaded(tmp_path):
    (tmp_path / "x.css").write_text("p { color: blue }")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.css"
        links = "".join(
            f'<link rel="stylesheet" href="{each}">'
            for each in (url, f"{tmp_path}/x.css", f"file://{tmp_path}/x.css")
        )

        found = inlined(f"{links}<style>@import url({url}); p {{ margin: 0 }}</style><p>x").html

        with pytest.raises(BlockingIOError):
            server.accept()
    assert '<p style="margin: 0;">' in found
    assert found.count("<link") == 3


def test_a_mail_is_sent_with_its_styles_inlined_and_its_text_without_them():
    draft = Draft(Renderer(), "mule@example.org", "Hello", html=f"{STYLE}<p>Hello, Ada")

    content = draft.render().content

    assert content.text == "Hello, Ada\n"
    assert '<p style="color: red;">Hello, Ada</p>' in content.html


def test_a_template_is_inlined_with_its_layout(tmp_path):
    (tmp_path / "layout.html").write_text(f"{STYLE}<div>{{% block body %}}{{% endblock %}}</div>")
    (tmp_path / "a.html").write_text(
        '{% extends "layout.html" %}{% block body %}<p>{{ name }}</p>{% endblock %}'
    )
    draft = Draft(Renderer(str(tmp_path)), "mule@example.org", "Hello", template="a")

    assert '<p style="color: red;">&lt;/p&gt;</p>' in draft.render({"name": "</p>"}).content.html


@pytest.mark.parametrize(
    ("html", "why"),
    [
        (f"{STYLE}<svg><g>", "it has <svg>"),
        (f'{STYLE}\n<p class="a>x', "line 2 of the HTML is not well-formed: '<p class=\"a>x'"),
        (f"{STYLE}<p>x<?php", "line 1 of the HTML is not well-formed"),
        ("<style>p { color: red }", "where its <style> ends is not clear"),
        ("<style>p { color: red }</style x></style>", "where its <style> ends is not clear"),
        (f"{STYLE}<script><!-- <script></script>", "where its <script> ends is not clear"),
        (f"{STYLE}{'<div>' * 300}", "it has more than 200 nested elements"),
        (f"{STYLE}{'<p>x</p>' * 30_000}", "it has more than 20,000 elements"),
        (f"{STYLE}{'x' * 1_000_000}", "it has more than 1,000,000 characters"),
        (f"{STYLE}<p style='color'>x", "its CSS or a style attribute can't be read"),
        (f"<style>{'p{a:b}' * 9_000}</style>{'<p>x' * 2_000}", "it has 54,000 characters of CSS for 2,001"),
        (
            f"<style>* {{{''.join(f'--a{i}:1;' for i in range(2_000))}}}</style>{'<p>x' * 300}",
            "it has 18,894 characters of CSS for 301",
        ),
        (f"<style>* {{--x: {'x' * 10_000}}}</style>{'<p>x' * 900}", "it would have more than 1,000,000"),
        (f'{STYLE}<p style="{"a:b;" * 101}">', "a tag has more than 100 declarations"),
        (f"{STYLE}<p {' '.join(f'a{i}' for i in range(101))}>", "line 1 of the HTML is not well-formed"),
    ],
)
def test_what_would_be_too_much_keeps_its_styles_and_says_why(html, why):
    found = inlined(html)

    assert found.html == html
    assert found.left.startswith(why)


HOSTILE = [
    "'<div>' * 100_000",
    "'<svg>' + '<g>' * 100_000",
    "'<template>' * 20_000",
    "'<b><i>' * 20_000",
    "'<table><td>' * 20_000",
    "'<table>' + '<div>' * 20_000",
    "'<li><dt>' * 20_000",
    "'<p><b></p>' * 20_000",
    "'<svg><style>' + '<g>' * 20_000",
    "'<select><style>' + '<div>' * 20_000 + '</style>'",
    "'<div \">' + '<div>' * 20_000 + '\">'",
    "'<\\u017ftyle>' + '<div>' * 20_000 + '</\\u017ftyle>'",
    "'<div><script><!--<script></script></div> --></script>' * 20_000",
    "'<!-- --!>' + '<div>' * 20_000 + '-->'",
    "''.join(f'<font a={i}>' for i in range(190)) + '<p>x' * 20_000",
    "'<style>' + ':not(' * 60_000 + 'b' + ')' * 60_000 + '{}</style>'",
    "'<style>' + '@media x{' * 60_000 + '}' * 60_000 + '</style>'",
    "'<style>*{' + ''.join(f'--a{i}:1;' for i in range(60_000)) + '}</style>' + '<p>x' * 500",
    "'<style>' + 'p{color:red}' * 60_000 + '</style>' + '<p>x' * 20_000",
    "'\\ud800\\0<p>'",
]


def test_no_html_kills_a_thread_with_little_stack_or_holds_it():
    code = f"""
import resource, threading, time
from packmule.jobs.email.message.css import inlined
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
threading.stack_size(1 << 20)
def go():
    for each in [{", ".join(HOSTILE)}]:
        inlined({STYLE!r} + each)
    print("survived")
thread = threading.Thread(target=go)
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False
    )

    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr[-500:]


VOID = frozenset(["br", "col", "hr", "img", "input"])
TAGS = [
    "a", "b", "font", "p", "div", "span", "li", "ul", "dd", "dt", "td", "th",
    "tr", "table", "tbody", "caption", "col", "br", "img", "h1", "form", "center", "button", "object",
    "nobr", "body", "html", "head", "option", "marquee", "o:p", "section", "input", "ruby", "rt", "x",
]  # fmt: skip
MARKUP = re.compile(r"<!--.*?-->|<(style|title)\b[^>]*>.*?</\1>|<(/?)([a-z][^ >]*)[^>]*>", re.DOTALL)


def shape(html):
    """The depth and the number of elements of what css-inline wrote, which closes all that it opens."""
    depth = deepest = count = 0
    for found in MARKUP.finditer(html):
        if found[2]:
            depth -= 1
        elif found[1] or found[3]:
            count += 1
            deepest = max(deepest, depth + 1)
            depth += bool(found[3]) and found[3] not in VOID
    return deepest, count


class Watched(TreeSize):
    """Keeps the greatest number of elements that were open at once."""

    latest: "Watched"

    def __init__(self):
        super().__init__()
        self.deepest = 0
        Watched.latest = self

    def start(self, tag):
        super().start(tag)
        self.deepest = max(self.deepest, len(self._open))


pieces = st.sampled_from(
    [f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS] + ["x", "<title>x</title>"]
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(pieces, min_size=1, max_size=12), st.sampled_from([1, 5, 60]))
def test_a_tree_is_never_deeper_or_larger_than_counted(some, times):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(css, "TreeSize", Watched)
        found = inlined(STYLE + "".join(some) * times)
    if found.left:
        return
    depth, count = shape(found.html)
    size = Watched.latest

    assert depth <= 2 * size.deepest + 4
    assert count <= 3 * size.elements + 4


def test_elements_that_a_parser_opens_again_are_counted(monkeypatch):
    monkeypatch.setattr(css, "TreeSize", Watched)
    fonts = "".join(f"<font size={number}>" for number in range(50))

    _, count = shape(inlined(f"{STYLE}<div>{fonts}</div>{'<p>x</p>' * 50}").html)

    assert 50 * 50 < count <= Watched.latest.elements + 4


def test_sloppy_lists_and_paragraphs_are_not_deep():
    for html in ("<p>x" * 500, f"<ul>{'<li><p>x' * 500}</ul>", "<div><p>x</div>" * 500):
        assert "style=" in inlined(f"<style>p, li {{ color: red }}</style>{html}").html


def test_elements_that_close_are_not_counted_as_open():
    size = TreeSize()
    for _ in range(10 * MAX_DEPTH):
        size.start("div")
        size.end("div")
    for _ in range(MAX_DEPTH):
        size.start("div")

    with pytest.raises(Unfit):
        size.start("div")
