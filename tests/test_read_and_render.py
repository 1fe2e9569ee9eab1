"""Read and render: the AUs that a token reader reads, on the target's head, and nothing else of the
original."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from norface_lib import normalize, predict
from norface_lib.common.errors import CheckpointError, DataError
from norface_lib.datasets.normalized import MANIFEST
from norface_lib.datasets.rendered import Rendered
from norface_lib.faces.studio import Studio
from norface_lib.images.files import decode
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.token_reader import TokenReader, TokenReaderConfig
from norface_lib.networks.weights import save_token_reader
from norface_lib.photos.read_and_render import (
    ReadAndRender,
    open_rendering,
    quieted,
)

ENCODER = EncoderConfig(dim=32, depth=1, heads=2, stem=(16, 16))


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Untrained weights of a token reader."""
    torch.manual_seed(0)
    model = TokenReader(TokenReaderConfig(encoder=ENCODER))
    path = tmp_path_factory.mktemp("reader") / "reader.safetensors"
    return str(save_token_reader(model, path, {"data": "none"}))


@pytest.fixture(scope="module")
def drawing(reader):
    return ReadAndRender(reader, target="ada", size=96, device="cpu")


@pytest.fixture
def faces(tiny_benchmark, tmp_path):
    """Three aligned faces in a folder."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for number, path in enumerate(sorted((tiny_benchmark / "images").rglob("*.*"))[:3]):
        shutil.copy(path, folder / f"{number}{path.suffix}")
    return folder


def pictures(folder):
    """Pictures of a folder by their names."""
    paths = sorted(folder.rglob("*.png"))
    return {path.name: decode(path.read_bytes(), str(path)) for path in paths}


# --- the drawing ----------------------------------------------------------------------------------


def test_the_picture_is_the_targets_head_with_what_was_read(drawing, tiny_benchmark):
    originals = Rendered(tiny_benchmark).originals[:3]
    drawn = drawing.draw(originals)
    assert drawn.shape == (3, 96, 96, 3) and drawn.dtype == np.uint8
    assert len({image.tobytes() for image in drawn}) == 3
    studio = Studio(96, "ada")
    for image, sides in zip(drawn, drawing.read(originals), strict=True):
        np.testing.assert_array_equal(image, studio.normalized(*drawing.expression(sides)))


def test_sides_are_the_subjects(drawing):
    sides = np.zeros((len(drawing.aus), 2))
    sides[drawing.aus.index(12)] = (4.0, 0.0)
    np.testing.assert_array_equal(drawing.render(sides), Studio(96, "ada").normalized({12: 4}, {}))
    assert drawing.render(sides, 224).shape == (224, 224, 3)


def test_traces_below_the_dead_zone_leave_the_face_neutral(drawing):
    faint = np.full((len(drawing.aus), 2), 0.5)
    np.testing.assert_array_equal(drawing.render(faint), Studio(96, "ada").neutral())
    assert (drawing.render(2 * faint) != drawing.render(faint)).any()


def test_intensities_rise_without_a_step_and_what_is_present_stays():
    values = np.linspace(0, 5, 501)
    drawn = quieted(values, 0.5)
    assert (drawn[values <= 0.5] == 0).all()
    np.testing.assert_allclose(drawn[[75, 100, 300, 500]], [0.5, 1.0, 3.0, 5.0])
    assert np.diff(drawn).min() >= 0 and np.diff(drawn).max() < 0.03
    np.testing.assert_allclose(quieted(values, 0.0), values)


def test_every_setting_is_in_the_fingerprint(reader, drawing):
    settings = {"target": "ada", "size": 96, "dead_zone": 0.5, "device": "cpu"}
    assert ReadAndRender(reader, **settings).fingerprint == drawing.fingerprint
    for change in ({"target": "emil"}, {"size": 97}, {"dead_zone": 0.0}):
        other = ReadAndRender(reader, **settings | change)
        assert other.fingerprint != drawing.fingerprint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": "nobody"}, "no target 'nobody' to render; there are noor, emil, ada"),
        ({"size": 40}, "size must be 48 to 1024"),
        ({"dead_zone": 1.0}, "dead_zone must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(DataError, match=words):
        ReadAndRender("unread", **settings)


def test_ways_of_drawing_by_name():
    assert open_rendering("network") is None
    with pytest.raises(DataError, match="there are network, render"):
        open_rendering("paint")
    with pytest.raises(DataError, match="its own size only"):
        open_rendering("network", size=224)
    with pytest.raises(CheckpointError, match="no weights 'nothing'"):
        open_rendering("render", token_reader="nothing")


# --- normalize and predict ------------------------------------------------------------------------


def test_normalize_never_mixes_two_ways_of_drawing(reader, faces, tmp_path):
    out = tmp_path / "out"
    settings = {"token_reader": reader, "target": "noor", "device": "cpu", "progress": False}
    assert normalize(faces, out, draw="render", size=128, **settings) == {"normalized": 3}
    rendered = pictures(out)
    assert {image.shape for image in rendered.values()} == {(128, 128, 3)}
    assert (out / "noor" / MANIFEST).read_text().startswith("# weights render ")
    again = normalize(faces, out, draw="render", size=128, **settings)
    assert again == {"there already": 3}

    for change in ({"draw": "network"}, {"draw": "render", "size": 64}):
        with pytest.raises(DataError, match="or drawn otherwise; choose another folder"):
            normalize(faces, out, **settings | change)
    np.testing.assert_equal(pictures(out), rendered)
    normalize(faces, out, overwrite=True, **settings)
    assert {image.shape for image in pictures(out).values()} == {(112, 112, 3)}


def test_predict_redraws_all_and_reads_the_same(reader, faces, tmp_path):
    out = tmp_path / "out"

    def run(**more):
        settings = {"detector": "none", "readers": ["tiny-photo-au"], "device": "cpu"}
        table = predict(faces, out, token_reader=reader, progress=False, **settings, **more)
        return table, pictures(out / "normalized")

    table, drawn = run()
    for target in ("ada", "emil"):
        other_table, rendered = run(draw="render", size=96, target=target)
        pd.testing.assert_frame_equal(other_table, table)
        assert rendered.keys() == drawn.keys()
        pixels = ReadAndRender(reader, target=target, size=96, device="cpu")
        originals = pictures(out / "aligned")
        for name, image in rendered.items():
            np.testing.assert_array_equal(image, pixels.draw(originals[name][None])[0])
    np.testing.assert_equal(run()[1], drawn)
