"""Image folders and npz files become the arrays that an independent preprocessing gives, or a clear error."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeq.errors import DataError, EdgeqError, UsageError
from edgeq.runners.trace import Layout
from edgeq.samples import open_samples
from edgeq.samples.preprocess import Preprocess, Resize, load_preprocess
from edgeq.signature import TensorSpec

NHWC = TensorSpec("image", (-1, 24, 32, 3), layout=Layout.NHWC)
NCHW = TensorSpec("image", (-1, 3, 24, 32), layout=Layout.NCHW)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def photo(path: Path, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def only(samples: object) -> np.ndarray:
    (sample,) = list(samples)  # type: ignore[call-overload]
    return sample["image"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("torch", lambda x: (x / 255 - MEAN) / STD),
        ("tf", lambda x: x / 127.5 - 1),
        ("caffe", lambda x: x[..., ::-1] - np.array([103.939, 116.779, 123.68])),
        ("raw", lambda x: x),
    ],
)
def test_the_modes_of_keras(tmp_path: Path, mode: str, expected: object) -> None:
    pixels = photo(tmp_path / "a.png", (32, 24))
    how = Preprocess(**{**load_preprocess(mode).to_dict(), "crop_fraction": 1.0})
    wanted = expected(pixels.astype(np.float64))  # type: ignore[operator]
    given_nhwc = only(open_samples(tmp_path, [NHWC], how))
    np.testing.assert_allclose(given_nhwc, wanted[None], atol=2e-5)
    assert given_nhwc.dtype == np.float32
    given_nchw = only(open_samples(tmp_path, [NCHW], how))
    np.testing.assert_array_equal(given_nchw, given_nhwc.transpose(0, 3, 1, 2))


def test_the_modes_are_those_of_keras_itself(tmp_path: Path) -> None:
    utils = pytest.importorskip("keras.src.applications.imagenet_utils")
    pixels = photo(tmp_path / "a.png", (32, 24)).astype(np.float32)
    for mode in ("torch", "tf", "caffe"):
        how = Preprocess(**{**load_preprocess(mode).to_dict(), "crop_fraction": 1.0})
        wanted = utils.preprocess_input(pixels.copy(), data_format="channels_last", mode=mode)
        np.testing.assert_allclose(only(open_samples(tmp_path, [NHWC], how))[0], wanted, atol=2e-5)


def test_geometry_is_short_side_then_centre_crop(tmp_path: Path) -> None:
    photo(tmp_path / "wide.png", (200, 100))
    sample = only(open_samples(tmp_path, [NHWC], load_preprocess("raw")))
    with Image.open(tmp_path / "wide.png") as image:
        scale = max(32 / 0.875 / 200, 24 / 0.875 / 100)
        resized = image.resize((round(200 * scale), round(100 * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - 32) // 2, (resized.height - 24) // 2
    wanted = np.asarray(resized)[top : top + 24, left : left + 32]
    np.testing.assert_array_equal(sample[0], wanted)


def test_a_small_image_without_resize_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "small.png", (16, 16))
    with pytest.raises(DataError, match="less than"):
        only(open_samples(tmp_path, [NHWC], Preprocess("none", resize=Resize.NONE)))


def test_packed_bytes_and_table_give_the_same_values(tmp_path: Path) -> None:
    for index in range(3):
        photo(tmp_path / f"{index}.png", (50, 40), index)
    samples = open_samples(tmp_path, [NCHW], load_preprocess("torch"))
    (packed,) = samples.packed
    assert packed.table is not None
    for sample, raw in zip(samples, samples.raw("image"), strict=True):
        pixels = np.frombuffer(raw, np.uint8).reshape(packed.shape)
        values = np.stack([packed.table[c][pixels[..., c]] for c in range(3)])
        np.testing.assert_array_equal(sample["image"][0], values)


def test_labels_from_subfolders_and_from_names(tmp_path: Path) -> None:
    photo(tmp_path / "tree/cat/1.png", (40, 40))
    photo(tmp_path / "tree/ant/2.png", (40, 40))
    by_folder = open_samples(tmp_path / "tree", [NHWC], load_preprocess("raw")).labels
    assert by_folder is not None
    assert by_folder.tolist() == [0, 1]
    photo(tmp_path / "flat/042_cat.png", (40, 40))
    flat = open_samples(tmp_path / "flat", [NHWC], load_preprocess("raw"))
    assert flat.labels is None
    named = open_samples(tmp_path / "flat", [NHWC], load_preprocess("raw"), labels_from="name")
    assert named.labels is not None
    assert named.labels.tolist() == [42]
    photo(tmp_path / "odd/cat.png", (40, 40))
    with pytest.raises(DataError, match="042_cat"):
        _ = open_samples(tmp_path / "odd", [NHWC], load_preprocess("raw"), labels_from="name").labels


def test_images_without_a_preprocess_show_the_choices(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (40, 40))
    with pytest.raises(UsageError, match=r"torch.*tf.*caffe.*raw") as caught:
        open_samples(tmp_path, [NHWC], None)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png"):
        only(open_samples(tmp_path, [NHWC], load_preprocess("raw")))


def test_an_empty_or_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_samples(tmp_path, [NHWC], load_preprocess("raw"))
    with pytest.raises(DataError, match="no such"):
        open_samples(tmp_path / "gone", [NHWC], load_preprocess("raw"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_streams_what_numpy_loads(tmp_path: Path, save: object) -> None:
    array = np.random.default_rng(0).normal(size=(5, 24, 32, 3)).astype(np.float32)
    save(tmp_path / "x.npz", anything=array, labels=np.arange(5))  # type: ignore[operator]
    samples = open_samples(tmp_path / "x.npz", [NHWC], None)
    assert len(samples) == 5
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3, 4]
    for _ in range(2):  # any number of times
        np.testing.assert_array_equal(np.concatenate([s["image"] for s in samples]), array)
    raw = b"".join(samples.raw("image"))
    np.testing.assert_array_equal(np.frombuffer(raw, np.float32).reshape(array.shape), array)


def test_npz_of_an_nchw_model_is_packed_channels_last(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (2, 3, 24, 32), np.uint8)
    np.savez(tmp_path / "x.npz", image=array)
    samples = open_samples(tmp_path / "x.npz", [NCHW], None)
    (packed,) = samples.packed
    assert (packed.shape, packed.dtype) == ((24, 32, 3), "uint8")
    raw = np.frombuffer(b"".join(samples.raw("image")), np.uint8).reshape(2, 24, 32, 3)
    np.testing.assert_array_equal(raw, array.transpose(0, 2, 3, 1))


def test_npz_in_fortran_order(tmp_path: Path) -> None:
    array = np.asfortranarray(np.random.default_rng(0).normal(size=(3, 24, 32, 3)).astype(np.float32))
    np.savez(tmp_path / "x.npz", image=array)
    samples = open_samples(tmp_path / "x.npz", [NHWC], None)
    np.testing.assert_array_equal(np.concatenate([s["image"] for s in samples]), array)


def test_npz_with_several_inputs(tmp_path: Path) -> None:
    inputs = [TensorSpec("a", (-1, 2)), TensorSpec("b", (-1, 3))]
    np.savez(tmp_path / "x.npz", a=np.zeros((4, 2)), b=np.ones((4, 3)))
    samples = list(open_samples(tmp_path / "x.npz", inputs, None))
    assert [(s["a"].shape, s["b"].shape) for s in samples] == [((1, 2), (1, 3))] * 4
    np.savez(tmp_path / "y.npz", a=np.zeros((4, 2)), c=np.ones((4, 3)))
    with pytest.raises(DataError, match="'b'"):
        open_samples(tmp_path / "y.npz", inputs, None)
    np.savez(tmp_path / "z.npz", a=np.zeros((4, 2)), b=np.ones((5, 3)))
    with pytest.raises(DataError, match="different numbers"):
        open_samples(tmp_path / "z.npz", inputs, None)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((0, 24, 32, 3)), "no samples"),
        (np.zeros((2, 3, 24, 32)), "transpose"),
        (np.zeros((2, 24, 24, 3)), r"\[24, 24, 3\]"),
        (np.zeros(()), "shape"),
        (np.array(["a", "b"]), "not numbers"),
    ],
)
def test_npz_of_the_wrong_shape(tmp_path: Path, array: np.ndarray, told: str) -> None:
    np.savez(tmp_path / "x.npz", image=array)
    with pytest.raises(DataError, match=told):
        open_samples(tmp_path / "x.npz", [NHWC], None)


def test_labels_of_another_length(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((2, 24, 32, 3)), labels=np.arange(3))
    with pytest.raises(DataError, match="labels"):
        open_samples(tmp_path / "x.npz", [NHWC], None)


@settings(max_examples=60, deadline=None)
@example(damage=132, cut=False, byte=0)  # inside the array's header
@given(damage=st.integers(0, 5000), cut=st.booleans(), byte=st.integers(0, 255))
def test_a_damaged_npz_is_a_clear_error_or_still_whole(
    tmp_path_factory, damage: int, cut: bool, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("npz")
    array = np.arange(2 * 24 * 32 * 3, dtype=np.uint8).reshape(2, 24, 32, 3)
    np.savez(folder / "x.npz", image=array)
    content = bytearray((folder / "x.npz").read_bytes())
    damage %= len(content)
    content = content[:damage] if cut else content[:damage] + bytes([byte]) + content[damage + 1 :]
    (folder / "x.npz").write_bytes(content)
    try:
        for sample in open_samples(folder / "x.npz", [NHWC], None):
            assert sample["image"].shape == (1, 24, 32, 3)
    except EdgeqError:
        pass


def test_a_zip_without_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with pytest.raises(DataError, match="no array"):
        open_samples(tmp_path / "x.npz", [NHWC], None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scal = 2", "scal"),
        ("mean = 'x'", "mean"),
        ("std = [0, 1, 1]", "std"),
        ("order = 'GBR'", "order"),
        ("crop_fraction = 1.5", "crop_fraction"),
        ("= 3", "cannot read"),
    ],
)
def test_a_bad_preprocess_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_preprocess(str(tmp_path / "p.toml"))


def test_a_preprocess_file(tmp_path: Path) -> None:
    (tmp_path / "lite.toml").write_text('mean = 127\nstd = 128\nresize = "stretch"\n')
    photo(tmp_path / "a.png", (64, 48))
    how = load_preprocess(str(tmp_path / "lite.toml"))
    sample = only(open_samples(tmp_path, [NHWC], how))
    with Image.open(tmp_path / "a.png") as image:
        wanted = np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_allclose(sample[0], (wanted - 127) / 128, atol=1e-6)
    assert how.bounds(3) == ((0 - 127) / 128, 1.0)
    with pytest.raises(UsageError, match="no preprocess"):
        load_preprocess("imagenet")


def test_a_mean_for_another_number_of_channels(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "a.png")
    grey = TensorSpec("image", (-1, 24, 32, 1), layout=Layout.NHWC)
    with pytest.raises(UsageError, match="3 entries"):
        only(open_samples(tmp_path, [grey], load_preprocess("torch")))
    assert only(open_samples(tmp_path, [grey], load_preprocess("tf"))).shape == (1, 24, 32, 1)
