"""LPIPS, the learned perceptual distance (Zhang et al. 2018), where the weights of its backbone can be had."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from quantnas_ext.files.atomic import atomic_file
from quantnas_ext.sr.data.images import image_to_tensor


class Lpips:
    """LPIPS with AlexNet on 8-bit images; 0 for equal images, larger is worse.

    Attributes:
        SMALLEST: pixels that each side of an image needs to reach AlexNet's last layers.
    """

    SMALLEST = 31

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(self, image: np.ndarray, reference: np.ndarray) -> float:
        """Distance of two images ``uint8 [h, w, 3]``; whole images, borders included, as is usual for LPIPS."""
        return float(self._network(image_to_tensor(image), image_to_tensor(reference), normalize=True))


def backbone_file() -> Path:
    """Where torchvision looks for AlexNet's ImageNet weights: the checkpoints folder of torch hub."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_backbone_address()).name


def load_lpips(seconds: float = 60.0) -> Lpips | None:
    """LPIPS, or None with one message on standard error that says what is missing and where to put it.

    The linear layers ship with the ``lpips`` package. The backbone's weights (233 MB) are taken from ``backbone_file``;
    if they are not there they are downloaded, visibly and for some ``seconds`` at most.
    """
    file = backbone_file()
    try:
        if not file.exists():
            _download(_backbone_address(), file, seconds)
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            # The package still asks torchvision for weights in the old way.
            warnings.simplefilter("ignore")
            import lpips

            return Lpips(lpips.LPIPS(net="alex", verbose=False))
    # A damaged or foreign file ends in errors of many kinds; every figure but LPIPS can still be had.
    except Exception as error:
        print(
            f"LPIPS is left out: the weights of its backbone cannot be had ({error}); put {_backbone_address()} at "
            f"{file} and run again",
            file=sys.stderr,
        )
        return None


def _backbone_address() -> str:
    """Where torchvision has AlexNet's weights from."""
    from torchvision.models import AlexNet_Weights

    return str(AlexNet_Weights.IMAGENET1K_V1.url)


def _download(address: str, file: Path, seconds: float) -> None:
    """Fetch a file that carries the start of its SHA-256 in its name; it appears complete and checked or not at all."""
    print(f"LPIPS: fetching {address} (at most {seconds:.0f} s)", file=sys.stderr)
    end = time.monotonic() + seconds
    digest = hashlib.sha256()
    with atomic_file(file, parents=True) as temporary:
        with temporary.open("wb") as target:
            for block in _blocks(address):
                target.write(block)
                digest.update(block)
                if time.monotonic() > end:
                    raise RuntimeError(f"the download took more than {seconds:.0f} s")
        expected = re.search(r"-([0-9a-f]{8,})\.", file.name)
        if expected is None or not digest.hexdigest().startswith(expected[1]):
            raise RuntimeError("what was downloaded is damaged")


def _blocks(address: str) -> Iterator[bytes]:
    """What is found at an address, piece by piece; what the network does wrong is told from what a disk does."""
    try:
        with urllib.request.urlopen(address, timeout=5) as source:
            while block := source.read(1 << 18):
                yield block
    except OSError as error:
        raise RuntimeError(str(error)) from error
