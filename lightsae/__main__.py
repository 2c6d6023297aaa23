"""`python -m lightsae`."""

import sys

from lightsae.cli import main

sys.exit(main())
