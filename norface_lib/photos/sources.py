"""Photographs of faces that anyone can download, as folders for `align`: LFW through scikit-learn,
CelebA through torchvision.

Both are for research; CelebA's terms forbid commercial use. Neither has expressions; people are
named, so that pseudo-pairs of them can be split by person.
"""

import shutil
from pathlib import Path

import pandas as pd

from norface_lib.common.errors import DataError
from norface_lib.common.files import write_table

SOURCES = ("lfw", "celeba")
PEOPLE = "people.csv"
"""Table with the image, its path below the folder, and the subject."""


def fetch(name: str, out: Path) -> Path:
    """Downloads photographs (LFW 200 MB, CelebA 1.4 GB) into ``out`` unless they are there; returns
    the folder of images.

    Writes ``out/people.csv``, the ``--table`` of `pseudo-pairs`. The libraries check what they
    download. Raises :class:`DataError` for an unknown name, and if the download fails.
    """
    if name not in SOURCES:
        raise DataError(f"no photographs {name!r}; there are {', '.join(SOURCES)}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        folder, people = (_lfw if name == "lfw" else _celeba)(out)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{out}: {name} is not there, and its download failed ({error}); call again with a "
            "network"
        ) from error
    write_table(people, out / PEOPLE)
    return folder


def _lfw(out: Path) -> tuple[Path, pd.DataFrame]:
    """Labeled Faces in the Wild (Huang et al. 2007): 13,233 photographs of 5,749 people, a folder
    for each."""
    from sklearn.datasets import fetch_lfw_people

    folder = out / "lfw_home" / "lfw"
    # unpacking was cut off: scikit-learn deletes the archive at its end
    if folder.with_suffix(".tgz").exists():
        shutil.rmtree(folder, ignore_errors=True)
    # the call also reads the images into memory: only those of the one person who has 500
    if not folder.is_dir():
        fetch_lfw_people(data_home=str(out), funneled=False, min_faces_per_person=500)
    images = sorted(path.relative_to(folder) for path in folder.glob("*/*.jpg"))
    people = {
        "image": [path.as_posix() for path in images],
        "subject": [path.parent.name for path in images],
    }
    return folder, pd.DataFrame(people)


def _celeba(out: Path) -> tuple[Path, pd.DataFrame]:
    """CelebA (Liu et al. 2015): 202,599 photographs of 10,177 people. Its host limits how often it
    may be fetched."""
    from torchvision.datasets import CelebA

    CelebA(str(out), split="all", target_type="identity", download=True)
    people = pd.read_csv(
        out / "celeba" / "identity_CelebA.txt", sep=r"\s+", names=["image", "subject"], dtype=str
    )
    return out / "celeba" / "img_align_celeba", people
