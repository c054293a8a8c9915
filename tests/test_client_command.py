"""`python -m service.client` against a running service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.client import __main__ as command
from service.client import hyperparameters
from service.client.hyperparameters import BadOption
from tests.fakes import ROOT, running_server

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
        status = command.main(words, {"TORCHLOOP_URL": url, "TORCHLOOP_KEY": key})
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


def test_a_model_is_trained_followed_listed_and_rolled_back(run: Any) -> None:
    words = ["train", "classifier", "--epochs", "3", "--betas", "0.8", "0.99", "--no-shuffle", "--promote", "always"]
    status, out, err = run(*words, "--follow", "--json")
    job = json.loads(out)
    assert (status, job["state"], job["gate"]["decision"]) == (0, "succeeded", "promoted"), err
    assert (job["config"]["epochs"], job["config"]["betas"], job["config"]["shuffle"]) == (3, [0.8, 0.99], False)
    assert [row.split()[0] for row in run("jobs")[1].splitlines()] == ["job", job["id"]]
    assert f"version {job['version']} is live" in run("promote", "classifier", str(job["version"]))[1]
    assert " live " in run("versions", "classifier")[1]
    assert run("rollback", "classifier")[1] == "classifier: version 1 is live, version 2 was before\n"
    assert run("watch", job["id"])[1].splitlines()[-1].endswith("succeeded")
    models = {model["name"]: model["live"] for model in json.loads(run("models", "--json")[1])}
    assert models.keys() == {"classifier", "mnist", "regressor"}
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
