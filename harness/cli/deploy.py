"""`harness deploy`: this stage and what it stands on."""

from harness.cli import options

command = options.stage_command("deploy", "Install the APK and push the model.")
