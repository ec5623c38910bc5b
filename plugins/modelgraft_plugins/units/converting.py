"""Centres that were fitted elsewhere: a plain array, and the graph whose features they are centres of.

Published quantisers are estimators of scikit-learn, pickled by joblib. A pickle runs whatever it holds, so none is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.commands import check_writable, refuse_for_graph
from modelgraft.plugin import InputError
from modelgraft_plugins.units import files
from modelgraft_plugins.units.belonging import refuse_other_ending, solve, write_centres

if TYPE_CHECKING:
    from modelgraft.commands import CliSession

OF_PICKLES = (
    "a pickle runs whatever it holds, and is not opened here. Where you trust the file, make a plain array of it: "
    "python -c \"import joblib, numpy; numpy.save('centres.npy', joblib.load('{name}').cluster_centers_)\""
)


def convert_centres(
    session: CliSession, centres: Path, out: Path, *, graph: str, params: Mapping[str, str], allow: tuple[str, ...], output: str | None
) -> dict[str, Any]:
    """Read, compare with the graph and write; gives what was made.

    Raises InputError for files that hold no plain array of centres, or one of another width than the graph's features.
    """
    refuse_other_ending(out)
    check_writable(out)
    array = read_plain(centres)
    solved, owner = solve(session, graph, params, allow, output)
    refuse_for_graph(out, solved, {centres: "the centres"})
    width = array.shape[-1] * (array.shape[0] if array.ndim == 3 else 1)
    if owner.width is not None and owner.width != width:
        raise InputError(f"'{centres}' holds centres of {width} numbers, and {owner.name} of the graph has {owner.width}")
    return write_centres(array, out, owner, {})


def read_plain(path: Path) -> Any:
    """float[clusters width] or [books clusters width] of numpy. Raises InputError for everything else; nothing is unpickled."""
    import numpy

    ending = path.suffix.lower()
    if ending not in (".npy", ".npz", ".safetensors"):
        hint = OF_PICKLES.format(name=path.name)
        raise InputError(f"'{path}' is no plain array (.npy, .npz, .safetensors): {hint}")
    try:
        found = _opened(path, ending)
    except FileNotFoundError as error:
        raise InputError(f"there is no file '{path}'") from error
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"'{path}' holds no plain array '{files.KEY}' that can be read: {str(error).partition(chr(10))[0]}") from error
    if found.dtype.kind != "f" or found.ndim not in (2, 3) or 0 in found.shape or not numpy.isfinite(found).all():
        shape = f"{found.dtype}[{' '.join(map(str, found.shape))}]"
        raise InputError(f"'{path}' holds {shape}, wanted finite numbers float[clusters width] or float[books clusters width]")
    return found


def _opened(path: Path, ending: str) -> Any:
    import numpy

    if ending == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)[files.KEY]
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    found = numpy.load(path, allow_pickle=False)
    return found if ending == ".npy" else found[files.KEY]
