"""Small cohorts for tests, made without any source of the course."""

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from cxrlib.cohort import Cohort

# What nbstripout leaves in a notebook beside its cells' ids: Colab's and Jupyter's own.
KEEP = "metadata.language_info metadata.widgets metadata.colab metadata.accelerator "
KEEP += "cell.metadata.id cell.metadata.outputId cell.metadata.execution"


def tiny_cohort(patients=20, per_patient=2, labels=("healthy", "covid"), side=64, seed=0):
    """Patients in turn of each label; an ill lung is a bright square, so a CNN can learn it."""
    rng = np.random.default_rng(seed)
    rows, images = [], []
    for patient in range(patients):
        label = labels[patient % len(labels)]
        for number in range(per_patient):
            image = rng.integers(60, 120, (side, side)).astype(np.uint8)
            image[: side // 8 + patient % 5, :] = 10 * (patient % 5)
            if label != "healthy":
                image[side // 4 : side // 2, side // 4 : side // 2] += 100
            images.append(image)
            rows.append((f"p{patient:02}-{number}", label, f"p{patient:02}", "test", "PA", "CC0"))
    table = pd.DataFrame(rows, columns=["image", "label", "patient", "source", "view", "licence"])
    return Cohort(table, np.stack(images), "tiny")


def contrast_on_white(colour):
    """Contrast of text in this colour on white, as WCAG 2.2 defines it: from 1 to 21."""
    shares = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
              for one in to_rgb(colour)]  # fmt: skip
    luminance = 0.2126 * shares[0] + 0.7152 * shares[1] + 0.0722 * shares[2]
    return (1 + 0.05) / (luminance + 0.05)
