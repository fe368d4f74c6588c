"""Prepared scans in one file: made once, made again when anything has changed, never trusted when damaged."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.volume import read_cube
from bids_alphagan.training import cache
from bids_alphagan.training.cache import KEPT, prepared
from bids_alphagan.training.data import data_hash


def scan(path: Path, seed: int, shape: tuple[int, ...] = (16, 16, 16)) -> Path:
    data = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    return [scan(tmp_path / f"sub-{k}_desc-preproc_bold.nii.gz", k) for k in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work" / "scans"


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The scans that were read from their own files."""
    paths: list[Path] = []

    def counting(path: Path) -> np.ndarray:
        paths.append(path)
        return read_cube(path)

    monkeypatch.setattr(cache, "read_cube", counting)
    return paths


def expected(scans: list[Path]) -> np.ndarray:
    return np.stack([nib.load(path).get_fdata(dtype=np.float32) for path in scans])[:, None]


def check(scans: list[Path], folder: Path) -> None:
    volumes = prepared(scans, folder)
    np.testing.assert_array_equal(volumes.array, expected(scans))
    assert volumes.array.dtype == np.float32
    assert volumes.sha256 == data_hash(volumes.array) == data_hash(expected(scans))


def test_scans_are_read_once_and_mapped_ever_after(scans, folder, read):
    check(scans, folder)
    assert set(read) == set(scans)
    read.clear()
    check(scans, folder)
    assert not read
    volumes = prepared(scans, folder)
    assert isinstance(volumes.array, np.memmap)
    assert not volumes.array.flags.writeable
    assert [path.suffix for path in folder.iterdir()] == [".npy"]


def test_series_of_one_volume_are_scans(tmp_path, folder):
    path = scan(tmp_path / "series.nii.gz", 0, (16, 16, 16, 1))
    assert prepared([path], folder).array.shape == (1, 1, 16, 16, 16)


def test_a_scan_prepared_again_is_read_again(scans, folder, read):
    prepared(scans, folder)
    read.clear()
    scan(scans[1], 9)
    check(scans, folder)
    assert set(read) == set(scans)


def test_a_change_that_size_and_time_do_not_tell_is_seen(tmp_path, folder):
    path = scan(tmp_path / "flat.nii", 0)  # not compressed: all have one size
    before, facts = prepared([path], folder), path.stat()
    values = before.array.copy()
    scan(path, 1)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    after = prepared([path], folder)
    assert not np.array_equal(after.array, values)
    assert after.sha256 != before.sha256


def test_other_scans_and_another_order_are_another_set(scans, folder):
    check(scans, folder)
    check(scans[::-1], folder)
    check(scans[:2], folder)


def test_the_sets_used_last_are_kept(scans, folder, read):
    sets = [scans[:1], scans[:2], scans[1:]]
    assert len(sets) == KEPT + 1
    for age, which in zip((30, 20, 10), (*sets[:2], sets[0]), strict=True):
        prepared(which, folder)
        for path in folder.iterdir():  # as time goes by
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    left, fresh = folder / ".writing-old-x.npy", folder / ".writing-new-x.npy"
    left.touch()
    fresh.touch()
    os.utime(left, (0, 0))
    prepared(sets[2], folder)
    assert len([path for path in folder.iterdir() if path != fresh]) == KEPT
    assert fresh.exists()
    read.clear()
    prepared(sets[0], folder)
    assert not read
    prepared(sets[1], folder)
    assert read


def test_a_set_that_is_removed_stays_with_those_who_use_it(scans, folder):
    volumes = prepared(scans, folder)
    for path in folder.iterdir():
        path.unlink()
    np.testing.assert_array_equal(volumes.array, expected(scans))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "empty": b"",
            "no header": content[:6],
            "another kind": b"PK" + content[2:],
            "truncated": content[:middle],
            "without its hash": content[:-32],
            "zeros": content[:middle] + bytes(100) + content[middle + 100 :],
            "another shape": content.replace(b"(3, 1, 16, 16, 16)", b"(3, 1, 16, 32, 8) "),
            "another type": content.replace(b"'<f4'", b"'<i4'"),
            "huge": content.replace(b"(3, 1, 16, 16, 16)", b"(3, 9999999999999)"),
            "pickled": content.replace(b"'<f4'", b"'|O' "),
        }[how]
    )
    assert path.read_bytes() != content


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "no header",
        "another kind",
        "truncated",
        "without its hash",
        "zeros",
        "another shape",
        "another type",
        "huge",
        "pickled",
    ],
)
def test_a_damaged_file_is_made_again(scans, folder, read, how):
    prepared(scans, folder)
    read.clear()
    (path,) = folder.iterdir()
    damage(path, how)
    check(scans, folder)
    assert set(read) == set(scans)


def test_no_scan_is_an_error(folder):
    with pytest.raises(UserError, match="no scan to train on"):
        prepared([], folder)
    assert not folder.exists()


@pytest.mark.parametrize("how", ["gone", "truncated", "no cube", "infinite", "another grid"])
def test_a_scan_that_cannot_be_used_is_named_and_leaves_nothing(scans, folder, how):
    path = scans[1]
    if how == "gone":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif how == "infinite":
        nib.save(nib.Nifti1Image(np.full((16, 16, 16), np.inf, np.float32), np.eye(4)), path)
    else:
        scan(path, 1, (16, 16, 8) if how == "no cube" else (8, 8, 8))
    with pytest.raises(UserError, match=rf"{path.name}.*(Run participant again|one --grid)"):
        prepared(scans, folder)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_named(scans, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/scans: .*--work-dir"):
        prepared(scans, tmp_path / "file" / "scans")


def test_a_full_disk_is_an_error_and_leaves_nothing(scans, folder):
    code = """if True:
        import resource, signal, sys
        from pathlib import Path
        from bids_alphagan.training.cache import prepared
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        prepared([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]))
    """
    run = subprocess.run(
        [sys.executable, "-c", code, folder, *scans], capture_output=True, text=True, check=False
    )
    assert "UserError" in run.stderr
    assert "Make room" in run.stderr
    assert not list(folder.iterdir())


def test_processes_that_make_it_at_once_all_get_the_same(scans, folder):
    code = """if True:
        import sys
        from pathlib import Path
        from bids_alphagan.training.cache import prepared
        from bids_alphagan.training.data import data_hash
        print("ready", flush=True)
        sys.stdin.read(1)
        print(data_hash(prepared([Path(name) for name in sys.argv[2:]], Path(sys.argv[1])).array))
    """
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code, folder, *scans], **pipe) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    hashes = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert hashes == {data_hash(expected(scans))}
    assert len(list(folder.iterdir())) == 1
