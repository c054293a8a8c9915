"""Knowledge distillation: train a larger network, the teacher, then train the small one on the teacher's logits.

The logits carry more information than the label: how similar a picture is to each digit (Hinton, Vinyals, Dean:
Distilling the Knowledge in a Neural Network, 2015). The teacher is not kept.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format

from training.fitting.batches import Augment
from training.fitting.randomness import own_random_numbers
from training.loop import Loss
from training.recipe import Split, TrainingError

_BATCH = 500  # samples per forward pass of the teacher
_SEED_OF_COPIES = 1_000_003  # offset, so that copies and epochs use different random numbers


class Teacher(nn.Module):
    """Teacher CNN: uint8 (N, 1, 28, 28) -> logits (N, 10). 242,378 parameters, eight times those of MnistCNN."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=5, padding=2, bias=False),
            nn.MaxPool2d(2),  # (N, 32, 14, 14)
            nn.BatchNorm2d(32),
            nn.ReLU(),
            *_block(32, 64),
            nn.MaxPool2d(2),  # (N, 64, 7, 7)
            *_block(64, 128),
            *_block(128, 128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, 10),
        )

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.layers(samples.float() / 255)
        return logits


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def new_teacher(seed: int) -> Teacher:
    """Build a teacher with initial weights from `seed`; the global random state is restored."""
    with own_random_numbers(seed):
        return convert_conv2d_weight_memory_format(Teacher(), torch.channels_last)


def judged(
    teacher: nn.Module,
    train: Split,
    augment: Augment | None,
    *,
    copies: int,
    seed: int,
    mixed: bool = False,
) -> Split:
    """Label the training samples and `copies` augmented copies of each with the teacher's logits, float32.

    This is done once, not in each epoch: the teacher's forward passes would cost more than the fit itself.
    """
    if not isinstance(train.samples, Tensor):
        raise TrainingError(
            "distillation needs the dataset in memory, which is too large for it: set teacher_epochs to 0"
        )
    generator = torch.Generator().manual_seed(seed + _SEED_OF_COPIES)
    parts = [train.samples]
    for _ in range(copies if augment else 0):
        parts += [augment(part, generator) for part in torch.split(train.samples, _BATCH)] if augment else []
    samples = torch.cat(parts)
    teacher.eval()
    with torch.inference_mode(), torch.autocast(samples.device.type, torch.bfloat16, enabled=mixed):
        logits = torch.cat([teacher(part).float() for part in torch.split(samples, _BATCH)])
    return Split(samples, logits.clone())


def softened_loss(temperature: float) -> Loss:
    """Distillation loss: KL divergence of the probabilities at `temperature`, in nats.

    Multiplied by the squared temperature, so that the gradients' magnitude does not depend on it.
    """
    return partial(_divergence, temperature)


def _divergence(temperature: float, logits: Tensor, taught: Tensor) -> Tensor:
    own, wanted = ((values / temperature).log_softmax(dim=1) for values in (logits, taught))
    divergence = nn.functional.kl_div(own, wanted, reduction="batchmean", log_target=True)
    return divergence * temperature**2
