"""How a report is shown: the table for people, or its document."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import console

if TYPE_CHECKING:
    from harness.stages.report import Report


def show_report(report: Report, as_json: bool) -> None:
    """Print a report on stdout and say where its page lies."""
    if as_json:
        click.echo(json.dumps(report.document, indent=2, ensure_ascii=False))
        return
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((100, 24)).columns
    click.echo(report.text(color=color, width=width))
    here = Path.cwd()
    page = report.page.relative_to(here) if report.page.is_relative_to(here) else report.page
    console.info(f"  report   {page}")
