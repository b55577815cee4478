"""What a user may ask of each command: one frozen dataclass a command, checked as it is made; and what there is by name.

`fields` declares options, and reads them from tables and text; `prune`, `sparsify`, `quantize`, `train`, `benchmark` and
`commands` are the options of each command, `shared` those of several. `targets` are targets and alignments, `functions` loads
``package.module:function``. `registry` is a table of things by name that other packages add to, `registries` lists the tables:
criteria, patterns, encodings, methods, recipes of training.

Change here: an option's name, default, range or help. Command line, recipe files and Python take them from these classes.
Nothing here imports numpy, so that ``--help`` and ``import onnxprune`` stay quick.
"""
