"""From RGB video to segments: the detector, and the grouping of scores into segments."""
