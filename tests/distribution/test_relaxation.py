"""Relaxations of the architecture distribution, and its regularizers."""

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from small_searches import search, tiny_space

from quantnas_ext.costs.cost import BitOps, ExpectedCost
from quantnas_ext.distribution.architecture_distribution import ArchitectureDistribution
from quantnas_ext.distribution.choices import ChoiceTree
from quantnas_ext.distribution.relaxation import (
    RELAXATIONS,
    Logits,
    Relaxation,
    Relaxed,
    draw_generator,
    places,
    register_relaxation,
)
from quantnas_ext.errors import InputError
from quantnas_ext.runs.config import SearchConfig, load_config
from quantnas_ext.search.loop.epoch_record import EpochRecord
from quantnas_ext.search.objective import SearchObjective
from quantnas_ext.search.strategy import QuantNAS
from quantnas_ext.spaces import SRBasicSpace


def distribution(name: Any, temperature: tuple[float, float] = (10.0, 0.1)) -> ArchitectureDistribution:
    space = SRBasicSpace(scale=2, width=6, cells=1, body=["conv_1x1", "conv_3x3", "conv_5x5", "fac_3x3", "fac_5x5"])
    torch.manual_seed(0)
    found = ArchitectureDistribution(ChoiceTree.of(space), Relaxation(name, temperature))
    for logits in found.parameters():
        logits.data.normal_()
    return found


def test_a_gumbel_draw_at_temperature_a_tenth_is_nearly_one_hot_and_at_ten_nearly_flat() -> None:
    made = distribution("gumbel")
    peaks = {p: torch.stack([made.draw(p)["body_0"].max() for _ in range(400)]) for p in (0.0, 1.0)}
    assert float((peaks[1.0] > 0.95).float().mean()) > 0.8
    assert float(peaks[0.0].mean()) < 0.35
    assert made.relaxation.temperature_at(0.5) == pytest.approx(5.05)


@pytest.mark.parametrize("name", ["gumbel", "gumbel_hard", "gumbel_hard_sampled", "one_path"])
def test_arg_max_of_gumbel_draws_has_the_distribution_itself(name: str) -> None:
    made = distribution(name)
    counts = torch.zeros(5)
    draws = 6000
    with torch.no_grad():
        for _ in range(draws):
            counts[made.draw(0.5)["body_0"].argmax()] += 1
    p = made.logits["body_0"].detach().softmax(0)
    assert ((counts / draws - p).abs() < 4.5 * (p * (1 - p) / draws).sqrt()).all()


def test_hard_draws_are_exactly_one_hot_with_the_gradient_of_the_soft_draw() -> None:
    hard, soft = distribution("gumbel_hard"), distribution("gumbel")
    weight = torch.randn(5)
    gradients = []
    for made in (hard, soft):
        draw = made.draw(0.5, draw_generator(0, 3, 1))
        for label, row in draw.by_label.items():
            assert float(row.detach().sum()) == pytest.approx(1), label
        (gradient,) = torch.autograd.grad(draw["body_0"] @ weight, [made.logits["body_0"]], retain_graph=True)
        gradients.append(gradient)
        (entropy,) = torch.autograd.grad(made.entropy(draw), [made.logits["body_0"]])
        gradients.append(entropy)
        assert torch.isfinite(made.entropy(draw))
        if made is hard:
            assert all(sorted(row.tolist()) == [0.0] * (len(row) - 1) + [1.0] for row in draw.by_label.values())
    assert torch.equal(gradients[0], gradients[2]) and torch.equal(gradients[1], gradients[3])
    assert gradients[0].abs().min() > 0


def test_one_path_has_on_average_the_gradient_of_the_mixture_for_a_linear_loss() -> None:
    made, values, draws = distribution("one_path"), torch.randn(5), 8000
    logits = made.logits["body_0"]
    gradients = []
    for _ in range(draws):
        draw = made.draw()
        (place,) = draw.active("body_0")
        assert draw["body_0"].detach().tolist() == [float(index == place) for index in range(5)]
        gradients.append(torch.autograd.grad(draw["body_0"] @ values, [logits])[0])
    found = torch.stack(gradients)
    (exact,) = torch.autograd.grad(logits.softmax(0) @ values, [logits])
    assert ((found.mean(0) - exact).abs() < 4.5 * found.std(0) / draws**0.5).all()


def test_two_paths_are_a_sample_without_replacement_whose_probabilities_are_renormalised() -> None:
    made, draws = distribution("two_paths"), 8000
    p = made.logits["body_0"].detach().softmax(0)
    counts = torch.zeros(5, 5)
    with torch.no_grad():
        for _ in range(draws):
            draw = made.draw()
            first, second = draw.active("body_0")
            expected = torch.zeros(5)
            expected[[first, second]] = p[[first, second]] / (p[first] + p[second])
            torch.testing.assert_close(draw["body_0"], expected)
            counts[first, second] += 1
    pairs = p[:, None] * p[None, :] / (1 - p[:, None])
    pairs = torch.triu(pairs + pairs.T, diagonal=1)
    assert ((counts / draws - pairs).abs() <= 4.5 * (pairs * (1 - pairs) / draws).sqrt()).all()


@pytest.mark.parametrize("name", ["one_path", "two_paths"])
def test_with_paths_cost_and_entropy_are_those_of_the_distribution(name: str) -> None:
    made = distribution(name)
    space = SRBasicSpace(scale=2, width=6, cells=1, body=["conv_1x1", "conv_3x3", "conv_5x5", "fac_3x3", "fac_5x5"])
    cost = ExpectedCost(BitOps((1, 3, 8, 8)), space, made)
    draw, exact = made.draw(), made.softmax()
    torch.testing.assert_close(cost(draw), cost(exact))
    torch.testing.assert_close(made.entropy(draw), made.entropy(exact))


def test_dropping_keeps_at_least_one_candidate_renormalises_and_favours_none() -> None:
    made = distribution("dropout")
    made.logits["body_0"].data.zero_()
    with torch.no_grad():
        draws = [made.draw() for _ in range(4000)]
    rows = torch.stack([draw["body_0"] for draw in draws])
    kept = rows > 0
    assert kept.any(dim=1).all() and torch.allclose(rows.sum(dim=1), torch.ones(len(rows)))
    # Kept with probability 2 / 5, or as the one that is left where all five would be dropped.
    assert torch.allclose(kept.float().mean(dim=0), torch.tensor(0.4 + 0.6**5 / 5), atol=0.035)
    assert torch.allclose(rows.mean(dim=0), torch.full((5,), 0.2), atol=0.025)
    assert all((draw["body_0__fac_3x3__bits"] > 0).all() for draw in draws[:50])  # two precisions are both kept
    made.logits["body_0"].data = torch.arange(5.0)
    row = made.draw()["body_0"].detach()
    assert torch.allclose(row[row > 0], made.logits["body_0"].detach()[row > 0].softmax(0))


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_entropy_and_its_gradient_are_finite_for_every_relaxation(name: str, progress: float) -> None:
    made = distribution(name)
    for logits in made.parameters():
        logits.data *= 30
    made.entropy(made.draw(progress)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in made.parameters())


def test_a_draw_is_a_function_of_seed_step_and_phase() -> None:
    made = distribution("gumbel")
    keys = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]
    first, again = ([made.draw(0.3, draw_generator(*key)).probabilities for key in keys] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not torch.equal(first[0], other) for other in first[1:])


@pytest.mark.parametrize("name", ["gumbel_hard", "dropout", "one_path"])
def test_a_search_by_any_relaxation_that_was_stopped_goes_on_exactly(tmp_path: Path, name: str) -> None:
    class Stop(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        if record.epoch == 1:
            raise Stop

    options = {"relaxation": name}
    checkpoint = tmp_path / "search.ckpt"
    _, sample, records = search(tmp_path, strategy=options, epochs=2)
    with pytest.raises(Stop):
        search(tmp_path, strategy=options, epochs=2, checkpoint=checkpoint, on_epoch=stop)
    _, again, continued = search(tmp_path, strategy=options, epochs=2, checkpoint=checkpoint)
    assert again == sample and continued == records
    if name != "dropout":  # the space has two candidates a choice, and both are kept
        _, _, plain = search(tmp_path, epochs=2)
        assert plain[-1].probabilities != records[-1].probabilities


def test_regularizers_equal_their_closed_forms_and_gradients() -> None:
    for name in ("entropy", "l1", "exp", "none"):
        made = distribution("softmax")
        objective = SearchObjective([], 0.5, tiny_space(), made, name)
        draw = made.draw()
        loss, _ = objective(torch.tensor(2.0), draw, t=4, epochs=5)
        logits = torch.cat([p.detach() for p in made.parameters()])
        expected = {
            "entropy": float(made.entropy(draw).detach()),
            "l1": float(logits.abs().sum()),
            "exp": float(logits.exp().sum()),
            "none": 0.0,
        }[name]
        assert loss.item() == pytest.approx(2.0 + 0.5 * expected)
        if name in ("l1", "exp"):
            gradient = torch.cat(torch.autograd.grad(loss, list(made.parameters())))
            torch.testing.assert_close(gradient, 0.5 * (logits.sign() if name == "l1" else logits.exp()))


def test_a_relaxation_of_one_s_own_is_one_function(tmp_path: Path) -> None:
    assert set(get_args(get_type_hints(SearchConfig)["relaxation"])) == set(RELAXATIONS)
    with pytest.raises(InputError, match="unknown value of 'search.relaxation': 'best_only'"):
        load_config(None, ["search.relaxation=best_only"])
    seen = []

    @register_relaxation("best_only", random=False, samples=True)
    def best_only(given: Logits) -> Relaxed:
        """The most probable candidate of each choice, with the gradient of its logarithm."""
        seen.append(given.temperature)
        logs, soft = given.softmax()
        best = torch.zeros_like(given.present).scatter(1, soft.argmax(dim=1, keepdim=True), True)
        return Relaxed(torch.where(best, (logs - logs.detach()).exp(), 0.0), soft, logs, places(best))

    try:
        with pytest.raises(InputError, match="relaxation 'best_only' exists already"):
            register_relaxation("best_only")
        config = load_config(None, ["search.relaxation=best_only", "search.temperature=[4, 1]"])
        options = {"relaxation": config.search.relaxation, "temperature": config.search.temperature}
        strategy, sample, records = search(tmp_path, strategy=options, epochs=2)
        assert seen[0] == 4 and 1 <= min(seen) < 2 and not strategy.relaxation.random
        draw = strategy.distribution.draw()
        assert draw.active("body_0") == (int(draw["body_0"].argmax()),)
        assert records[-1].probabilities["head_0"] != records[0].probabilities["head_0"]
    finally:
        del RELAXATIONS["best_only"]


def test_unknown_names_and_temperatures_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'gumbel'"):
        QuantNAS(relaxation="gumble")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'entropy'"):
        QuantNAS(regularizer="entrpy")  # type: ignore[arg-type]
    for temperature in ((0.0, 1.0), (1.0, float("nan")), (1.0,)):
        with pytest.raises(InputError, match="temperature"):
            QuantNAS(temperature=temperature)  # type: ignore[arg-type]
