"""What makes a phantom ill: fluid in place of air, at the places where each disease puts it.

- pneumonia: one-sided, focal consolidation (one main focus, sometimes a satellite).
- covid: ground-glass opacities in both lungs, peripheral and mostly in the lower zones (Wong
  et al., Radiology 2020, doi:10.1148/radiol.2020201160).
"""

from __future__ import annotations

import numpy as np

from cxrlib.phantom.thorax import cage_width, unit

LABELS = ("healthy", "pneumonia", "covid")


def lesion_depth(label, severity, x, y, air, texture, a, rng):
    """Optical depth that a finding adds: fluid in place of air."""
    added = np.zeros_like(air)
    if label == "healthy":
        return added
    floor = a["dome"] + a["breath"]
    affected = [int(rng.integers(0, 2)) * 2 - 1] if label == "pneumonia" else [-1, 1]
    for side in affected:
        spots = int(rng.integers(1, 3)) if label == "pneumonia" else int(rng.integers(3, 6))
        for spot in range(spots):
            u, v, width, height, dense = (float(value) for value in rng.random(5))
            if label == "pneumonia":
                u, v = 0.25 + 0.5 * u, 0.25 + 0.65 * v
                width, height = 2.6 + 2.4 * width, 2.3 + 2.6 * height
                dense = (0.11 + 0.06 * dense) * (1 if spot == 0 else 0.5)
            else:
                u, v = 0.62 + 0.33 * u, 0.95 - 0.55 * v * v
                width, height = 2.2 + 2.0 * width, 2.8 + 2.8 * height
                dense = 0.09 + 0.045 * dense
            at = a["apex"] + v * (floor - a["apex"])
            reach = float(cage_width(np.float32(at), a))
            centre = side * (a["mediastinum"] + u * (reach - a["mediastinum"]))
            near = np.flatnonzero(np.abs(y - at).min(axis=1) < 1.8 * height)
            rows = slice(near[0], near[-1] + 1)  # with the texture it reaches 1.6 radii
            dx, dy = (x[rows] - centre) / width, (y[rows] - at) / height
            shape = unit((1.5 - dx * dx - dy * dy + texture[rows] * 0.45) * 0.6)
            shape = shape * shape * (3 - 2 * shape) * (dense * (0.3 + 0.7 * severity))
            np.maximum(added[rows], shape, out=added[rows])
    if label == "pneumonia":
        return added * air * (np.sign(x) == affected[0])
    return added * air * unit(0.65 + texture * 0.45)
