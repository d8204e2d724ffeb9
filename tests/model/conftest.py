"""One thread: small tensors gain nothing from a second one.

Test processes that run side by side would wait for each other's threads: ten times slower on two
cores.
"""

import torch

torch.set_num_threads(1)
