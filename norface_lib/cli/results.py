"""The command that makes tables of all result files."""

from pathlib import Path
from typing import Annotated

import typer

from norface_lib.cli.options import ResultTable, TextFormat
from norface_lib.cli.output import REFUSED, show
from norface_lib.common.paths import ROOT, require_checkout

app = typer.Typer()


@app.command(rich_help_panel="This project")
def results(
    table: Annotated[
        list[ResultTable] | None, typer.Option(help="only this table; may be repeated")
    ] = None,
    form: Annotated[
        TextFormat, typer.Option("--format", help="how the tables are written")
    ] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="folder for a file of each table, in place of printing them")
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="renew the tables in README.md and docs/results.md instead"),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="only say whether the tables there are up to date; else 1"),
    ] = False,
) -> None:
    """Make the paper's tables, and those of the README, from all result files: published numbers,
    ours on real data, and ours on rendered faces apart."""
    require_checkout("results")
    from norface_lib.studies.generated import stale_documents, write_documents

    if check:
        _check(stale_documents(ROOT))
    elif write:
        changed = write_documents(ROOT)
        files = [ROOT / name for name in changed]
        show(f"renewed: {', '.join(changed) or 'nothing, all is up to date'}", files=files)
    else:
        _make(table or [], form, out)


def _check(stale: list[str]) -> None:
    """Ends with exit code 1 if documents are stale."""
    if not stale:
        show("the tables are up to date", stale=[])
        return
    show(
        f"{', '.join(stale)}: the tables are not what the result files say; run "
        "`python -m norface_lib results --write`",
        stale=stale,
    )
    raise typer.Exit(REFUSED)


def _make(names: list[str], form: str, out: Path | None) -> None:
    """Prints tables, or writes each to a file."""
    from norface_lib.common.failures import writing
    from norface_lib.studies.generated import TABLES
    from norface_lib.studies.result_files import ResultFiles
    from norface_lib.studies.text_table import SUFFIXES

    found = [TABLES[name](ResultFiles(ROOT / "results")) for name in names or TABLES]
    texts = {made.name: made.as_text(form) for made in found}
    if out is None:
        heads = {made.name: f"{made.name}: {made.title}\n\n" for made in found}
        show("\n".join(heads[name] + text for name, text in texts.items()), tables=texts)
        return
    files = []
    for name, text in texts.items():
        path = out / f"{name}{SUFFIXES[form]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            path.write_text(text, encoding="utf-8")
        files.append(path)
    show(f"{len(files)} table(s) in {out}", files=files)
