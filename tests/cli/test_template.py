"""bids-alphagan-template: TemplateFlow's own client fetches from a server on this machine."""

import hashlib
import http.server
import io
import signal
import threading
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from template_folders import flow

from bids_alphagan.cli.template import main
from bids_alphagan.segmenters.methods import mask_facts
from bids_alphagan.templates import find_template

FAKE = types.SimpleNamespace(describe=lambda: {"Name": "fake", "Version": "1"})
PARTS = ("T2w", "desc-brain_mask", "label-GM_probseg", "label-WM_probseg", "label-CSF_probseg")


class Archive:
    """What the server has, and what it was asked for.

    A file in `cut` breaks off after so many bytes. With file number `stop_at`, the command gets a Ctrl-C.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.asked, self.cut = root, list[str](), dict[str, int]()
        self.url, self.stop_at = "", 0


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    served = Archive(tmp_path / "archive")
    flow(served.root, "Fischer344")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = served.root / self.path.lstrip("/")
            served.asked.append(path.name)
            self.send_response(200 if path.is_file() else 404)
            content = path.read_bytes() if path.is_file() else b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if len(served.asked) == served.stop_at:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            self.wfile.write(content[: served.cut.get(path.name)])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("bids_alphagan.templates.fetch.ARCHIVE", served.url)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield served
    server.shutdown()
    server.server_close()


def left(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()}


def whole() -> set[str]:
    return {"tpl-Fischer344/template_description.json"} | {
        f"tpl-Fischer344/tpl-Fischer344_{part}.nii.gz" for part in PARTS
    }


def test_fetches_what_is_needed_and_says_what_it_is(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "my templates"
    assert main(["Fischer344", "--home", str(home)]) == 0
    assert left(home) == whole()
    said = capsys.readouterr().out
    for words in (
        "Fischer344",
        "rattus norvegicus",
        "1 x 1 x 1 mm",
        "14 x 16 x 18, axes to RAS",
        "1.57 mL: GM 0.78, WM 0.47, CSF 0.16 mL",
        str(home / "tpl-Fischer344" / "tpl-Fischer344_label-CSF_probseg.nii.gz"),
        "10.1038/s41598-020-63965-x",
        "--template Fischer344\n",
        f"export TEMPLATEFLOW_HOME='{home}'\n",
    ):
        assert words in said
    assert sorted(archive.asked) == sorted(f"tpl-Fischer344_{part}.nii.gz" for part in PARTS)
    assert not (tmp_path / "home").exists()  # which importing the client would have filled


def test_only_what_is_missing_is_fetched(archive: Archive, tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = flow(home, "Fischer344")
    kept = (folder / "tpl-Fischer344_T2w.nii.gz").stat().st_mtime_ns
    (folder / "tpl-Fischer344_label-WM_probseg.nii.gz").write_bytes(b"")
    assert main(["Fischer344", "--no-download"]) == 2
    assert archive.asked == []
    assert main(["Fischer344"]) == 0
    assert main(["Fischer344"]) == 0
    assert archive.asked == ["tpl-Fischer344_label-WM_probseg.nii.gz"]
    assert (folder / "tpl-Fischer344_T2w.nii.gz").stat().st_mtime_ns == kept


def test_own_maps_complete_a_template(archive: Archive, tmp_path: Path) -> None:
    """TemplateFlow's WHS comes without tissue maps."""
    flow(archive.root, "WHS", "_res-2", suffix="T2star")
    folder = flow(tmp_path / "home", "WHS", "_res-2", suffix="T2star")
    for part in ("T2star", "desc-brain_mask"):
        (folder / f"tpl-WHS_res-2_{part}.nii.gz").unlink()
    for options in ([], ["--again"]):
        assert main(["WHS", *options]) == 0
        assert set(archive.asked) == {
            f"tpl-WHS_res-2_{part}.nii.gz" for part in ("T2star", "desc-brain_mask")
        }
    (folder / "tpl-WHS_res-2_label-CSF_probseg.nii.gz").unlink()
    assert main(["WHS"]) == 2  # which the server has, but TemplateFlow's list has not


def test_broken_download_leaves_nothing_that_counts_as_there(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.cut["tpl-Fischer344_label-GM_probseg.nii.gz"] = 100
    assert main(["Fischer344"]) == 2
    assert "the download failed" in capsys.readouterr().err
    assert left(tmp_path / "home") == set()
    archive.cut.clear()
    assert main(["Fischer344"]) == 0
    assert left(tmp_path / "home") == whole()


@pytest.mark.parametrize("files", [1, len(PARTS)])
def test_stopped_download_leaves_nothing(archive: Archive, tmp_path: Path, files: int) -> None:
    archive.stop_at = files
    assert main(["Fischer344"]) == 130
    assert len(archive.asked) == files
    assert left(tmp_path / "home") == set()


def test_damaged_file_is_fetched_again(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = flow(tmp_path / "home", "Fischer344") / "tpl-Fischer344_label-GM_probseg.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    assert main(["Fischer344"]) == 2
    said = capsys.readouterr().err
    assert f"{path} is damaged" in said
    assert "Fetch it again: bids-alphagan-template Fischer344 --again" in said
    assert archive.asked == []
    assert main(["Fischer344", "--again"]) == 0
    assert path.read_bytes() == (archive.root / "tpl-Fischer344" / path.name).read_bytes()


def test_again_without_a_server_keeps_what_is_there(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    flow(home, "Fischer344")
    before = left(home)
    (archive.root / "tpl-Fischer344" / "tpl-Fischer344_T2w.nii.gz").unlink()
    assert main(["Fischer344", "--again"]) == 2
    assert "could not be fetched again" in capsys.readouterr().err
    assert left(home) == before


def test_one_line_of_error_for_each_and_the_others_are_done(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = flow(tmp_path, "Lab")
    assert main(["WHS", "no such", str(lab), "--no-download"]) == 2
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in err.splitlines()] == ["bids-alphagan-template"] * 2
    assert f"--template {lab}\n" in out
    assert "export TEMPLATEFLOW_HOME" not in out
    assert archive.asked == []


def test_template_that_is_newer_than_the_client(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is found by the list that TemplateFlow keeps beside its client."""
    folder = flow(archive.root, "NewRat", tissue="desc")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as listing:
        for path in folder.iterdir():
            listing.writestr(f"tpl-NewRat/{path.name}", "")
        listing.writestr("tpl-NewRat/template_description.json", '{"Species": "Rattus norvegicus"}')
    (archive.root / "list.zip").write_bytes(content.getvalue())
    (archive.root / "list.md5").write_text(hashlib.md5(content.getvalue()).hexdigest())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "not empty").touch()  # or the client's import would fill it
    monkeypatch.setattr("templateflow.conf._s3.TF_SKEL_URL", (archive.url + "/list.{ext}").format)
    assert main(["NewRat"]) == 0
    assert (tmp_path / "home" / "tpl-NewRat" / "template_description.json").is_file()
    assert {path.name for path in folder.iterdir()} < {Path(name).name for name in left(tmp_path / "home")}


def test_shrink_makes_a_template_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = flow(tmp_path, "Lab", zoom=10)
    assert main([str(big)]) == 2
    assert "--shrink NEWDIR" in capsys.readouterr().err
    assert main([str(big), "--shrink", str(tmp_path / "small")]) == 0
    said = capsys.readouterr().out
    assert "1.57 mL" in said
    assert f"--template {tmp_path / 'small'}\n" in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["A", "B", "--shrink", "x"], "one template at a time"),
        (["A", "--again", "--no-download"], "leave out --no-download"),
        ([], "required: template"),
    ],
)
def test_calls_that_make_no_sense(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_where_the_first_folder_cannot_be_written_the_users_cache_is(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in an image, whose templates are for reading."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["Fischer344"]) == 0
    home = tmp_path / "cache" / "templateflow"
    assert f"TEMPLATEFLOW_HOME={home}\n" in capsys.readouterr().out
    assert {f"tpl-Fischer344/tpl-Fischer344_{part}.nii.gz" for part in PARTS} <= left(home)
    assert main(["Fischer344", "--no-download"]) == 0
    assert mask_facts(FAKE, find_template("Fischer344")).templateflow


def test_the_first_folder_wins_and_what_it_has_is_not_fetched(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flow(tmp_path / "cache" / "templateflow", "Fischer344")
    assert main(["Fischer344"]) == 0
    assert str(tmp_path / "cache") in capsys.readouterr().out
    flow(tmp_path / "home", "Fischer344")
    assert main(["Fischer344"]) == 0
    assert str(tmp_path / "cache") not in capsys.readouterr().out
    assert archive.asked == []


def test_both_folders_are_named_where_neither_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["Fischer344", "--no-download"]) == 2
    said = capsys.readouterr().err
    assert f"is not in {tmp_path}/file/home/tpl-Fischer344 nor in {tmp_path}/cache/templateflow/tpl-" in said
    assert f"copy its folder tpl-Fischer344 to {tmp_path}/cache/templateflow" in said
