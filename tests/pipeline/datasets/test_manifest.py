"""The manifest CSV: accepted forms, and the messages for wrong ones."""

from pathlib import Path

import pytest

from pipeline.datasets import manifest as manifest_module
from pipeline.datasets.catalog import DatasetError
from pipeline.datasets.manifest import load_manifest

HEADER = "path,split,label,anomalies\n"


def write(folder, text, name="mine.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message_of(path):
    with pytest.raises(DatasetError) as caught:
        load_manifest(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_manifest_becomes_entries_in_its_order(tmp_path):
    path = write(
        tmp_path,
        HEADER + "day/yard.mp4,train,0,\nnight/fall.v2.mov,test,1,12-128;300-410\nx.avi,val,1,\n",
    )

    dataset = load_manifest(path)

    assert dataset.name == "mine"
    assert [(e.video_id, e.path, e.split, e.label, e.anomalies) for e in dataset.entries] == [
        ("day/yard", tmp_path / "day/yard.mp4", "train", 0, ()),
        ("night/fall.v2", tmp_path / "night/fall.v2.mov", "test", 1, ((12, 128), (300, 410))),
        ("x", tmp_path / "x.avi", "val", 1, ()),
    ]


def test_a_class_column_counts_for_anomalous_videos(tmp_path):
    header = "path,class,split,label,anomalies\n"
    rows = "a.mp4,normal,train,0,\nb.mp4,fall; fire;fall,test,1,0-9\nc.mp4,,test,1,0-9\n"
    dataset = load_manifest(write(tmp_path, header + rows))
    assert [entry.categories for entry in dataset.entries] == [(), ("fall", "fire"), ()]


def test_two_class_columns_are_refused(tmp_path):
    header = "path,class,split,label,anomalies,class\n"
    text = message_of(write(tmp_path, header + "a.mp4,x,train,0,,y\n"))
    assert "the column class occurs more than once" in text


def test_the_videos_need_not_exist_yet(tmp_path):
    dataset = load_manifest(write(tmp_path, HEADER + "a.mp4,train,0,\n"))
    assert dataset.missing_videos() == [tmp_path / "a.mp4"]


def test_another_folder_of_videos_can_be_named(tmp_path):
    path = write(tmp_path, HEADER + "a/b.mp4,train,0,\n")
    (entry,) = load_manifest(path, Path("/elsewhere")).entries
    assert entry.path == Path("/elsewhere/a/b.mp4")
    assert entry.video_id == "a/b"


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + HEADER.encode() + b"a.mp4,train,1,3-5\n",
        HEADER.replace("\n", "\r\n") + "a.mp4,train,1,3-5\r\n",
        "label,anomalies,note,split,path\n1,3-5,anything,train,a.mp4\n",
        "path, split, label, anomalies\n./a.mp4, train, 1, 3 - 5\n",
        HEADER + '"a.mp4","train","1","3-5"',
        HEADER + "\n\na.mp4,train,1,3-5\n,,,\n\n",
    ],
    ids=["BOM", "CRLF", "other columns", "spaces", "quotes", "empty lines"],
)
def test_what_spreadsheets_make_of_a_csv_is_read(tmp_path, text):
    (entry,) = load_manifest(write(tmp_path, text)).entries
    assert (entry.video_id, entry.path) == ("a", tmp_path / "a.mp4")
    assert (entry.split, entry.label, entry.anomalies) == ("train", 1, ((3, 5),))


def test_names_beyond_ascii_and_with_commas_are_read(tmp_path):
    path = write(tmp_path, HEADER + '"Straße, früh.mp4",train,0,\n映像.mp4,test,0,\n')
    assert [e.video_id for e in load_manifest(path).entries] == ["Straße, früh", "映像"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.mp4,train,2,", "label must be 0 or 1, instead got '2'"),
        ("b.mp4,train,,", "label must be 0 or 1, instead got ''"),
        ("b.mp4,train,yes,", "label must be 0 or 1, instead got 'yes'"),
        ("b.mp4,Train,0,", "split must be train, val or test, instead got 'Train'"),
        ("b.mp4,,0,", "split must be train, val or test, instead got ''"),
        (
            "b.mp4,test,1,128-12",
            "an anomaly must be start-stop in frames with 0 <= start < stop, instead got 128-12",
        ),
        (
            "b.mp4,test,1,12-12",
            "an anomaly must be start-stop in frames with 0 <= start < stop, instead got 12-12",
        ),
        (
            "b.mp4,test,1,-3-12",
            "anomalies must be start-stop;start-stop in frames, instead got '-3-12'",
        ),
        (
            "b.mp4,test,1,12-May",
            "anomalies must be start-stop;start-stop in frames, instead got '12-May'",
        ),
        (
            "b.mp4,test,1,1.5-3",
            "anomalies must be start-stop;start-stop in frames, instead got '1.5-3'",
        ),
        (
            "b.mp4,test,1,1-3;",
            "anomalies must be start-stop;start-stop in frames, instead got '1-3;'",
        ),
        ("b.mp4,test,0,1-3", "anomalies must be empty with label 0, instead got 1-3"),
        ("b.mp4,test,0", "a row must have 4 values, instead got 3"),
        ("b.mp4,test,1,1-3,4-6", "a row must have 4 values, instead got 5"),
        ("a.mp4,test,0,", "path 'a.mp4' is in line 2 already; remove one row"),
        ("./a.mp4,test,0,", "path 'a.mp4' is in line 2 already; remove one row"),
        (
            "a.avi,test,0,",
            "paths 'a.avi' and 'a.mp4' (line 2) differ in their suffix only, "
            "so their features would be one file; rename one of the videos",
        ),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path, row, message):
    path = write(tmp_path, HEADER + "a.mp4,train,0,\n\n" + row + "\n")
    assert message_of(path) == f"{path}, line 4: {message}"


@pytest.mark.parametrize(
    "video",
    ["/abs/b.mp4", "../b.mp4", "a/../../b.mp4", "C:\\b.mp4", "C:/b.mp4", "a\\b.mp4", "", "."],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, video):
    path = write(tmp_path, HEADER + f"{video},train,0,\n")
    assert message_of(path) == (
        f"{path}, line 2: path must be relative to the folder of the videos, stay in it and have "
        f"'/' between folders, instead got {video!r}"
    )


@pytest.fixture
def linked(tmp_path):
    """A folder of videos, and links in it and out of it."""
    folder = tmp_path / "videos"
    (folder / "day").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    for path in (folder / "day/real.mp4", tmp_path / "secrets/a.mp4"):
        path.touch()
    (folder / "inside.mp4").symlink_to("day/real.mp4")
    (folder / "absolute.mp4").symlink_to(folder / "day/real.mp4")
    (folder / "night").symlink_to("day")
    (folder / "outside.mp4").symlink_to("../secrets/a.mp4")
    (folder / "twice.mp4").symlink_to("outside.mp4")
    (folder / "elsewhere").symlink_to(tmp_path / "secrets")
    (folder / "broken.mp4").symlink_to("/nowhere/a.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "videos2").mkdir()
    (folder / "sibling.mp4").symlink_to("../videos2/a.mp4")
    return folder


@pytest.mark.parametrize(
    "video", ["day/real.mp4", "inside.mp4", "absolute.mp4", "night/real.mp4", "loop.mp4"]
)
def test_a_link_that_stays_in_the_folder_is_followed(linked, video):
    path = write(linked, HEADER + f"{video},train,0,\n")
    (entry,) = load_manifest(path).entries
    assert entry.path == linked / video


@pytest.mark.parametrize(
    ("video", "target"),
    [
        ("outside.mp4", "secrets/a.mp4"),
        ("twice.mp4", "secrets/a.mp4"),
        ("elsewhere/a.mp4", "secrets/a.mp4"),
        ("elsewhere/new.mp4", "secrets/new.mp4"),
        ("sibling.mp4", "videos2/a.mp4"),
        ("broken.mp4", "/nowhere/a.mp4"),
    ],
)
def test_a_link_that_leads_out_of_the_folder_is_refused_unless_allowed(linked, video, target):
    path = write(linked, HEADER + f"day/real.mp4,train,0,\n{video},train,0,\n")
    assert message_of(path) == (
        f"{path}, line 3: path {video!r} is a link that leads out of the folder of the videos, to "
        f"{str(linked.parent / target)!r}; move the video there, or allow it with --allow-outside"
    )
    assert load_manifest(path, allow_outside=True).entries[1].path == linked / video


def test_the_folder_itself_may_be_a_link(linked, tmp_path):
    (tmp_path / "link").symlink_to("videos")
    path = write(tmp_path, HEADER + "day/real.mp4,train,0,\ninside.mp4,train,0,\n")
    assert len(load_manifest(path, tmp_path / "link").entries) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,split,label\na.mp4,train,0\n",
            ", line 1: the column anomalies is missing; expected the columns "
            "path,split,label,anomalies, instead got 'path,split,label'",
        ),
        (
            "path;split;label;anomalies\na.mp4;train;0;\n",
            ", line 1: the column path is missing; expected the columns "
            "path,split,label,anomalies, instead got 'path;split;label;anomalies'",
        ),
        (
            "path,split,label,anomalies,label\n",
            ", line 1: the column label occurs more than once; expected the columns "
            "path,split,label,anomalies, instead got 'path,split,label,anomalies,label'",
        ),
        (
            "a.mp4,train,0,\n",
            ", line 1: the column path is missing; expected the columns "
            "path,split,label,anomalies, instead got 'a.mp4,train,0,'",
        ),
        (
            "",
            ", line 1: the column path is missing; expected the columns "
            "path,split,label,anomalies, instead got ''",
        ),
        (HEADER, ": has no rows; expected one for each video"),
        (HEADER + '"a.mp4,train,0,\n', ", line 2: is not valid CSV (unexpected end of data)"),
        (
            b"\x00\x00\x00\x18ftypmp42\xff\xfe",
            ": is not UTF-8 text, expected a manifest CSV with the columns "
            "path,split,label,anomalies",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    assert message_of(path) == f"{path}{message}"


def test_a_manifest_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    nowhere = tmp_path / "nowhere.csv"
    assert message_of(nowhere) == (
        f"{nowhere}: cannot be read (No such file or directory), expected a manifest CSV"
    )
    assert message_of(tmp_path) == f"{tmp_path}: is a folder, expected a manifest CSV"


def test_what_is_no_regular_file_is_not_read():
    # Of /dev/zero, which has no end, as much would be read as there is memory.
    assert message_of(Path("/dev/null")) == (
        "/dev/null: is not a regular file, expected a manifest CSV"
    )


def test_a_name_that_no_file_can_have_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, HEADER + f"{'é' * 126}.mp4,train,0,\nday/{'x' * 252}.mp4,train,0,\n")
    assert message_of(path) == (
        f"{path}, line 2: a name in path must have at most 255 bytes, instead got 256 in "
        f"'{'é' * 77}...'"
    )
    path = write(tmp_path, HEADER + f"day/{'x' * 251}.mp4,train,0,\n")
    assert load_manifest(path).missing_videos() == [tmp_path / "day" / f"{'x' * 251}.mp4"]


def test_a_path_that_is_too_long_for_any_file_is_refused_with_its_line(tmp_path):
    video = "/".join(["x" * 250] * 17)
    path = write(tmp_path, HEADER + f"a.mp4,train,0,\n{video},train,0,\n")
    n_bytes = len(f"{tmp_path}/{video}")
    assert message_of(path) == (
        f"{path}, line 3: path must have at most 4095 bytes with its folder, instead got {n_bytes} "
        f"in '{'x' * 77}...'"
    )


@pytest.mark.parametrize("name", ["..csv", "...csv"])
def test_a_manifest_whose_features_would_leave_their_folder_is_refused(tmp_path, name):
    path = write(tmp_path, HEADER + "a.mp4,train,0,\n", name=name)
    assert message_of(path) == (
        f"{path}: name must be that of a folder of features, instead got {name[:-4]!r}; "
        "rename the file"
    )


def test_a_file_too_large_for_a_list_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "MAX_BYTES", 30)
    path = write(tmp_path, HEADER + "a.mp4,train,0,\n")
    assert message_of(path) == f"{path}: has 42 bytes, expected a manifest CSV of at most 30"


def test_long_nonsense_is_shortened_in_the_message(tmp_path):
    path = write(tmp_path, HEADER + f"a.mp4,train,{'7' * 5000},\n")
    assert len(message_of(path)) < 200 + len(str(path))


@pytest.mark.real
def test_the_real_manifests_are_read(shared_folder):
    falls = load_manifest(shared_folder / "data/gmdcsa24/manifest.csv")
    cctv = load_manifest(shared_folder / "data/upcam/manifest.csv")

    assert len(falls.entries) == 23
    assert falls.missing_videos() == []
    assert all(entry.has_frame_labels for entry in falls.entries)
    assert sum(len(entry.anomalies) for entry in cctv.entries) == 14
    assert sum(b - a for entry in cctv.entries for a, b in entry.anomalies) == 5517
