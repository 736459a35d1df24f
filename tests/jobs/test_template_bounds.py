"""No template holds a worker, its memory or its other threads, and none reaches into Python."""

import subprocess
import sys
import threading

import pytest

from packmule.jobs.email import InvalidTemplate
from packmule.jobs.email.templating import allowance
from packmule.jobs.email.templating.allowance import MAX_CPU
from packmule.jobs.email.templating.rendering import Renderer

HOLDING = {
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loop if false": (
        "{% for a in range(99999) %}{% for b in range(99999) if false %}x{% endfor %}{% endfor %}"
    ),
    "capture": ("{% set x %}{% for a in range(99999) %}" + "y" * 10000 + "{% endfor %}{% endset %}"),
    "capture2": (
        "{% set x %}{% for a in range(99999) %}{% if a %}" + "y" * 100 + "{% endif %}{% endfor %}{% endset %}"
    ),
    "capture else": (
        "{% set x %}{% for a in range(99999) %}{% for b in [] %}{% else %}"
        + "y" * 10000
        + "{% endfor %}{% endfor %}{% endset %}"
    ),
    "macro fib": ("{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}"),
    "macro text": (
        "{% macro m() %}"
        + "z" * 10000
        + "{% endmacro %}{% set x %}{% for i in range(9999) %}{{ m() }}{% endfor %}{% endset %}"
    ),
    "macro rec": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "self include": "{% include 't.txt' %}",
    "self include twice": "{% for i in range(9) %}{% include 't.txt' %}{% endfor %}",
    "self extends": "{% extends 't.txt' %}",
    "self import": "{% import 't.txt' as t %}",
    "block rec": "{% block a %}{{ self.a() }}{% endblock %}",
    "recursive loop": "{% for i in [1,2] recursive %}{{ loop([1,2]) }}{% endfor %}",
    "dag": (
        "{% set ns = namespace(a=[1]) %}{% for i in range(40) %}{% set ns.a=[ns.a, ns.a] %}"
        "{% endfor %}{{ ns.a }}"
    ),
    "dag eq": (
        "{% set ns = namespace(a=[1],b=[1]) %}{% for i in range(40) %}"
        "{% set ns.a=[ns.a, ns.a] %}{% set ns.b=[ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}"
    ),
    "dag tuple hash": (
        "{% set ns = namespace(a=(1,)) %}{% for i in range(40) %}{% set ns.a=(ns.a, ns.a) %}"
        "{% endfor %}{{ {ns.a: 1} }}"
    ),
    "dag varargs": (
        "{% macro m(n) %}{% if n %}{{ m(n-1, varargs, varargs) }}{% else %}{{ varargs }}"
        "{% endif %}{% endmacro %}{{ m(40, 1) }}"
    ),
    "dag kwargs": (
        "{% macro m(n) %}{% if n %}{{ m(n-1, a=kwargs, b=kwargs) }}{% else %}{{ kwargs }}"
        "{% endif %}{% endmacro %}{{ m(40) }}"
    ),
    "dag dict": (
        "{% set ns = namespace(a={}) %}{% for i in range(40) %}"
        "{% set ns.a={'x':ns.a, 'y':ns.a} %}{% endfor %}{{ ns.a|tojson }}"
    ),
    "dag dict()": (
        "{% set ns = namespace(a={}) %}{% for i in range(40) %}"
        "{% set ns.a=dict(x=ns.a, y=ns.a) %}{% endfor %}{{ ns.a|tojson }}"
    ),
    "dag plus": (
        "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a=ns.a+ns.a %}{% endfor %}"
    ),
    "dag batch": (
        "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}"
        "{% set ns.a=([1]|batch(3, ns.a)|list) %}{% endfor %}{{ ns.a }}"
    ),
    "dag map": (
        "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}"
        "{% set ns.a=([0,0]|map('default', ns.a, true)|list) %}{% endfor %}{{ ns.a }}"
    ),
    "pow neg": "{{ (-9)**0.5 }}",
    "mul": "{{ 'a'*10**9 }}",
    "mul list": "{{ [1]*10**9 }}",
    "mul nested": "{{ [['a'*1000]*1000]*1000 }}",
    "bigint": ("{{ 0x" + "f" * 200000 + " // 0x" + "f" * 100000 + " }}"),
    "bigint2": ("{{ (0x" + "f" * 200000 + ")|string }}"),
    "bigint mul loop": (
        "{% set ns=namespace(a=3) %}{% for i in range(99999) %}{% set ns.a=ns.a*ns.a %}{% endfor %}"
    ),
    "big str int": "{{ ('9'*4000)|int }}",
    "hex int": "{{ ('f'*90000)|int(base=16) }}",
    "concat loop": (
        "{% set ns=namespace(a='x') %}{% for i in range(99) %}{% set ns.a=ns.a~ns.a %}{% endfor %}"
    ),
    "hold strings": (
        "{% set ns=namespace(a=[]) %}{% for i in range(9999) %}"
        "{% set ns.a=ns.a+['x'*900000 ~ i] %}{% endfor %}"
    ),
    "hold slices": (
        "{% set big='x'*900000 %}{% set ns=namespace(a=[]) %}{% for i in range(9999) %}"
        "{% set ns.a=ns.a+[big[1:]] %}{% endfor %}"
    ),
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999,1) }}",
    "percent names": "{{ ('%(a)s'*9999) % {'a': 'x'*100000} }}",
    "percent many": "{{ ('%s'*900)|format(*['x'*100000]*900) }}",
    "percent named wide": "{{ '%(a)99999999d' % {'a':1} }}",
    "format": "{{ '{:>99999999}'.format(1) }}",
    "format nested": "{{ '{:{w}}'.format(1, w=99999999) }}",
    "format many": "{{ ('{0}'*9999).format('x'*100000) }}",
    "format prec": "{{ '{:.999999999f}'.format(1.5) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "center lit": "{{ 'a'|center(1000000000) }}",
    "indent": "{{ 'a'|indent(10**9) }}",
    "indent many": "{{ ('a\n'*100000)|indent(999) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "batch0": "{{ [1]|batch(0)|list }}",
    "round": "{{ 1|round(10**9) }}",
    "join": "{{ range(99999)|join('x'*900) }}",
    "join nested": "{{ [['x'*1000]*1000]|join }}",
    "replace": "{{ ('a'*99999)|replace('a','b'*999) }}",
    "str.replace": "{{ ('a'*99999).replace('a','b'*999) }}",
    "replace empty": "{{ ('a'*99999)|replace('','b'*999) }}",
    "str.join": "{{ ('x'*999).join('a'*9999) }}",
    "sum lists": "{{ ([[1]]*9999)|sum(start=[]) }}",
    "groupby": "{{ range(99999)|groupby('real')|list }}",
    "sort": "{% for i in range(99999) %}{% set x = range(99999)|sort %}{% endfor %}",
    "unique coll": (
        "{% set ns=namespace(a=[]) %}{% for i in range(3000) %}"
        "{% set ns.a=ns.a+[i*2305843009213693951] %}{% endfor %}{% for j in range(99999) %}"
        "{% set z = ns.a|unique|list %}{% endfor %}"
    ),
    "dict coll": (
        "{% set ns=namespace(a=[]) %}{% for i in range(3000) %}"
        "{% set ns.a=ns.a+[[i*2305843009213693951,1]] %}{% endfor %}{% for j in range(999) %}"
        "{% set x=dict(ns.a) %}{% endfor %}"
    ),
    "ns coll": (
        "{% set ns=namespace(a=[]) %}{% for i in range(3000) %}"
        "{% set ns.a=ns.a+[[i*2305843009213693951,1]] %}{% endfor %}{% for j in range(999) %}"
        "{% set x=namespace(ns.a) %}{% endfor %}"
    ),
    "wordwrap": "{{ ('a'*900000)|wordwrap(1) }}",
    "wordwrap2": "{% for i in range(9999) %}{% set x=('a'*20000)|wordwrap(1) %}{% endfor %}",
    "striptags": "{{ ('<!-- -->'*100000)|striptags }}",
    "striptags2": "{% for i in range(9999) %}{% set x=('<!-- -->'*2000)|striptags %}{% endfor %}",
    "urlize": "{{ ('a@'*400000)|urlize }}",
    "urlize2": "{% for i in range(9999) %}{% set x=('http://'*2000)|urlize %}{% endfor %}",
    "urlize3": "{% for i in range(999) %}{% set x=('a.'*9000~'@')|urlize %}{% endfor %}",
    "urlize4": "{% for i in range(999) %}{% set x=('('*19000)|urlize %}{% endfor %}",
    "wordcount": "{% for i in range(9999) %}{% set x=('a '*50000)|wordcount %}{% endfor %}",
    "tojson": "{{ [1]|tojson(indent=10**9) }}",
    "tojson deep": (
        "{% set ns=namespace(a=1) %}{% for i in range(9999) %}{% set ns.a=[ns.a] %}"
        "{% endfor %}{{ ns.a|tojson }}"
    ),
    "str deep": (
        "{% set ns=namespace(a=1) %}{% for i in range(99999) %}{% set ns.a=[ns.a] %}{% endfor %}{{ ns.a }}"
    ),
    "escape": "{% for i in range(9999) %}{% set x=('&'*200000)|e %}{% endfor %}",
    "urlencode": "{{ ('é'*900000)|urlencode }}",
    "compare": (
        "{% set a='x'*900000 %}{% set b='x'*900000 %}{% for i in range(99999) %}"
        "{% for j in range(99999) %}{% if a==b %}{% endif %}{% endfor %}{% endfor %}"
    ),
    "compare lists": ("{% set a=[1]*900000 %}{% set b=[1]*900000 %}" + "{% if a==b %}{% endif %}" * 4000),
    "in": ("{% set a=range(99999) %}" + "{% if 'x' in a %}{% endif %}" * 4000),
    "test in": ("{% set a=range(99999) %}" + "{% if 'x' is in a %}{% endif %}" * 4000),
    "upper": ("{% set a='x'*900000 %}" + "{% if a|upper %}{% endif %}" * 4000),
    "methods": ("{% set a='x'*900000 %}" + "{% if a.count('y') %}{% endif %}" * 4000),
    "index": ("{% set a=[1]*900000 %}" + "{% if a.count(2) %}{% endif %}" * 4000),
    "split": "{{ ('a '*400000).split() }}",
    "strip": "{{ ('a'*499000).strip('é'*499000~'a') }}",
    "trim": "{{ ('a'*499000)|trim('é'*499000~'a') }}",
    "rfind": "{{ ('a'*400000).rfind('ab'~'a'*400000) }}{{ ('a'*500000).rindex('ab'~'a'*200000) }}",
    "list str": "{{ ('é'*900000)|list }}",
    "nan tick": (
        "{{ ('nan'|float)|_tick }}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}"
    ),
    "neg tick": (
        "{{ (-99999999)|_tick }}{% for a in range(99999) %}{% for b in range(99999) %}"
        "{% endfor %}{% endfor %}"
    ),
    "inc missing": "{% for i in range(99999) %}{% include 'nosuch'~i ignore missing %}{% endfor %}",
    "inc list": "{% include ['a'*100]*99999 ignore missing %}",
    "deep parens": ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}"),
    "deep list": ("{{ " + "[" * 2000 + "]" * 2000 + " }}"),
    "chain": ("{{ 1" + "+1" * 20000 + " }}"),
    "filters": ("{{ 1" + "|string" * 9000 + " }}"),
    "ifs": ("{% if 1 %}" * 150 + "{% endif %}" * 150),
    "fors": ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30),
    "nots": ("{{ " + "not " * 9000 + "1 }}"),
    "elifs": ("{% if 0 %}" + "{% elif 0 %}" * 5000 + "{% endif %}"),
    "attrs": ("{{ x" + ".a" * 9000 + " }}"),
    "tokens": "{{ a }}" * 20000,
    "source": "x" * 600000,
    "comment": "{#" * 100000,
    "raw": "{% raw %}" * 50000,
    "minus": ("{{ " + "-" * 9000 + "1 }}"),
    "unclosed": ("{{ '" + "\\\\" * 200000),
    "digits": ("{{ " + "1" * 400000 + " }}"),
    "underscores": ("{{ " + "1_" * 200000 + " }}"),
    "title": "{{ ('a '*400000)|title }}",
    "filesize": "{{ (10**3000)|filesizeformat }}",
    "float inf": "{{ ('inf'|float)|int }}",
    "join big d": "{{ [1,2]|join(['x'*900000]*3) }}",
    "do filter block": (
        "{% filter upper %}{% for i in range(99999) %}" + "q" * 5000 + "{% endfor %}{% endfilter %}"
    ),
    "call block": (
        "{% macro m() %}{% for i in range(99999) %}{{ caller() }}{% endfor %}{% endmacro %}"
        "{% call m() %}" + "q" * 5000 + "{% endcall %}"
    ),
    "trans exp": "{% macro m(n) %}{% if n %}{% include 'm.txt' %}{% endif %}{% endmacro %}{{ m(1) }}",
    "loop changed": "{% set a=[1]*900000 %}{% for i in range(99999) %}{{ loop.changed(a) }}{% endfor %}",
    "autoescape": "{% autoescape true %}{{ '&'*900000 }}{% endautoescape %}",
    "getitem tuple": "{% set t=([1]*900000)|list %}{{ {}[t] }}",
    "reverse": "{% for i in range(99999) %}{% set x=('x'*99999)|reverse %}{% endfor %}",
    "min": "{% for i in range(99999) %}{% set x=range(99999)|max %}{% endfor %}",
    "items": (
        "{% for i in range(99999) %}{% set x=dict(a=1).items() %}{% for k in x %}{% endfor %}{% endfor %}"
    ),
}
"""Templates that would take much time or memory."""

REACHING = {
    "dag ns": (
        "{% set a=namespace(x=1) %}{% set b=namespace(x=a,y=a) %}{% set c=namespace(x=b,y=b) %}{{ c }}"
    ),
    "cycle items": "{% set c = cycler([1],[2]) %}{{ c.items }}",
    "bytes percent": "{{ ('%99999999d'.encode()) % 1 }}",
    "format attr": "{{ '{0.__class__}'.format(1) }}",
    "format item": "{{ '{0[a]}'.format({'a':1}) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a':1}) }}",
    "expandtabs": "{{ 'a\t'.expandtabs(10**9) }}",
    "to_bytes": "{{ (1).to_bytes(10**9,'big') }}",
    "translate": "{{ 'a'.translate({97:'x'*9999}) }}",
    "attr": "{{ ''|attr('__class__') }}",
    "class": "{{ ''.__class__.__mro__ }}",
    "item class": "{{ ''['__class__'] }}",
    "map attr": "{{ ['']|map(attribute='__class__')|list }}",
    "globals": "{{ range.__globals__ }}",
    "macro func": "{% macro m() %}{% endmacro %}{{ m._func }}",
    "self ctx": "{{ self._TemplateReference__context }}",
    "loop it": "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
    "cycler init": "{{ cycler.__init__.__globals__ }}",
    "joiner": "{{ joiner.__init__ }}",
    "ns attrs": "{% set n=namespace() %}{{ n._Namespace__attrs }}",
    "ns cls": "{% set n=namespace() %}{{ n['__class__'] }}",
    "undefined": "{{ nosuch.__class__ }}",
    "lipsum": "{{ lipsum.__globals__ }}",
    "call class": "{{ dict.mro() }}",
    "groupby item": "{{ ['']|groupby('__class__') }}",
    "sort attr": "{{ ['']|sort(attribute='__class__') }}",
    "selectattr": "{{ ['']|selectattr('__class__')|list }}",
    "import mod": "{% import 'o.txt' as o %}{{ o.__class__ }}",
    "import mod body": "{% import 'o.txt' as o %}{{ o._body_stream }}",
    "import mod show": "{% import 'o.txt' as o %}{{ o }}",
    "caller": "{% macro m() %}{{ caller.__class__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "super": "{% block a %}{{ super.__class__ }}{% endblock %}",
    "exc": "{{ x[99999999999999999999] }}",
    "inc tuple": "{% include (('a',),) ignore missing %}",
    "truncate": "{{ ('a'*900000)|truncate(10, end='x'*900000) }}",
    "namespace self": "{% set n=namespace() %}{% set n.a=n %}{{ n.a.a.a }}",
    "list of ns": "{% set n=namespace() %}{{ [n,n] }}",
    "super exp": ("{% block a %}{% block b %}{% endblock %}{% endblock %}{{ self.a() }}{{ self.nosuch() }}"),
    "random": "{{ [1,2]|random }}",
    "pprint": "{{ [1]|pprint }}",
    "encode": "{{ 'a'.encode() }}",
    "mro": "{{ [].__class__.__base__.__subclasses__() }}",
}
"""Templates that look for a way into Python, or show what is no data."""

HARMLESS = {
    "{{ 9 ** 3 ** 2 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 1 / 4 }} {{ -3 - 2 }}": "531441 3 3 0.25 -5",
    "{{ '%s: %05.1f%%' % ('a', 2.25) }} {{ '%(n)d'|format(n=3) }}": "a: 002.2% 3",
    "{{ '{:,.2f} {} {c:>3}'.format(1234.5, 'EUR', c=1) }}": "1,234.50 EUR   1",
    "{{ range(5)|map('string')|join('-') }} {{ [3, 1, 2]|sort }} {{ [1, 2]|sum }}": "0-1-2-3-4 [1, 2, 3] 3",
    ("{% for g in people|groupby('city') %}{{ g.grouper }}: {{ g.list|length }};{% endfor %}"): "A: 2;B: 1;",
    "{% for row in range(5)|batch(2, '-') %}{{ row|join }} {% endfor %}": "01 23 4- ",
    ("{% for k, v in d.items() %}{{ loop.index }}{{ k }}{{ v }}{% endfor %}{{ d.get('z', 1) }}"): "1a12b21",
    (
        "{% for p in people if p.city == 'A' %}{{ p.name|upper }}{{ ', ' if not loop.last }}{% endfor %}"
    ): "ADA, CY",
    (
        "{% set ns = namespace(n=0) %}{% for p in people %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    ): "3",
    (
        "{% macro m(x, y=2) %}<{{ x }}{{ y }}{{ varargs }}>{% endmacro %}{{ m(1) }}{{ m(1, 3, 4) }}"
    ): "<12()><13(4,)>",
    "{% macro b() %}[{{ caller(1) }}]{% endmacro %}{% call(n) b() %}{{ n }}{% endcall %}": "[1]",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}": "aba",
    ("{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}"): "123",
    "{{ 'Ada Lovelace'.split()[1][:4].lower() }} {{ 'a' in 'abc' }} {{ people[0].name }}": "love True Ada",
    "{% block a %}{{ self.b() }}{% endblock %}{% block b %}x{% endblock %}": "xx",
    "{% import 'o.txt' as o %}{{ o.m(2) }}{{ o.a }}{% from 'o.txt' import m %}{{ m(3) }}": "213",
    (
        "{% include 'o.txt' %}{% include ['nosuch', 'o.txt'] %}{% include 'nosuch' ignore missing %}"
    ): "bodybody",
    "{{ 1 ~ 'a' ~ none }} {{ [1, 'a', {'b': 1.5}] }} {{ (1, 2) }}": "1aNone [1, 'a', {'b': 1.5}] (1, 2)",
    "{{ x is defined }} {{ x|default('-') }} {{ people is iterable }} {{ 3 is odd }}": "False - True True",
    "{{ d|tojson }} {{ 'a b'|title|replace(' ', '_') }} {{ 2.5|round|int }}": '{"a": 1, "b": 2} A_B 2',
    "{% filter upper %}a{% set b %}c{% endset %}{{ b }}{% endfilter %}": "AC",
    (
        "{{ dict(a=1, **{'b': 2}) }} {{ 'x'.center(5)|trim }} {{ 'ab'|first }}{{ [1,2]|last }}"
    ): "{'a': 1, 'b': 2} x a2",
}
"""What templates go on doing, and what comes of it."""


@pytest.fixture
def render(tmp_path):
    (tmp_path / "o.txt").write_text("{% macro m(n) %}{{ n }}{% endmacro %}{% set a = 1 %}body")
    (tmp_path / "m.txt").write_text("{% include 't.txt' %}" * 3)

    def rendered(source, variables=None):
        (tmp_path / "t.txt").write_text(source)
        return Renderer(str(tmp_path)).content("t", variables or {}).text

    return rendered


@pytest.mark.parametrize("source", REACHING.values(), ids=REACHING)
def test_no_template_reaches_python(render, source):
    with pytest.raises(InvalidTemplate, match=r"^template t.txt, line 1: ") as refused:
        render(source, {"x": [1]})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("source", "shown"), HARMLESS.items())
def test_templates_do_what_they_did(render, source, shown):
    people = [{"name": "Ada", "city": "A"}, {"name": "Bo", "city": "B"}, {"name": "Cy", "city": "A"}]
    assert render(source, {"people": people, "d": {"a": 1, "b": 2}}) == shown


CHILD = """
import pathlib, resource, sys, tempfile, time
from packmule.jobs.email import InvalidTemplate
from packmule.jobs.email.templating.rendering import Renderer
from packmule.tests.jobs.test_template_bounds import HOLDING

resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "o.txt").write_text("{% macro m() %}{% endmacro %}")
(folder / "m.txt").write_text("{% include 't.txt' %}" * 3)
(folder / "t.txt").write_text("x")
Renderer(str(folder)).content("t", {})
for name in sys.argv[1:]:
    (folder / "t.txt").write_text(HOLDING[name])
    renderer = Renderer(str(folder))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    try:
        renderer.content("t", {"x": [1]})
        said = "rendered"
    except InvalidTemplate as error:
        said = str(error)
    took = time.thread_time() - began
    print(name, round(took, 3), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, said, sep="\t")
"""


@pytest.mark.parametrize("names", [list(HOLDING)[start::4] for start in range(4)], ids=range(4))
def test_no_template_takes_much_time_or_memory(names):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *names], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == names
    for name, seconds, kilobytes, said in rows:
        assert said.startswith("template "), (name, said)
        assert len(said) < 500, name
        # Processor time, not time: twice the bound, and more where a machine is slower than the bound is for.
        assert float(seconds) < 4 * MAX_CPU, (name, seconds)
        assert int(kilobytes) < 60_000, (name, kilobytes)


LONG_TEXT = "z" * 10_000
TIMES = "{% for i in range(9999) %}"


@pytest.mark.parametrize(
    "source",
    [
        TIMES + "{% set x %}" + LONG_TEXT + "{% endset %}{% endfor %}",
        "{% macro m() %}" + LONG_TEXT + "{% endmacro %}" + TIMES + "{% set x = m() %}{% endfor %}",
        "{% block b %}" + LONG_TEXT + "{% endblock %}" + TIMES + "{% set x = self.b() %}{% endfor %}",
        "{% macro m() %}" + TIMES + "{% set x = caller() %}{% endfor %}{% endmacro %}"
        "{% call m() %}" + LONG_TEXT + "{% endcall %}",
        TIMES + "{% set x %}{% include 'long.txt' %}{% endset %}{% endfor %}",
    ],
    ids=["loop", "macro", "block", "call", "include"],
)
def test_text_of_its_own_is_counted_at_each_turn_though_nobody_sees_it(tmp_path, source):
    (tmp_path / "long.txt").write_text(LONG_TEXT)
    (tmp_path / "t.txt").write_text(source)
    with pytest.raises(InvalidTemplate, match=r"texts and lists of more than 4,000,000"):
        Renderer(str(tmp_path)).content("t", {})


def test_threads_beside_an_endless_template_go_on(render):
    turns, done = 0, threading.Event()

    def beside():
        nonlocal turns
        while not done.is_set():
            turns += 1

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        with pytest.raises(InvalidTemplate, match=r"steps|processor time"):
            render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    finally:
        done.set()
        thread.join(60)
    assert turns > 1_000


def test_a_allowance_is_of_one_rendering_and_of_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(allowance, "MAX_CPU", 60.0)  # steps take longer on a slow machine
    source = "{% for a in range(700) %}{% for b in range(1000) %}{% endfor %}{% endfor %}done"
    (tmp_path / "t.txt").write_text(source)
    renderer, failed = Renderer(str(tmp_path)), []

    def rendering():
        try:
            assert renderer.content("t", {}).text == "done"
        except InvalidTemplate as error:
            failed.append(str(error))

    threads = [threading.Thread(target=rendering) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert renderer.content("t", {}).text == "done"
    assert failed == []


def test_an_error_names_the_template_and_line_in_which_it_is(tmp_path):
    (tmp_path / "layout.html").write_text("<html>\n{% block body %}{% endblock %}\n\n{{ footer }}</html>")
    (tmp_path / "t.html").write_text(
        '{% extends "layout.html" %}\n{% block body %}\n\n{{ 1 // n }}{% endblock %}'
    )
    renderer = Renderer(str(tmp_path))
    with pytest.raises(InvalidTemplate, match=r"^template t.html, line 4: ZeroDivisionError"):
        renderer.content("t", {"n": 0})
    with pytest.raises(InvalidTemplate, match=r"^template layout.html, line 4: 'footer' is not given"):
        renderer.content("t", {"n": 1})
    assert renderer.content("t", {"n": 1, "footer": "<b>"}).html == "<html>\n\n\n1\n\n&lt;b&gt;</html>"


def test_variables_that_are_no_data_are_refused(render):
    with pytest.raises(InvalidTemplate, match=r"can't show object"):
        render("x", {"a": [object()]})
    with pytest.raises(InvalidTemplate, match=r"more than 1,000,000 characters and items"):
        render("x", {"a": ["b" * 1000] * 1001})
