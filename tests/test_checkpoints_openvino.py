"""OpenVINO itself: what it computes, in several threads at once, and what it refuses."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from models.catalog import PRETRAINED, specs
from models.checkpoints import onnx_file, openvino_session
from models.checkpoints import record as records
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import DisagreementError
from models.checkpoints.shipped import shipped_path
from models.checkpoints.verdict import Limits
from models.spec import Array

if not openvino_session.is_installed():
    pytest.skip("OPENVINO IS NOT TESTED: pip install 'torchloop[openvino]'", allow_module_level=True)
SAMPLES = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def shipped() -> Exported:
    record = records.verify("mnist", PRETRAINED / "mnist.pt")
    found = onnx_file.read(shipped_path(PRETRAINED, specs()["mnist"], record))
    assert found is not None
    return found


def test_the_shipped_digits_come_with_verdicts_and_bfloat16_is_let_in(shipped: Exported) -> None:
    verdicts = {verdict.form: verdict for verdict in shipped.verdicts}
    assert verdicts, "run: python -m training.exports, on a processor with bfloat16"
    assert verdicts["bf16"].dataset == "mnist"
    assert verdicts["bf16"].rows == 5_000
    assert not Limits().refusal(verdicts["bf16"], openvino_session.runtime())


def test_bfloat16_is_close_to_float32_in_batches_of_any_size_and_in_several_threads(shipped: Exported) -> None:
    """A processor without the instructions computes in float32."""
    plain, run = open_session(shipped.onnx, 1), openvino_session.open_form(shipped.onnx, "bf16", 1)
    wanted = plain(SAMPLES)

    def computed(size: int) -> Array:
        return np.concatenate([run(SAMPLES[at : at + size]) for at in range(0, len(SAMPLES), size)])

    sizes = [1, 2, 3, 8, 9, 16, 22, 64]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(computed, [*sizes, *sizes]):
            np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).max())


@pytest.mark.slow
def test_samples_that_may_not_be_written_stay_in_memory_until_they_are_computed() -> None:
    """Such samples are copied, here to memory that goes back to the system as soon as it is freed."""
    record = records.verify("regressor", PRETRAINED / "regressor.pt")
    exported = onnx_file.read(shipped_path(PRETRAINED, specs()["regressor"], record))
    assert exported is not None
    run = openvino_session.open_form(exported.onnx, "bf16", 1)
    width = exported.cases[0].samples.shape[1]
    samples = np.ones((2**25 // (4 * width) + 1, width), np.float32)  # 32 MiB: the C library maps it by itself
    wanted = run(samples)
    samples.flags.writeable = False
    np.testing.assert_array_equal(run(samples), wanted)


def test_a_small_network_is_computed_by_the_calling_thread_and_has_none_of_its_own(shipped: Exported) -> None:
    openvino_session.open_form(shipped.onnx, "bf16", 2)  # OpenVINO compiles in threads that stay
    before = threads()
    runs = [openvino_session.open_form(shipped.onnx, "bf16", 2) for _ in range(3)]
    for run in runs:
        run(SAMPLES)
    assert threads() == before


def threads() -> int:
    """Return the number of threads of this process, also those of libraries."""
    return psutil.Process().num_threads()


def test_samples_of_another_type_are_refused(shipped: Exported) -> None:
    with pytest.raises(TypeError, match="cast"):
        openvino_session.open_form(shipped.onnx, "bf16", 1)(SAMPLES.astype(np.float64))


def test_its_converter_of_other_formats_is_not_imported_for_it_and_can_be() -> None:
    """It takes half of the time of the import, and of its memory."""
    lines = [
        "import sys",
        "from models.checkpoints import openvino_session",
        "openvino_session.forms()",
        "assert 'openvino' in sys.modules",
        "assert 'openvino.tools.ovc' not in sys.modules",
        "import openvino.tools.ovc",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_a_file_that_openvino_cannot_read_is_a_disagreement() -> None:
    with pytest.raises(DisagreementError, match="OpenVINO: "):
        openvino_session.open_form(b"no network", "bf16", 1)


def test_nothing_sends_usage_statistics_of_it() -> None:
    openvino_session.forms()
    assert sys.modules["openvino_telemetry"] is None
