"""Which epoch a network is derived from, also after an interruption, and how it scores beside its supernet."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from small_searches import batch, prepared, tiny_data
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from quantnas_ext.errors import InputError
from quantnas_ext.quantization import set_quantization
from quantnas_ext.search.discretization_gap import derive_and_score
from quantnas_ext.search.experiment import run_experiment
from quantnas_ext.search.loop.best_epoch import BestEpoch
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.loop.evaluator import AccelerateEvaluator
from quantnas_ext.search.loop.sampling import FixedBatches
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace
from quantnas_ext.sr.evaluation.metrics import psnr_rgb


class Stop(Exception):
    pass


def derived(
    folder: Path, *, checkpoint: Path | None = None, stop_after: int | None = None, derive_from: Any = "best"
) -> tuple[QuantNAS, dict[str, Any], list[EpochRecord]]:
    """A search whose learning rates are high enough for its loss to go up and down."""
    records: list[EpochRecord] = []

    def on_epoch(record: EpochRecord) -> None:
        records.append(record)
        if record.epoch == stop_after:
            raise Stop

    space, strategy = prepared(
        relaxation="gumbel", warmup_epochs=1, architecture_learning_rate=0.3, derive_from=derive_from
    )
    evaluator = AccelerateEvaluator(
        TensorDataset(*batch(0)), TensorDataset(*batch(1)), epochs=8, batch_size=2, weight_learning_rate=0.2,
        checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip
    return strategy, run_experiment(space, evaluator, strategy, folder / "nni"), records


def test_the_network_is_derived_from_the_epoch_of_lowest_loss_also_after_a_kill(tmp_path: Path) -> None:
    strategy, sample, records = derived(tmp_path)
    losses = [record.settled_loss for record in records]
    assert losses[:2] == [None, None] and all(loss is not None for loss in losses[2:])
    best = min(records[2:], key=lambda record: record.settled_loss or 0.0)
    assert 2 < best.epoch < 8  # else this test shows nothing
    assert strategy.distribution.probabilities() == best.probabilities != records[-1].probabilities
    assert sample == strategy.distribution.most_likely()

    # Measuring leaves no trace in the search; the last epoch's weights are others.
    plain, _, last = derived(tmp_path, derive_from="last")
    assert [replace(record, settled_loss=None) for record in records] == last
    assert plain.distribution.probabilities() == last[-1].probabilities
    assert not torch.equal(plain.supernet.fixed.weight, strategy.supernet.fixed.weight)

    checkpoint = tmp_path / "search.ckpt"
    with pytest.raises(Stop):  # the best epoch is behind then, and only the checkpoint knows of it
        derived(tmp_path, checkpoint=checkpoint, stop_after=best.epoch + 1)
    resumed, again, continued = derived(tmp_path, checkpoint=checkpoint)
    finished, thrice, _ = derived(tmp_path, checkpoint=checkpoint)  # nothing is left to do
    assert again == thrice == sample and continued == records
    for other in (resumed, finished):
        for ours, theirs in ((strategy.supernet, other.supernet), (strategy.distribution, other.distribution)):
            state = theirs.state_dict()
            assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    with pytest.raises(InputError, match="other settings"):
        derived(tmp_path, checkpoint=checkpoint, derive_from="last")
    with pytest.raises(InputError, match="derive_from: 'first'"):
        derived(tmp_path, derive_from="first")


def searched(folder: Path) -> QuantNAS:
    """A short search in a space with batch norm."""
    torch.manual_seed(0)
    strategy = QuantNAS(relaxation="gumbel", architecture_learning_rate=0.1)
    evaluator = AccelerateEvaluator(tiny_data(), tiny_data(), epochs=1, steps_per_epoch=3, batch_size=4)
    operations = {"head": ["conv_3x3"], "body": ["conv_3x3", "fac_3x3"], "upsample": ["conv_3x3"], "tail": ["conv_1x1"]}
    run_experiment(SRBasicSpace(scale=2, width=6, cells=1, bits=[2, 4], **operations), evaluator, strategy, folder)
    return strategy


def test_the_loss_of_an_epoch_is_that_of_the_distribution_itself_and_changes_nothing(tmp_path: Path) -> None:
    strategy = searched(tmp_path)
    supernet, distribution = strategy.supernet, strategy.distribution
    accelerator = Accelerator()
    batches = FixedBatches(tiny_data(), 3, 2, seed=0, epoch=4)
    before = copy.deepcopy(supernet.state_dict())
    distribution.draw()
    torch.manual_seed(1)
    found = BestEpoch(supernet, strategy.context, accelerator).measure(batches, F.l1_loss, 3, 7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    supernet.train()
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    distribution.settle()
    torch.manual_seed(1)
    with torch.no_grad():
        expected = 0.0
        for step, (x, y) in enumerate(batches, start=7):
            strategy.context.bank.begin(3, 0, step, 0)
            expected += F.l1_loss(supernet(x), y).item() / 2
    assert found == pytest.approx(expected, rel=1e-6)
    supernet.eval()
    with torch.no_grad():
        assert sum(F.l1_loss(supernet(x), y).item() for x, y in batches) / 2 != pytest.approx(found, rel=1e-5)


def test_fixed_batches_are_the_same_every_time_and_hold_no_sample_twice() -> None:
    batches = FixedBatches(tiny_data(), 5, 9, seed=0, epoch=4)
    first, second = (torch.cat([x for x, _ in batches]) for _ in range(2))
    assert torch.equal(first, second) and len(batches) == 4
    assert len(first) == 16 == len({x.sum().item() for x in first})
    assert len(list(FixedBatches(tiny_data(), 5, 2, seed=0, epoch=4))) == 2
    other = torch.cat([x for x, _ in FixedBatches(tiny_data(), 5, 9, seed=0, epoch=5)])
    assert not torch.equal(first, other)


def test_the_gap_is_what_an_evaluation_of_each_network_gives(tmp_path: Path) -> None:
    strategy = searched(tmp_path)
    calibration, validation = ([(x[None].repeat(2, 1, 1, 1), y[None].repeat(2, 1, 1, 1)) for x, y in part]
                               for part in (list(tiny_data())[:4], list(tiny_data())[4:9]))  # fmt: skip
    network, scores = derive_and_score(strategy, calibration, validation, {"loss": F.l1_loss, "psnr": psnr_rgb})
    assert list(scores) == ["supernet", "full_precision", "derived"]

    def by_hand(model: nn.Module) -> dict[str, Any]:
        model.eval()
        with torch.no_grad():
            pairs = [(model(x), y) for x, y in validation]
        crops = [(a, b) for outputs, targets in pairs for a, b in zip(outputs, targets, strict=True)]
        psnr = [10 * torch.log10(1 / F.mse_loss(a.clamp(0, 1), b)).item() for a, b in crops]
        loss = sum(F.l1_loss(outputs, targets).item() for outputs, targets in pairs) / len(pairs)
        return {"loss": pytest.approx(loss, rel=1e-4), "psnr": pytest.approx(sum(psnr) / len(psnr), rel=1e-4)}

    strategy.distribution.settle()
    assert scores["supernet"] == by_hand(strategy.supernet)
    assert scores["derived"] == by_hand(network)
    bare = strategy.derive()
    set_quantization(bare, False)
    assert scores["full_precision"] == by_hand(bare)
    # The supernet itself gives the same when all probability is on what was found.
    sample = strategy.most_likely()
    for choice in strategy.distribution.tree:
        if choice.label in sample:
            chosen = torch.arange(len(choice.values)) == choice.values.index(sample[choice.label])
            strategy.distribution.logits[choice.label].data = torch.where(chosen, 1e4, -1e4)
    strategy.distribution.settle()
    assert scores["full_precision"] == by_hand(strategy.supernet)
    assert len({str(row) for row in scores.values()}) == 3


def test_measuring_an_epoch_starts_no_activation_step_that_the_search_has_not_started() -> None:
    space, strategy = prepared(relaxation="one_path", quantization="direct")
    strategy.mutate_model(space)
    before = copy.deepcopy(space.state_dict())
    batches = FixedBatches(TensorDataset(*batch(0)), 2, 2, seed=0, epoch=4)
    BestEpoch(space, strategy.context, Accelerator()).measure(batches, F.l1_loss, 3, 7)
    assert sum("started" in name for name in before) > 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
