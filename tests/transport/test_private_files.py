"""Folders and files in which others could put something of theirs are refused, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from chunkdl.errors import ConfigError
from chunkdl.service.addresses import check_addresses, check_connecting, default_address
from chunkdl.service.client.control import operate
from chunkdl.service.keys import create_keys, load_client_keys, load_public_key, load_server_keys
from chunkdl.transport.private_files import (
    check_own_file,
    check_own_folder,
    check_shared_folder,
    check_way,
)

NOBODY = 65534
WHAT = "the sockets of the service"

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of our own, whatever the umask."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize("bits", [0o700, 0o750, 0o755, 0o500])
def test_a_folder_that_only_its_owner_may_write_to_is_taken(own: Path, bits: int) -> None:
    """Others may read it, for what is secret has modes of its own."""
    own.chmod(bits)
    check_own_folder(own, WHAT)


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o770, 0o775, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(own: Path, bits: int) -> None:
    """With the command that mends it."""
    own.chmod(bits)
    with pytest.raises(ConfigError, match=rf"mode {bits:o}\).*{WHAT}.*chmod 700 {own}"):
        check_own_folder(own, WHAT)


def test_the_folder_of_all_for_temporary_files_is_a_place_for_own_folders_only(own: Path) -> None:
    """What lies in it directly anybody may have put there first."""
    with pytest.raises(ConfigError, match=r"mkdir -m 700 /tmp/chunkdl"):
        check_own_folder(Path("/tmp"), WHAT)
    own.chmod(0o1777)
    (own / "inside").mkdir(mode=0o700)
    check_own_folder(own / "inside", WHAT)


def test_a_folder_on_the_way_that_everybody_may_write_to_is_refused(own: Path) -> None:
    """Others could exchange what lies in it; a group could only put its own there."""
    inside = own / "inside"
    inside.mkdir(mode=0o700)
    own.chmod(0o775)
    check_own_folder(inside, WHAT)
    own.chmod(0o777)
    refused = rf"inside of {own}, which everybody.*chmod o-w"
    for path in (inside, inside / ".." / "inside"):
        with pytest.raises(ConfigError, match=refused):
            check_own_folder(path, WHAT)
    with pytest.raises(ConfigError, match=refused):
        check_way(own / "absent", WHAT)


@as_root
def test_a_folder_of_another_user_is_refused_and_one_on_the_way_told(
    own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The user is named. Projects of a laboratory lie in the folder of its head."""
    inside = own / "inside"
    inside.mkdir(mode=0o700)
    os.chown(inside, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=rf"{inside}.* belongs to user {NOBODY}"):
        check_own_folder(inside, WHAT)
    os.chown(inside, 0, 0)
    os.chown(own, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=rf"inside of {own}, which belongs to user {NOBODY}"):
        check_way(inside / "absent", WHAT, strict=True)
    for _ in range(2):
        check_own_folder(inside, WHAT)
    assert caplog.text.count(f"inside of {own}, which belongs to user {NOBODY}") == 1


def test_links_of_ones_own_are_followed(own: Path) -> None:
    """Relative, absolute, through others; and what is behind them is looked at."""
    inside = own / "inside"
    inside.mkdir(mode=0o700)
    (own / "relative").symlink_to("./inside")
    (own / "absolute").symlink_to(own / "relative")
    for name in ("relative", "absolute"):
        check_own_folder(own / name, WHAT)
    inside.chmod(0o777)
    for name in ("relative", "absolute"):
        with pytest.raises(ConfigError, match=f"chmod 700 {inside}"):
            check_own_folder(own / name, WHAT)
    (own / "round").symlink_to("round")
    with pytest.raises(ConfigError, match="too many links"):
        check_own_folder(own / "round", WHAT)


@as_root
def test_a_link_of_another_user_is_refused(own: Path) -> None:
    """Though it leads to a folder of ours: which one, another has said."""
    (own / "inside").mkdir(mode=0o700)
    link = own / "link"
    link.symlink_to("inside")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    for path in (link, link / "below"):
        with pytest.raises(ConfigError, match=rf"{link} is a link of user {NOBODY}"):
            check_own_folder(path, WHAT)


def test_what_is_no_folder_or_not_there_is_refused(own: Path) -> None:
    """By its path."""
    (own / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"{own}/file is not a folder"):
        check_own_folder(own / "file", WHAT)
    with pytest.raises(ConfigError, match=rf"{own}/absent.* cannot be used: No such file"):
        check_own_folder(own / "absent", WHAT)


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_to_is_refused(own: Path, bits: int) -> None:
    """It may not be ours any more."""
    file = own / "file"
    file.write_text("")
    file.chmod(bits)
    with pytest.raises(ConfigError, match=rf"look at what is in it, then chmod go-w {file}"):
        check_own_file(file, "a key of a client")


@as_root
def test_a_secret_key_of_another_user_is_refused(own: Path) -> None:
    """A root that reads it would take a key that its owner has as well."""
    _, secret = create_keys("me", own)
    os.chown(secret, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=rf"belongs to user {NOBODY}"):
        load_client_keys(secret)


def test_a_secret_key_where_everybody_may_exchange_it_is_refused(own: Path) -> None:
    """And none is made there; among temporary files only owners may."""
    _, secret = create_keys("me", own)
    own.chmod(0o1777)
    load_client_keys(secret)
    own.chmod(0o777)
    with pytest.raises(ConfigError, match=f"inside of {own}"):
        load_client_keys(secret)
    with pytest.raises(ConfigError, match=f"inside of {own}"):
        create_keys("new", own)
    assert not list(own.glob("new*"))


def test_keys_of_clients_lie_where_nobody_else_can_add_one(own: Path) -> None:
    """The folder, that of the operators in it, and each file."""
    _, secret = create_keys("server", own)
    operators = own / "clients" / "operators"
    operators.mkdir(parents=True)
    me, boss = own / "clients" / "me.key", operators / "boss.key"
    create_keys("me", own)[0].rename(me)
    create_keys("boss", own)[0].rename(boss)
    for path, right in ((own / "clients", 0o700), (operators, 0o755), (me, 0o644), (boss, 0o644)):
        path.chmod(right)
    allowed = load_server_keys(secret, own / "clients").allowed
    assert [(client.file, client.is_operator) for client in allowed] == [
        ("me.key", False),
        ("operators/boss.key", True),
    ]
    for path in (own / "clients", operators, me, boss):
        right = path.stat().st_mode
        path.chmod(right | 0o020)
        with pytest.raises(ConfigError, match=rf"others may write to {path} "):
            load_server_keys(secret, own / "clients")
        path.chmod(right)


def test_a_public_key_that_everybody_may_write_is_refused(own: Path) -> None:
    """Somebody else could be taken for the service."""
    public, _ = create_keys("server", own)
    load_public_key(public)
    public.chmod(0o666)
    with pytest.raises(ConfigError, match=rf"everybody may write to {public}.*chmod o-w {public}"):
        load_public_key(public)


def test_a_key_that_is_a_consumers_and_an_operators_is_refused(own: Path) -> None:
    """What its owner may do would hang on which file somebody removes."""
    _, secret = create_keys("server", own)
    operators = own / "clients" / "operators"
    operators.mkdir(parents=True)
    for folder in (own / "clients", operators):
        folder.chmod(0o700)
    public, _ = create_keys("me", own)
    (own / "clients" / "me.key").write_bytes(public.read_bytes())
    public.rename(operators / "boss.key")
    with pytest.raises(ConfigError, match=r"me\.key and operators/boss\.key .* hold the same key"):
        load_server_keys(secret, own / "clients")
    (operators / "boss.key").unlink()
    (client,) = load_server_keys(secret, own / "clients").allowed
    assert not client.is_operator


def test_masks_may_be_shared_and_not_with_everybody(own: Path) -> None:
    """One who writes a mask of theirs would change what is sampled, without a word."""
    for bits in (0o700, 0o2775):
        own.chmod(bits)
        check_shared_folder(own, "tissue masks", by_wish=True)
    for bits in (0o777, 0o1777):
        own.chmod(bits)
        with pytest.raises(ConfigError, match=rf"everybody may write to {own}.*chmod o-w {own}"):
            check_shared_folder(own, "tissue masks", by_wish=True)
    check_shared_folder(own / "absent", "tissue masks", by_wish=True)


@as_root
def test_masks_of_another_user_are_used_where_somebody_says_so(own: Path) -> None:
    """And not because they lie where one's own would."""
    os.chown(own, NOBODY, NOBODY)
    check_shared_folder(own, "tissue masks", by_wish=True)
    with pytest.raises(ConfigError, match=f"belongs to user {NOBODY}"):
        check_shared_folder(own, "tissue masks", by_wish=False)


VOLUME = f"""
mount -t tmpfs -o mode=777 tmpfs "$1" || exit 77
mkdir -m 777 "$1/inside"
mount -o remount,ro "$1" || exit 77
exec {sys.executable} -c "
import pathlib, sys
import chunkdl.transport.private_files as files
files.check_own_folder(pathlib.Path(sys.argv[1]), 'it')
try:
    files.check_own_folder(pathlib.Path(sys.argv[1], 'inside'), 'it')
except files.ConfigError as error:
    print(error)
" "$1"
"""


def test_the_modes_of_a_read_only_volume_do_not_count(own: Path) -> None:
    """Those of Kubernetes are open to everybody, and nobody can write there; deeper they count."""
    script = own / "in_namespace.sh"
    script.write_text(VOLUME)
    (own / "volume").mkdir()
    program = ["unshare", "--mount", "bash", str(script), str(own / "volume")]
    run = subprocess.run(program, capture_output=True, text=True, timeout=60)
    if run.returncode == 77 or "unshare failed" in run.stderr:
        pytest.skip("no mount namespaces here")
    assert run.returncode == 0, run.stderr
    assert f"others may write to {own}/volume/inside" in run.stdout


# ---- Where a service and its consumers look.


def test_a_service_listens_only_where_nobody_else_can(own: Path) -> None:
    """Before anything is bound."""
    check_addresses((f"ipc://{own}/s",))
    own.chmod(0o777)
    with pytest.raises(ConfigError, match=f"chmod 700 {own}"):
        check_addresses((f"ipc://{own}/s",))


def test_a_consumer_connects_only_where_nobody_else_can_listen(own: Path) -> None:
    """A socket of a stranger could lie beside that of the service."""
    own.chmod(0o777)
    with pytest.raises(ConfigError, match=f"chmod 700 {own}"):
        operate(f"ipc://{own}/s", "status", timeout_s=60)


@as_root
def test_the_runtime_folder_of_another_user_is_refused(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `sudo` may leave it in the environment."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    assert default_address() == f"ipc://{own}/chunkdl/service"
    os.chown(own, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=rf"inside of {own}, which belongs to user {NOBODY}"):
        default_address()


LOOKS = f"""
import os, pathlib
import chunkdl.transport.private_files as files
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
files.check_own_folder(pathlib.Path("/usr"), "it")
files.check_own_file(pathlib.Path("/etc/passwd"), "it")
try:
    files.check_own_folder(pathlib.Path("OWN"), "it")
except files.ConfigError as error:
    print(error)
"""


@as_root
def test_what_belongs_to_root_is_taken_by_all() -> None:
    """Root may do anything anyway; here another user looks, at the system's own and at ours."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, 12345, 12345)
        os.chmod(folder, 0o755)
        program = [sys.executable, "-c", LOOKS.replace("OWN", folder)]
        run = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "belongs to user 12345, and this is user 65534" in run.stdout


@as_root
def test_root_may_steer_the_service_of_any_user(own: Path) -> None:
    """It then expects that user at the socket, and nobody else."""
    assert check_connecting(f"ipc://{own}/s") == 0
    os.chown(own, NOBODY, NOBODY)
    assert check_connecting(f"ipc://{own}/s") == NOBODY
