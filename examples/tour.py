"""A tour of the data: what `make demo` shows until training exists."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import onetrunk as ot
from onetrunk.data.pocket import cards

OUT = Path("runs/tour")


def step(*words: str) -> None:
    """Show a command as a user types it, then run it."""
    print(f"\n$ onetrunk {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "onetrunk", *words], check=True)


def main() -> None:
    """List the embedded domains, look into three of them, and load batches at memory speed."""
    print("Training is not there yet. This is a tour of the data that it will learn from.")
    step("data")
    step("data", "pocket:glyphs")
    step("data", "pocket:emoji", "--sheet", str(OUT / "emoji.png"))
    step("data", "pocket:rooms", "--sheet", str(OUT / "rooms.png"))

    print("\n# batches of every embedded domain, augmented and whitened, one domain at a time")
    domains = [ot.Domain(name, f"pocket:{name}") for name in cards()]
    steps = iter(ot.Loader(domains, batch=64, seed=0))
    next(steps)  # opens the cache
    began = time.perf_counter()
    images = sum(len(batch.images) for _ in range(20) for batch in next(steps))
    rate = images / (time.perf_counter() - began)
    print(f"{images:,} images of {len(domains)} domains at {rate:,.0f} images/s")

    print(f"\nwrote {OUT}/emoji.png and {OUT}/rooms.png: open them")
    print("next: onetrunk data folder:PATH/TO/CLASS/FOLDERS --sheet mine.png")


if __name__ == "__main__":
    main()
