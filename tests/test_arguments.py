"""Values of the Python API: every number, flag and name of another kind is one sentence, before any work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from quantnas_ext.costs.cost import BitOps
from quantnas_ext.costs.goals import Budget, Penalty
from quantnas_ext.deriving.calibration import calibrate, recalibrate_batch_norm, score
from quantnas_ext.errors import InputError
from quantnas_ext.nn import ChoiceBlock, SharedInput
from quantnas_ext.quantization import Precision
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.sampling import EpochSampler, FixedBatches
from quantnas_ext.search.objective import entropy_weight
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace, SRRFDNSpace

NAN, INF = float("nan"), float("inf")
DATA = TensorDataset(torch.rand(4, 3, 4, 4), torch.rand(4, 3, 8, 8))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from DATA


def evaluator(train: Any = DATA, **arguments: Any) -> AccelerateEvaluator:
    return AccelerateEvaluator(train, DATA, **{"epochs": 1, "batch_size": 2, **arguments})


WHOLE = [1.5, 2.0, True, "3", None, NAN, INF, -1, [1], torch.tensor(2.0)]
REAL = ["1", NAN, INF, -INF, True, [1.0], 10**400, 1j]
POSITIVE = [*REAL, 0, 0.0, -1]
FLAGS = ["maybe", "false", 0, 1, None, 1.0]
NAMES = ["nonesuch", 3, None, ["no"], True]
REFUSED: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "entropy": (lambda value: QuantNAS(entropy=value), [*REAL, None]),
    "gradient_clip": (lambda value: QuantNAS(gradient_clip=value), POSITIVE),
    "architecture_learning_rate": (lambda value: QuantNAS(architecture_learning_rate=value), [*POSITIVE, None]),
    "warmup_epochs": (lambda value: QuantNAS(warmup_epochs=value), WHOLE),
    "masked_noise": (lambda value: QuantNAS(masked_noise=value), FLAGS),
    "temperature": (
        lambda value: QuantNAS(temperature=value),
        [1.0, (1.0,), (1.0, 0.0), (NAN, 1.0), (1, INF), "12", (True, 1), ("1", "2"), None, (3, 2, 1)],
    ),
    "regularizer": (lambda value: QuantNAS(regularizer=value), NAMES),
    "relaxation": (lambda value: QuantNAS(relaxation=value), NAMES),
    "quantization": (lambda value: QuantNAS(quantization=value), NAMES),
    "noise": (lambda value: QuantNAS(noise=value), NAMES),
    "noise_mixture": (lambda value: QuantNAS(noise_mixture=value), NAMES),
    "evaluation": (lambda value: QuantNAS(evaluation=value), NAMES),
    "costs": (lambda value: QuantNAS(costs=value), [Penalty(BitOps(), 1.0), [BitOps()], 3, None, ["bitops"]]),
    "epochs": (lambda value: evaluator(epochs=value), [*WHOLE, 0]),
    "batch_size": (lambda value: evaluator(batch_size=value), [*WHOLE, 0]),
    "steps_per_epoch": (lambda value: evaluator(steps_per_epoch=value), [0, -1, 1.5, "2", True]),
    "weight_learning_rate": (lambda value: evaluator(weight_learning_rate=value), [*POSITIVE, None]),
    "weight_decay": (lambda value: evaluator(weight_decay=value), [*REAL, -1e-9]),
    "seed": (lambda value: evaluator(seed=value), [*WHOLE, 2**32]),
    "workers": (lambda value: evaluator(workers=value), WHOLE),
    "mixed_precision": (lambda value: evaluator(mixed_precision=value), [*NAMES, "fp16"]),
    "channels_last": (lambda value: evaluator(channels_last=value), FLAGS),
    "derive_from": (lambda value: QuantNAS(derive_from=value), NAMES),
    "loss": (lambda value: evaluator(loss=value), ["l1", 3]),
    "on_epoch": (lambda value: evaluator(on_epoch=value), ["print", 3]),
    "checkpoint": (lambda value: evaluator(checkpoint=value), [3, True, ["search.ckpt"]]),
    "part of the search data": (lambda value: evaluator(value), [None, 3, Endless(), TensorDataset(torch.rand(0, 2))]),
    "weight of a penalty": (lambda value: Penalty(BitOps(), value), [*REAL, None]),
    "no cost to penalise": (lambda value: Penalty(value, 1.0), ["bitops", BitOps, None]),
    "the budget": (lambda value: Budget(BitOps(), value), [*POSITIVE, None]),
    "no cost to limit": (lambda value: Budget(value, 1.0), ["bitops", 3]),
    "input_shape": (lambda value: BitOps(value), [32, (32,), (1, 3, 0, 8), (1, 3, 8.0, 8), (1, True), "1388", None]),
    "epochs, ": (lambda value: entropy_weight(1.0, 0.0, value), [0, -1]),
    "length": (lambda value: EpochSampler(value, 4, 0), [0, -1, 1.5]),
    "number of samples": (lambda value: EpochSampler(4, value, 0), [0, -1, 1.5]),
    "number of batches": (lambda value: FixedBatches(DATA, 2, value, seed=0, epoch=0), [0, 1.5]),
    "scale": (lambda value: SRBasicSpace(scale=value), [2.0, True, "2", 5, NAN]),
    "width": (lambda value: SRRFDNSpace(width=value), [12.0, True, "12", 0, NAN]),
    "share_cells": (lambda value: SRBasicSpace(share_cells=value), FLAGS),
    "precision": (lambda value: SRBasicSpace(bits=value), [[4.0], [], 8, "48", [NAN], [None]]),
    "bits": (lambda value: SRBasicSpace(bits=value), [[True], [1], [(True, 4)]]),
    "block 'b'": (lambda value: ChoiceBlock(value, label="b"), [{}, None, {"a": nn.Identity()}, {"a": 3}, [nn.ReLU]]),
    "returns nothing": (lambda value: ChoiceBlock({"a": value}, label="b"), [lambda: None]),
    "shared input": (lambda value: SharedInput(value), [[], [None], [lambda x: x]]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_of_another_kind_is_refused_in_a_sentence_that_names_it(what: str) -> None:
    build, values = REFUSED[what]
    for value in values:
        with pytest.raises(InputError) as error:
            build(value)
        assert what.strip(", ") in str(error.value) and "\n" not in str(error.value), value


def test_numbers_of_numpy_are_taken_as_the_plain_numbers_that_they_hold(tmp_path: Path) -> None:
    strategy = QuantNAS(
        costs=[Penalty(BitOps((1, 3, np.int64(8), np.int32(8))), np.float32(0.5)), Budget(BitOps(), np.float64(1e9))],
        entropy=np.float32(0.25), warmup_epochs=np.int64(1), gradient_clip=np.float64(2), masked_noise=np.bool_(True),
        temperature=np.array([4.0, 0.5]), architecture_learning_rate=np.float32(0.5),
    )  # fmt: skip
    made = evaluator(
        epochs=np.int64(2), batch_size=np.uint8(2), seed=np.int64(3), weight_learning_rate=np.float32(0.5),
        channels_last=np.bool_(True), checkpoint=str(tmp_path / "a"),
    )  # fmt: skip
    space = SRBasicSpace(scale=np.int64(2), width=np.int32(6), cells=np.int64(1), bits=[np.int64(4), np.uint8(8)])
    found = [
        strategy.options.entropy, strategy.warmup_epochs, strategy.gradient_clip_val, strategy.quantization.masked,
        strategy.relaxation.temperature, strategy.costs[0].cost.input_shape, strategy.costs[0].weight,
        strategy.costs[1].maximum, made.options.epochs, made.options.batch_size, made.options.seed,
        made.options.weight_learning_rate, made.options.channels_last, made.checkpoint, space.scale, space.cells,
        Precision.parse([np.int64(4), np.int32(8)]),
    ]  # fmt: skip
    assert repr(found) == repr(
        [
            0.25,
            1,
            2.0,
            True,
            (4.0, 0.5),
            (1, 3, 8, 8),
            0.5,
            1e9,
            2,
            2,
            3,
            0.5,
            True,
            tmp_path / "a",
            2,
            1,
            Precision(4, 8),
        ]
    )


def test_empty_batches_are_refused_and_data_that_fill_no_batch_are_used() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    full, empty = (torch.rand(2, 3, 4, 4),) * 2, (torch.rand(0, 3, 4, 4),) * 2
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for batches in ([], [empty], [full, empty], [()]):
        for run in (calibrate, recalibrate_batch_norm, lambda *a: score(*a, {"loss": nn.functional.l1_loss})):
            if batches and batches[-1] == ():
                with pytest.raises(InputError, match="batch 0 is empty"):
                    run(network, batches)
            else:
                with pytest.raises(InputError, match="empty|no batch"):
                    run(network, batches)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    short = evaluator(batch_size=64)
    assert [len(inputs) for inputs, _ in short.training_batches()] == [4] and short.data.steps_per_epoch == 1
