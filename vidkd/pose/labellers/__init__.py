"""Programs that label people in pictures, run by the interpreter of another environment.

Nothing here is imported by vidkd, and nothing here imports vidkd: the labellers' own libraries may
clash with those of vidkd. What they speak is described in ``vidkd.pose.labelling``.
"""
