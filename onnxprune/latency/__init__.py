"""Milliseconds are measured, remembered and predicted here.

`benchmark` compares models for people; `providers` opens their sessions, `inputs` makes what they are fed, `interleave` lets them
take turns, `peak_memory` measures memory. `timer` and `measurements` time many small models for the compiler, and `cache`
remembers the times of this machine. `segments` cuts a graph into parts that can be timed alone, `interpolation` fills in
between widths, `profiler` times the parts and the whole, and `model` predicts from these times.

Other devices run `stopwatch`, `machines`, `cache`, `measurements` and `on_device` as one file, which `worklist` writes with what
is to be timed; these five need nothing but Python, numpy and ONNX Runtime. `device_table` is what comes back.

Change here: how time is taken (`benchmark`, `timer`) or predicted (`profiler`, `model`), or a provider (`providers`).
"""
