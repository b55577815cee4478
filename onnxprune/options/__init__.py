"""What a user may ask of each command: one frozen dataclass a command, checked as it is made.

Change here: an option's name, default, range or help. Command line, recipe files and Python take them from these classes.
Nothing here imports numpy, so that ``--help`` and ``import onnxprune`` stay quick.
"""
