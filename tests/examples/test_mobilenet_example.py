"""The MobileNetV2 example: a weight file read without PyTorch, downloads as pinned, equal weights."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeq.errors import ModelError
from examples.mobilenet import network, obtain, torch_file

REFERENCE = Path(__file__).parents[2].parent / "shared" / "data" / "models" / "mobilenet.h5"


class FakeTorch:
    """Writes torch's legacy format the way torch.save did, without torch."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def bytes(self) -> bytes:
        out = io.BytesIO()
        for header in (torch_file.MAGIC, torch_file.PROTOCOL, {"little_endian": True, "type_sizes": {}}):
            out.write(pickle.dumps(header, 2))
        out.write(self._object())
        keys = [str(number) for number in range(len(self.arrays))]
        out.write(pickle.dumps(keys, 2))
        for array in self.arrays.values():
            out.write(struct.pack("<q", array.size) + array.tobytes("A"))
        return out.getvalue()

    def _object(self) -> bytes:
        """The ordered dict of _rebuild_tensor_v2 calls, as opcodes."""
        code = b"\x80\x02ccollections\nOrderedDict\n)R("
        for number, (name, array) in enumerate(self.arrays.items()):
            strides = tuple(s // array.itemsize for s in array.strides)
            code += self._text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
            code += b"(" + self._text("storage") + b"ctorch\nFloatStorage\n" + self._text(str(number))
            code += self._text("cpu") + self._number(array.size) + b"NtQ" + self._number(0)
            code += self._tuple(array.shape) + self._tuple(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
        return code + b"u."

    def _text(self, text: str) -> bytes:
        data = text.encode()
        return b"X" + struct.pack("<I", len(data)) + data

    def _number(self, number: int) -> bytes:
        return b"J" + struct.pack("<i", number)

    def _tuple(self, numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(self._number, numbers)) + b"t"


@given(st.lists(st.tuples(st.lists(st.integers(1, 4), max_size=4), st.booleans()), max_size=4), st.randoms())
@settings(max_examples=40, deadline=None)
def test_arrays_come_back_equal(tmp_path_factory: Any, shapes: list[Any], random: Any) -> None:
    generator = np.random.default_rng(random.randrange(2**32))
    arrays = {
        f"layer.{i}": np.asarray(generator.normal(size=shape), np.float32, order="F" if fortran else "C")
        for i, (shape, fortran) in enumerate(shapes)
    }
    path = tmp_path_factory.mktemp("torch") / "weights.pth"
    path.write_bytes(FakeTorch(arrays).bytes())
    found = torch_file.read(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    good = FakeTorch({})
    evil = pickle.dumps(OrderedDict(), 2)[:-1] + f"cpathlib\nPath.touch\n(V{trap}\ntR.".encode()
    path = tmp_path / "evil.pth"
    path.write_bytes(good.bytes().replace(good._object(), evil))
    with pytest.raises(ModelError, match=r"pathlib\.Path\.touch"):
        torch_file.read(path)
    assert not trap.exists()


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -1, -5])
def test_a_truncated_file_is_a_model_error(tmp_path: Path, cut: int) -> None:
    whole = FakeTorch({"a": np.ones((3, 2), np.float32)}).bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[:cut])
    with pytest.raises(ModelError, match="legacy format"):
        torch_file.read(path)


def test_a_zip_archive_and_a_missing_file_are_model_errors(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "new.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(ModelError, match="zip archives"):
        torch_file.read(tmp_path / "new.pth")
    with pytest.raises(ModelError, match="No such file"):
        torch_file.read(tmp_path / "absent.pth")


def test_every_layer_has_its_torch_name() -> None:
    names = network.torch_names()
    assert len(names) == 52 * 2 + 1
    assert len(set(names.values())) == len(names)
    assert names["b1_dw"] == "features.1.conv.0.0"
    assert names["b1_project_bn"] == "features.1.conv.2"
    assert names["b17_project"] == "features.17.conv.2"


def test_a_damaged_download_in_the_cache_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(obtain, "_download", lambda folder, targets: calls.append(folder))
    for digest in obtain.digests().values():
        (tmp_path / f"{digest}.whl").write_bytes(b"damaged")
    obtain.wheels(tmp_path)
    assert calls == [tmp_path]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(obtain.DownloadError, match="check the network"):
        obtain.wheels(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_photographs_are_split_and_labelled(tmp_path: Path) -> None:
    wheel = tmp_path / "photos.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for number, label in ((0, 243), (1, 7), (2, 990)):
            archive.writestr(f"foolbox/data/imagenet_{number:02d}_{label}.jpg", f"{number}")
        archive.writestr("foolbox/data/cifar10_00_3.jpg", "no")
    obtain.photographs(wheel, tmp_path / "calibration", tmp_path / "evaluation")
    assert {p.name for p in (tmp_path / "calibration").iterdir()} == {"243_photo_00.jpg", "990_photo_02.jpg"}
    assert {p.name for p in (tmp_path / "evaluation").iterdir()} == {"007_photo_01.jpg"}


@pytest.mark.slow
def test_the_example_rebuilds_the_reference_model(tmp_path: Path) -> None:
    """Needs the network or a filled cache: the packages are those pinned in requirements.txt."""
    import h5py

    if not REFERENCE.is_file():
        pytest.skip("shared/data/models/mobilenet.h5 is missing: nothing to compare with")
    try:
        obtain.wheels(obtain.cache_folder())
    except obtain.DownloadError as error:
        pytest.skip(f"the packages cannot be downloaded here: {error}")
    command = [sys.executable, "-m", "examples.mobilenet", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])

    def weights(path: Path) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        with h5py.File(path) as file:
            file["model_weights"].visititems(
                lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        return found

    ours, reference = weights(tmp_path / "mobilenet.h5"), weights(REFERENCE)
    assert ours.keys() == reference.keys()
    for name, array in reference.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
