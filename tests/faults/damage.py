"""Damage to files by a seeded random generator: bytes of any file, and cells of label tables."""

import io
import warnings
import zipfile
from collections.abc import Callable
from random import Random

import numpy as np

# --- bytes ----------------------------------------------------------------------------------------


def truncated(data: bytes, random: Random) -> bytes:
    """The beginning, which may be empty."""
    return data[: random.randrange(len(data) + 1)]


def flipped(data: bytes, random: Random) -> bytes:
    """One to twenty bits changed."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 20)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def swapped(data: bytes, random: Random) -> bytes:
    """Two blocks in each other's place."""
    length = max(1, len(data) // 8)
    first, second = sorted(random.randrange(len(data) - length + 1) for _ in range(2))
    if second < first + length:
        return data[second:] + data[:second]
    middle = data[first + length : second]
    block, other = data[first : first + length], data[second : second + length]
    return data[:first] + other + middle + block + data[second + length :]


def zeroed(data: bytes, random: Random) -> bytes:
    """A block of zeros."""
    start = random.randrange(len(data))
    length = random.randint(1, max(1, len(data) // 4))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def random_head(data: bytes, random: Random) -> bytes:
    """Random bytes in place of the first 16."""
    return random.randbytes(16) + data[16:]


SIZES = (b"\xff\xff\xff\x7f", bytes(4), b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")


def random_size(data: bytes, random: Random) -> bytes:
    """A number near the beginning, where sizes stand, becomes huge, zero or negative."""
    start = random.randrange(min(len(data), 64))
    return data[:start] + random.choice(SIZES) + data[start + 4 :]


def doubled(data: bytes, random: Random) -> bytes:
    """The content twice."""
    return data + data


def noise(data: bytes, random: Random) -> bytes:
    """Random bytes of any length."""
    return random.randbytes(random.randrange(2 * len(data)))


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(truncated, flipped, swapped, zeroed, random_head, random_size, doubled, noise),
)


def damaged(data: bytes, random: Random) -> bytes:
    """A file's content with one of the `BYTES` damages."""
    return random.choice(BYTES)(data, random) if data else data


# --- label tables ---------------------------------------------------------------------------------


def _with_cell(text: str, value: str, random: Random) -> str:
    """The table with another value in one cell."""
    lines = text.splitlines()
    number = random.randrange(len(lines))
    separator = "," if "," in text else " "
    cells = lines[number].split(separator)
    cells[random.randrange(len(cells))] = value
    lines[number] = separator.join(cells)
    return "\n".join(lines) + "\n"


def _without_line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    del lines[random.randrange(len(lines))]
    return "".join(lines)


def _line_twice(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    lines.append(random.choice(lines))
    return "".join(lines)


def _trailing(text: str, separator: str) -> str:
    return "".join(f"{line}{separator}\n" for line in text.splitlines())


CELLS = ("", "x", "99", "-1", "nan", "inf", "1e400", "0x1", "1.5", '"', " ", "2024-01-01", "é")

TABLES: tuple[Callable[[str, Random], str], ...] = (
    *(lambda text, random, value=value: _with_cell(text, value, random) for value in CELLS),
    lambda text, random: text.replace(",", ";"),
    lambda text, random: text.replace(",", "\t"),
    lambda text, random: text.splitlines()[0] + "\n",
    lambda text, random: _trailing(text, ","),
    lambda text, random: text.replace("\n", "\r\n"),
    lambda text, random: text.replace("\n", "\n\n"),
    lambda text, random: text.replace("\n", ""),
    lambda text, random: _without_line(text, random),
    lambda text, random: _line_twice(text, random),
    lambda text, random: f"note\n{text}",
    lambda text, random: text.upper(),
    lambda text, random: text.rpartition(",")[0],
)

ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")


def damaged_table(data: bytes, random: Random) -> bytes:
    """A label table with another cell, separator, line or encoding, or with damaged bytes."""
    if random.random() < 0.25:
        return damaged(data, random)
    text = random.choice(TABLES)(data.decode(), random)
    return text.encode(random.choice(ENCODINGS))


def damaged_array(data: bytes, random: Random) -> bytes:
    """A file of numpy with other content, another shape, or damaged bytes."""
    contents = [np.array(value) for value in (np.inf, np.nan, "PK", -1, 99, "", [1, 2], 2**40)]
    choice = random.randrange(len(contents) + 3)
    if choice < len(contents):
        file = io.BytesIO()
        np.save(file, contents[choice])
        return file.getvalue()
    if choice == len(contents):
        return data.replace(b"'shape': ()", b"'shape': (99999999999,)")
    return random.choice((b"PK\x03\x04 no zip", damaged(data, random)))


# --- zips -----------------------------------------------------------------------------------------

ESCAPES = ("../../../../ESCAPED/T1/765.jpg", "F001/T1/../../../../../../ESCAPED/T1/765.jpg")
"""Entries that would lie outside of the folder that a dataset is normalized into."""


def damaged_zip(data: bytes, random: Random) -> bytes:
    """A zip whose entries have other names, lengths or content, or damaged bytes."""
    if random.random() < 0.5:
        return damaged(data, random)
    source = zipfile.ZipFile(io.BytesIO(data))
    entries = [(name, source.read(name)) for name in source.namelist()]
    number = random.randrange(len(entries))
    name, content = entries[number]
    changed = random.choice(
        (
            (random.choice(ESCAPES), content),
            (name.upper(), content),
            (name, damaged(content, random)),
            (name, b""),
            (name, bytes(2**27)),  # a thousandth of that in the zip
            (name.replace("/", "\\"), content),
            (f"{name}/", b""),
            (f"{'x' * 300}/{name}", content),
        )
    )
    entries[number] = changed
    if random.random() < 0.2:
        entries.append(entries[0])

    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        warnings.simplefilter("ignore")  # two entries of one name
        for entry, bytes_of_entry in entries:
            target.writestr(entry, bytes_of_entry)
    return file.getvalue()
