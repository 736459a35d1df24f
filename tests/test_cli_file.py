"""`packmule enqueue file` passes on how a file is to be read, and refuses what can't be before any copy."""

from __future__ import annotations

import pytest

from packmule.config import Settings
from packmule.jobs.files import UnfitOption, UnfitOutput
from packmule.jobs.storage import OutsideStorage, Storage
from packmule.terminal.app import App
from packmule.terminal.enqueue import enqueue_file
from packmule.terminal.enqueue_options import split
from packmule.terminal.enqueue_profile import enqueue_profile
from packmule.terminal.file_options import check_output, file_call
from packmule.tests.command_line import CommandLine, environment_in


def call_of(storage: Storage, *words: str) -> dict[str, object]:
    """The arguments of the job that these words enqueue."""
    context = enqueue_file.make_context("file", [*words, "a.csv"])
    given = {name: value for name, value in context.params.items() if name not in {"sources", "wait", "json"}}
    call = file_call(storage, split(given)[0])
    check_output(call)
    return call


def test_each_option_becomes_an_argument(tmp_path):
    words = (
        "--to=parquet", "--out=o.parquet", "--column=zip=VARCHAR", "--encoding=gbk", "--delimiter=tab",
        "--quote=", "--skip=2", "--header=0", "--null=NA", "--null=-", "--dates=%d/%m/%Y", "--decimal=,",
        "--max-refused=5",
    )  # fmt: skip
    assert call_of(Storage(str(tmp_path)), *words) == {
        "to": "parquet", "out": "o.parquet", "columns": {"zip": "VARCHAR"}, "encoding": "gbk",
        "delimiter": "tab", "quote": "", "skip": 2, "header": 0, "null": ["NA", "-"], "dates": "%d/%m/%Y",
        "decimal": ",", "max_refused": 5,
    }  # fmt: skip
    words = (
        "--to=csv", "--out=parts", "--partition-by=year", "--partition-by=kind", "--safe-for-spreadsheets",
        "--schema=store:s.json", "--widen",
    )  # fmt: skip
    assert call_of(Storage(str(tmp_path)), *words) == {
        "to": "csv", "out": "parts", "partition_by": ["year", "kind"], "safe_for_spreadsheets": True,
        "schema": "store:s.json", "widen": True,
    }  # fmt: skip
    assert call_of(Storage(str(tmp_path)), "--sheet=Data", "--range=B3:F9") == {
        "sheet": "Data",
        "range": "B3:F9",
    }


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--out=../x",), OutsideStorage),
        (("--out=/etc/x",), OutsideStorage),
        (("--delimiter=ab",), UnfitOption),
        (("--encoding=utf-99",), UnfitOption),
        (("--range=A",), UnfitOption),
        (("--out=a.dbf",), UnfitOutput),
        (("--to=csv", "--out=a.json"), UnfitOutput),
        (("--to=json", "--partition-by=year"), UnfitOutput),
        (("--to=xlsx", "--safe-for-spreadsheets"), UnfitOutput),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_copied(tmp_path, words, error):
    with pytest.raises(error) as failed:
        call_of(Storage(str(tmp_path)), *words)
    assert "\n" not in str(failed.value)


def test_an_error_names_the_command_that_was_typed(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    for name, command in (("file", enqueue_file), ("profile", enqueue_profile)):
        context = command.make_context(
            name, ["--encoding=utf-99", "a.csv"], obj=App(Settings(storage=str(tmp_path)))
        )
        with pytest.raises(UnfitOption, match=f"^enqueue {name}: encoding"), context:
            command.invoke(context)


@pytest.mark.parametrize("kind", ["file", "profile", "text", "unpack"])
def test_several_files_are_not_written_to_one_place(server, tmp_path, kind):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    done = packmule.run("enqueue", kind, "a.csv", "b.csv", "--out", "made.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--out is the path of one output" in done.stderr


@pytest.mark.parametrize("kind", ["file", "profile", "text", "unpack"])
def test_a_place_outside_is_known_before_anything_is_copied(server, tmp_path, kind):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    done = packmule.run("enqueue", kind, "a.csv", "--out", "../made.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'../made.csv' is not a path in the storage" in done.stderr
    assert not (packmule.data_dir / "files/uploads").exists()
