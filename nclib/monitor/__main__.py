"""``python -m nclib.monitor serve LOG`` is ``python -m nclib monitor serve LOG``."""

import runpy
import sys

sys.argv.insert(1, "monitor")
runpy.run_module("nclib", run_name="__main__")  # the command stands above: started, not imported
