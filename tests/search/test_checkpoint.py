"""What a resumed search takes for its checkpoint."""

from pathlib import Path

import pytest
import torch

from quantnas_ext.errors import InputError
from quantnas_ext.files.atomic import save_tensors
from quantnas_ext.search.loop.checkpoint import load_checkpoint


def test_only_a_whole_checkpoint_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "search.ckpt"
    save_tensors({"step": 3, "model": {"weight": torch.ones(2)}}, path, parents=True)
    assert load_checkpoint(path, required=("step", "model"))["step"] == 3
    with pytest.raises(InputError, match="lacks some of it"):
        load_checkpoint(path, required=("step", "optimizer"))
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(path)
