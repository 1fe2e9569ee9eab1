"""The moving picture: originals wiped to normalized faces, in each kind of file."""

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import DataError
from norface_lib.images.files import write_png
from norface_lib.networks.weights import load_normalizer, target_names
from norface_lib.viz.moving import faces_of, moving_wipe, write_moving

SIZE = 64


def _run(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output


@pytest.fixture
def faces():
    """Two originals of one color, and the same normalized, in another: (2, S, S, 3) each."""
    originals = np.full((2, SIZE, SIZE, 3), (200, 40, 40), np.uint8)
    normalized = np.full((2, SIZE, SIZE, 3), (40, 40, 200), np.uint8)
    return originals, normalized


def test_the_border_runs_from_originals_to_normalized_faces_and_back(faces):
    originals, normalized = faces
    frames = moving_wipe(originals, [normalized, originals], steps=8, gap=4)
    assert {frame.shape for frame in frames} == {(2 * SIZE + 4, 2 * SIZE + 4, 3)}
    shares = [
        float(np.mean(np.all(frame[:SIZE, :SIZE] == normalized[0], axis=-1))) for frame in frames
    ]
    assert shares[0] == 0 and shares[4] == 1
    assert shares[:5] == sorted(shares[:5]) and shares[4:] == sorted(shares[4:], reverse=True)
    assert np.all(frames[4][SIZE + 4 :, :SIZE] == originals[0]), "each row has its own faces"
    assert np.all(frames[0][:, SIZE : SIZE + 4] == 255), "white between faces"


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_each_kind_of_file_holds_all_frames_and_their_time(tmp_path, faces, suffix):
    frames = moving_wipe(*(faces[0], [faces[1]]), steps=8)
    path = write_moving(tmp_path / f"wipe{suffix}", frames, seconds=2.0)
    if suffix == ".mp4":
        with av.open(str(path)) as film:
            images = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert len(images) == 8
        middle = images[4]
    else:
        with Image.open(path) as image:
            durations = []
            for number in range(image.n_frames):
                image.seek(number)
                image.load()
                durations.append(image.info["duration"])
                if sum(durations) > 1000:  # the frame that is shown after a second, halfway
                    middle = np.array(image.convert("RGB"))
                    break
            assert image.info.get("loop") == 0, "it goes on for ever"
    assert np.abs(middle[8, 8].astype(int) - (40, 40, 200)).max() < 30


def test_an_unknown_suffix_is_refused(tmp_path, faces):
    with pytest.raises(DataError, match="must end in"):
        write_moving(tmp_path / "wipe.avi", moving_wipe(faces[0], [faces[1]]))


def test_the_command_takes_folders_of_predict_and_normalize(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "b.png"):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, rng.integers(0, 255, (112, 112, 3), np.uint8))
    _run("normalize", tmp_path / "faces", tmp_path / "out", "--weights", "tiny")
    target = target_names(load_normalizer("tiny")[2])[0]
    shown = tmp_path / "shown.webp"
    _run("wipe", tmp_path / "faces", tmp_path / "out" / target, shown, "--size", "64")
    with Image.open(shown) as image:
        assert image.size == (2 * 64 + 4, 64)
        assert image.n_frames > 10


def test_folders_without_a_common_face_are_refused(tmp_path):
    with pytest.raises(DataError, match="missing or damaged"):
        faces_of(tmp_path, [tmp_path], 4, 64)
