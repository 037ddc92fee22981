"""`harness render`: this stage and what it stands on."""

from harness.cli import options

command = options.stage_command("render", "Render the Gradle project of the app.")
