"""`harness compile`: this stage and what it stands on."""

from harness.cli import options

command = options.stage_command("compile", "Compile a model into a package for the phone.")
