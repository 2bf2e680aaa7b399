"""Files are written whole or not at all, and are readable by whom other new files are."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from nfa.files import replaced_whole, write_whole


@pytest.fixture(params=[0o022, 0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_readers_of_a_file_do_not_hang_on_the_library_that_wrote_it(tmp_path, umask):
    write_whole(tmp_path / "a.csv", "layer\n")
    with replaced_whole(tmp_path / "a.safetensors") as partial:
        save_file({"M": torch.eye(2)}, partial)
    for name in ("a.csv", "a.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_what_was_not_written_leaves_the_file_before(tmp_path):
    path = tmp_path / "summary.json"
    write_whole(path, "before")

    def half():
        with replaced_whole(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with pytest.raises(FileNotFoundError), replaced_whole(path):
        pass  # nothing is written
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
