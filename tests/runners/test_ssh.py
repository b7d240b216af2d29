"""SSH against a real sshd: bytes and names, keys, host keys, ssh_config, jump hosts, and what goes wrong."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sshd_devices import Sshd, free_port, keygen

from edgeq.errors import (
    AuthenticationError,
    HostKeyError,
    StorageError,
    UnreachableError,
    UsageError,
)
from edgeq.runners.ssh import SshAddress, SshTransport, fetch_host_key

ODD_NAMES = [
    "plain",
    "with space",
    "quote'and\"both",
    "-dash",
    "a\nb",
    "$HOME `id`",
    "ünïcode",
    "*?[x]",
    "\\n",
    "~",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_files_go_there_and_back_whatever_they_are_called(
    sshd_device: Sshd, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 3000)
    target = str(tmp_path / name)
    with_progress: list[tuple[int, int]] = []
    transport = sshd_device.transport()
    transport.put(source, target, progress=lambda done, total: with_progress.append((done, total)))
    transport.get(target, tmp_path / "back")
    assert Path(target).read_bytes() == source.read_bytes() == (tmp_path / "back").read_bytes()
    assert with_progress[-1] == (768_000, 768_000)
    assert transport.run(("cat", target)).stdout == source.read_bytes()
    transport.close()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4),
    stdin=st.binary(max_size=3000),
)
def test_arguments_and_input_arrive_as_they_are(sshd_device: Sshd, words: list[str], stdin: bytes) -> None:
    transport = sshd_device.__dict__.setdefault("shared", sshd_device.transport())
    script = 'import sys; sys.stdout.buffer.write(b"\\0".join(map(__import__("os").fsencode, sys.argv[1:])))'
    done = transport.run(("python3", "-c", script, *words))
    assert done.stdout == "\0".join(words).encode()
    assert transport.run(("cat",), stdin=stdin).stdout == stdin


def test_exit_code_and_both_streams(sshd_device: Sshd) -> None:
    done = sshd_device.transport().run(("sh", "-c", "echo out; echo err >&2; exit 7"))
    assert (done.code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_command_that_never_ends_is_given_up(sshd_device: Sshd) -> None:
    with pytest.raises(UnreachableError, match="lost"):
        sshd_device.transport().run(("sleep", "60"), timeout_s=0.5)


def test_put_appends_from_an_offset(sshd_device: Sshd, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    (tmp_path / "target").write_bytes(b"0123")
    sshd_device.transport().put(tmp_path / "source", str(tmp_path / "target"), offset=4)
    assert (tmp_path / "target").read_bytes() == b"0123456789"


def test_no_such_file_and_no_such_folder(sshd_device: Sshd, tmp_path: Path) -> None:
    transport = sshd_device.transport()
    (tmp_path / "source").write_bytes(b"x" * 1_000_000)
    with pytest.raises(StorageError, match="No such file"):
        transport.get(str(tmp_path / "nowhere"), tmp_path / "back")
    with pytest.raises(StorageError, match=r"(?i)no such file|cannot create|nonexistent"):
        transport.put(tmp_path / "source", str(tmp_path / "no" / "folder"))
    assert not list(tmp_path.glob("back*"))
    assert transport.run(("true",)).code == 0


def test_a_dropped_connection_is_made_again(sshd_device: Sshd) -> None:
    transport = sshd_device.transport()
    assert transport.run(("echo", "1")).stdout == b"1\n"
    sshd_device.drop_connections()
    for _ in range(2):  # the loss may be noticed at the first use
        try:
            assert transport.run(("echo", "2")).stdout == b"2\n"
            return
        except UnreachableError:
            continue
    pytest.fail("no second connection")


def test_an_unknown_host_key_is_refused_with_its_fingerprint(sshd_device: Sshd, tmp_path: Path) -> None:
    listing = subprocess.run(
        ["ssh-keygen", "-l", "-f", sshd_device.folder / "host_key.pub"],
        capture_output=True,
        text=True,
        check=True,
    )
    with pytest.raises(HostKeyError) as caught:
        sshd_device.transport(known_hosts=tmp_path / "none", name="pixel").run(("true",))
    assert listing.stdout.split()[1] in str(caught.value)
    assert "edgeq devices trust pixel" in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_changed_host_key_is_refused(sshd_device: Sshd, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other")
    public = Path(f"{other}.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd_device.port} {' '.join(public)}\n")
    with pytest.raises(HostKeyError, match="has changed"):
        sshd_device.transport(known_hosts=tmp_path / "known").run(("true",))


def test_trust_pins_what_the_device_shows(sshd_device: Sshd, tmp_path: Path) -> None:
    key = fetch_host_key(sshd_device.address, config=sshd_device.folder / "empty")
    assert key.type == "ssh-ed25519"
    (tmp_path / "known").write_text(key.line + "\n")
    assert sshd_device.transport(known_hosts=tmp_path / "known").run(("true",)).code == 0


def test_hashed_known_hosts(sshd_device: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(sshd_device.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    assert sshd_device.transport(known_hosts=known).run(("true",)).code == 0


def test_a_wrong_key_is_refused_and_named(sshd_device: Sshd, tmp_path: Path) -> None:
    wrong = keygen(tmp_path / "wrong")
    address = SshAddress("127.0.0.1", sshd_device.port, getpass.getuser(), wrong)
    transport = SshTransport(
        address, known_hosts=sshd_device.known_hosts, config=sshd_device.folder / "empty"
    )
    with pytest.raises(AuthenticationError, match="was refused") as caught:
        transport.run(("true",))
    assert str(wrong) in str(caught.value)
    assert caught.value.exit_code == 5


def test_an_encrypted_key_without_agent_says_what_to_do(
    sshd_device: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = keygen(tmp_path / "locked", passphrase="secret")
    address = SshAddress("127.0.0.1", sshd_device.port, None, locked)
    transport = SshTransport(
        address, known_hosts=sshd_device.known_hosts, config=sshd_device.folder / "empty"
    )
    with pytest.raises(AuthenticationError, match="ssh-add"):
        transport.run(("true",))


def test_the_agents_keys_are_used(
    sshd_device: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    request.addfinalizer(lambda: (agent.terminate(), agent.wait()))
    while not path.exists():
        assert agent.poll() is None
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    subprocess.run(["ssh-add", "-q", sshd_device.key], check=True)
    address = SshAddress("127.0.0.1", sshd_device.port)
    transport = SshTransport(
        address, known_hosts=sshd_device.known_hosts, config=sshd_device.folder / "empty"
    )
    assert transport.run(("true",)).code == 0


def test_a_missing_or_damaged_key_file(sshd_device: Sshd, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n")
    for name in ("absent", "damaged"):
        address = SshAddress("127.0.0.1", sshd_device.port, None, tmp_path / name)
        transport = SshTransport(
            address, known_hosts=sshd_device.known_hosts, config=sshd_device.folder / "empty"
        )
        with pytest.raises(AuthenticationError, match=name):
            transport.run(("true",))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (SshAddress("no-such-device.invalid"), "cannot be resolved"),
        (SshAddress("127.0.0.1", 1), "refused"),
    ],
)
def test_out_of_reach(address: SshAddress, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(UnreachableError, match=words) as caught:
        SshTransport(address, config=tmp_path / "empty").run(("true",))
    assert caught.value.exit_code == 4


def test_no_answer_in_time(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, says nothing
        address = SshAddress("127.0.0.1", silent.getsockname()[1])
        with pytest.raises(UnreachableError, match="no SSH server"):
            SshTransport(address, config=tmp_path / "empty", timeout_s=0.5).run(("true",))


def config_for(device: Sshd, alias: str, *lines: str) -> str:
    head = [f"Host {alias}", "HostName 127.0.0.1", f"Port {device.port}", f"User {getpass.getuser()}"]
    return (
        "\n  ".join([*head, f"IdentityFile {device.key}", f"UserKnownHostsFile {device.known_hosts}", *lines])
        + "\n"
    )


def test_an_alias_of_ssh_config(sshd_device: Sshd, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(config_for(sshd_device, "board"))
    transport = SshTransport(SshAddress("board"), config=tmp_path / "config")
    assert transport.run(("true",)).code == 0
    assert transport.where == "board"


@pytest.mark.parametrize("chained", [False, True])
def test_jump_hosts(sshd_device: Sshd, make_sshd: Callable[..., Sshd], tmp_path: Path, chained: bool) -> None:
    first, second = make_sshd("first"), make_sshd("second")
    jump = "first,second" if chained else "second"
    nearest = "ProxyJump first" if not chained else ""
    (tmp_path / "config").write_text(
        config_for(first, "first")
        + config_for(second, "second", nearest)
        + config_for(sshd_device, "board", f"ProxyJump {jump}")
    )
    transport = SshTransport(SshAddress("board"), config=tmp_path / "config")
    done = transport.run(("sh", "-c", "echo $SSH_CONNECTION"))
    came_from = int(done.stdout.split()[1])
    assert came_from != 0
    assert done.stdout.split()[3] == str(sshd_device.port).encode()
    transport.close()
    second.stop()
    with pytest.raises(UnreachableError, match=r"second|jump host"):
        SshTransport(SshAddress("board"), config=tmp_path / "config").run(("true",))


def test_a_jump_hosts_own_key_is_checked(
    sshd_device: Sshd, make_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    hop = make_sshd("hop")
    hop.known_hosts.write_text("")
    (tmp_path / "config").write_text(
        config_for(hop, "hop") + config_for(sshd_device, "board", "ProxyJump hop")
    )
    with pytest.raises(HostKeyError, match="trust hop"):
        SshTransport(SshAddress("board"), config=tmp_path / "config").run(("true",))


def test_jump_hosts_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(UsageError, match="circle"):
        SshTransport(SshAddress("a"), config=tmp_path / "config").run(("true",))


def test_a_proxy_command(sshd_device: Sshd, tmp_path: Path) -> None:
    pump = tmp_path / "pump.py"
    pump.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(1)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    (tmp_path / "config").write_text(config_for(sshd_device, "board", f"ProxyCommand python3 {pump} %h %p"))
    transport = SshTransport(SshAddress("board"), config=tmp_path / "config")
    assert transport.run(("echo", "x")).stdout == b"x\n"
    transport.close()


def test_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host board\n  Port many\n")
    with pytest.raises(UsageError, match="many"):
        SshTransport(SshAddress("board"), config=tmp_path / "config").run(("true",))
    with pytest.raises(UsageError, match="no such ssh_config"):
        SshTransport(SshAddress("board"), config=tmp_path / "absent").run(("true",))


def test_a_restarted_device_with_a_new_key(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    port = free_port()
    device = make_sshd("device", port=port)
    transport = device.transport()
    assert transport.run(("true",)).code == 0
    device.drop_connections()
    device.stop()
    pinned = device.known_hosts.read_text()
    for name in ("host_key", "host_key.pub"):
        os.remove(device.folder / name)
    make_sshd("device", port=port, key=device.key)
    device.known_hosts.write_text(pinned)
    with pytest.raises((HostKeyError, UnreachableError)):
        transport.run(("true",))
    with pytest.raises(HostKeyError, match="has changed"):
        transport.run(("true",))
