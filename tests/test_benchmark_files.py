"""Benchmarks on disk: the same files from the same seed, the label table, interrupted writing."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from norface_lib import labels
from norface_lib.common.errors import DataError
from norface_lib.faces import writing
from norface_lib.faces.benchmark import VERSION, BenchmarkSpec, frames_of
from norface_lib.faces.sampling import RENDERED_AUS
from norface_lib.faces.writing import render_subject, write_benchmark


def read(path):
    """An image (S, S, 3) as signed RGB, or a failure."""
    image = cv2.imread(str(path))
    assert image is not None, path
    return image[..., ::-1].astype(int)


def files_of(root):
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def rendered(tmp_path):
    """Renders one subject in this process and returns its files: ``rendered(spec, number)``."""

    def render(spec, number):
        root = tmp_path / f"{spec.pool}-{spec.seed}-{number}"
        name = render_subject(spec, number, str(root))
        return {
            path.removeprefix("parts/").replace(name, ""): data
            for path, data in files_of(root).items()
        }

    return render


# --- the same seed --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_files_in_another_process(tiny_spec, tiny_benchmark, rendered):
    files = rendered(tiny_spec, 0)
    assert sum(path.startswith("images/") for path in files) == tiny_spec.frames
    for path, data in files.items():
        if not path.endswith(".csv"):
            assert data == (tiny_benchmark / path.replace("//", "/lab0000/")).read_bytes(), path


@pytest.mark.parametrize("other", [{"seed": 1}, {"pool": "pretrain"}, {"pool": "wild"}], ids=str)
def test_another_seed_or_pool_gives_other_faces_and_expressions(tiny_spec, rendered, other):
    spec = replace(tiny_spec, frames=1)
    ours, theirs = rendered(spec, 0), rendered(replace(spec, **other), 0)
    assert ours.keys() == theirs.keys()
    assert all(data != theirs[path] for path, data in ours.items())


def test_the_same_expression_has_the_same_truth_whoever_shows_it(tiny_spec, monkeypatch, rendered):
    frames = frames_of
    monkeypatch.setattr(writing, "frames_of", lambda spec, number: frames(spec, 0))
    one, other = rendered(tiny_spec, 1), rendered(tiny_spec, 2)
    for path in one:
        if not path.endswith(".csv"):
            assert (one[path] == other[path]) == path.startswith("truth/"), path


# --- what is written ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tiny_benchmark):
    return pd.read_csv(tiny_benchmark / "labels.csv")


def test_the_table_has_a_row_per_frame_and_all_its_columns(table, tiny_spec):
    columns = ["subject", "sequence", "frame", "domain", "emotion", "image", "truth"]
    for au in RENDERED_AUS:
        name = labels.au_column(au)
        columns += [name, f"{name}L", f"{name}R"] if labels.AUS[au].sided else [name]
    columns += ["yaw", "pitch", "gaze_yaw", "gaze_pitch", "light_x", "light_y", "light_z"]
    assert list(table.columns) == columns
    assert list(zip(table["subject"], table["frame"], strict=True)) == [
        (f"lab{subject:04d}", frame)
        for subject in range(tiny_spec.subjects)
        for frame in range(tiny_spec.frames)
    ]
    assert not table.drop(columns="emotion").isna().any(axis=None)
    assert set(table["domain"]) == {"lab"}


def test_the_table_s_values_are_in_range(table):
    for au in RENDERED_AUS:
        name = labels.au_column(au)
        value = table[name]
        assert ((value == 0) | value.between(0.9999, 5)).all(), name
        if labels.AUS[au].sided:
            assert (value == table[[f"{name}L", f"{name}R"]].max(axis=1)).all(), name
    assert table["yaw"].abs().max() <= 0.8
    assert table["pitch"].abs().max() <= 0.4
    np.testing.assert_allclose(
        np.linalg.norm(table[["light_x", "light_y", "light_z"]], axis=1), 1, atol=1e-4
    )


def test_every_row_has_its_images_and_there_is_nothing_else(table, tiny_benchmark, tiny_spec):
    for path in (*table["image"], *table["truth"], "target.png"):
        image = read(tiny_benchmark / path)
        assert image.shape == (112, 112, 3)
        assert image.std() > 10
    assert files_of(tiny_benchmark).keys() == {
        *table["image"],
        *table["truth"],
        "target.png",
        "labels.csv",
        "benchmark.json",
        ".norface.lock",
        ".norface.lock.pid",
    }
    assert BenchmarkSpec(**json.loads((tiny_benchmark / "benchmark.json").read_text())) == tiny_spec


def test_each_truth_shows_the_expression_of_its_row(table, tiny_benchmark, studio):
    def side(row, letter):
        sides = {au: letter if labels.AUS[au].sided else "" for au in RENDERED_AUS}
        return {au: row[labels.au_column(au) + ending] for au, ending in sides.items()}

    truths = np.stack([read(tiny_benchmark / path) for path in table["truth"]])
    for number, row in table.iterrows():
        normalized = studio.normalized(side(row, "L"), side(row, "R"))
        distances = np.abs(truths - normalized).mean((1, 2, 3))
        assert distances.argmin() == number
        assert distances[number] < 0.05  # the table's six digits
    np.testing.assert_array_equal(read(tiny_benchmark / "target.png"), studio.neutral())


def test_a_finished_folder_is_used_as_it_is_and_says_so(
    tiny_spec, tiny_benchmark, monkeypatch, capsys
):
    monkeypatch.setattr(writing, "_render_all", lambda *_: pytest.fail("rendered again"))
    before = files_of(tiny_benchmark)
    assert write_benchmark(tiny_spec, tiny_benchmark) == tiny_benchmark
    assert "4 subjects x 3 frames are there already" in capsys.readouterr().out
    assert files_of(tiny_benchmark) == before


def test_a_subject_with_a_truncated_or_missing_image_is_rendered_again(
    tiny_spec, tiny_benchmark, tmp_path, monkeypatch, capsys
):
    root = shutil.copytree(tiny_benchmark, tmp_path / "copy")
    whole = files_of(root)
    image = root / "images" / "lab0001" / "0002.jpg"
    image.write_bytes(image.read_bytes()[:-100])
    (root / "truth" / "lab0003" / "0000.png").unlink()
    monkeypatch.setattr(writing, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    write_benchmark(tiny_spec, root, progress=False)
    assert "2 of 4 subjects have missing or truncated images" in capsys.readouterr().out
    assert files_of(root) == whole


@pytest.mark.parametrize(
    "other",
    [{"pool": "evaluator"}, {"subjects": 5}, {"frames": 2}, {"size": 64}, {"seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_a_folder_with_another_specification_is_an_error_with_its_path(
    tiny_spec, tiny_benchmark, other
):
    before = files_of(tiny_benchmark)
    with pytest.raises(DataError, match="holds another benchmark") as error:
        write_benchmark(replace(tiny_spec, **other), tiny_benchmark)
    assert str(tiny_benchmark / "benchmark.json") in str(error.value)
    assert next(iter(other)) in str(error.value)
    assert files_of(tiny_benchmark) == before


def test_another_version_of_the_benchmark_is_an_error_too(tiny_spec, tiny_benchmark, tmp_path):
    root = shutil.copytree(tiny_benchmark, tmp_path / "old")
    text = (root / "benchmark.json").read_text()
    (root / "benchmark.json").write_text(text.replace(f'"version": {VERSION}', '"version": 1'))
    with pytest.raises(DataError, match="version"):
        write_benchmark(tiny_spec, root)


@pytest.mark.parametrize("lost", [[], ["lab0000"]], ids=["as left", "with one part lost"])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(
    tiny_spec, tiny_benchmark, tmp_path, monkeypatch, lost
):
    """The interrupt comes in the middle of the third subject; both runs render in this process."""
    root = tmp_path / "benchmark"
    written = []
    rendered = []
    write_image = writing._write_image

    def interrupted(path, image):
        # the target face, two subjects, half of the third
        if len(written) == 1 + 2 * 2 * tiny_spec.frames + 3:
            raise KeyboardInterrupt
        written.append(path)
        write_image(path, image)

    def noted(spec, number, folder):
        rendered.append(number)
        return render_subject(spec, number, folder)

    monkeypatch.setattr(writing, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(writing, "_write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_benchmark(tiny_spec, root, progress=False)
    assert not (root / "labels.csv").exists()
    assert sorted(path.stem for path in (root / "parts").glob("*.csv")) == ["lab0000", "lab0001"]
    for folder in ("images", "truth"):
        # whole subjects only
        assert sorted(path.name for path in (root / folder).iterdir()) == ["lab0000", "lab0001"]

    for name in lost:
        (root / "parts" / f"{name}.csv").unlink()
        shutil.rmtree(root / "images" / name)
    monkeypatch.setattr(writing, "_write_image", write_image)
    monkeypatch.setattr(writing, "render_subject", noted)
    write_benchmark(tiny_spec, root, progress=False)
    assert rendered == [*range(len(lost)), 2, 3]
    assert files_of(root) == files_of(tiny_benchmark)


def test_progress_counts_subjects(tiny_spec, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writing, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    write_benchmark(replace(tiny_spec, subjects=1, frames=1), tmp_path, progress=True)
    assert "render lab: 100%" in capsys.readouterr().err
