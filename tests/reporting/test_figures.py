import errno
import os
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from quantnas_ext.errors import InputError
from quantnas_ext.reporting.figures import save_figure


def test_a_picture_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "picture.png"
    save_figure(Figure(), path)
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG") and before.endswith(b"IEND\xaeB`\x82")
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()

    def breaks_off(self, name, **_):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", breaks_off)
    with pytest.raises(InputError, match="No space left on device.*make room"):
        save_figure(Figure(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["picture.png"]


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["picture.jpeg", "picture"])
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"\.png, \.pdf, \.svg"):
        save_figure(Figure(), tmp_path / name)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(Figure(), tmp_path / "file" / "picture.png")


def test_drawing_leaves_pyplot_alone():
    program = (
        "import sys, quantnas_ext.sr.evaluation.comparison, quantnas_ext.reporting.distributions;"
        "import quantnas_ext.reporting.drawing, quantnas_ext.reporting.progress, quantnas_ext.reporting.table;"
        "print([name for name in ('matplotlib.pyplot', 'nni', 'basicsr', 'pytorch_lightning') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
