"""Writing files so that a reader never sees half of one, and hashes of their content."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Calls ``write`` with a temporary path in the same folder, then renames it to ``path``. A
    failure leaves the old file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(content: object, path: Path) -> Path:
    """Writes JSON with a final newline, keys in the order given."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """Writes a table as CSV without its index; floats keep six digits, more than labels and
    angles need."""
    return write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.6g"))


def sha256_of(path: Path) -> str:
    """Hash of a file's content, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
