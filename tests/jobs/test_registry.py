"""The registry: calls are checked against signatures, and only functions that can be jobs become jobs."""

from __future__ import annotations

import functools
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from packmule import job
from packmule.jobs import registry, wire
from packmule.jobs.job_type import InvalidCall, InvalidJob
from packmule.jobs.options import InvalidOption, Options
from packmule.jobs.registry import NotRegistered
from packmule.tests.jobs import sample_jobs
from packmule.tests.jobs.sample_jobs import Colour, Size

WHEN = datetime(2026, 11, 1, 8, 30, tzinfo=UTC)


def over_the_wire(function: Any, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as a worker would pass them."""
    function.job.validate(args, kwargs)
    call = wire.decode_call(wire.encode_call(function.job.name, args, kwargs))
    return registry.find(call.name).bind(call.args, call.kwargs)


def test_a_registered_function_is_the_same_object_and_directly_callable():
    def plain(a: int) -> int:
        return a

    plain.__qualname__ = "plain"
    assert job(plain) is plain
    assert sample_jobs.add(1, b=2) == 3
    assert sample_jobs.add("no", " check") == "no check"
    assert sample_jobs.decorated("x") == "x"


def test_a_registered_function_is_found_by_its_dotted_name():
    found = registry.find("packmule.tests.jobs.sample_jobs.add")
    assert found.function is sample_jobs.add
    assert "packmule.tests.jobs.sample_jobs.add" in registry.names()
    assert registry.names() == sorted(registry.names())


def test_a_name_that_was_never_registered_is_not_found():
    with pytest.raises(NotRegistered, match=r"^os\.system is not a registered job"):
        registry.find("os.system")
    assert registry.get("os.system") is None


def test_a_near_name_is_looked_for_once_for_many_jobs_of_a_wrong_name(monkeypatch):
    searched: list[str] = []
    monkeypatch.setattr(registry, "_meant", functools.lru_cache(lambda name, known: searched.append(name)))
    for _ in range(3):
        with pytest.raises(NotRegistered):
            registry.find("shop.gone")
    assert searched == ["shop.gone"]


def test_options_and_the_rest_of_the_decorator_are_kept():
    found = registry.find("packmule.tests.jobs.sample_jobs.decorated")
    assert found.options == Options(
        queue="low",
        timeout=2.5,
        result_ttl=60,
        failure_ttl=120,
        retries=3,
        retry_intervals=(1, 5),
        description="all said",
    )
    assert (found.traits.give_up_on, found.traits.at_once) == ((), False)


def test_options_in_a_decorator_are_checked_when_the_function_is_defined():
    with pytest.raises(InvalidOption, match=r"^timeout="):
        job(timeout=-5)(sample_jobs.allowed)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (sample_jobs.noop, (), {}),
        (sample_jobs.add, (1,), {}),
        (sample_jobs.add, (), {"a": 1, "b": 2}),
        (sample_jobs.bare, (1, "two"), {}),
        (sample_jobs.bare, ({"any": ["thing", None]},), {}),
        (sample_jobs.choose, ("cover",), {"ratio": 1.5}),
        (sample_jobs.choose, ("contain", None), {}),
        (sample_jobs.plan, (WHEN,), {"days": [date(2026, 1, 2)]}),
        (sample_jobs.tally, ({"a": 1},), {"names": ["x", "y"]}),
        (sample_jobs.by_number, ({1: "one"},), {}),
        (sample_jobs.collect, (1, 2, 3), {"red": "r", "blue": "b"}),
        (sample_jobs.collect, (), {}),
        (sample_jobs.placed, (1, 2), {"scale": 0.5}),
        (sample_jobs.placed, (1,), {"there": 2}),
        (sample_jobs.draw, ({"x": 1, "label": "a"},), {"size": Size(3), "colour": Colour(9)}),
        (sample_jobs.store, (b"\x00\xff",), {"anything": [1, {"two": 2}]}),
        (sample_jobs.later, (0.5,), {}),
    ],
)
def test_what_is_valid_comes_off_the_wire_as_it_was_given(function, args, kwargs):
    assert over_the_wire(function, *args, **kwargs) == over_the_signature(function, args, kwargs)


def over_the_signature(function: Any, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    bound = function.job.signature.bind(*args, **kwargs)
    return bound.args, bound.kwargs


def test_values_become_what_the_annotations_say():
    (when, days), _ = over_the_wire(sample_jobs.plan, "2026-11-01T08:30:00Z", ["2026-01-02"])
    assert (when, days) == (WHEN, [date(2026, 1, 2)])
    (point, size, colour), _ = over_the_wire(
        sample_jobs.draw, {"x": 1}, {"width": 2, "height": 5}, {"red": 7}
    )
    assert (point, size, colour) == ({"x": 1}, Size(2, 5), Colour(7))
    (ratio,) = over_the_wire(sample_jobs.later, 3)[0]
    assert isinstance(ratio, float)


def test_defaults_are_left_to_the_function():
    assert over_the_wire(sample_jobs.add, 1) == ((1,), {})
    args, kwargs = over_the_wire(sample_jobs.bare, 1)
    assert sample_jobs.bare(*args, **kwargs) == [1, 2]


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "says"),
    [
        (sample_jobs.add, (), {}, "missing a required argument: 'a'"),
        (sample_jobs.add, (1, 2, 3), {}, "too many positional arguments"),
        (sample_jobs.add, (1,), {"c": 3}, "got an unexpected keyword argument 'c': there are a, b"),
        (
            sample_jobs.add,
            (1,),
            {"queue": "low"},
            "which is an option: give it to .options(queue=...)",
        ),
        (sample_jobs.noop, (), {"a": 3}, "got an unexpected keyword argument 'a': there are none"),
        (sample_jobs.add, (1,), {"a": 3}, "multiple values for argument 'a'"),
        (sample_jobs.noop, (1,), {}, "too many positional arguments"),
        (sample_jobs.add, ("1",), {}, "argument a: expected `int`, got `str`"),
        (sample_jobs.add, (1,), {"b": 1.5}, "argument b: expected `int`, got `float`"),
        (sample_jobs.add, (True,), {}, "argument a: expected `int`, got `bool`"),
        (sample_jobs.add, (1, None), {}, "argument b: expected `int`, got `null`"),
        (sample_jobs.choose, ("fill",), {}, "argument fit: invalid enum value 'fill'"),
        (sample_jobs.choose, ("cover", "1"), {}, "argument ratio: expected `float | null`, got `str`"),
        (
            sample_jobs.plan,
            (),
            {"wehn": WHEN},
            "got an unexpected keyword argument 'wehn': did you mean when?",
        ),
        (sample_jobs.plan, ("soon",), {}, "invalid RFC3339 encoded datetime: give one such as 2026-12-01T08"),
        (
            sample_jobs.plan,
            (WHEN, [1]),
            {},
            "days[0]: expected `date`, got `int`: give one such as 2026-12-01",
        ),
        (sample_jobs.tally, ({"a": "1"},), {}, "argument counts[...]: expected `int`, got `str`"),
        (sample_jobs.tally, ([1],), {}, "argument counts: expected `object`, got `array`"),
        (sample_jobs.by_number, ({"one": "one"},), {}, "in `$.names`"),
        (sample_jobs.collect, (1, "2"), {}, "argument numbers[1]: expected `int`, got `str`"),
        (sample_jobs.collect, (), {"red": 1}, "argument labels[...]: expected `str`, got `int`"),
        (sample_jobs.placed, (), {"here": 1, "there": 2}, "'here'"),
        (sample_jobs.placed, (1, 2, 3), {}, "too many positional arguments"),
        (sample_jobs.draw, ({"label": "a"},), {}, "argument point: object missing required field `x`"),
        (sample_jobs.draw, ({"x": 1}, {"height": 1}), {}, "missing required field `width`"),
        (sample_jobs.draw, ({"x": 1}, {"width": "1"}), {}, "argument size.width: expected `int`"),
    ],
)
def test_a_call_that_the_signature_forbids_is_refused_and_the_argument_named(function, args, kwargs, says):
    for check in (function.job.validate, function.job.bind):
        with pytest.raises(InvalidCall) as refused:
            check(args, kwargs)
        assert says.lower() in str(refused.value).lower()
        assert str(refused.value).startswith(f"{function.job.name}: ")
        assert "\n" not in str(refused.value)


def test_named_arguments_that_are_no_names_are_refused():
    with pytest.raises(InvalidCall):
        sample_jobs.collect.job.validate((), {1: "one"})


def local_function() -> Callable[..., Any]:
    def inner() -> None:
        pass

    return inner


def takes_path(path: Path) -> None:
    pass


def takes_paths(paths: dict[str, list[Path]]) -> None:
    pass


def takes_callable(then: Callable[[], None]) -> None:
    pass


def takes_iterable(values: Iterable[int]) -> None:
    pass


def takes_complex(number: complex) -> None:
    pass


def takes_two_kinds_of_text(when: datetime | date) -> None:
    pass


def takes_unknown(value: Nowhere) -> None:  # noqa: F821
    pass


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (local_function(), "<locals>"),
        (lambda: None, "<lambda>"),
        (functools.partial(sample_jobs.allowed, 1), "decorate a function"),
        (takes_path, "Path"),
        (takes_paths, "Path"),
        (takes_callable, "JSON"),
        (takes_iterable, "JSON"),
        (takes_complex, "complex"),
        (takes_two_kinds_of_text, "str-like"),
        (takes_unknown, "Nowhere"),
    ],
)
def test_a_function_that_cannot_be_a_job_is_refused_when_it_is_decorated(function, says):
    before = registry.names()
    with pytest.raises(InvalidJob, match=says) as refused:
        job(function)
    assert "can't be a job" in str(refused.value)
    assert registry.names() == before


def test_a_job_of_the_program_itself_is_refused_when_it_is_enqueued(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("from packmule import job\n\n@job\ndef own() -> None:\n    pass\n")
    own = runpy.run_path(str(program), run_name="__main__")["own"]
    with pytest.raises(InvalidCall, match=r"^__main__\.own: a worker can't import"):
        own.job.validate((), {})


@pytest.mark.parametrize("calls", [["ada"], [b"ada"], [7], [{1}]])
def test_a_bare_value_is_not_taken_for_a_call(calls):
    with pytest.raises(InvalidCall, match="is not a call"):
        sample_jobs.echo.enqueue_many(calls)


@pytest.fixture
def in_project(tmp_path, monkeypatch):
    """A working directory with modules of a user's, forgotten afterwards."""
    (tmp_path / "shop_jobs.py").write_text(
        "from packmule import job\n\n@job\ndef report(month: str) -> str:\n    return month\n"
    )
    (tmp_path / "shop_plain.py").write_text(
        "from os.path import join\n\ndef total(n: int) -> int:\n    return n\n\n"
        "from pathlib import Path\n\ndef save(path: Path) -> None:\n    pass\n\nNUMBER = 3\n"
    )
    (tmp_path / "shop_broken.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "shop_wrong.py").write_text("def (:\n")
    (tmp_path / "shop_raises.py").write_text("{}['missing']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_deferred", set())
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("shop_")]:
        del sys.modules[name]


def test_modules_of_the_working_directory_register_their_jobs(in_project):
    registry.load(["shop_jobs"])
    assert registry.find("shop_jobs.report").function("2026-11") == "2026-11"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("shop_nowhere", "can't import shop_nowhere: No module named"),
        ("shop_broken", "not_installed_anywhere"),
        ("shop_wrong", "can't import shop_wrong: SyntaxError"),
        ("shop_raises", r"can't import shop_raises: KeyError: 'missing' \(/.*/shop_raises\.py, line 1\)$"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(in_project, module, says):
    with pytest.raises(NotRegistered, match=says) as refused:
        registry.load(["shop_jobs", module])
    assert "\n" not in str(refused.value)


def test_the_module_of_a_deferred_job_is_imported_when_the_job_is_looked_for(in_project):
    registry.defer(["shop_jobs.report"])
    registry.load([], ["shop_jobs.report"])
    assert "shop_jobs.report" in registry.names()
    assert "shop_jobs" not in sys.modules
    assert registry.find("shop_jobs.report").function("2026-11") == "2026-11"


def test_an_allowed_name_is_registered_without_a_decorator(in_project):
    registry.load([], ["shop_plain.total"])
    found = registry.find("shop_plain.total")
    assert found.bind((7,), {}) == ((7,), {})
    with pytest.raises(InvalidCall, match="missing a required argument: 'n'"):
        found.validate((), {})
    with pytest.raises(NotRegistered):
        registry.find("shop_plain.join")


def test_an_allowed_name_is_known_by_the_name_that_was_allowed(in_project):
    registry.load([], ["shop_plain.join", "math.sqrt"])
    assert registry.find("shop_plain.join").function("a", "b") == "a/b"
    assert registry.find("math.sqrt").function(9) == 3


def test_an_allowed_function_may_annotate_what_json_cannot_carry(in_project):
    registry.load([], ["shop_plain.save"])
    assert registry.find("shop_plain.save").bind((1,), {}) == ((1,), {})


@pytest.mark.parametrize(
    "name", ["shop_plain.missing", "shop_plain.NUMBER", "total", "shop_nowhere.total", ""]
)
def test_an_allowed_name_that_is_no_function_is_refused(in_project, name):
    with pytest.raises(NotRegistered):
        registry.load([], [name])


def test_what_is_allowed_and_decorated_keeps_its_decorators_options(in_project):
    registry.load([], ["packmule.tests.jobs.sample_jobs.decorated"])
    assert registry.find("packmule.tests.jobs.sample_jobs.decorated").options.queue == "low"


def test_a_module_that_pythons_own_of_that_name_hides_is_named(in_project):
    registry.load(["colorsys"])
    (in_project / "colorsys.py").touch()
    with pytest.raises(NotRegistered, match=r"^can't import colorsys: Python has a module of this name: "):
        registry.load(["colorsys"])


def test_the_working_directory_comes_after_what_is_installed(in_project):
    (in_project / "colorsys.py").write_text("raise RuntimeError('shadowed')\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from packmule.jobs import registry; registry.load(['shop_jobs']); import colorsys",
        ],
        env={"PYTHONPATH": str(Path(registry.__file__).parents[1]), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_types_own_check_refuses_a_call_in_its_words():
    halve = sample_jobs.halve.job
    halve.validate([2], {})
    halve.validate([], {"number": 2, "when": "2026-11-30"})
    for args, kwargs in (([3], {}), ([], {"number": 3})):
        with pytest.raises(InvalidCall, match=r"halve: 3 is odd$"):
            halve.validate(args, kwargs)
    with pytest.raises(InvalidCall, match="argument number"):
        halve.validate(["x"], {})
    with pytest.raises(InvalidJob, match="check="):
        job(check="even")(sample_jobs.add)


def test_workers_know_each_job_of_ours():
    found = set()
    root = Path(registry.__file__).parent
    for file in root.rglob("*.py"):
        module = ".".join(["packmule.jobs", *file.relative_to(root).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        names = re.findall(
            r"^@job\b.*?^def (\w+)", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        found |= {f"{module}.{name}" for name in names}
    assert found == {*registry.READY}
