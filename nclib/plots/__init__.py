"""Every figure of the course, one file per subject: ``from nclib import plots``."""

from nclib.plots.style import (
    CLEAN,
    NEUTRAL,
    POISON,
    apply,
    class_colours,
    heatmap,
    label,
    panels,
    show_images,
)

apply()
