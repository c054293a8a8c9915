"""Event files, read back by TensorBoard itself."""

import math
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.location import StoreLocation
from models.messages import Failed, Fit, Fitted, Message, Progressed
from tests.fakes import InProcess
from training import __main__ as command
from training.recipe import Progress
from training.report.live_plot import EVERY_S
from training.report.tensorboard import EventFile


def accumulator(folder: Path) -> Any:
    """TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - half a second

    return EventAccumulator(str(folder))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> step and value of each point that TensorBoard shows of a folder."""
    found = accumulator(folder)
    found.Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_the_command_line_writes_what_tensorboard_reads(tmp_path: Path) -> None:
    words = ["regressor", "--epochs", "3", "--store", str(tmp_path), "--tensorboard", str(tmp_path / "new" / "run")]
    assert command.main(words) == 0
    told = scalars(tmp_path / "new" / "run")
    assert [step for step, _ in told["train/loss"]] == [1, 2, 3]
    assert [value for _, value in told["train/epoch"]] == [1, 2, 3]
    assert told["validation/mse"][-1][1] == pytest.approx(told["checkpoint/validation_mse"][0][1], rel=1e-4)
    text = accumulator(tmp_path / "new" / "run")
    text.Reload()
    (shown,) = text.Tensors("hyperparameters/text_summary")
    assert b"| epochs | 3 |" in shown.tensor_proto.string_val[0]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    words = ["regressor", "--store", str(tmp_path), "--tensorboard", str(tmp_path / "taken")]
    assert command.main(words) == 1
    assert "choose another --tensorboard" in capsys.readouterr().err


def fit(store: Path, config: dict[str, Any], *, tensorboard: bool, plot_every_s: float = EVERY_S) -> list[Message]:
    """Return the messages of one fit of the regressor."""
    child = InProcess(None, plot_every_s)
    child.send(
        Fit(
            model="regressor",
            config=config,
            data=store,
            store=StoreLocation(store),
            job="j1",
            attempt=1,
            device="cpu",
            tensorboard=tensorboard,
        )
    )
    return child.messages(0)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_job_writes_them_into_its_folder_if_it_asks(wanted: bool, tmp_path: Path) -> None:
    assert isinstance(fit(tmp_path, {"epochs": 4}, tensorboard=wanted)[-1], Fitted)
    folder = tmp_path / "jobs" / "j1" / "tensorboard"
    assert folder.exists() is wanted
    assert not wanted or [step for step, _ in scalars(folder)["train/loss"]] == [1, 2, 3, 4]


def test_a_resumed_run_replaces_repeated_steps(tmp_path: Path) -> None:
    def point(step: int, loss: float) -> Progress:
        return Progress(epoch=1, epochs=1, step=step, steps=4, loss=loss)

    first = EventFile(tmp_path)
    for step in (1, 2, 3):
        first.add(point(step, 1.0))
    first.close()
    second = EventFile(tmp_path)
    for step in (3, 4):
        second.add(point(step, 2.0))
    second.close()
    assert scalars(tmp_path)["train/loss"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_a_failed_run_keeps_and_plots_all_its_progress(tmp_path: Path) -> None:
    config = {"epochs": 60, "lr": 100, "activation": "softplus"}
    *told, failure = fit(tmp_path, config, tensorboard=True, plot_every_s=math.inf)  # only its end draws the plot
    assert isinstance(failure, Failed)
    assert "no longer finite" in failure.detail
    steps = [step for step, _ in scalars(tmp_path / "jobs" / "j1" / "tensorboard")["train/loss"]]
    assert steps == [message.point.step for message in told if isinstance(message, Progressed)]
    assert len(steps) > 1
    assert (tmp_path / "jobs" / "j1" / "plot.png").read_bytes().startswith(b"\x89PNG")
