"""Winograd's convolution, which OpenVINO has not: VGG16 takes four fifths of the time.

What a network computes stays the same up to rounding. docs/performance.md has the measurement.
"""

from __future__ import annotations

import numpy as np

LEAST = 128  # channels read and made; with fewer, the additions outweigh what is saved


def rewrite(network):
    """Let 3 x 3 convolutions make two rows of output with four products each in place of six.

    Winograd's minimal filtering F(2, 3), along the height (Lavin and Gray 2016,
    doi:10.1109/CVPR.2016.435). Even and odd rows stay apart from one convolution to the next,
    until a pooling of 2 x 2 joins them, as in VGG16. Chains of layers that end otherwise stay
    as they are.

    Parameters
    ----------
    network : openvino.Model
        Of a fixed shape; it is changed.

    Returns
    -------
    openvino.Model
    """
    import openvino
    from openvino import opset13 as ops

    apart = {}  # even and odd rows of what a node gives
    for node in network.get_ordered_ops():
        if not node.get_input_size():
            continue
        kind, given = node.get_type_name(), node.input_value(0)
        known, found = apart.get(given.get_node().get_name()), None
        if kind == "Convolution" and _suits(node):
            found = _convolve(*(known or _rows(given)), _constant(node))
        elif known and kind == "Relu":
            found = [ops.relu(part) for part in known]
        elif known and kind == "Add" and np.shape(_constant(node))[2:] == (1, 1):
            found = [ops.add(part, node.input_value(1)) for part in known]
        elif known and kind == "MaxPool" and _halves(node):
            joined = ops.max_pool(ops.maximum(*known), [1, 2], [1, 1], [0, 0], [0, 0], [1, 2])
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(joined.output(0))
        if found:
            apart[node.get_name()] = found
    return openvino.Model(network.get_results(), network.get_parameters())


def _constant(node):
    """Give what a node adds, or its weights; None if that is no constant."""
    other = node.input_value(1).get_node()
    return other.get_data() if other.get_type_name() == "Constant" else None


def _suits(node) -> bool:
    """Tell whether a convolution is 3 x 3, keeps the size, and is worth it."""
    weights, its = _constant(node), node.get_attributes()
    if weights is None or weights.shape[2:] != (3, 3) or min(weights.shape[:2]) < LEAST:
        return False
    steps = [*its["strides"], *its["dilations"], *its["pads_begin"], *its["pads_end"]]
    return steps == [1] * 8 and node.input_value(0).get_shape()[2] % 2 == 0


def _halves(node) -> bool:
    """Tell whether a pooling is over 2 x 2 pixels, each once."""
    its = node.get_attributes()
    numbers = [*its["kernel"], *its["strides"], *its["pads_begin"], *its["pads_end"]]
    return numbers == [2] * 4 + [0] * 4 and its["rounding_type"] == "floor"


def _rows(images):
    """Take the even and the odd rows of feature maps (n, channels, height, width)."""
    from openvino import opset13 as ops

    return [ops.slice(images, *(np.int64([k]) for k in (at, 2**31, 2, 2))) for at in (0, 1)]


def _convolve(even, odd, weights):
    """Convolve by Winograd: even and odd rows of the input to those of the output.

    For two rows of output the input's are odd (the pair before), even, odd, even (the next).
    """
    from openvino import opset13 as ops

    def shift(rows, by):
        """Move rows down by `by`; one of zeros comes in."""
        begin, end = np.int64([0, 0, by, 0]), np.int64([0, 0, -by, 0])
        return ops.pad(rows, begin, end, "constant", np.float32(0))

    before, after = shift(odd, 1), shift(even, -1)
    inputs = [ops.subtract(before, odd), ops.add(even, odd)]
    inputs += [ops.subtract(odd, even), ops.subtract(even, after)]
    top, middle, bottom = np.split(weights, 3, axis=2)
    filters = [top, (top + middle + bottom) / 2, (top - middle + bottom) / 2, bottom]
    # Strides, zeros before and after (along the width only), dilations
    along_width = ([1, 1], [0, 1], [0, 1], [1, 1])
    first, plus, minus, last = (
        ops.convolution(rows, ops.constant(np.ascontiguousarray(kernel)), *along_width)
        for rows, kernel in zip(inputs, filters, strict=True)
    )
    return [
        ops.add(first, ops.add(plus, minus)),
        ops.subtract(ops.subtract(plus, minus), last),
    ]
