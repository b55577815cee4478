"""Arrays in one file: every bit comes back, with the order of the axes in memory."""

from __future__ import annotations

import numpy as np

from onnxprune.driver.packing import pack, unpack


def test_arrays_come_back_as_they_lie_in_memory() -> None:
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = {
        ("a", "name/with\nall", 0): cube,
        ("a", "é", 1): cube.transpose(2, 0, 1),
        ("b", "", 0): np.asfortranarray(cube[0].astype(np.float64)),
        ("b", "turned", -1): cube[0, :, ::-1],
        ("c", "n", 0): np.array([3, 1, 2]),
        ("c", "none", 0): np.zeros((0, 2)),
    }
    found = unpack(pack(arrays))
    assert found is not None
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        if not array.size:
            continue
        order = np.argsort(np.abs(array.strides), kind="stable").tolist()
        assert np.argsort(found[name].strides, kind="stable").tolist() == order


def test_what_is_no_such_file_is_none() -> None:
    whole = pack({("a", "b", 0): np.zeros(3)})
    assert unpack(whole[:-10]) is None
    assert unpack(b"PK\x03\x04") is None
    assert unpack(whole.replace(b'[["a"', b"[[[[]")) is None
