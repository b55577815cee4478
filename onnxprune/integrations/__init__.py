"""Other tools that carry out our commands or keep what they found, one module for each.

`mlflow` logs what a command did as a run; `github` carries out a recipe in a workflow, and keeps a comment on the pull request.

Change here: how another tool calls onnxprune, or hears of it. What is computed is in `onnxprune.driver`.
"""
