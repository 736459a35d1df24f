"""Definitions of pipelines, in TOML and in Python: what can't work is refused in one line, with its place."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from redis import Redis

from packmule.jobs import registry
from packmule.jobs.client import Client, UnknownQueue
from packmule.jobs.files import each_member, profile, unpack
from packmule.jobs.options import InvalidOption
from packmule.jobs.pipelines import InvalidPipeline, Pipeline, Step, step
from packmule.jobs.pipelines.pipeline_file import UnknownPipeline, check, find, known, read_pipelines
from packmule.jobs.pipelines.staging import place_of
from packmule.jobs.toml_file import InvalidFile
from packmule.tests.jobs import sample_jobs
from packmule.tests.worker import pipeline_jobs

JOBS = pipeline_jobs.__name__
NOWHERE = Client(Redis(), ("high", "default", "low"))  # it never connects


@pytest.fixture(autouse=True)
def ready() -> None:
    registry.defer(registry.READY)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pipelines.toml"
    path.write_text(text)
    return path


GOOD = f"""
[intake.count]
job = "{JOBS}.count"

[intake.table]
job = "file"
to = "parquet"
columns = {{ zip = "VARCHAR" }}
options = {{ timeout = 60, queue = "high" }}

[intake.upper]
job = "{JOBS}.upper"
reads = "table"
out = "{{stem}}.up"
on_failure = "continue"
after = ["count"]

[other.parts]
job = "{JOBS}.parts"
"""


def test_a_file_has_pipelines_with_steps_in_order(tmp_path):
    found = read_pipelines(written(tmp_path, GOOD))
    assert list(found) == ["intake", "other"]
    count, table, upper = found["intake"].steps
    assert (count.name, count.job.name, count.reads, count.after) == (
        "count",
        f"{JOBS}.count",
        "source",
        None,
    )
    assert (table.job.name, dict(table.arguments)) == (
        "packmule.jobs.files.file", {"to": "parquet", "columns": {"zip": "VARCHAR"}}
    )  # fmt: skip
    assert (table.options.timeout, table.options.queue) == (60, "high")
    assert (upper.reads, upper.on_failure, upper.after) == ("table", "continue", ["count"])
    assert table.output("staging/1", "uploads/5/a b.csv") == "staging/1/table/a-b.parquet"
    assert upper.output("staging/1", "uploads/5/a.csv") == "staging/1/upper/a.up"
    assert found["other"].steps[0].output("s", "a.csv") == "s/parts"
    assert count.output("s", "a.csv") is None
    check(found, NOWHERE)


def test_a_flow_has_the_edges_that_the_steps_say(tmp_path):
    pipeline = read_pipelines(written(tmp_path, GOOD))["intake"]
    plan = pipeline.flow("uploads/a.csv", client=NOWHERE)._plan
    assert plan.parents == {
        "0": {}, "1": {"0": "s"}, "2": {"0": "s", "1": "s"}, "3": {"1": "s", "2": "g"}
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_all_is_published_unless_a_step_fails_that_stops(seed):
    dice = random.Random(seed)
    steps: list[Step] = []
    for number in range(dice.randrange(1, 7)):
        above = [each.name for each in steps]
        reads = dice.choice(["source", *above])
        may_fail = {each.name for each in steps if each.on_failure == "continue"}
        how = "continue" if reads in may_fail else dice.choice(["stop", "continue"])
        after = dice.choice([None, dice.sample(above, dice.randrange(len(above) + 1))])
        steps.append(step(pipeline_jobs.upper, name=f"s{number}", reads=reads, after=after, on_failure=how))
    parents = Pipeline("a", *steps).flow("uploads/a.csv", client=NOWHERE)._plan.parents
    failing = {str(number) for number in range(len(steps)) if dice.random() < 0.3}
    states: dict[str, str] = {}
    for name, edges in parents.items():
        stopped = any(letter == "s" and states[each] != "d" for each, letter in edges.items())
        states[name] = "c" if stopped else "f" if name in failing else "d"
    stops = any(states[str(number)] == "f" and each.on_failure == "stop" for number, each in enumerate(steps))
    assert (states[str(len(steps))] == "d") is not stops


UNPACKED = '[a.unpack]\n\n[a.each_member]\nreads = "unpack"\n'


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[a.table]\njob = "fil"', 2, "fil is not a registered job: did you mean packmule.jobs.files.file?"),
        ('[a.x]\njob = "shop.nothing"', 2, "shop.nothing is not a registered job: "),
        ('[a.file]\nto = "parquet"\ntoo = 1', 3, "an unexpected keyword argument 'too': did you mean to?"),
        ('[a.file]\n\nto = "docx"', 3, "argument to: invalid enum value 'docx'"),
        (f'[a.x]\njob = "{JOBS}.upper"\nout = "../x"', 3, "is not a path in the storage"),
        (f'[a.x]\njob = "{JOBS}.upper"\nreads = "y"', 3, "names 'y', which is not a step above it: the"),
        (f'[a.x]\njob = "{JOBS}.upper"\nreads = "x"', 3, "reads names 'x', which is not a step above it"),
        (
            f'[a.x]\njob = "{JOBS}.upper"\nafter = ["y"]\n[a.y]\njob = "{JOBS}.upper"\nafter = ["x"]',
            3, "after names 'y', which is not a step above it",
        ),
        (
            f'[a.x]\njob = "{JOBS}.count"\n[a.y]\njob = "{JOBS}.upper"\nreads = "x"',
            5, "it reads x, which writes nothing: read another, or source",
        ),
        ('[a.file]\n[a.y]\njob = "file"\nreads = "file"', 4, "it reads file, which writes nothing"),
        (
            f'[a.x]\njob = "{JOBS}.upper"\non_failure = "continue"\n[a.y]\njob = "{JOBS}.upper"\nreads = "x"',
            4, 'it reads x, which may fail: set on_failure = "continue" here too',
        ),
        (f'{UNPACKED}each = "fil"', 5, "fil is not a registered job: did you mean packmule.jobs.files.file?"),
        (f'{UNPACKED}', 3, "missing a required argument: 'each'"),
        (f'{UNPACKED}each = "file"\narguments = {{ to = "docx" }}', 6, "invalid enum value 'docx'"),
        (f'{UNPACKED}each = "file"\narguments = {{ to = "csv", out = "../x" }}', 6, "is not a path in"),
        (f'{UNPACKED}each = "file"\n[a.file]', 6, "comes after each_member, whose jobs may still run"),
        (
            f'{UNPACKED}each = "file"\n[a.file]\nreads = "each_member"\nafter = ["unpack"]',
            7, "it reads each_member, whose jobs may still run: read another, or source",
        ),
        ('[a.each_member]\neach = "file"', 1, 'another step has unpacked: set reads = "unpack"'),
        ('[a.file]\non_failure = "go on"', 2, "nvalid enum value 'go on'"),
        ('[a.file]\noptions = { timeot = 3 }', 2, "no option is called 'timeot': did you mean timeout?"),
        ('[a.file]\noptions = { timeout = -3 }', 2, "timeout"),
        ('[a.file]\nafter = "x"', 2, "Expected `array | null`, got `str`"),
        ('[a.file]\nsource = "x"', 2, "reads sets the job's source: omit source"),
        (f'[a.x]\njob = "{sample_jobs.__name__}.noop"', 2, "takes no source, so it can't read a file"),
        ('[a."x y"]\njob = "file"', None, "a step's name has 1 to 64 letters"),
        ('[a.source]\njob = "file"', 1, "is not source"),
        ('["a b".file]', None, "can't name a pipeline"),
        ("a = 1", 1, "pipeline a: give each step a table [a.step]"),
        ("[a]\nb = 1", 1, "pipeline a: give each step a table [a.step]"),
        ("[a]", 1, "pipeline a has 0 steps: give 1 to 100"),
        ("[a.file\n", None, "is not valid TOML"),
        ("\x1b[2J", None, "is not valid TOML"),
    ],
)  # fmt: skip
def test_what_can_not_work_is_refused_with_its_line(tmp_path, text, line, said):
    path = written(tmp_path, text)
    with pytest.raises(InvalidFile) as caught:
        read_pipelines(path)
    place = f"{path}, line {line}: " if line else str(path)
    assert str(caught.value).startswith(place)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(InvalidFile, match=r"no\.toml: no such file"):
        read_pipelines(tmp_path / "no.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFile, match="is not valid TOML"):
        read_pipelines(tmp_path / "bytes.toml")


def test_steps_are_said_in_python_too():
    made = Pipeline("intake", pipeline_jobs.count, step(pipeline_jobs.upper, name="up", out="{name}"))
    assert [each.name for each in made.steps] == ["count", "up"]
    made.check(NOWHERE)
    with pytest.raises(InvalidPipeline, match="another step has this name: choose another"):
        Pipeline("intake", pipeline_jobs.count, pipeline_jobs.count)
    with pytest.raises(InvalidPipeline, match="missing a required argument: 'notes'"):
        Pipeline("intake", pipeline_jobs.slow)
    with pytest.raises(InvalidOption, match="did you mean timeout"):
        step(pipeline_jobs.count, options={"timeot": 3})


def test_a_step_that_could_not_be_sent_is_found_before(tmp_path):
    with pytest.raises(UnknownQueue):
        Pipeline("intake", pipeline_jobs.astray).check(NOWHERE)
    with pytest.raises(InvalidOption, match="a flow decides when its jobs run"):
        Pipeline("intake", step(pipeline_jobs.count, options={"delay": 3})).check(NOWHERE)
    text = f'[a.x]\njob = "{JOBS}.count"\noptions = {{ queue = "elsewhere" }}'
    with pytest.raises(InvalidFile, match="pipeline a: no queue is called 'elsewhere'"):
        check(read_pipelines(written(tmp_path, text)), NOWHERE)


def test_jobs_of_archives_files_may_come_from_modules_that_are_loaded_later():
    unpacked = step(each_member, reads="unpack", each="shop.later")
    pipeline = Pipeline("intake", unpack, unpacked, step(pipeline_jobs.count, after=["unpack"]))
    with pytest.raises(registry.NotRegistered, match=r"shop\.later is not a registered job"):
        pipeline.check(NOWHERE)
    told = Pipeline("intake", unpack, step(each_member, reads="unpack", each=f"{JOBS}.count"))
    told.check(NOWHERE)
    plan = told.flow("uploads/a.zip", id="f" * 32, client=NOWHERE)._plan
    assert plan.parents == {"0": {}, "1": {"0": "s"}, "2": {"1": "s"}}
    assert plan.taken == set()  # where the archive is unpacked is known before


def test_a_pipeline_of_the_file_wins_over_one_of_a_module(tmp_path):
    text = f'[simple.count]\njob = "{JOBS}.count"'
    both = known(written(tmp_path, text), [JOBS])
    assert len(known(None, [JOBS, "not.loaded"])["simple"].steps) == 3
    assert len(both["simple"].steps) == 1
    with pytest.raises(UnknownPipeline, match="there is no pipeline 'intake': there are simple"):
        find(both, "intake")
    with pytest.raises(UnknownPipeline, match="there is no pipeline 'simpel': did you mean simple"):
        find(both, "simpel")
    with pytest.raises(UnknownPipeline, match="PACKMULE_PIPELINES names none"):
        find({}, "intake")


def test_places_are_named_after_the_source():
    assert place_of("a", "uploads/1/../x y.csv", "7") == "results/a/x-y.csv/7"
    assert place_of("a", "https://example.com/" + "é" * 300, "7").startswith("results/a/éé")


def test_a_profile_is_in_its_steps_folder():
    assert step(profile).output("staging/7", "uploads/a b.csv") == "staging/7/profile"
    assert step(profile, out="x").output("staging/7", "uploads/a b.csv") == "staging/7/profile/x"
