"""What the progress bar of a search says beside how far it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_searches import COST, search

from quantnas_ext.costs.goals import Budget


def test_a_search_shows_epoch_loss_cost_against_budget_entropy_and_the_least_decided_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searcher, _, records = search(tmp_path, strategy={"costs": [Budget(COST, 5e6)]})
    bar = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    last, confidences = records[-1], searcher.distribution.confidences()
    least = min(confidences, key=lambda label: confidences[label])
    assert re.search(r"24/24 \[\d\d:\d\d<\d\d:\d\d, epoch 3, loss ", bar)
    assert f"loss {last.val_loss:.4f}" in bar and "of 5.00M" in bar
    assert f"entropy {last.entropy:.2f}, least decided {least} {confidences[least]:.2f}" in bar
