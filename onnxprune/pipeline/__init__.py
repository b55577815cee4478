"""Recipe files: several commands, one after the other, on one model.

`steps` has one entry for each kind of step, `run` reads the file and carries it out. `optimizing` is the
command that takes from two rooms.

Change here: a new kind of step (`steps`), or how steps are kept and resumed (`run`).
"""
