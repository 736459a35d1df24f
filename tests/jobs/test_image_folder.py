"""Folders of images: which sources are found, where renditions go, and runs that go on where they stopped."""

from __future__ import annotations

import itertools
import json
import os
import random
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.image import Rendition
from packmule.jobs.image.batch import contact_sheet, manifest
from packmule.jobs.image.batch.manifest import Entry, InvalidManifest, Manifest
from packmule.jobs.image.batch.places import places
from packmule.jobs.image.batch.run import Run
from packmule.jobs.image.batch.sources import NoImages, Source, TargetIsSource, folded, gather
from packmule.jobs.image.batch.target import Target
from packmule.jobs.options import Options
from packmule.jobs.storage import MissingFile, OutsideStorage, Storage
from packmule.tests.worker.pools import drained

THUMBS = {"40": Rendition(width=40), "20x20": Rendition(width=20, height=20, fit="cover")}


def picture(number: int = 0) -> bytes:
    file = BytesIO()
    Image.new("RGB", (60 + number % 7, 50), (number % 256, 90, 120)).save(file, "JPEG")
    return file.getvalue()


def fill(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return folder


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


def names_of(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_a_folder_gives_all_that_is_named_like_an_image_but_for_hidden_files_and_the_target(
    tmp_path, storage
):
    photos = fill(
        tmp_path / "photos", "b/deep/z.PNG", "a.jpg", "b/c.webp", "b/notes.txt", ".trash/x.jpg", "b/._c.jpg",
        "thumbs/a-40.jpg",
    )  # fmt: skip
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    os.mkfifo(photos / "pipe.jpg")
    found = gather([str(photos)], storage, leave_out=[str(photos / "thumbs")])
    assert names_of(found) == ["a.jpg", "b/c.webp", "b/deep/z.PNG"]
    assert {source.kind for source in found} == {"file"}
    assert names_of(gather([str(photos)], storage, ["*.txt"])) == ["b/notes.txt"]
    assert names_of(gather([str(photos)], storage, ["b/*.webp", "a.*"])) == ["a.jpg", "b/c.webp"]


def test_equal_names_of_different_sources_are_told_apart(tmp_path, storage, monkeypatch):
    fill(tmp_path, "a/x.jpg", "b/x.jpg", "c/y.jpg", "A/X.jpg")
    monkeypatch.chdir(tmp_path)
    assert names_of(gather(["a/x.jpg", "./b/x.jpg", "c/y.jpg"], storage)) == ["a/x.jpg", "b/x.jpg", "y.jpg"]
    assert names_of(gather(["a/x.jpg", str(tmp_path / "a/x.jpg"), "./a"], storage)) == ["x.jpg"]
    assert names_of(gather(["a", "b"], storage)) == ["a/x.jpg", "b/x.jpg"]
    assert names_of(gather(["a/x.jpg", "A/X.jpg"], storage)) == ["x.jpg", "X-2.jpg"]
    urls = ["https://one.example/x.jpg?v=1", "https://one.example/x.jpg?v=2", "https://two.example/"]
    assert names_of(gather(urls, storage)) == ["x.jpg", "x-2.jpg", "two.example"]


def test_names_that_no_storage_takes_are_cleaned(tmp_path, storage):
    odd = os.fsdecode(tmp_path / "odd")
    os.mkdir(odd)  # noqa: PTH102  a Path can't be made of these names everywhere
    for name in (b"\xff.jpg", b"\xfe.jpg", b"a\nb\\c.jpg", "e\u0301.jpg".encode()):
        Path(os.fsdecode(os.fsencode(odd) + b"/" + name)).write_bytes(picture())
    found = names_of(gather([odd], storage))
    assert sorted(found) == ["a-b-c.jpg", "é.jpg", "\ufffd-2.jpg", "\ufffd.jpg"]


def test_a_folder_of_the_storage_and_a_file_in_it_are_sources(storage):
    for name in ("in/a.jpg", "in/b/c.png", "in/d.txt", "thumbs/a-40.jpg"):
        storage.write_bytes(name, picture())
    assert names_of(gather(["store:in"], storage)) == ["a.jpg", "b/c.png"]
    assert gather(["store:in/b/c.png"], storage) == [Source("c.png", "stored", "in/b/c.png")]
    assert names_of(gather(["store:"], storage, leave_out=["store:thumbs/"])) == ["in/a.jpg", "in/b/c.png"]
    for wrong in ("store:gone", "store:gone/"):
        with pytest.raises(MissingFile, match="gone"):
            gather([wrong], storage)
    with pytest.raises(OutsideStorage):
        gather(["store:../x"], storage)


def test_a_folder_is_not_its_own_target(tmp_path, storage):
    photos = str(fill(tmp_path / "photos", "a.jpg"))
    storage.write_bytes("in/a.jpg", picture())
    for word, target in ((photos, f"{photos}/../photos"), ("store:in/", "store:in")):
        with pytest.raises(TargetIsSource, match="another folder"):
            gather([word], storage, leave_out=[target])


def test_what_gives_no_image_is_named(tmp_path, storage):
    with pytest.raises(MissingFile, match=r"there is no file gone\.jpg"):
        gather(["gone.jpg"], storage)
    with pytest.raises(NoImages, match="named like an image"):
        gather([str(fill(tmp_path / "texts", "a.txt"))], storage)
    with pytest.raises(NoImages, match=r"matches \*\.png"):
        gather([str(fill(tmp_path / "photos", "a.jpg"))], storage, ["*.png"])


def test_no_two_sources_ever_have_the_same_place_whatever_they_are_called():
    dice = random.Random(7)
    parts = ["a", "A", "b", "a-40", "a-40-20x20", "é", "e\u0301", "x" * 300, "x" * 301, "ß", "ss", "40"]
    labels = ["40", "20x20", "40-20x20", "a", "hero@2x"]
    for _ in range(300):
        names = {
            "/".join(dice.choices(parts, k=dice.randint(1, 3))) + dice.choice([".jpg", ".JPG", ".png", ""])
            for _ in range(30)
        }
        wanted = dice.sample(labels, dice.randint(1, 4))
        known = dict(zip(sorted(names), dice.choices(["a", "A", "a-40", "b/a"], k=8), strict=False))
        found = places(sorted(names), wanted, known)
        made = [folded(f"{place}-{label}") for place, label in itertools.product(found.values(), wanted)]
        assert len(made) == len(set(made))
        assert all(len(part.encode()) <= 150 for each in made for part in each.split("/"))
        assert places(sorted(names), wanted, found) == found


def test_a_source_keeps_its_place_when_others_come(storage):
    first = places(["x.png"], ["40"])
    assert places(["x.jpg", "x.png"], ["40"], first) == {"x.png": "x", "x.jpg": "x-jpg"}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"version": 2}', b'{"sources": {"a": 1}}', b"[" * 100_000, b'{"jobs": []}'],
)
def test_a_file_of_the_manifests_name_that_is_none_is_refused(storage, content):
    target = Target(storage, "thumbs")
    storage.write_bytes("thumbs/manifest.json", content)
    with pytest.raises(InvalidManifest, match=r"thumbs/manifest\.json") as refused:
        manifest.read(target)
    assert "choose another folder" in str(refused.value)
    assert "\n" not in str(refused.value)


def run_of(client, storage, target, renditions=THUMBS) -> Run:
    return Run(Client(client), storage, target, renditions, [], Options(), lambda *_: None)


def done(run: Run, sources: list[Source]) -> list[str]:
    """Do all that a command does; what was made."""
    plan = run.plan(sources, {})
    run.send(plan, "test")
    drained_into(run)
    run.follow()
    return sorted(plan.todo)


def drained_into(run: Run) -> None:
    assert drained(SERVER[0], 2, storage=run.storage.locate("x").removesuffix("/x")) == 0


SERVER = []


@pytest.fixture(autouse=True)
def _server(server):
    SERVER[:] = [server]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", "a/x.jpg", "b/x.jpg", "y.jpg")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_a_run_makes_each_source_once_and_the_next_only_what_changed(client, storage, photos, out):
    target = Target(Storage(str(out)))
    sources = gather([str(photos)], storage)
    assert done(run_of(client, storage, target), sources) == ["a/x.jpg", "b/x.jpg", "y.jpg"]
    expected = [f"{place}-{label}.jpg" for place in ("a/x", "b/x", "y") for label in ("20x20", "40")]
    assert files(out) == sorted([*expected, "manifest.json"])
    with Image.open(out / "b/x-20x20.jpg") as made:
        assert made.size == (20, 20)
    written = json.loads((out / "manifest.json").read_text())
    assert (written["batch"], written["jobs"]) == (None, {})
    assert list(written["sources"]) == ["a/x.jpg", "b/x.jpg", "y.jpg"]

    assert done(run_of(client, storage, target), sources) == []
    (photos / "y.jpg").write_bytes(picture(99))
    (out / "a/x-40.jpg").unlink()
    (out / "b/x-20x20.jpg").write_bytes(b"cut")
    assert done(run_of(client, storage, target), sources) == ["a/x.jpg", "b/x.jpg", "y.jpg"]
    assert done(run_of(client, storage, target), sources) == []
    other = {"40": Rendition(width=40, format="png"), "20x20": THUMBS["20x20"]}
    assert len(done(run_of(client, storage, target, renditions=other), sources)) == 3


def foreign_to(run: Run, sources: list[Source]) -> list[str]:
    return run.plan(sources, {}).foreign


def test_a_file_that_no_run_has_made_is_known(client, storage, photos, out):
    fill(out, "b/X-40.png", "y-40.txt", "y-20x20.JPG", "y-90.jpg", "a/x.jpg")
    target, sources = Target(Storage(str(out))), gather([str(photos)], storage)
    assert foreign_to(run_of(client, storage, target), sources) == ["b/X-40.png", "y-20x20.JPG"]
    done(run_of(client, storage, target), sources)
    (out / "y-40.jpg").unlink()
    assert foreign_to(run_of(client, storage, target), sources) == []
    (out / "manifest.json").unlink()
    assert len(foreign_to(run_of(client, storage, target), sources)) == 3 * len(THUMBS) - 1 + 2


def test_what_runs_have_made_with_other_options_or_before_a_failure_stays_ours(client, storage, photos, out):
    target, other = Target(Storage(str(out))), {"90": Rendition(width=90)}
    good = (photos / "y.jpg").read_bytes()
    for renditions in (THUMBS, other, THUMBS):
        sources = gather([str(photos)], storage)
        assert foreign_to(run_of(client, storage, target, renditions), sources) == []
        done(run_of(client, storage, target, renditions), sources)
    (photos / "y.jpg").write_bytes(b"broken")
    done(run_of(client, storage, target), sources)
    (photos / "y.jpg").write_bytes(good)
    run = run_of(client, storage, target)
    assert foreign_to(run, sources) == []
    run.send(run.plan(sources, {"y.jpg": "can't be read"}), "test")
    assert foreign_to(run_of(client, storage, target), sources) == []


def test_what_workers_have_written_for_a_run_that_was_killed_stays_ours(client, storage, photos):
    target, sources = Target(storage, "web", is_workers=True), gather([str(photos)], storage)
    first, saves = run_of(client, storage, target), itertools.count()

    def save() -> None:
        if next(saves):  # the jobs are sent, and not noted
            raise KeyboardInterrupt
        Run.save(first)

    first.save = save
    with pytest.raises(KeyboardInterrupt):
        first.send(first.plan(sources, {}), "test")
    drained_into(first)
    assert len(storage.names("web/")) == 3 * len(THUMBS) + 1
    assert foreign_to(run_of(client, storage, target), sources) == []


@pytest.mark.parametrize("is_workers", [False, True])
def test_no_rendition_replaces_a_source_that_is_in_the_target(client, storage, tmp_path, is_workers):
    folder = fill(tmp_path / "store/mine", "a.jpg", "a-40.jpg", "b.jpg", "B-20x20.png")
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    target = Target(storage, "mine", is_workers=True) if is_workers else Target(Storage(str(folder)))
    words = [f"store:mine/{name}" if is_workers else str(folder / name) for name in before]
    for count in (4, 0):
        assert len(done(run_of(client, storage, target), gather(words, storage))) == count
        assert {name: (folder / name).read_bytes() for name in before} == before
        assert len(files(folder)) == 4 + 4 * len(THUMBS) + 1


def test_a_run_into_the_storage_is_written_by_the_workers_themselves(client, storage, photos):
    target = Target(storage, "thumbs", is_workers=True)
    assert len(done(run_of(client, storage, target), gather([str(photos)], storage))) == 3
    assert "thumbs/a/x-40.jpg" in storage.names("thumbs/")
    assert storage.names("renditions/") == []
    assert done(run_of(client, storage, target), gather([str(photos)], storage)) == []


def test_a_failure_is_entered_with_its_reason_and_the_others_go_on(client, storage, photos, out):
    (photos / "words.jpg").write_text("these are words\n")
    (photos / "empty.jpg").write_bytes(b"")
    os.chmod(photos / "y.jpg", 0)  # noqa: PTH101
    run = run_of(client, storage, Target(Storage(str(out))))
    done(run, gather([str(photos)], storage))
    errors = {name: entry.error for name, entry in run.manifest.sources.items()}
    assert errors["a/x.jpg"] is None
    assert "words.jpg is not a readable image" in errors["words.jpg"]
    assert "empty.jpg" in errors["empty.jpg"]
    if os.getuid():
        assert "denied" in errors["y.jpg"]


@pytest.mark.parametrize("when", ["before the jobs", "after the jobs"])
def test_a_run_that_was_broken_off_is_gone_on_with(client, storage, photos, out, when):
    target = Target(Storage(str(out)))
    sources = gather([str(photos)], storage)
    first = run_of(client, storage, target)
    batch = first.send(first.plan(sources, {}), "test")
    if when == "after the jobs":
        drained_into(first)

    second = run_of(client, storage, target)
    if when == "before the jobs":
        drained_into(second)
    assert second.finish_earlier() == {"a/x.jpg", "b/x.jpg", "y.jpg"}
    plan = second.plan(sources, {})
    assert (plan.todo, sorted(plan.unchanged)) == ({}, ["a/x.jpg", "b/x.jpg", "y.jpg"])
    assert manifest.read(target).batch is None
    assert Batch(client, batch).state().counts.done == 3


def test_jobs_that_a_broken_off_run_could_not_note_end_and_their_sources_are_done(
    client, storage, photos, out
):
    target = Target(Storage(str(out)))
    sources = gather([str(photos)], storage)
    first, saves = run_of(client, storage, target), itertools.count()

    def save() -> None:
        if next(saves):
            raise KeyboardInterrupt
        Run.save(first)

    first.save = save
    with pytest.raises(KeyboardInterrupt):
        first.send(first.plan(sources, {}), "test")
    batch = manifest.read(target).batch
    second = run_of(client, storage, target)
    assert second.finish_earlier() == set()
    assert len(done(second, sources)) == 3
    assert Batch(client, batch).state().ended is not None
    assert len(files(out)) == 7


def test_a_run_whose_batch_is_gone_begins_again(client, storage, photos, out):
    target = Target(Storage(str(out)))
    sources = gather([str(photos)], storage)
    run_of(client, storage, target).send(run_of(client, storage, target).plan(sources, {}), "test")
    client.flushall()
    run = run_of(client, storage, target)
    run.finish_earlier()
    assert len(done(run, sources)) == 3


def test_canceled_jobs_are_named_and_done_by_the_next_run(client, storage, photos, out):
    target = Target(Storage(str(out)))
    sources = gather([str(photos)], storage)
    run = run_of(client, storage, target)
    batch = run.send(run.plan(sources, {}), "test")
    Batch(client, batch).cancel()
    run.follow()
    assert all("canceled" in (entry.error or "") for entry in run.manifest.sources.values())
    assert len(done(run_of(client, storage, target), sources)) == 3


def test_renditions_of_sources_that_are_gone_are_deleted_on_wish_and_no_other_file(
    client, storage, photos, out, tmp_path
):
    target = Target(Storage(str(out)))
    done(run_of(client, storage, target), gather([str(photos)], storage))
    (out / "b/mine.txt").write_text("mine")
    (tmp_path / "precious.jpg").write_text("precious")
    for gone in ("b/x.jpg", "y.jpg"):
        (photos / gone).unlink()
    (out / "y-40.jpg").write_bytes(b"retouched by hand")
    run = run_of(client, storage, target)
    plan = run.plan(gather([str(photos)], storage), {})
    assert plan.gone == ["b/x.jpg", "y.jpg"]
    assert run.delete_gone(plan) == 3
    assert not {"b/x-40.jpg", "b/x-20x20.jpg", "y-20x20.jpg"} & set(files(out))
    assert {"b/mine.txt", "y-40.jpg"} < set(files(out))

    hostile = Manifest(sources={"z.jpg": Entry("1", "1", "z", renditions=[{"path": "../precious.jpg"}])})
    manifest.write(target, hostile)
    run = run_of(client, storage, target)
    with pytest.raises(OutsideStorage):
        run.delete_gone(run.plan([], {}))
    assert (tmp_path / "precious.jpg").exists()


def test_a_contact_sheet_can_be_made_of_a_manifest_that_somebody_has_edited():
    odd = [{"path": 7, "width": "wide"}, {"width": None}, {}]
    page = contact_sheet.page(Manifest(sources={"a.jpg": Entry("1", "1", "a", renditions=odd)}))
    assert page.count("<figure>") == 1


def test_the_contact_sheet_escapes_what_sources_and_errors_are_called():
    evil = '<img src=x onerror=alert(1)>"\u202e'
    good = Entry(
        "1", "1", "a", renditions=[{"path": f"a/{evil}.jpg", "width": 5, "height": 5, "format": "jpeg"}]
    )
    page = contact_sheet.page(Manifest(sources={evil: good, "b": Entry("1", "1", "b", error=evil)}))
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "1 image, 1 failed" in page
