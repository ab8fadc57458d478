"""``python -m ttt_kd_ros.cli`` is ``ttt_kd``."""

import sys

from ttt_kd_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
