"""Milliseconds: measured, remembered, predicted.

`benchmark` compares models for people, `timer` and `measurements` time many for the compiler, `interleave` makes candidates take
turns, `cache` remembers times of this machine. `segments` cuts a graph into parts that can be timed alone, `interpolation`
fills in between widths, and `model` predicts the whole from these.

Change here: how time is taken (`benchmark`, `timer`) or predicted (`model`).
"""
