"""`doctor`: what is installed and found on this machine, and what to do about what is missing."""

from dataclasses import asdict

import typer

from norface_lib.cli.examination import Finding, examine
from norface_lib.cli.output import REFUSED, show

app = typer.Typer()


@app.command(rich_help_panel="This project")
def doctor() -> None:
    """Check this installation: versions, devices, extras, models, weights, caches, disks, folders;
    say what to do about what is missing. Exit code 1 if something essential is broken."""
    findings = list(examine())
    counts = {state: 0 for state in ("ok", "missing", "broken")}
    for finding in findings:
        counts[finding.state] += 1

    show(_text(findings), counts=counts, findings=[asdict(finding) for finding in findings])
    if any(finding.essential and finding.state != "ok" for finding in findings):
        raise typer.Exit(REFUSED)


def _text(findings: list[Finding]) -> str:
    lines = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section] if lines else [section]
        lines.append(f"  {finding.state:<8}{finding.name:<28}{finding.text}")
        if finding.cure:
            lines.append(f"  {'':<8}{'':<28}-> {finding.cure}")
    return "\n".join(lines)
