"""Thumbnails that an ingest makes of rows with a picture."""

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.messages import Ingested
from models.mnist import SPEC
from tests.dataset_files import digit, idx, line_rows, made, png, version, write_csv, write_jsonl, write_zip
from tests.each import each_holds
from tests.signatures import SIAMESE
from training.datasets import thumbnails
from training.datasets.errors import DatasetError

MNIST: dict[str, Any] = {"model": "mnist", "target": "label", "labels": tuple("0123456789")}
COLOURS = np.zeros((90, 120, 3), np.uint8)
COLOURS[:, 60:] = (255, 0, 0)


def mnist(folder: Path, files: dict[str, bytes], **values: Any) -> Ingested:
    source = write_zip(folder / f"{values.get('job', 'j')}.zip", files)
    return made(folder, source, SPEC, **{**MNIST, "allow_rejected": 1.0, **values})


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def listed(folder: Path, done: Ingested) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((version(folder, done) / "thumbnails/examples.json").read_bytes())
    return found


def test_refused_pictures_have_thumbnails_without_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn it by 90 degrees
    exif[0x010E] = "a secret"
    sideways = saved(Image.fromarray(COLOURS).resize((1200, 900)), "JPEG", exif=exif)
    files = {"cat/1.jpg": sideways, "3/2.png": png(digit(0)), "cat/3.png": b"no picture", "cat/4.png": png(digit(1))}
    done = mnist(tmp_path, files)
    rows = map(json.loads, (tmp_path / "store/datasets/mnist/reports/j.jsonl").read_text().splitlines())
    assert {row["row"]: row["picture"] for row in rows} == {1: True, 3: False, 4: True}
    (reason, *_) = done.summary.by_reason
    assert reason.first[0].picture
    folder = tmp_path / "store/datasets/mnist/reports/j"
    assert sorted(path.name for path in folder.iterdir()) == ["1.png", "4.png"]
    large = Image.open(folder / "1.png")
    assert (large.format, large.size, large.info) == ("PNG", (72, 96), {})
    top, bottom = large.getpixel((36, 10)), large.getpixel((36, 90))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert (top[0] < 20, bottom[0] > 230) == (True, True)  # the right half is below
    assert np.array_equal(np.asarray(Image.open(folder / "4.png")), digit(1))


def test_a_file_that_is_refused_as_a_whole_keeps_the_thumbnails_of_its_rows(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="1 of 1 rows were refused"):
        mnist(tmp_path, {"cat/1.png": png(digit(0))}, allow_rejected=0.0)
    assert (tmp_path / "store/datasets/mnist/reports/j/1.png").is_file()


def test_examples_are_those_with_the_smallest_digests_whatever_the_order(tmp_path: Path) -> None:
    files = {f"{number % 2}/{number}.png": png(digit(number)) for number in range(60)}
    once = mnist(tmp_path, files)
    found = listed(tmp_path, once)
    assert [one["label"] for one in found] == ["0"] * 8 + ["1"] * 8
    digests = [one["digest"] for one in found]
    assert digests == [*sorted(digests[:8]), *sorted(digests[8:])]
    names = {path.stem for path in (version(tmp_path, once) / "thumbnails").iterdir()}
    assert names == {"examples", *digests}
    reversed_order = dict(sorted(files.items(), reverse=True))
    (tmp_path / "other").mkdir()
    assert listed(tmp_path / "other", mnist(tmp_path / "other", reversed_order)) == found


def test_a_grown_version_has_examples_of_both_and_none_that_was_left_out(tmp_path: Path) -> None:
    first = mnist(tmp_path, {f"1/{number}.png": png(digit(number)) for number in range(5)})
    files = {f"2/{number}.png": png(digit(number)) for number in range(3, 9)}  # 3 and 4 are known as 1
    grown = mnist(tmp_path, files, job="k", parent=version(tmp_path, first))
    assert grown.summary.conflicting_labels == 2
    found = listed(tmp_path, grown)
    assert [one["label"] for one in found] == ["1"] * 5 + ["2"] * 4
    assert {one["split"] for one in found} <= {"train", "validation", "test"}
    for one in found:
        assert (version(tmp_path, grown) / f"thumbnails/{one['digest']}.png").is_file()


def test_the_same_rows_again_add_thumbnails_to_a_version_without(tmp_path: Path) -> None:
    done = mnist(tmp_path, {"1/1.png": png(digit(0)), "cat/9.png": png(digit(1))})
    shutil.rmtree(version(tmp_path, done) / "thumbnails")  # of an older release
    again = mnist(tmp_path, {"1/1.png": png(digit(0))}, job="k")
    assert again.folder == done.folder
    assert len(listed(tmp_path, again)) == 1
    reports = tmp_path / "store/datasets/mnist/reports"
    assert sorted(path.name for path in reports.iterdir()) == ["j", "j.jsonl", "k.jsonl"]


def test_thumbnails_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MOST_REFUSED", 2)
    monkeypatch.setattr(thumbnails, "MOST_LABELS", 3)
    good = {f"{number}/{number}.png": png(digit(number)) for number in range(5)}
    done = mnist(tmp_path, {**{f"cat/{number}.png": png(digit(9)) for number in range(4)}, **good})
    assert len(list((tmp_path / "store/datasets/mnist/reports/j").iterdir())) == 2
    assert [one["label"] for one in listed(tmp_path, done)] == ["0", "1", "2"]


def test_rows_of_other_formats_have_thumbnails_of_their_pixels(tmp_path: Path) -> None:
    images, labels = np.stack([digit(number) for number in range(4)]), np.array([1, 2, 3, 99])
    files = {"train-images-idx3-ubyte": idx(images), "train-labels-idx1-ubyte": idx(labels)}
    done = mnist(tmp_path, files)
    assert [one["label"] for one in listed(tmp_path, done)] == ["1", "2", "3"]
    assert (tmp_path / "store/datasets/mnist/reports/j/3.png").is_file()
    rows = [{"input": digit(number).tolist(), "label": str(number)} for number in range(2)]
    lists = made(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), SPEC, **MNIST, allow_rejected=1.0)
    assert [one["label"] for one in listed(tmp_path, lists)] == ["0", "1"]


def test_the_first_picture_of_named_inputs_is_drawn(tmp_path: Path) -> None:
    left, right = np.full((8, 8), 10, np.uint8), np.full((8, 8), 200, np.uint8)
    encoded = {name: _data_url(pixels) for name, pixels in (("left", left), ("right", right))}
    source = write_jsonl(tmp_path / "a.jsonl", [{**encoded, "label": 1.0}, {"left": encoded["left"], "label": 1.0}])
    done = made(tmp_path, source, SIAMESE, model="two", allow_rejected=1.0)
    (one,) = listed(tmp_path, done)
    assert one["label"] is None  # its target is a value
    drawn = Image.open(version(tmp_path, done) / f"thumbnails/{one['digest']}.png")
    assert np.array_equal(np.asarray(drawn), left)
    assert (tmp_path / "store/datasets/two/reports/j/2.png").is_file()  # the other picture is missing


def test_data_without_pictures_have_no_thumbnails(tmp_path: Path) -> None:
    done = made(tmp_path, write_csv(tmp_path / "a.csv", [*line_rows(5), ("oops", 1)]), allow_rejected=1.0)
    assert not (version(tmp_path, done) / "thumbnails").exists()
    assert not (tmp_path / "store/datasets/line/reports/j").exists()


def _data_url(pixels: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def test_each_kind_of_picture_is_drawn_on_white(tmp_path: Path) -> None:
    colours = Image.fromarray(COLOURS)
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    deep = Image.fromarray(np.linspace(0, 60_000, 400 * 300).reshape(300, 400).astype(np.uint16))
    kinds: dict[str, tuple[bytes, tuple[int, int], Callable[[Any], bool]]] = {
        "palette.gif": (saved(colours.convert("P"), "GIF"), (96, 72), lambda pixels: pixels.shape[2] == 3),
        "bits.png": (saved(colours.convert("1"), "PNG"), (96, 72), lambda pixels: pixels.ndim == 2),
        "clear.png": (saved(clear, "PNG"), (40, 40), lambda pixels: bool((pixels == 255).all())),
        "deep.png": (saved(deep, "PNG"), (80, 60), lambda pixels: pixels.min() == 0 and pixels.max() >= 254),
        "print.jpg": (saved(colours.convert("CMYK"), "JPEG"), (96, 72), lambda pixels: pixels.shape[2] == 3),
        "wide.png": (saved(colours.resize((3000, 2)), "PNG"), (96, 1), lambda pixels: pixels.shape[2] == 3),
    }
    mnist(tmp_path, {f"cat/{name}": content for name, (content, _, _) in kinds.items()} | {"1/1.png": png(digit(0))})

    def holds(case: tuple[int, str]) -> None:
        number, name = case
        drawn = Image.open(tmp_path / f"store/datasets/mnist/reports/j/{number}.png")
        _, size, check = kinds[name]
        assert drawn.size == size
        assert check(np.asarray(drawn))

    each_holds(holds, list(enumerate(kinds, 1)))
