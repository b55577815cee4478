"""Training on the graph: recipes that prune while they train, and the loop that they share.

`finetune` trains a model with the weights that it has, `train` makes it sparse (`weights`) or removes channels (`channels`).
A `session` has all that such a run needs: the samples and files that the user names (`inputs`), samples in batches (`data`,
`augment`), the device (`devices`), the model as a module (`student`, with `batchnorm`), scores (`evaluate`), and a `trainer`.

The `trainer` carries out phases (`phase`) in steps (`step`), tells its progress (`progress`), and keeps a `checkpoint`. `recipes`
has one function for each method, which describes its phases. Masks are in `masks`; `layers`, `weight_selection` and
`channel_selection` say what they may keep and choose what they keep; `group_lasso` shrinks channels. `distillation` trains what
`optimize` found, int8 models through `fake_quantization`.

Change here: a recipe (`recipes`), or how training runs (`trainer`, `step`). Operators and losses are in `onnxprune.torch`.
"""

import onnxprune.torch  # noqa: F401 - first of all: without PyTorch it says what to install
