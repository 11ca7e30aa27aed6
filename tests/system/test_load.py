"""Systems that ship, and files that are hostile or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtia_emu.errors import UserError
from mtia_emu.machine.chip import load_chip
from mtia_emu.system.library import library_names, load_library
from mtia_emu.system.load import changed_system, load_system, settings_of, system_names, system_text
from mtia_emu.system.topology import System

ISLANDS = Path(__file__).with_name("two_islands.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", system_names())
def test_what_ships_loads_and_every_number_has_its_source(name: str) -> None:
    found = load_system(name)
    assert found.name == name and len(found.chips) == len(found.ranks) > 1
    assert found.host_w > 0
    for line in system_text(name).splitlines():
        key, equals, value = line.partition("=")
        if (
            equals
            and not line.startswith("#")
            and key.strip() not in ("name", "text", "library", "from", "to")
        ):
            assert "#" in value or value.strip() in ("true", "false"), line


@pytest.mark.parametrize("name", library_names())
def test_libraries_load_and_every_number_has_its_source(name: str) -> None:
    from mtia_emu.system.library import library_text

    assert load_library(name).name == name
    for line in library_text(name).splitlines():
        if line.split(" ")[0] in ("start_s", "hop_s", "peer_s", "share", "most_bytes_per_s"):
            assert "#" in line, line


def of(text: str, folder: Path) -> System:
    file = folder / "s.toml"
    file.write_text(text, encoding="utf-8")
    return load_system(str(file))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bytes_per_s = 2e9", "bytes_per_s = nan", "bytes_per_s"),
        ("bytes_per_s = 2e9", "bytes_per_s = inf", "bytes_per_s"),
        ("bytes_per_s = 2e9", "bytes_per_s = -1.0", r"right: from 1e\+06"),
        ("bytes_per_s = 2e9", 'bytes_per_s = "2e9"', "bytes_per_s"),
        ("bytes_per_s = 2e9", 'bytes_per_s = "scale_up"', "no chip"),
        ("latency_s = 1e-7\nduplex", "latency_s = nan\nduplex", "latency_s"),
        ('from = "switch[0-0]"', 'from = "switch[1-1]"', "linked to itself"),
        ('to = "switch[1-1]"\nbytes_per_s = 2e9', 'to = "chip"\nbytes_per_s = 2e9', "linked twice"),
        ('to = "switch[1-1]"\nbytes_per_s = 2e9', 'to = "switch[1-9]"\nbytes_per_s = 2e9', "from 0 to 1"),
        ('to = "switch[1-1]"\nbytes_per_s = 2e9', 'to = "swich"\nbytes_per_s = 2e9', "did you mean 'switch'"),
        ('name = "switch"\ncount = 2', 'name = "chip"\ncount = 2', "two groups of nodes are called 'chip'"),
        ('name = "right"', 'name = "left"', "two groups of links are called 'left'"),
        ("count = 8", "count = 0", "count"),
        ("count = 8", "count = 10000", "10000 chips; more than 1024 must be asked for"),
        ("count = 8", "count = true", "count"),
        ('chip = "tiny"', 'chip = "tinny"', "did you mean 'tiny'"),
        ('library = "plain"', 'library = "plane"', "did you mean 'plain'"),
        ('library = "plain"', 'library = {name = "x"}', "library"),
        ("[host]", "[hosts]", "unknown key 'hosts'"),
        ('name = "two-islands"', 'name = "../x"', "name"),
    ],
)
def test_wrong_files(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in ISLANDS
    with pytest.raises(UserError, match=message):
        of(ISLANDS.replace(old, new, 1), tmp_path)


def test_a_topology_in_two_parts(tmp_path: Path) -> None:
    text = ISLANDS.partition('[[links]]\nname = "thin"')[0] + ISLANDS[ISLANDS.index("[host]") :]
    with pytest.raises(UserError, match="in 2 parts: no way from chip0 to chip4, chip5"):
        of(text, tmp_path)


def test_copies_and_settings() -> None:
    pod = load_system("dgx-h100*5")
    assert len(pod.ranks) == 40 and pod.host.servers == 5
    assert [len(group) for group in pod.groups] == [8] * 5
    assert load_system("tiny-board", {"chips.chip.count": "4"}).ranks == ("chip0", "chip1", "chip2", "chip3")
    slow = load_system("tiny-board", {"links.link.bytes_per_s": "1e9"})
    assert {link.bytes_per_s for link in slow.links} == {1e9}
    assert len(load_system("tiny-board", {"chips.chip.count": "2000"}, consent=True).ranks) == 2000


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tiny-bord", {}, "did you mean 'tiny-board'"),
        ("tiny-board*2", {}, "joined by switches with shared = true"),
        ("tiny-board*0", {}, "a whole number"),
        ("tiny-board*x", {}, "a whole number"),
        ("dgx-h100*2000", {}, "16000 chips"),
        ("no/such.toml", {}, "is not a file"),
        ("tiny-board", {"links.lnk.bytes_per_s": "1e9"}, "did you mean 'link'"),
        ("tiny-board", {"links.link": "1e9"}, "is a group"),
        ("tiny-board", {"links.link.bytes": "1e9"}, "links.link.bytes .bytes.; did you mean .bytes_per_s"),
        ("tiny-board", {"host.power": "1e3"}, "unknown key of --set host.power .power.; did you mean"),
        ("tiny-board", {"nothing.there": "1e9"}, "no table 'nothing'"),
        ("tiny-board", {"name.x": "1"}, "no table 'name'"),
    ],
)
def test_wrong_names_and_settings(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_system(name, settings)


@given(st.text(max_size=300))
def test_any_text_is_refused_as_ours(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.raises(UserError):
        of(text, Path(folder))


def own(folder: Path, name: str = "mine") -> Path:
    """Return a system of two islands whose chip is a file beside it."""
    from mtia_emu.machine.chip import chip_text

    text = chip_text("tiny")[0].replace('name = "tiny"', f'name = "{name}"')
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    file = folder / "s.toml"
    file.write_text(ISLANDS.replace('chip = "tiny"', f'chip = "{name}.toml"'), encoding="utf-8")
    return file


def test_a_chip_is_a_file_beside_the_system(tmp_path: Path) -> None:
    from mtia_emu import api
    from mtia_emu.system.sharding import ShardJob
    from mtia_emu.system.tables import EmbeddingTable

    file = str(own(tmp_path))
    found = load_system(file)
    assert set(found.chips) == {"mine"} and found.endpoints[0].launch_s == 1e-6
    job = ShardJob(found, (EmbeddingTable("t", 1, 1000, 64, 10.0),), 8)
    shipped = ShardJob(load_system("tiny-board"), job.tables, 8)
    assert job.read_s(0, 128.0) == shipped.read_s(0, 128.0) > 0
    over = {"gpu": None, "parallel": "tp=2", "dims": {"seq": 4}}
    one = api.run_over("zoo:llama-tiny", system=file, **over).report  # type: ignore[arg-type]
    assert one.seconds > 0


@pytest.mark.parametrize("chip", ["../mine.toml", "/etc/mine.toml", "a/mine.toml", "..\\\\mine.toml"])
def test_a_chip_of_another_folder_is_refused(tmp_path: Path, chip: str) -> None:
    with pytest.raises(UserError, match="in the system's own folder"):
        of(ISLANDS.replace('chip = "tiny"', f'chip = "{chip}"'), tmp_path)


def test_settings_of_chips_reach_their_ports() -> None:
    slow = changed_system("tiny-board", {"network.scale_up_bytes_per_s": 1e9, "network.post_s": 7e-6})
    assert {link.bytes_per_s for link in slow.links} == {1e9} and slow.endpoints[0].post_s == 7e-6
    both = {"network.launch_s": 3e-6, "links.link.bytes_per_s": 2e9}
    found = changed_system("tiny-board", both)
    assert found.endpoints[0].launch_s == 3e-6 and found.links[0].bytes_per_s == 2e9
    chip = load_chip("tiny", {"network.post_s": 5e-6})
    assert changed_system("tiny-board", {}, chip).endpoints[0].post_s == 5e-6
    assert changed_system("yosemite-v3", {}, chip).endpoints[0].post_s == 1e-6  # no chip of that name


def test_settings_of_a_system_are_taken_from_those_of_chips() -> None:
    settings = {"links.link.bytes_per_s": 1e9, "pe.matrix.rows": 8, "host.power_w": 7}
    of_system = settings_of(settings)
    assert of_system == {"links.link.bytes_per_s": "1000000000.0", "host.power_w": "7"}
    assert load_system("tiny-board", of_system).host_w == 7


def test_a_chip_without_a_network_runs_alone_and_is_in_no_system(tmp_path: Path) -> None:
    from mtia_emu.machine.chip import chip_text, load_chip

    text, _ = chip_text("tiny")
    table = text[text.index("[network]") : text.index("[energy]")]
    file = tmp_path / "older.toml"
    file.write_text(text.replace(table, "").replace('name = "tiny"', 'name = "older"'), encoding="utf-8")
    assert load_chip(str(file)).network is None
    with pytest.raises(UserError, match=r"older has no \[network\] table.*\(right: copy"):
        of(ISLANDS.replace('chip = "tiny"', 'chip = "older.toml"'), tmp_path)
    with pytest.raises(UserError, match=r"key 'network\.launch_s' is missing"):
        load_chip(str(file), {"network.post_s": 1e-6})
