"""From ordinary photographs and videos to aligned faces: a mirror tree of crops, with tables of
the faces of each.

Each image ``a/b.jpg`` becomes ``a/b.png``, further faces of it ``a/b_1.png``...; each frame of a
video ``a/c.mp4`` becomes ``a/c.mp4/000012.png``. ``faces.csv`` has a row for each face, for each
image or frame without one, and for each file that is left out. A run that was stopped goes on where
it was, in the middle of a video too, and memory does not grow.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from norface_lib.common.errors import NorfaceError
from norface_lib.common.locks import only_process
from norface_lib.images.crop import (
    crop_of,
    mark_crop,
)
from norface_lib.images.files import SMALLEST
from norface_lib.photos.detection import Detector, WholeImage
from norface_lib.photos.job import Job
from norface_lib.photos.journal import (
    AlignmentJournal,
    Settings,
    remove_alignment,
)
from norface_lib.photos.listing import Listing, Source, Sources, list_sources, output_names
from norface_lib.photos.tables import (
    BLENDSHAPES,
    FACES,
    write_blendshapes,
    write_faces,
)
from norface_lib.photos.videos import frame_count


def align_tree(
    source: Sources | Listing,
    out: Path,
    detector: Detector,
    *,
    size: int = 112,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    all_faces: bool = False,
    smallest: int = SMALLEST,
    overwrite: bool = False,
    mirrors: Sequence[Path] = (),
    progress: bool = True,
) -> Counter[str]:
    """Writes an aligned crop of ``size`` px for faces of images and videos, and the tables, to
    ``out``.

    ``source``: a file, a folder, a pattern, or several of them. ``all_faces``: every face, else the
    largest of each image or frame. ``every``: takes each k-th frame of a video; ``start``, ``end``:
    only those between these seconds. A face whose crop would be made of fewer than ``smallest``
    pixels along a side is listed, not written. ``overwrite``: deletes first what an earlier call
    made in ``out``. ``mirrors``: folders with a file for each crop, which is deleted with it.

    A call after an interruption goes on; a source that changed, or of which a crop is missing, is
    done anew, one that is no longer there leaves tables and folder. The tables hold what this call
    was asked for. A file that cannot be read or searched costs that file alone.

    Returns how many rows of ``faces.csv`` have which status. Raises :class:`DataError` for sources
    without images, an ``out`` inside them, that another process writes to, or that was made from
    another folder or with other settings, and
    :class:`norface_lib.common.errors.StoppedError` if the disk is full or fails.
    """
    out = Path(out)
    settings = Settings(
        detector=detector.name,
        levels=getattr(detector, "levels", None),
        size=size,
        every=every,
        start=start,
        end=end,
        all_faces=all_faces,
        smallest=smallest,
    )
    listing = source if isinstance(source, Listing) else list_sources(source, out)
    with only_process(out):
        if overwrite:
            remove_alignment(out, mirrors)
        with AlignmentJournal(out, settings, listing.roots, mirrors) as journal:
            mark_crop(out, settings.crop)
            run = _Run(listing=listing, journal=journal, detector=detector, settings=settings)
            try:
                run.align(progress)
            except BaseException:
                with suppress(NorfaceError, OSError):
                    run.write_tables()
                raise
            return run.write_tables()


@dataclass(kw_only=True)
class _Run:
    """All sources of a call on their way into the journal and the tables."""

    listing: Listing
    journal: AlignmentJournal
    detector: Detector
    settings: Settings

    def align(self, progress: bool) -> None:
        """Aligns all sources that are not done."""
        sources = self.listing.sources
        names = self._prepare(sources)
        lengths = self._lengths(sources) if progress else [1] * len(sources)
        in_frames = max(lengths) > 1
        bar = tqdm(
            desc=f"align {self.listing.title}",
            total=sum(lengths),
            unit="frame" if in_frames else "file",
            disable=not progress,
        )
        end = 0
        root = None
        with bar:
            for source, length in zip(sources, lengths, strict=True):
                if source.root != root and isinstance(self.detector, WholeImage):
                    root = source.root
                    self.detector.crop = crop_of(root)
                job = Job(
                    source=source,
                    output=names[source.name],
                    detector=self.detector,
                    settings=self.settings,
                    journal=self.journal,
                )
                job.run(bar if in_frames else None)
                end += length
                bar.update(end - bar.n)

    def _prepare(self, sources: Sequence[Source]) -> dict[str, Path]:
        """Paths of the crops of each source; forgets sources that are no longer there, and those
        whose crops go by another path now."""
        journal = self.journal
        asked = {source.name: source.is_video for source in sources}
        kept = {name: progress.is_video for name, progress in journal.known.items()}
        for name in [name for name in kept if name not in asked and not journal.exists(name)]:
            journal.forget(name)
            del kept[name]

        outputs = output_names((kept | asked).items(), journal.out)
        for name in [*journal.known]:
            if journal.known[name].output != outputs[name].as_posix():
                journal.forget(name)
        for name in asked.keys() - journal.known.keys():
            journal.check_free(outputs[name].as_posix(), asked[name])
        return outputs

    def _lengths(self, sources: Sequence[Source]) -> list[int]:
        """Frames that each source has by its container's count, for an estimate of the time; 1 for
        each source if a video does not tell, or only a part of it is taken."""
        if self.settings.start or self.settings.end is not None:
            return [1] * len(sources)
        counts = [_frames_of(source) if source.is_video else 1 for source in sources]
        if not all(counts):
            return [1] * len(sources)
        every = [self.settings.every if source.is_video else 1 for source in sources]
        return [-(-count // step) for count, step in zip(counts, every, strict=True)]

    def write_tables(self) -> Counter[str]:
        """Writes the tables of what is done; counts the statuses."""
        out = self.journal.out
        names = [source.name for source in self.listing.sources]
        entries = self.journal.entries
        counts = write_faces(out / FACES, entries(names), self.listing.left_out)
        if self.detector.blendshapes:
            write_blendshapes(out / BLENDSHAPES, self.detector.blendshapes, entries(names))
        return counts


def _frames_of(source: Source) -> int:
    """Frames of a video by its own count, 0 if it tells none."""
    if not source.path.is_file():
        return 0
    return frame_count(source.path) or 0
