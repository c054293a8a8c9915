"""The plot of a running job is drawn at intervals, and only if it runs for so long."""

from pathlib import Path

import pytest

from models.checkpoints.location import StoreLocation
from models.messages import Fit
from training.recipe import Progress, recipes
from training.report.live_plot import LivePlot


@pytest.mark.parametrize(("every_s", "drawn"), [(-1.0, True), (60.0, False)])
def test_the_first_plot_is_drawn_after_the_interval(every_s: float, drawn: bool, tmp_path: Path) -> None:
    order = Fit(
        model="regressor",
        config={},
        data=tmp_path,
        store=StoreLocation(tmp_path),
        job="a-job",
        attempt=1,
        device="cpu",
        tensorboard=False,
        history=(),
    )
    plot = LivePlot(order, recipes()["regressor"], tmp_path / "plot.png", every_s)
    plot.add(Progress(epoch=1, epochs=2, step=1, steps=2, loss=0.5, metrics={"mse": 0.5}))
    assert (tmp_path / "plot.png").exists() == drawn
