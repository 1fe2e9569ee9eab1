"""A folder of images as a dataset."""

import pandas as pd

from norface_lib.datasets.base import FaceDataset
from norface_lib.datasets.listing import is_text
from norface_lib.images.files import list_images


class FolderFaces(FaceDataset):
    """All images under a folder, without labels; the subject of an image is its folder."""

    title = "Image folder"
    source = "Any folder of images will do"
    tree = "anything/portrait.jpg"
    labels = ()

    def _scan(self) -> pd.DataFrame:
        paths = [path.relative_to(self.root) for path in list_images(self.root)]
        for path in [path for path in paths if not is_text(path.as_posix())]:
            self.report.drop("image whose name is no text (UTF-8); rename it", path)
            paths.remove(path)
        keys = {
            "subject": [path.parent.as_posix() for path in paths],
            "path": [path.as_posix() for path in paths],
        }
        return pd.DataFrame(keys).assign(sequence="", frame=range(len(paths)), part="")
