"""The photographs of `photographs.jsonl`, out of scikit-image and scikit-learn: python -m benchmarks.sweeps.photographs"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
HOMES = (("skimage", "data"), ("sklearn", "datasets/images"))  # packages, and where their pictures lie
QUALITY = 92  # of JPEG


def main() -> None:
    """Write each picture that the records name, as it lies in its package."""
    records = [json.loads(line) for line in (HERE / "photographs.jsonl").read_text(encoding="utf-8").splitlines()]
    for record in records:
        target = HERE.parents[1] / record["image"]  # as the records say it, seen from the folder of the project
        target.parent.mkdir(exist_ok=True)
        Image.open(_source(target.stem)).convert("RGB").save(target, quality=QUALITY)
    print(f"{len(records)} photographs in {HERE / 'photographs'}")


def _source(name: str) -> Path:
    for package, folder in HOMES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"the photographs are those of {package}: pip install scikit-image scikit-learn")
        found = next(Path(spec.origin).parent.joinpath(folder).glob(f"{name}.*"), None)
        if found is not None:
            return found
    raise SystemExit(f"neither scikit-image nor scikit-learn has a picture {name}")


if __name__ == "__main__":
    main()
