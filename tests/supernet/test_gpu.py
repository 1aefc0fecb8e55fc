"""What only a GPU can show of a search step."""

from typing import Any

import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.nn.pytorch import MutableConv2d
from nni.nas.space import RawFormatModelSpace
from test_merged_blocks import CHAINS, SINGLES, TwoBlocks, outcome, supernet

from quantnas_ext.nn import MutableQuantConv2d

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("mode", ["none", "direct"])
def test_merged_and_separate_candidates_agree_on_a_gpu(mode: str) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES + CHAINS, [4, 8])
    strategy = supernet(space, quantization=mode)
    space.cuda().double()
    strategy.distribution.cuda().double()
    x = torch.randn(2, 6, 9, 10, dtype=torch.float64, device="cuda")
    outcome(space, strategy, x, "separate")
    separate, merged = outcome(space, strategy, x, "separate"), outcome(space, strategy, x, "exact")
    for one, other in zip(merged, separate, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max() + 1e-14


@pytest.mark.parametrize("options", [{}, {"evaluation": "fast"}, {"quantization": "direct"}], ids=str)
def test_a_step_on_a_gpu_waits_for_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES + CHAINS, [4, 8]).cuda()
    strategy = supernet(space, **options)
    strategy.distribution.cuda()
    x = torch.randn(2, 6, 8, 8, device="cuda")
    strategy.context.bank.begin(0, 0, 0, 0)
    strategy.distribution.draw()
    space(x).square().mean().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        strategy.context.bank.begin(0, 0, 1, 0)
        strategy.distribution.draw()
        space(x).square().mean().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_network_is_derived_where_its_supernet_is() -> None:
    torch.manual_seed(0)
    space = TwoBlocks(SINGLES, [4, 8])
    space.foreign = MutableConv2d(3, 3, 1)
    space.fixed = MutableQuantConv2d(3, 3, 1, bits=8)
    strategy = supernet(space, quantization="direct")
    space.cuda()
    strategy.distribution.cuda()
    space(torch.randn(2, 6, 8, 8, device="cuda"))
    strategy._mutated_model_space = RawFormatModelSpace(space, FunctionalEvaluator(print))
    network = strategy.derive()
    assert all(tensor.is_cuda for tensor in network.state_dict().values())
    network(torch.randn(2, 6, 8, 8, device="cuda"))
