"""`packmule email preview` and `packmule email lint`, as whoever writes a template uses them."""

import json

import pytest

from packmule.jobs.email.templating.lint import lint
from packmule.jobs.email.templating.rendering import InvalidTemplate, Renderer
from packmule.tests.command_line import CommandLine, environment_in

LAYOUT = "<html>{% block body %}{% endblock %}{{ footer }}</html>"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "templates"
    path.mkdir()
    (path / "layout.html").write_text(LAYOUT)
    (path / "order.html").write_text(
        '{% extends "layout.html" %}{% block body %}\n<img src="/logo.png">{{ order.id }}\n'
        "<script></script>{{ note|safe }}{% endblock %}"
    )
    return path


@pytest.fixture
def packmule(tmp_path, folder):
    return CommandLine(tmp_path, environment_in(tmp_path, None) | {"PACKMULE_TEMPLATES": str(folder)})


def test_a_preview_shows_text_html_and_the_whole_mail(packmule):
    said = packmule.output("email", "preview", "welcome", "--var", "name=Ada", "--subject", "Hi {{ name }}")
    assert said.startswith("Subject: Hi Ada\n\nWelcome, Ada!\n")
    assert "<h1" in packmule.output("email", "preview", "welcome", "--var", "name=Ada", "--html")
    raw = packmule.output("email", "preview", "welcome", "--var", "name=Ada", "--raw")
    assert "Content-Type: multipart/alternative" in raw
    shown = json.loads(packmule.output("email", "preview", "welcome", "--var", "name=Ada", "--json"))
    assert set(shown) == {"subject", "text", "html", "bytes"}


def test_a_preview_takes_samples_from_the_file_beside_the_template(packmule, folder):
    (folder / "order.json").write_text('{"order": {"id": 7}, "footer": "f", "note": "n"}')
    assert packmule.output("email", "preview", "order") == "7 nf"
    assert packmule.output("email", "preview", "order", "--var", "note=m") == "7 mf"
    (folder / "order.json").write_text("[]")
    done = packmule.run("email", "preview", "order")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "order.json is not a JSON object: Expected `object`, got `array`" in done.stderr


def test_a_preview_shows_styles_inlined_or_says_why_not(packmule, folder):
    (folder / "styled.html").write_text("<style>p { color: red }</style><p>x</p>")
    (folder / "odd.html").write_text("<style>p { color: red }</style><p>x</p><svg>")
    assert '<p style="color: red;">' in packmule.output("email", "preview", "styled", "--html")
    done = packmule.run("email", "preview", "odd")
    assert (done.returncode, done.stdout) == (0, "x\n")
    assert done.stderr == "packmule: the styles are not inlined: it has <svg>\n"


def test_a_preview_takes_variables_from_a_file(packmule, folder, tmp_path):
    (tmp_path / "vars.json").write_text('{"order": {"id": 7}, "footer": "f", "note": "<b>n</b>"}')
    said = packmule.output("email", "preview", "order", "--vars", str(tmp_path / "vars.json"), "--html")
    assert "7\n" in said
    assert "<b>n</b>" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["welcome"], "template welcome.txt, line 1: 'name' is not given; pass it in variables"),
        (["nosuch"], "there is no nosuch.html or nosuch.txt in"),
        (["welcom"], "did you mean welcome?"),
        (["ordre"], "did you mean order?"),
        (["../x"], "give the name of a file in the templates folder"),
        (["welcome", "--vars", "/nowhere"], "--vars /nowhere: No such file or directory"),
        (["welcome", "--var", "name"], "'name' is not NAME=VALUE"),
    ],
)
def test_a_mistake_in_a_preview_is_one_line(packmule, arguments, said):
    done = packmule.run("email", "preview", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_lint_finds_what_readers_do_not_show_and_lists_the_variables(packmule):
    said = packmule.output("email", "lint", "order")
    assert "order.html, line 2: an image has no alt text" in said
    assert "order.html, line 2: a mail has no address of its own" in said
    assert "order.html, line 3: mail readers remove scripts" in said
    assert "order.html, line 3: |safe" in said
    assert "there is no order.txt" in said
    assert said.endswith("variables: footer, note, order")
    assert packmule.output("email", "lint", "welcome") == "variables: name"
    assert json.loads(packmule.output("email", "lint", "order", "--json"))["files"] == [
        "layout.html",
        "order.html",
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% if x %}\n{{ y }}", "order.html, line 2: error: Unexpected end of template"),
        ("\n{{ x|nosuch }}", "order.html, line 2: error: No filter named 'nosuch'"),
        ("{% include 'gone.html' %}", "gone.html: error: there is no such template"),
        ("{{ a }}" * 20_000, "order.html: error: OverBounds: a template has at most"),
        ("\udcff", "order.html: error: UnicodeDecodeError"),
    ],
)
def test_lint_of_a_template_that_can_not_be_sent_fails(packmule, folder, source, said):
    (folder / "order.html").write_bytes(source.encode(errors="surrogateescape"))
    done = packmule.run("email", "lint", "order")
    assert done.returncode == 1
    assert said in done.stdout
    with pytest.raises(InvalidTemplate):
        Renderer(str(folder)).content("order", {"a": 1, "x": 2, "y": 3})


def test_templates_that_include_each_other_are_looked_at_once(folder):
    (folder / "order.html").write_text("{% include 'layout.html' %}{% include 'order.html' %}{{ a }}")
    (folder / "layout.html").write_text("{% include ['order.html', 'layout.html'] %}{{ b }}")
    found = lint(Renderer(str(folder)), "order")
    assert found.variables == ["a", "b"]
    assert found.files == ["layout.html", "order.html"]
