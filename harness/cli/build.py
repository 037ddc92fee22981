"""`harness build`: this stage and what it stands on."""

from harness.cli import options

command = options.stage_command("build", "Build the native runtime.")
