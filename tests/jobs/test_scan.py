"""The scan job believes no scanner that finds nothing, and calls no file clean that was scanned in part."""

from __future__ import annotations

import hashlib
import io
import zipfile

import pytest

from packmule.jobs import context
from packmule.jobs.files import scan
from packmule.jobs.files.scanning import Infected, NoScanner
from packmule.jobs.files.scanning.clamd import Clamd, ClamdUnavailable, ScanIncomplete, UnfitScanner
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import FileTooLarge, MissingFile, Storage
from packmule.jobs.virus_scanner import VirusScanner
from packmule.tests.command_line import free_port
from packmule.tests.jobs.clamd_server import (
    CLEAN,
    FOUND,
    REAL,
    SIGNATURE,
    clamd_server,
    like_clamd,
    real_clamd,
)

needs_clamd = pytest.mark.skipif(REAL is None, reason="clamd is not installed")


@pytest.fixture
def storage(tmp_path):
    store = Storage(str(tmp_path / "files"))
    context.provide(store, InputLimits(file_bytes=50_000_000, attachment_bytes=1, pixels=1))
    store.write_bytes("a.txt", b"hello")
    store.write_bytes("virus.txt", SIGNATURE)
    return store


def by(url, path, **options):
    context.provide(VirusScanner(url))
    return scan(path, **options)


def refused(error, url, path="a.txt", **options):
    """The line with which a scan fails."""
    with pytest.raises(error) as failed:
        by(url, path, **options)
    assert str(failed.value).isprintable()
    return str(failed.value)


def zipped(content, depth=1):
    for _ in range(depth):
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner", content)
        content = outer.getvalue()
    return content


def test_a_clean_file_is_named_with_its_bytes_and_what_scanned_them(storage):
    with clamd_server() as url:
        assert by(url, "a.txt") == {
            "source": "a.txt",
            "clean": True,
            "found": None,
            "bytes": 5,
            "sha256": hashlib.sha256(b"hello").hexdigest(),
            "scanner": "ClamAV 1.4.3/27780/Sat Nov 28 09:31:02 2026",
        }


def test_all_chunks_of_a_large_file_arrive(storage):
    content = bytes(range(256)) * 5_000
    storage.write_bytes("large.bin", content)
    sent = []
    with clamd_server(lambda got: sent.append(got) or like_clamd(got)) as url:
        by(url, "large.bin")
    assert content in sent


def test_a_virus_fails_the_job_or_is_reported(storage):
    with clamd_server() as url:
        assert "virus.txt contains Eicar-Test" in refused(Infected, url, "virus.txt")
        result = by(url, "virus.txt", infected="report")
    assert (result["clean"], result["found"]) == (False, "Eicar-Test")


def test_without_a_scanner_nothing_was_scanned_and_that_is_no_success(storage):
    assert "a.txt was not scanned: set PACKMULE_CLAMD" in refused(NoScanner, None)
    assert "nothing was scanned" in refused(ClamdUnavailable, f"tcp://127.0.0.1:{free_port()}")
    assert "nothing was scanned" in refused(ClamdUnavailable, "unix:///nowhere/clamd.ctl")
    assert "nothing was scanned" in refused(ClamdUnavailable, "tcp://no-such-host.invalid:3310")


def test_a_scanner_without_signatures_is_not_believed(storage):
    with clamd_server(lambda content: CLEAN) as url:
        assert "doesn't detect the EICAR test file" in refused(UnfitScanner, url)
        assert "doesn't detect the EICAR test file" in refused(UnfitScanner, url, partial=True)


def test_a_scanner_that_hides_its_limits_is_believed_only_on_wish(storage):
    with clamd_server(lambda content: FOUND if SIGNATURE in content else CLEAN) as url:
        assert "AlertExceedsMax yes" in refused(UnfitScanner, url)
        assert by(url, "a.txt", partial=True)["clean"]


@pytest.mark.parametrize("partial", [False, True])
def test_a_file_over_a_limit_is_not_clean(storage, partial):
    storage.write_bytes("large.bin", bytes(20_000_000))
    storage.write_bytes("deep.zip", zipped(b"", 30))
    with clamd_server(most=1_000_000) as url:
        assert "larger than the StreamMaxLength" in refused(ScanIncomplete, url, "large.bin", partial=partial)
        found = refused(ScanIncomplete, url, "deep.zip", partial=partial, infected="report")
    assert found == "deep.zip was not scanned completely: clamd says Heuristics.Limits.Exceeded.MaxRecursion"


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\0", b"stream: OK", b"OK\0", b"stream: ok\0", b"stream: OK FOUND", b"stream: FOUND\0",
        b"stream: Can't allocate memory ERROR\0", b"UNKNOWN COMMAND\0", b"\xff\xfe\x1b[2J\0", b"x" * 10_000,
        b"stream: OK\0stream: OK\0",
    ],
    ids=lambda answer: repr(answer[:20]),
)  # fmt: skip
def test_nonsense_is_no_verdict(storage, answer):
    def answers(content):
        return answer if content == b"hello" else like_clamd(content)

    with clamd_server(answers) as url:
        assert "nothing was scanned" in refused(ClamdUnavailable, url)


def test_a_scanner_that_hangs_is_waited_for_no_longer_than_said():
    with clamd_server(lambda content: None) as url, pytest.raises(ClamdUnavailable, match="doesn't answer"):
        Clamd(url, answer_seconds=0.2).prove()


def test_an_ok_before_the_end_of_the_file_is_none(storage):
    """A scanner that answers and goes has not read the rest."""
    storage.write_bytes("large.bin", bytes(30_000_000))

    with clamd_server(most=1000) as url:
        clamd = Clamd(url)

        def chunks():
            for _ in range(200):
                yield bytes(200_000)

        with pytest.raises((ScanIncomplete, ClamdUnavailable)):
            clamd.found_in("x", chunks())


def test_files_that_are_missing_or_too_large_are_refused_before_anything_is_sent(storage):
    context.provide(InputLimits(file_bytes=3, attachment_bytes=1, pixels=1))
    refused(FileTooLarge, "tcp://127.0.0.1:1")
    refused(MissingFile, "tcp://127.0.0.1:1", "nothing.txt")


def test_what_waiting_may_mend_is_tried_again_and_nothing_else():
    may_retry = scan.job.traits.may_retry
    assert may_retry(ClamdUnavailable("x"))
    assert not any(may_retry(kind("x")) for kind in (Infected, NoScanner, ScanIncomplete, UnfitScanner))


@needs_clamd
def test_the_real_clamd_finds_clears_and_reports_its_limits(storage, tmp_path):
    storage.write_bytes("virus.zip", zipped(SIGNATURE, 3))
    storage.write_bytes("deep.zip", zipped(SIGNATURE, 40))
    storage.write_bytes("large.bin", bytes(2_500_000))
    storage.write_bytes("larger.bin", bytes(10_000_000))
    storage.write_bytes("empty", b"")
    limits = ["MaxFileSize 2M", "StreamMaxLength 5M"]
    with real_clamd(tmp_path / "clamd", *limits, "AlertExceedsMax yes") as url:
        assert by(url, "a.txt")["clean"]
        assert by(url, "empty")["clean"]
        assert by(url, "a.txt")["scanner"].startswith("ClamAV ")
        assert "Eicar-Test" in refused(Infected, url, "virus.txt")
        assert "Eicar-Test" in refused(Infected, url, "virus.zip")
        assert "Exceeded.MaxRecursion" in refused(ScanIncomplete, url, "deep.zip")
        assert "Exceeded.MaxFileSize" in refused(ScanIncomplete, url, "large.bin")
        assert "StreamMaxLength" in refused(ScanIncomplete, url, "larger.bin")


@needs_clamd
def test_the_real_clamd_with_its_own_configuration_is_believed_only_on_wish(storage, tmp_path):
    with real_clamd(tmp_path / "clamd") as url:
        assert "AlertExceedsMax yes" in refused(UnfitScanner, url)
        assert by(url, "a.txt", partial=True)["clean"]
        assert "Eicar-Test" in refused(Infected, url, "virus.txt", partial=True)
