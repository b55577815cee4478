"""An example of a package that extends onnxprune: one module for each kind of thing."""
