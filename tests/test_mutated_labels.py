"""Label files with a few changes of any kind: each loader reads on and accounts for every row and
every image, or it stops with a sentence that names what is wrong."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_loaders import affectnet, bp4d, encoded, listed, occurrence, put

from norface_lib.common.errors import DataError
from norface_lib.datasets.affectnet import AffectNet
from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.bp4d import BP4D
from norface_lib.datasets.bp4d_plus import BP4DPlus
from norface_lib.datasets.disfa import DISFA
from norface_lib.datasets.rafdb import RAFDB
from norface_lib.datasets.rendered import Rendered
from norface_lib.datasets.text_tables import open_text, read_text

TOKENS = (
    *(b",", b";", b"\t", b"\n", b"\r\n", b" ", b'"', b"'", b"\0", b"#", b"0", b"9", b"-1", b"nan"),
    *(b"inf", b"1e400", b"0x1", b"1_0", b"99999999999999999999", b"2.5", b"\xe9", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"../", b"..\\", b"/", b"C:", b"True", b"\xe2\x80\xa8", b"AU12", b"emotion"),
)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """One to four edits of a file: a part of it is cut out, doubled, or replaced, or its end is
    lost."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["replace", "double", "cut", "end"]),
                st.floats(0, 1),
                st.integers(0, 40),
                st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6)),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def mutate(content: bytes) -> bytes:
        for kind, place, length, token in edits:
            start = int(place * len(content))
            before, part, after = (
                content[:start],
                content[start : start + length],
                content[start + length :],
            )
            content = {
                "replace": before + token + after,
                "double": before + part + part + after,
                "cut": before + after,
                "end": before,
            }[kind]
        return content

    return mutate


class Case(NamedTuple):
    """A dataset on disk, its label file that is changed, and how it is opened."""

    root: Path
    file: Path
    content: bytes
    open: Callable[[Path], FaceDataset]

    def with_file(self, mutate: Callable[[bytes], bytes]) -> FaceDataset | None:
        """The dataset with the changed file; None if it is refused by a sentence."""
        self.file.write_bytes(mutate(self.content))
        try:
            data = self.open(self.root)
        except DataError:
            return None
        assert str(data.report)
        return data


def case(root: Path, file: str, open_: Callable[[Path], FaceDataset]) -> Case:
    return Case(root, root / file, (root / file).read_bytes(), open_)


def images_on_disk(root: Path) -> int:
    return sum(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in root.rglob("*"))


@pytest.fixture(scope="module", params=[BP4D, BP4DPlus])
def of_bp4d(request, tmp_path_factory):
    root = bp4d(tmp_path_factory.mktemp("bp4d"))
    put(root / "AUCoding/AU_OCC/F002_T1.csv", occurrence({n: {} for n in range(1, 6)}))
    for number in range(1, 6):
        put(root / f"2D+3D/F002/T1/{number}.jpg", encoded(number))
    return case(root, "AUCoding/AU_OCC/F001_T1.csv", request.param)


@pytest.fixture(scope="module")
def of_disfa(tmp_path_factory):
    root = tmp_path_factory.mktemp("disfa")
    for subject in ("SN001", "SN002"):
        for au in (1, 2, 4):
            name = f"ActionUnit_Labels/{subject}/{subject}_au{au}.txt"
            put(root / name, "".join(f"{n},{n % 6}\n" for n in range(1, 8)))
        for number in range(7):
            put(root / f"{subject}/{number}.png", encoded(number, ".png"))
    return case(root, "ActionUnit_Labels/SN001/SN001_au2.txt", DISFA)


@pytest.fixture(scope="module")
def of_affectnet(tmp_path_factory):
    rows = [listed(f"1/{n}.jpg", n % 8) for n in range(6)]
    root = affectnet(tmp_path_factory.mktemp("affectnet"), rows)
    return case(root, "Manually_Annotated_file_lists/training.csv", AffectNet)


@pytest.fixture(scope="module")
def of_new_affectnet(tmp_path_factory):
    root = tmp_path_factory.mktemp("new")
    for number in range(3):
        stream = io.BytesIO()
        np.save(stream, np.array(str(number) if number else number))
        put(root / f"train_set/annotations/{number}_exp.npy", stream.getvalue())
        put(root / f"train_set/images/{number}.jpg", encoded(number))
    return case(root, "train_set/annotations/1_exp.npy", AffectNet)


@pytest.fixture(scope="module")
def of_rafdb(tmp_path_factory):
    root = tmp_path_factory.mktemp("rafdb")
    lines = []
    for number in range(1, 8):
        lines.append(f"{'test' if number > 4 else 'train'}_{number:05d}.jpg {number}")
        name = lines[-1].split(".")[0]
        put(root / f"basic/Image/aligned/{name}_aligned.jpg", encoded(number))
    put(root / "basic/EmoLabel/list_patition_label.txt", "\n".join(lines) + "\n")
    return case(root, "basic/EmoLabel/list_patition_label.txt", RAFDB)


mutated = [
    given(mutations()),
    settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    ),
]


def mutating(test):
    for decorator in mutated:
        test = decorator(test)
    return test


def rows_of(path: Path) -> int:
    """Rows of a table of codes that hold anything, its header among them."""
    lines = read_text(path).replace('"', "").splitlines()
    return sum(bool(line.strip(" \t,;")) for line in lines)


ROW_REASONS = (
    "label row that is cut short",
    "label row that is longer than its header",
    "label row without a frame number",
    "label row of a frame that was listed before",
    "label row without an image",
)


@mutating
def test_bp4d(of_bp4d, mutate):
    data = of_bp4d.with_file(mutate)
    if data is None:
        return
    dropped, noted = data.report.dropped, data.report.noted
    unread = dropped.get("image of a sequence whose labels cannot be read", 0)
    uncoded = noted.get("image without a label row", 0)
    skipped = noted.get("image of a sequence without a coded frame, skipped", 0)
    assert len(data) + unread + uncoded + skipped == images_on_disk(of_bp4d.root) == 8
    assert set(data.values()[~np.isnan(data.values())]) <= {0.0, 1.0}
    if "label file that cannot be read" in dropped:
        assert (data.index["subject"] == "F002").all() and unread == 3
        return
    if skipped:
        assert (data.index["subject"] == "F002").all() and skipped == 3
        return
    found = int((data.index["subject"] == "F001").sum())
    lost = sum(dropped.get(reason, 0) for reason in ROW_REASONS)
    assert found + lost == rows_of(of_bp4d.file) - 1


@mutating
@example(lambda content: b"")
@example(lambda content: b"0,1\n" + content)
def test_disfa(of_disfa, mutate):
    data = of_disfa.with_file(mutate)
    if data is None:
        return
    uncoded = data.report.noted.get("image without a label row", 0)
    assert len(data) + uncoded == images_on_disk(of_disfa.root) == 14
    # the other files of the subject are whole
    assert data.index["AU01"].tolist() == [float(n % 6 >= 2) for n in range(1, 8)] * 2
    if "label file that cannot be read" in data.report.dropped:
        assert data.index["AU02"].isna().sum() == 7


@mutating
def test_affectnet(of_affectnet, mutate):
    data = of_affectnet.with_file(mutate)
    if data is None:
        return
    with open_text(of_affectnet.file) as file:
        lines = sum(bool(line.strip()) for line in file)
    with_header = lines - len(data) - sum(data.report.dropped.values())
    assert with_header in (0, 1)
    assert data.index["emotion"].isin(range(8)).all()
    assert all(path.startswith("Manually_Annotated/") for path in data.index["path"])


@mutating
def test_new_affectnet(of_new_affectnet, mutate):
    data = of_new_affectnet.with_file(mutate)
    assert data is not None, "two annotations are whole"
    assert len(data) + sum(data.report.dropped.values()) == 3
    emotions = dict(zip(data.index["path"], data.index["emotion"], strict=True))
    assert emotions["train_set/images/0.jpg"] == 0 and emotions["train_set/images/2.jpg"] == 2


@mutating
def test_rafdb(of_rafdb, mutate):
    data = of_rafdb.with_file(mutate)
    if data is None:
        return
    dropped = data.report.dropped
    lines = read_text(of_rafdb.file).replace('"', "").splitlines()
    unlabeled = dropped.get("image without a label", 0)
    filled = sum(bool(line.strip()) for line in lines)
    assert len(data) + sum(dropped.values()) - unlabeled == filled
    assert data.index["path"].nunique() + unlabeled == images_on_disk(of_rafdb.root) == 7
    assert data.index["emotion"].isin(range(7)).all()


@mutating
def test_rendered(fake_root, mutate):
    data = fake_root.with_file(mutate)
    if data is not None:
        lost = data.report.dropped.get("listed image that is missing", 0)
        assert len(data) + lost == len(data._read_table())


@pytest.fixture(scope="module")
def fake_root(tiny_benchmark, tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered")
    for path in tiny_benchmark.rglob("*"):
        if path.is_file():
            put(root / path.relative_to(tiny_benchmark), path.read_bytes())
    return case(root, "labels.csv", Rendered)
