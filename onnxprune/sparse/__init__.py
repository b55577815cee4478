"""Sparse weights: patterns of zeros, and encodings of them that any runtime decodes."""
