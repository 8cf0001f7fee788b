"""Make ``pretrained.npz``: the weights of lesson 4's small network, learned on 1,000 phantoms.

    CXR_STEPS=keras TF_ENABLE_ONEDNN_OPTS=0 python data/make_pretrained.py [FILE]

Those that are shipped were made so, by TensorFlow 2.21 on two cores. Other steps, backends or
processors round otherwise, and so give other weights of the same worth. Synthetic films only.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cxrlib.shortcuts import pretraining

if __name__ == "__main__":
    place = Path(sys.argv[1] if sys.argv[1:] else Path(__file__).with_name("pretrained.npz"))
    network = pretraining.learned_on_phantoms(pretraining.SHIPPED)
    pretraining.save(network, place)
    print(f"{place}: {network.count_params():,} weights and running means")
