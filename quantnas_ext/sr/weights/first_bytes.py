"""How a file of weights begins; read without torch, so that a recipe can refuse a missing one at once."""

from __future__ import annotations

from pathlib import Path

from quantnas_ext.errors import InputError
from quantnas_ext.files.paths import seen_from


def first_bytes(path: str | Path) -> bytes:
    """The first four bytes of a file of weights, which tell of what kind it is.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    path = Path(path)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"weights '{path}' cannot be read ({reason}); name another file") from error
    raise InputError(
        f"weights '{path}' do not exist{seen_from(path)}; name a .safetensors or net_g_*.pth file of the network"
    )
