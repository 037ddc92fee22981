"""`harness package`: this stage and what it stands on."""

from harness.cli import options

command = options.stage_command("package", "Make the signed APK.")
