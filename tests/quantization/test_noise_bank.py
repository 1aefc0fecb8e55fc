"""The noise bank: right in distribution, and a function of seed, process, step and phase alone."""

import pytest
import torch

from quantnas_ext.quantization.noise.additive import NOISE_VARIANCE
from quantnas_ext.quantization.noise.bank import CHUNK, PERIOD, REACH, NoiseBank

LIKE = torch.zeros(())


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_slices_have_the_distribution_that_they_should(distribution: str) -> None:
    bank = NoiseBank(distribution)
    bank.begin(3, 0, 0, 0)
    noise = bank.take(torch.empty(500_000))
    assert noise.mean().abs() < 4 * (NOISE_VARIANCE[distribution] / 500_000) ** 0.5
    assert noise.var().item() == pytest.approx(NOISE_VARIANCE[distribution], rel=0.01)
    assert (noise.abs().max() <= 0.5) == (distribution == "uniform")


def test_noise_is_a_function_of_seed_process_step_and_phase_whatever_came_before() -> None:
    def of(seed: int, process: int, step: int, phase: int, before: int = 0, grown: int = 0) -> torch.Tensor:
        bank = NoiseBank()
        for earlier in range(before):
            bank.begin(seed, process, earlier, 0)
            bank.take(torch.empty(10))
        bank.begin(seed, process, step, phase)
        if grown:
            bank._buffer(LIKE.device, REACH + grown)
        return bank.take(torch.empty(50, 60)).clone()

    reference = of(1, 0, 37, 0)
    assert torch.equal(of(1, 0, 37, 0, before=37), reference)
    assert torch.equal(of(1, 0, 37, 0, grown=3 * CHUNK), reference)
    for other in (of(2, 0, 37, 0), of(1, 1, 37, 0), of(1, 0, 38, 0), of(1, 0, 37, 1)):
        assert not torch.isclose(other, reference).float().mean() > 0.01


def test_a_sixteenth_of_the_buffer_is_renewed_in_a_step_and_all_of_it_in_sixteen() -> None:
    bank = NoiseBank()
    bank.begin(0, 0, 0, 0)
    bank.take(torch.empty(1))
    buffer = bank._buffer(LIKE.device, 1)
    chunks = len(buffer.split(CHUNK))
    first = buffer.clone()
    bank.begin(0, 0, 1, 0)
    changed = [not torch.equal(a, b) for a, b in zip(buffer.split(CHUNK), first.split(CHUNK), strict=True)]
    assert 0 < sum(changed) <= -(-chunks // PERIOD)
    for step in range(2, PERIOD + 1):
        bank.begin(0, 0, step, 0)
    assert not any(torch.equal(a, b) for a, b in zip(buffer.split(CHUNK), first.split(CHUNK), strict=True))


def test_slices_are_views_in_the_layout_asked_for() -> None:
    bank = NoiseBank()
    noise = bank.take(torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last))
    assert noise.shape == (2, 3, 4, 5) and noise.is_contiguous(memory_format=torch.channels_last)
    assert noise.untyped_storage().data_ptr() == bank._buffer(LIKE.device, 1).untyped_storage().data_ptr()
