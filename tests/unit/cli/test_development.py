"""What `sagakit dev` keeps in its directory, and when."""

from pathlib import Path

import pytest

from sagakit.cli import development, exits


def test_addresses_and_partitions_are_the_same_the_next_time(tmp_path: Path) -> None:
    first = development._addresses(tmp_path, None, None, 4)
    assert development._addresses(tmp_path, None, None, None) == first
    assert first.partitions == 4
    assert first.kafka_port != first.registry_port


def test_a_port_that_is_asked_for_is_taken_and_kept(tmp_path: Path) -> None:
    first = development._addresses(tmp_path, None, None, None)
    moved = development._addresses(tmp_path, 19092, None, None)
    assert (moved.kafka_port, moved.registry_port) == (19092, first.registry_port)
    assert development._addresses(tmp_path, None, None, None) == moved


def test_another_partition_count_needs_a_reset(tmp_path: Path) -> None:
    development._addresses(tmp_path, None, None, 4)
    with pytest.raises(exits.CommandError, match="--reset") as refused:
        development._addresses(tmp_path, None, None, 5)
    assert refused.value.code == exits.REFUSED
    development._reset(tmp_path)
    assert development._addresses(tmp_path, None, None, 5).partitions == 5


def test_a_reset_deletes_the_data_and_leaves_other_files(tmp_path: Path) -> None:
    for kept in ("kafka", "registry"):
        (tmp_path / kept / "inner").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    development._reset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    development._reset(tmp_path)


def test_two_at_once_on_one_directory_are_refused(tmp_path: Path) -> None:
    with (
        development._only_one(tmp_path),
        pytest.raises(exits.CommandError, match="another `sagakit dev` runs"),
        development._only_one(tmp_path),
    ):
        pass
