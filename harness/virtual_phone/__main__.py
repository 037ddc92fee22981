"""`python -m harness.virtual_phone SETTINGS.json` is started by `lifecycle.start`."""

import sys

from harness.virtual_phone.daemon import main

sys.exit(main(sys.argv))
