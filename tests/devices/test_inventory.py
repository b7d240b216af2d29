"""The inventory: what is written comes back, concurrent writers lose nothing, wrong entries are told."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.devices import inventory
from edgeq.devices.inventory import LOCAL, Device
from edgeq.errors import UsageError

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


def test_local_is_always_there_and_stays(config_home: Path) -> None:
    assert inventory.devices() == (LOCAL,)
    assert inventory.get("local").is_local
    with pytest.raises(UsageError, match="cannot be removed"):
        inventory.remove("local")
    with pytest.raises(UsageError, match="stands for this machine"):
        inventory.add(Device("local", host="10.0.0.1"))
    assert not config_home.exists()


def test_added_devices_come_back_sorted_until_removed(tmp_path: Path) -> None:
    pixel = Device(
        "pixel", "pixel", "192.168.1.20", 8022, "u0_a1", str(tmp_path / "key"), "me@gate:22", "python3.9"
    )
    inventory.add(Device("pi", "raspberry-pi-5", "pi.local"))
    inventory.add(pixel)
    assert [device.name for device in inventory.devices()] == ["local", "pi", "pixel"]
    assert inventory.get("pixel") == pixel
    assert inventory.remove("pi").host == "pi.local"
    assert [device.name for device in inventory.devices()] == ["local", "pixel"]


@given(user=TEXT, jump=TEXT)
@settings(max_examples=25, deadline=None)
def test_any_text_survives_the_file(user: str, jump: str) -> None:
    added = inventory.add(Device("odd", host="h", user=user, jump=jump), replace_existing=True)
    assert inventory.get("odd") == added
    assert (added.user, added.jump) == (user, jump)


def test_a_profile_of_the_users_own_is_kept_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('title = "Mine"\nmachine = "aarch64"\nsystem = "linux"\n', "utf-8")
    assert inventory.add(Device("mine", "mine.toml", "h")).profile == str(tmp_path.resolve() / "mine.toml")


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (Device("bad name", host="h"), "cannot be a device name"),
        (Device("-x", host="h"), "cannot be a device name"),
        (Device("x", host=""), "no host name"),
        (Device("x", host="-oProxyCommand=evil"), "no host name"),
        (Device("x", host="h", port=70000), "no port"),
        (Device("x", host="h", python="-c"), "no interpreter"),
        (Device("x", host="h", python=""), "no interpreter"),
        (Device("x", "no-such-profile", "h"), "no device profile"),
    ],
)
def test_what_cannot_be_used_is_refused(device: Device, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        inventory.add(device)
    assert inventory.devices() == (LOCAL,)


def test_taken_and_unknown_names() -> None:
    inventory.add(Device("pixel", "pixel", "h"))
    with pytest.raises(UsageError, match="already"):
        inventory.add(Device("pixel", "pixel", "other"))
    assert inventory.add(Device("pixel", "pixel", "other"), replace_existing=True).host == "other"
    with pytest.raises(UsageError, match="did you mean 'pixel'"):
        inventory.get("pixle")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pi\n", "no valid TOML"),
        ("pi = 3\n", "each device is a table"),
        ('[pi]\nhost = "h"\nprot = 22\n', "unknown key 'prot'"),
        ('[pi]\nhost = "h"\nport = "22"\n', "no int"),
        ('[pi]\nprofile = "host"\n', "no host name"),
    ],
)
def test_a_damaged_file_is_told_with_its_place(config_home: Path, text: str, told: str) -> None:
    config_home.mkdir(parents=True)
    (config_home / "devices.toml").write_text(text, "utf-8")
    with pytest.raises(UsageError, match=told) as caught:
        inventory.devices()
    assert "devices.toml" in str(caught.value)


def _add(index: int) -> None:
    inventory.add(Device(f"board-{index}", host=f"10.0.0.{index}"))


def test_concurrent_writers_lose_nothing(config_home: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_add, range(24))
    assert len(inventory.devices()) == 25
    assert {path.name for path in config_home.iterdir()} == {"devices.toml", ".devices.toml.lock"}


def test_a_config_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert inventory.devices() == (LOCAL,)
    with pytest.raises(UsageError, match="cannot write here"):
        inventory.add(Device("pi", host="h"))
