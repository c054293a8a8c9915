"""Calls of the client for models with named inputs and outputs, and the words of the command for them."""

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.client import AsyncClient, BadArgument, Client, fields
from service.client import __main__ as command
from service.client.inputs import body
from tests.fakes import LINE, save_line
from tests.serving import BASE_URL, no_recipes, over, serving
from tests.signatures import SIGNATURES, save, spot

TABLE: dict[str, Any] = {"age": 22, "sex": "male", "fare": None}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("pretrained")
    for name in SIGNATURES:
        save(folder, name)
    save_line(folder)
    with serving(folder, {**SIGNATURES, "line": LINE}, recipes=no_recipes) as app:
        yield app


@pytest.fixture
def client(app: TestClient) -> Iterator[Client]:
    with Client(BASE_URL, transport=over(app)) as client:
        yield client


def png(level: int) -> bytes:
    file = io.BytesIO()
    spot(level).save(file, "PNG")
    return file.getvalue()


def sent(data: Any) -> Any:
    return json.loads(body(data)["content"])["inputs"]


def test_rows_are_dicts_and_missing_values_are_null(client: Client) -> None:
    none, nan, absent = client.predict(
        "table", [TABLE, {**TABLE, "fare": float("nan")}, {"age": np.int64(22), "sex": "male"}]
    )["predictions"]
    assert none == nan == absent
    wrong, good = client.predict("table", [{**TABLE, "sex": "femal"}, TABLE])["predictions"]
    assert wrong["error"]["detail"] == "sex: 'femal' is none of 'female', 'male'"
    assert good == none


@pytest.mark.parametrize(
    "columns",
    [
        {"age": [22, 38], "sex": ["male", "female"], "fare": [None, 71.25]},
        {"age": np.array([22, 38]), "sex": ["male", "female"], "fare": np.array([np.nan, 71.25])},
        {"age": np.array([22.0, 38]), "sex": np.array(["male", "female"]), "fare": np.array([np.nan, 71.25])},
    ],
    ids=["lists", "mixed", "arrays"],
)
def test_a_dict_of_columns_is_its_rows(client: Client, columns: Any) -> None:
    rows = [TABLE, {"age": 38, "sex": "female", "fare": 71.25}]
    assert client.predict("table", columns)["predictions"] == client.predict("table", rows)["predictions"]


def test_columns_of_arrays_are_sent_as_npz() -> None:
    given = body({"left": np.zeros((2, 8, 8), np.uint8), "right": np.ones((2, 8, 8), np.uint8)})
    assert given["headers"]["Content-Type"] == "application/x-npz"
    assert np.load(io.BytesIO(given["content"]))["right"].shape == (2, 8, 8)
    assert body(given["content"])["headers"]["Content-Type"] == "application/x-npz"


def test_strings_in_a_list_are_texts_if_the_model_takes_a_text(client: Client, tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"secret")
    texts = ["good film", str(tmp_path / "film")]
    found = client.predict("text", texts)["predictions"]
    assert found == client.predict("text", [{"review": text} for text in texts])["predictions"]
    assert client.predict("text", {"inputs": texts[:1]})["predictions"] == found[:1]
    with pytest.raises(BadArgument, match=r"good film cannot be opened \(No such file"):
        client.predict("denoiser", ["good film"])


def test_an_asynchronous_client_tells_texts_from_files_too(app: TestClient) -> None:
    async def ask() -> Any:
        async with AsyncClient(BASE_URL, transport=over(app)) as client:
            return await client.predict("text", ["good film"])

    (found,) = asyncio.run(ask())["predictions"]
    assert found["label"] in {"negative", "positive"}


def test_pictures_in_a_sample_are_files_of_any_kind(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "left.png"
    path.write_bytes(png(0))
    right = base64.b64encode(png(40)).decode()
    with path.open("rb") as file:
        rows = [{"left": left, "right": right} for left in (path, png(0), spot(0), file)]
        found = client.predict("siamese", rows)["predictions"]
    assert found == [found[0]] * 4
    assert found[0]["value"] > 0


def test_an_array_is_sent_as_nested_lists() -> None:
    assert sent([{"series": np.array([[0.5, 1.0]])}]) == [{"series": [[0.5, 1.0]]}]


def test_a_picture_answer_is_a_png_file(client: Client) -> None:
    data = client.predict_picture("denoiser", [{"picture": spot(100)}])
    (prediction,) = client.predict("denoiser", spot(100))["predictions"]
    assert np.asarray(Image.open(io.BytesIO(data))).tolist() == prediction["clean"]
    with pytest.raises(BadArgument, match="the model's answer is not of this kind: call predict"):
        client.predict_picture("table", [TABLE])


def test_outputs_are_arrays_by_name(client: Client) -> None:
    arrays = client.predict_arrays("heads", SIGNATURES["heads"].example)
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "kind": ((2, 2), "float32"),
        "size": ((2,), "float32"),
    }
    assert client.predict_arrays("line", [[1.0], [2.0]])["output"].tolist() == [[3.0], [5.0]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TABLE, r"'age' is of type int: pass a single sample in a list, \[\{'age': ...\}\]"),
        ({"age": [1, 2], "sex": ["male"]}, "their lengths are age 2, sex 1"),
        ({}, "their lengths are none"),
        ({"age": np.float32(1)}, r"'age' has no axis of samples: pass an array \(N, ...\)"),
        ([TABLE, 5], "sample 1 is of type int, others are dicts"),
        ([{"left": Path("no.png")}], "no.png cannot be opened"),
        ([{"age": object()}], r"inputs\[0\]\['age'\] cannot be sent as JSON"),
    ],
    ids=["one sample", "lengths", "empty", "scalar", "mixed", "no file", "object"],
)
def test_what_cannot_be_sent_is_refused_with_the_way_out(data: Any, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        body(data)


@pytest.fixture
def run(app: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words of the command -> exit status, standard output, standard error."""
    monkeypatch.setattr(command, "Client", lambda url, **_: Client(url, transport=over(app)))

    def run(*words: str) -> tuple[int, list[str], str]:
        status = command.main(words, {"TORCHLOOP_URL": BASE_URL})
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return run


def test_the_command_takes_rows_fields_and_csv(run: Any, client: Client, tmp_path: Path) -> None:
    (prediction,) = client.predict("table", [TABLE])["predictions"]
    row = ["0", f"{prediction['value']:.4g}"]
    assert run("predict", "table", "--inputs", json.dumps([TABLE]))[1][1].split() == row
    status, out, _ = run("predict", "table", "--field", "age=22", "--field", "sex=male", "--field", "fare=")
    assert (status, out[0].split(), out[1].split()) == (0, ["sample", "value"], row)
    path = tmp_path / "rows.csv"
    path.write_text("\ufeffage, sex,fare\n22,male,\n38,femal,71.25\n", encoding="utf-8")
    status, out, _ = run("predict", "table", str(path))
    assert (status, out[1].split()) == (1, row)
    assert "sex: 'femal' is none of" in out[2]


def test_the_command_takes_pictures_by_name_and_saves_a_picture(run: Any, client: Client, tmp_path: Path) -> None:
    left, right, clean = (tmp_path / name for name in ("left.png", "right.png", "clean.png"))
    left.write_bytes(png(0))
    right.write_bytes(png(40))
    (prediction,) = client.predict("siamese", [{"left": left, "right": right}])["predictions"]
    out = run("predict", "siamese", "--field", f"left=@{left}", "--field", f"right=@{right}")[1]
    assert out[1].split() == ["0", f"{prediction['value']:.4g}"]
    (tmp_path / "pairs.csv").write_text("left,right\nleft.png,right.png\n")
    assert run("predict", "siamese", str(tmp_path / "pairs.csv"))[1][1].split()[1:] == out[1].split()[1:]
    assert run("predict", "denoiser", str(left), "--output", str(clean))[:2] == (0, [str(clean)])
    with Image.open(clean) as picture:
        assert picture.size == (8, 8)


def test_the_command_takes_plain_texts_and_shows_named_outputs(run: Any) -> None:
    status, out, _ = run("predict", "text", "good film", "not good")
    assert status == 0
    assert [line.split("  ")[0] for line in out[1:]] == ["good film", "not good"]
    status, out, _ = run("predict", "heads", "--field", "samples=[1, 2, 3]")
    assert out[0].split() == ["sample", "kind", "size"]
    assert "cat 0." in out[1]
    assert "dog 0." in out[1]
    out = run("predict", "denoiser", "--inputs", json.dumps([{"picture": base64.b64encode(png(9)).decode()}]))[1]
    assert "8 x 8 numbers (--json prints them)" in out[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("table", "--field", "age"), "'age' is no field: write it as NAME=VALUE"),
        (("table", "--field", "age=1", "--field", "age=2"), "age is given twice"),
        (("table", "--field", "agee=1"), "table has no input 'agee': it takes age, sex, fare (optional)"),
        (("siamese", "--field", "left=a.png"), "left is a picture: name its file after @, as left=@FILE"),
        (("siamese", "--field", "left=@no.png"), "no.png cannot be opened"),
        (("line", "--field", "x=1"), "line has no named inputs: pass its samples as --inputs or files"),
        (("denoiser", "no.csv"), "no.csv cannot be opened"),
    ],
    ids=["no value", "twice", "unknown", "no @", "no file", "one tensor", "no csv"],
)
def test_the_command_names_the_field_that_cannot_be_used(run: Any, words: tuple[str, ...], said: str) -> None:
    status, out, err = run("predict", *words)
    assert (status, out) == (1, [])
    assert said in err


def test_samples_given_in_two_ways_are_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("predict", "table", "--inputs", "[]", "--field", "age=1")
    assert "samples are given in several ways" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"age,sex\n1,male,3\n", "row 1 has 3 cells, the header has 2"),
        (b"age,sex\n", "has a header, but no rows"),
        (b"age,\xff\n1,2\n", "is not a text in UTF-8"),
        (b'age,"sex\n1,2\n', "is not a CSV file"),
        (b"age,cabin\n1,2\n", "table has no input 'cabin'"),
    ],
    ids=["cells", "rows", "encoding", "quotes", "unknown"],
)
def test_a_bad_csv_file_is_refused_with_its_row(client: Client, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(BadArgument, match=said):
        fields.rows(client.model("table"), path)


CELLS: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("age", " 22.5 ", lambda value: value == 22.5),
    ("age", "", lambda value: value is None),
    ("age", "nan", lambda value: value == "nan"),  # refused by the service, in words
    ("sex", " male", lambda value: value == "male"),
]


@pytest.mark.parametrize(("name", "text", "is_right"), CELLS, ids=["number", "empty", "nan", "category"])
def test_a_text_is_read_as_its_input(client: Client, name: str, text: str, is_right: Callable[[Any], bool]) -> None:
    assert is_right(fields.sample(client.model("table"), [f"{name}={text}"])[name])
