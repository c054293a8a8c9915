"""`python -m service.client` against a running service."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from models.catalog import specs
from models.mnist import drawn_seven
from service.app import create_app
from service.client import __main__ as command
from service.client import hyperparameters
from service.client.hyperparameters import BadOption
from service.settings import from_environment
from tests.fakes import LINE, ROOT, InProcess, running_server, save_line
from tests.serving import no_recipes
from tests.sockets import listening
from tests.templates import migrated
from tests.written_pages import number

pytestmark = pytest.mark.slow

SEVEN = str(ROOT / "models" / "pretrained" / "seven.png")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({"TORCHLOOP_WORKER": "embedded", "TORCHLOOP_API_KEYS": "admin:secret,predict:less"}) as url:
        yield url


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words -> exit status, standard output, standard error; with the admin's key in the environment."""

    def run(*words: str, key: str = "secret") -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = command.main(words, {"TORCHLOOP_URL": url, "TORCHLOOP_KEY": key})
        except SystemExit as end:  # of the parser
            status = int(str(end.code))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_pictures_and_numbers_are_predicted(run: Any) -> None:
    status, out, _ = run("predict", "mnist", SEVEN, SEVEN)
    header, *rows = out.splitlines()
    assert status == 0
    assert header.split() == ["sample", "label", "probability"]
    assert [row.split()[:2] for row in rows] == [[SEVEN, "7"]] * 2
    status, out, _ = run("predict", "regressor", "--inputs", "[[0.5], [1.0]]", "--json")
    assert len(json.loads(out)["predictions"]) == 2


def test_each_digit_of_a_number_is_a_row_with_its_box(run: Any, tmp_path: Path) -> None:
    page, boxes = number([drawn_seven()] * 2)
    page.save(tmp_path / "number.png")
    status, out, _ = run("predict", "mnist", str(tmp_path / "number.png"), "--segment")
    header, *rows = out.splitlines()
    assert status == 0
    assert header.split() == ["sample", "label", "probability"]
    for row, box in zip(rows, boxes, strict=True):
        assert [int(place) for place in re.findall(r"\d+", row)[:4]] == pytest.approx(box, abs=3)
        assert row.split()[4] == "7"


def test_a_model_is_trained_followed_listed_and_rolled_back(run: Any) -> None:
    words = ["train", "classifier", "--epochs", "3", "--betas", "0.8", "0.99", "--no-shuffle", "--promote", "always"]
    status, out, err = run(*words, "--follow", "--json")
    job = json.loads(out)
    assert (status, job["state"], job["gate"]["decision"]) == (0, "succeeded", "promoted"), err
    assert (job["config"]["epochs"], job["config"]["betas"], job["config"]["shuffle"]) == (3, [0.8, 0.99], False)
    assert [row.split()[0] for row in run("jobs", "--kind", "train")[1].splitlines()] == ["job", job["id"]]
    assert job["id"] not in run("jobs", "--kind", "ingest")[1]
    assert f"version {job['version']} is live" in run("promote", "classifier", str(job["version"]))[1]
    assert " live " in run("versions", "classifier")[1]
    assert run("rollback", "classifier")[1] == "classifier: version 1 is live, version 2 was before\n"
    assert run("watch", job["id"])[1].splitlines()[-1].endswith("succeeded")
    models = {model["name"]: model["live"] for model in json.loads(run("models", "--json")[1])}
    assert models.keys() == specs().keys()
    assert run("models")[1].splitlines()[0].split() == [
        "model",
        "live",
        "loaded",
        "backend",
        "device",
        "gate",
        "summary",
    ]


def test_a_checkpoint_goes_down_and_up_again(run: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "r.pt")
    assert run("download", "regressor", "1", "--output", path)[:2] == (0, f"{path}\n")
    assert json.loads(run("register", "regressor", path, "--json")[1])["live"] is False
    path = str(tmp_path / "r.tar")
    assert run("download", "regressor", "1", "--artifacts", "--output", path)[:2] == (0, f"{path}\n")
    assert json.loads(run("register", "regressor", path, "--json")[1])["config"]["epochs"] > 1


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["train", "mnist", "--depth", "3"], 2, "--depth is not a hyperparameter of mnist; known are --epochs"),
        (["train", "mnist", "--epochs", "many"], 2, "--epochs many: must be an integer"),
        (["train", "mnist", "--epochs", "0"], 1, "epochs: 0 is less than the minimum"),
        (["train", "nope"], 1, "unknown model 'nope'; known are classifier"),
        (["rollback", "mnist"], 1, "Conflict"),
        (["predict", "mnist", "no.png"], 1, "no.png cannot be opened"),
        (["cancel", "nope"], 1, "unknown job 'nope'"),
        (["models", "--url", "http://127.0.0.1:1"], 1, "start the service (make serve"),
        (["models", "--url", "http://x:y"], 2, "is not a URL"),
        (["models", "--key", "wrong"], 1, "name a key by --key or TORCHLOOP_KEY"),
    ],
)
def test_an_error_is_one_line_that_names_the_way_out(run: Any, words: list[str], status: int, says: str) -> None:
    ended, out, err = run(*words)
    assert (ended, out, len(err.splitlines())) == (status, "", 1)
    assert err.startswith("torchloop: ")
    assert says in err


@pytest.mark.parametrize("words", [["models"], ["models", "--json"]])
def test_a_closed_stdout_is_no_traceback(url: str, words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)  # as `head` does
    with os.fdopen(write, "wb") as out:
        environ = {**os.environ, "TORCHLOOP_URL": url, "TORCHLOOP_KEY": "secret"}
        command = [sys.executable, "-m", "service.client", *words]
        done = subprocess.run(
            command,
            stdout=out,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_key_without_the_scope_fails(run: Any) -> None:
    assert run("rollback", "mnist", key="less")[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["promote", "mnist", "x"], ["fly"], [], ["models", "--fast"], ["jobs", "--state", "odd"], ["predict", "mnist"],
        ["predict", "regressor", "--inputs", "[[0.5"],
    ],
)  # fmt: skip
def test_odd_words_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words, {})
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


SCHEMA = {
    "properties": {
        "epochs": {"type": "integer"},
        "lr": {"type": "number"},
        "shuffle": {"type": "boolean"},
        "optimizer": {"type": "string", "enum": ["sgd", "adam"]},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "betas": {"maxItems": 2, "prefixItems": [{"type": "number"}, {"type": "number"}], "type": "array"},
        "num_workers": {"type": "integer"},
    },
}


def test_words_become_hyperparameters_of_the_schemas_types() -> None:
    words = [
        "--epochs=2",
        "--lr",
        "0.1",
        "--shuffle",
        "--optimizer",
        "sgd",
        "--limit",
        "none",
        "--betas",
        "0.5",
        "-1",
        "--num-workers",
        "3",
    ]
    assert hyperparameters.read("m", SCHEMA, words) == {
        "epochs": 2, "lr": 0.1, "shuffle": True, "optimizer": "sgd", "limit": None, "betas": [0.5, -1.0],
        "num_workers": 3,
    }  # fmt: skip
    assert hyperparameters.read("m", SCHEMA, ["--no-shuffle", "--limit", "5"]) == {"shuffle": False, "limit": 5}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lr"], "--lr takes a value"), (["--betas", "1"], "--betas takes 2 values"),
        (["5"], "5 is not a hyperparameter"),
        (["--no-lr", "1"], "--no-lr is no"), (["--lr", "fast"], "must be a number"), (["--limit", "x"], "an integer"),
        (["--lr", "nan"], "--lr nan: must be a finite number"), (["--lr=-inf"], "must be a finite number"),
        (["--lr", "1e400"], "--lr 1e400: must be a finite number"), (["--betas", "0.9", "nan"], "--betas nan: must be"),
    ],
)  # fmt: skip
def test_an_invalid_argument_is_named(words: list[str], says: str) -> None:
    with pytest.raises(BadOption, match=says):
        hyperparameters.read("m", SCHEMA, words)


def test_a_model_without_a_recipe_cannot_be_trained() -> None:
    with pytest.raises(BadOption, match="no recipe"):
        hyperparameters.read("m", None, [])


def test_one_bad_file_among_several_makes_the_status_1(run: Any, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no picture")
    status, out, _ = run("predict", "mnist", str(tmp_path / "README.md"), SEVEN)
    assert status == 1
    assert [line.split()[0] for line in out.splitlines()[1:]] == [str(tmp_path / "README.md"), SEVEN]


def said_to(
    url: str, words: list[str], given: bytes = b"", environ: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[bytes]:
    """The end of a command that reads `given` from standard input."""
    settings = {**os.environ, "TORCHLOOP_URL": url, "TORCHLOOP_KEY": "secret", **environ}
    command = [sys.executable, "-m", "service.client", *words]
    return subprocess.run(command, input=given, capture_output=True, env=settings, cwd=ROOT, timeout=60, check=False)


def test_a_minus_is_standard_input(url: str, tmp_path: Path) -> None:
    picture = Path(SEVEN).read_bytes()
    bodies = [picture, b'{"inputs": [[0.5]]}', b" [[0.5]]\n"]
    for model, given in zip(("mnist", "regressor", "regressor"), bodies, strict=True):
        done = said_to(url, ["predict", model, "-"], given)
        assert (done.returncode, done.stdout.splitlines()[1].split()[0]) == (0, b"-"), done.stderr
    assert said_to(url, ["predict", "mnist", "-", SEVEN], picture).returncode == 0
    assert b"name it once" in said_to(url, ["predict", "mnist", "-", "-"], picture).stderr
    assert b"empty" in said_to(url, ["predict", "mnist", "-"]).stderr
    path = tmp_path / "r.pt"
    assert said_to(url, ["download", "regressor", "1", "--output", str(path)]).returncode == 0
    assert said_to(url, ["register", "regressor", "-"], path.read_bytes()).returncode == 0


ASCII = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]


@pytest.mark.parametrize("environ", ASCII, ids=["PYTHONIOENCODING", "LC_ALL"])
def test_an_ascii_terminal_gets_other_characters_escaped(url: str, environ: dict[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "ziffer-ä-鍵.png"
    picture.write_bytes(Path(SEVEN).read_bytes())
    done = said_to(url, ["predict", "mnist", str(picture), SEVEN], environ=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"ziffer-\\x" in done.stdout or b"ziffer-\\u" in done.stdout
    done = said_to(url, ["predict", "mnist", "no-ä.png"], environ=environ)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"no-\\" in done.stderr
    done = said_to(url, ["versions", "regressor", "--json"], environ=environ)
    json.loads(done.stdout.decode("ascii"))


@pytest.mark.parametrize(
    "words",
    [
        ["--help"], ["predict", "--help"], ["--version"], ["versions", "regressor"], ["jobs"],
        ["predict", "regressor", "--inputs", "[[1]]"],
    ],
)  # fmt: skip
def test_output_that_cannot_be_written_ends_without_a_traceback(url: str, words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    environ = {**os.environ, "TORCHLOOP_URL": url, "TORCHLOOP_KEY": "secret"}
    command = [sys.executable, "-m", "service.client", *words]
    with os.fdopen(write, "wb") as out:
        for stderr in (subprocess.PIPE, out):
            done = subprocess.run(command, stdout=out, stderr=stderr, env=environ, cwd=ROOT, timeout=60, check=False)
            assert not done.stderr
            assert done.returncode in {0, 1}
    if Path("/dev/full").exists():
        with Path("/dev/full").open("wb") as out:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.PIPE, env=environ, cwd=ROOT, timeout=60, check=False
            )
        assert done.stderr in {b"", b"torchloop: the output cannot be written (No space left on device)\n"}


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["predict", "regressor", "--inputs", "[[NaN]]"], 2, "NaN is not a number of JSON"),
        (["predict", "regressor", "--inputs", "[[-Infinity]]"], 2, "-Infinity is not a number"),
        (["predict", "regressor", "--inputs", "[[1e999]]"], 1, "inf is not a finite number"),
        (["predict", "regressor", "--inputs", "[" * 100_000], 2, "not JSON"),
        (["predict", "regressor", "--inputs", "5"], 1, "not a list of samples"),
        (["predict", "regressor", "--inputs", "[0.5]"], 1, "a single sample as a list of one"),
        (["predict", "mnist", "/"], 1, "/ is a folder"),
        (["predict", "mnist", ""], 1, "folder"),
        (["predict", "", SEVEN], 1, "not a name"),
        (["train", "regressor", "--lr", "nan"], 2, "must be a finite number"),
        (["register", "regressor", "no.pt"], 1, "no.pt cannot be opened"),
        (["register", "regressor", SEVEN, "--arguments", "[1"], 2, "not JSON"),
        (["download", "regressor", "1", "--output", "/"], 1, "cannot be opened"),
        (["download", "regressor", "1", "--output", "/proc/x/y.pt"], 1, "cannot be opened"),
        (["models", "--timeout", "nan"], 2, "not a number of seconds"),
        (["models", "--timeout", "0"], 2, "not a number of seconds"),
        (["models", "--url", "localhost"], 2, "http://localhost"),
        (["models", "--key", "a\nb"], 2, "line break"),
        (["models", "--key", "wrong-ä"], 1, "name a key by --key"),
    ],
)  # fmt: skip
def test_odd_arguments_end_in_one_line(run: Any, words: list[str], status: int, says: str) -> None:
    ended, out, err = run(*words)
    assert (ended, out, err.count("\n")) == (status, "", 1)
    assert says in err


def test_the_version_is_printed() -> None:
    done = said_to("", ["--version"])
    assert (done.returncode, done.stdout.split()[0]) == (0, b"torchloop")


def test_a_key_with_a_line_end_or_not_in_ascii_opens_the_service(tmp_path: Path) -> None:
    settings = from_environment(
        {"TORCHLOOP_API_KEYS": "admin:schlüssel", "TORCHLOOP_STORE": str(migrated(tmp_path / "store"))}
    )
    save_line(tmp_path)
    app = create_app(settings, {"line": LINE}, tmp_path, no_recipes, partial(InProcess, {"line": LINE}))
    with listening(app) as ((host, port), _):
        for key in ("schlüssel", "schlüssel\n", " schlüssel\r\n"):
            for environ in ASCII:
                done = said_to(f"http://{host}:{port}", ["models"], environ={"TORCHLOOP_KEY": key, **environ})
                assert done.returncode == 0
        assert said_to(f"http://{host}:{port}", ["models"], environ={"TORCHLOOP_KEY": "schl"}).returncode == 1
