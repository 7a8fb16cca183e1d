"""`python -m lamson` is the same as `lamson`."""

import sys

from lamson.commands import main

if __name__ == "__main__":
    sys.exit(main())
