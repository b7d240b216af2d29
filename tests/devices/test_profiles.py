"""Device profiles: the ones that come along, the user's own, and what is wrong with a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeq.devices.profile import FOLDER, load_profile, profiles
from edgeq.errors import UsageError
from edgeq.quantize.dialect import Activations

EXPECTED = ("host", "jetson-orin", "macbook", "pixel", "raspberry-pi-4", "raspberry-pi-5", "rb3gen2")
MINIMAL = 'title = "Mine"\nmachine = "aarch64"\nsystem = "linux"\n'


def test_the_profiles_of_the_issue_come_along() -> None:
    assert set(EXPECTED) <= set(profiles())
    assert profiles() == tuple(sorted(profiles()))


@pytest.mark.parametrize("name", EXPECTED)
def test_every_profile_loads_and_gives_its_sources(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    text = (FOLDER / f"{name}.toml").read_text("utf-8")
    assert text.startswith("# ")
    # A measured or published fact has its source in a comment on its line or above its table.
    facts = r"^(?:cpu_count|memory_bytes|hexagon_arch|frequency_hz) = .*$"
    for fact in re.findall(facts, text, re.MULTILINE):
        assert "#" in fact or "# " in text.split(fact)[0].rpartition("[")[2], fact


def test_what_the_silicon_offers_decides_the_dialect() -> None:
    """s8 on dotprod cores but those with i8mm and no SVE, u8 on all others: measured with ONNX Runtime."""
    for name in set(EXPECTED) - {"host"}:
        profile = load_profile(name)
        has = profile.capabilities
        s8 = has.dotprod and not (has.i8mm and not has.sve)
        assert profile.dialect.onnx_activations is (Activations.S8 if s8 else Activations.U8), name


def test_power_is_honest() -> None:
    assert load_profile("raspberry-pi-4").power == ()
    assert load_profile("raspberry-pi-4").power_note
    assert all(rail.estimate for rail in load_profile("raspberry-pi-5").power)
    jetson = load_profile("jetson-orin").power
    assert jetson[0].rail == "*VDD_IN"
    assert {rail.rail for rail in jetson[1:]} == set(jetson[0].feeds)
    assert load_profile("pixel").port == 8022
    assert load_profile("rb3gen2").capabilities.hexagon_arch == "v68"
    assert load_profile("macbook").capabilities.ane


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text(MINIMAL + 'port = 2222\n[[power]]\nsource = "hwmon"\nrail = "VIN"\n', "utf-8")
    profile = load_profile(path)
    assert (profile.name, profile.port, profile.power[0].rail) == ("my-board", 2222, "VIN")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MINIMAL + "speed = 3\n", ["'speed'", "valid keys", "dialect"]),
        (MINIMAL + "[limits]\nram = 3\n", ["limits: unknown key 'ram'", "memory_bytes"]),
        (MINIMAL + "[capabilities]\ndotprod = 1\n", ["capabilities.dotprod", "no bool"]),
        (MINIMAL + '[dialect]\nonnx_activations = "u4"\n', ["dialect.onnx_activations", "u8, s8"]),
        (MINIMAL + "[[power]]\nrail = 'x'\n", ["power[0]", "'source'", "missing"]),
        (MINIMAL + 'port = "22"\n', ["port", "no int"]),
        ('title = "x"\n', ["'machine'", "missing"]),
        (MINIMAL + 'name = "other"\n', ["'name'"]),
        ("title = \n", ["no valid TOML"]),
        (b"title = '\xff'", ["no valid TOML"]),
    ],
)
def test_a_wrong_file_is_told_with_file_and_key(tmp_path: Path, text: str | bytes, told: list[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        load_profile(str(path))
    assert all(part in str(caught.value) for part in ["mine.toml", *told])


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'raspberry-pi-5'"):
        load_profile("raspberry-pi5")
    with pytest.raises(UsageError, match="cannot be read"):
        load_profile(tmp_path / "none.toml")
