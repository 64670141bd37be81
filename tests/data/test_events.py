"""Files of spikes: frames as SpikeSCR makes them, reading from any process, and what is said of a file that is of no use."""

import multiprocessing
import pickle
import sys

import fake_events as fake
import h5py
import numpy as np
import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from spikebrain.data import events
from spikebrain.data.events import ReadEvents, bin_events
from spikebrain.data.manifest import DataError

TIMES = np.array([0.005, 0.0151, 0.0250, 0.0449, 0.0450])
UNITS = np.array([0, 4, 5, 699, 699])


def by_hand(times, units, step_ms, channels=140):
    """The definition, spike by spike."""
    since = [1000 * (float(time) - float(times[0])) for time in times]
    frames = max(1, int(np.ceil(since[-1] / step_ms)))
    out = torch.zeros(frames, channels)
    for t, unit in zip(since, units, strict=True):
        out[min(int(np.floor(t / step_ms)), frames - 1), int(unit) * channels // 700] += 1
    return out


def test_worked_example():
    frames = bin_events(TIMES, UNITS, 10)
    assert frames.shape == (4, 140) and frames.dtype == torch.float32
    assert frames.nonzero().tolist() == [[0, 0], [1, 0], [2, 1], [3, 139]]
    assert frames[3, 139] == 2 and frames.sum() == 5


@pytest.mark.parametrize("step_ms", [2, 5, 10, 25, 7.5])
@pytest.mark.parametrize("channels", [140, 700, 35, 1])
def test_frames_are_those_of_the_definition(step_ms, channels):
    for number in range(5):
        times, units = fake.recording(number)
        assert torch.equal(bin_events(times, units, step_ms, channels), by_hand(times, units, step_ms, channels))


def test_half_precision_is_widened_before_it_is_scaled():
    # In half precision 1000 * 0.9995 s would be a multiple of 0.5 ms: two spikes of different 2 ms frames would meet.
    times = np.array([0.5, 0.9976, 0.9995], np.float16)
    assert torch.equal(bin_events(times, [0, 1, 2], 2), bin_events(times.astype(np.float64), [0, 1, 2], 2))
    apart = bin_events(np.array([0.0, 1.001, 1.002], np.float16), [0, 100, 200], 0.5)
    assert apart.nonzero()[1:, 0].tolist() == [int(1000 * float(np.float16(1.001)) / 0.5), len(apart) - 1]


def test_the_total_is_the_same_at_every_step():
    for number in range(20):
        times, units = fake.recording(number)
        for step_ms in (2, 5, 10, 25):
            frames = bin_events(times, units, step_ms)
            assert frames.sum() == len(times)
            assert len(frames) == int(np.ceil(1000 * (float(times[-1]) - float(times[0])) / step_ms))
            assert torch.equal(frames.sum(0), bin_events(times, units, 2).sum(0))


def test_counts_are_not_clipped():
    assert bin_events([0.1] * 300, [3] * 300, 10).tolist()[0][0] == 300


def test_time_begins_at_the_first_spike():
    times, units = fake.recording(3)
    times = times.astype(np.float64)
    assert torch.allclose(bin_events(times + 8.0, units, 10), bin_events(times, units, 10))


def test_one_spike_is_one_frame():
    assert bin_events([0.3], [699], 10).nonzero().tolist() == [[0, 139]]
    assert bin_events([0.3, 0.3], [0, 699], 10).shape == (1, 140)


@pytest.mark.parametrize("settings", [{"step_ms": 0}, {"step_ms": -1}, {"step_ms": 10, "channels": 141}])
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"step_ms is .*channels is .* must divide 700"):
        bin_events(TIMES, UNITS, **settings)


BAD = {
    "empty": ([], [], "holds 0 spikes"),
    "lengths": ([0.1, 0.2], [3], "has 2 times but 1 units"),
    "unsorted": ([0.1, 0.5, 0.25], [1, 2, 3], r"spike 2 of 3 is at 0\.25 s, the one before it at 0\.5 s: sort times"),
    "negative": ([-0.5, 0.3], [1, 2], r"spike 0 of 2 is at -0\.5 s, times are finite and not below 0"),
    "nan": ([0.1, np.nan], [1, 2], "spike 1 of 2 is at nan s"),
    "infinite": ([0.1, np.inf], [1, 2], "spike 1 of 2 is at inf s"),
    "milliseconds": ([10.0, 412.5], [1, 2], r"spike 1 of 2 is at 412\.5 s, longer than any word \(60 s\): write times in seconds"),
    "unit": ([0.1, 0.2, 0.3], [1, 700, 701], r"spike 1 of 3 is of unit 700, units are 0\.\.699"),
    "negative unit": ([0.1, 0.2], [1, -1], r"spike 1 of 2 is of unit -1, units are 0\.\.699"),
}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", BAD)
def test_bad_recordings_are_named_among_good_ones(name, kind):
    times, units, message = BAD[name]
    bad = (np.array(times, kind), np.array(units))
    with pytest.raises(DataError, match=message):
        bin_events(*bad, 10)
    good = [(t.astype(kind), u.astype(np.int64)) for t, u in map(fake.recording, range(4))]
    rows = [good[0], bad, good[1], good[2], bad, good[3]]
    told = events.faults(*map(list, zip(*rows, strict=True)))
    assert [problem is None for problem in told] == [True, False, True, True, False, True]
    assert told[1] == told[4]


def test_a_fall_between_two_recordings_is_no_fault():
    times, units = fake.recording(1)
    assert events.faults([times, times], [units, units]) == [None, None]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return str(fake.plain(tmp_path_factory.mktemp("events") / "shd_train.h5", 12, (0, 1)))


def test_reader(file):
    reader = ReadEvents(10)
    for row in (3, 0, 11):
        assert torch.equal(reader(f"{file}#{row}"), bin_events(*fake.recording(row), 10))
    assert ReadEvents(25, channels=70)(f"{file}#2").shape[1] == 70


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{file}", r"names no recording: expected FILE#ROW, such as shd_train\.h5#17"),
        ("{file}#x", "names no recording"),
        ("{file}#12", r"shd_train\.h5#12: the file holds 12 recordings, 0\.\.11: prepare"),
        ("nowhere.h5#1", r"nowhere\.h5: there is no such file"),
    ],
)
def test_reader_names_what_is_wrong(file, name, message):
    with pytest.raises(DataError, match=message):
        ReadEvents(10)(name.format(file=file))


def test_reader_names_the_recording(tmp_path):
    path = fake.plain(tmp_path / "shd_test.h5", 3, (0,))
    fake.replace_row(path, 1, units=np.array([5], np.uint16))
    with pytest.raises(DataError, match=r"shd_test\.h5#1: has \d+ times but 1 units"):
        ReadEvents(10)(f"{path}#1")


def test_reader_is_pickled_without_its_files(file):
    reader = ReadEvents(10)
    first = reader(f"{file}#1")
    again = pickle.loads(pickle.dumps(reader))
    assert torch.equal(again(f"{file}#1"), first) and torch.equal(reader(f"{file}#1"), first)


def test_a_forked_process_opens_its_own_file(file):
    reader, fork = ReadEvents(10), multiprocessing.get_context("fork")
    expected = [reader(f"{file}#{row}") for row in range(12)]
    parents, (answer, send) = reader._files[file], fork.Pipe(duplex=False)

    def child():
        frames = [reader(f"{file}#{row}").tolist() for row in range(12)]
        send.send((reader._files[file] is parents, frames))

    process = fork.Process(target=child)  # which has the reader as it is, not a pickled copy
    process.start()
    assert answer.poll(30), "the child died"
    shared, frames = answer.recv()
    process.join()
    assert not shared and frames == [one.tolist() for one in expected]
    assert reader._files[file] is parents and torch.equal(reader(f"{file}#5"), expected[5])


def test_loader_with_workers(file):
    rows = {f"r{row}": {"wav": f"{file}#{row}"} for row in range(12)}
    reader = ReadEvents(10)
    data = DynamicItemDataset(rows, [provides("sig")(takes("wav")(reader))], ["id", "sig"])
    expected = [data[row]["sig"] for row in range(12)]  # the parent has the file open when workers are forked
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2)
    assert all(torch.equal(item["sig"], frames) for item, frames in zip(loader, expected, strict=True))


def test_look(file):
    found = events.look(file, 20)
    rows = [fake.recording(row) for row in range(12)]
    assert found.spikes == tuple(len(times) for times, _ in rows)
    assert found.seconds == tuple(float(times[-1]) - float(times[0]) for times, _ in rows)
    assert found.labels == tuple(range(12)) and found.keys == tuple(fake.SHD_KEYS) and found.speakers == ("0", "1") * 6
    assert set(found.problems) == {None}


def test_look_goes_over_all_chunks(tmp_path, monkeypatch):
    path = fake.plain(tmp_path / "shd_train.h5", 25, (0, 1))
    fake.replace_row(path, 13, units=np.array([700], np.uint16), times=np.array([0.1], np.float16))
    fake.replace_row(path, 17, label=20)
    whole = events.look(str(path), 20)
    monkeypatch.setattr(events, "ROWS", 7)
    events._look.cache_clear()
    assert events.look(str(path), 20) == whole
    assert [row for row, problem in enumerate(whole.problems) if problem] == [13, 17]


def test_look_notices_a_changed_file(tmp_path):
    path = fake.plain(tmp_path / "shd_train.h5", 4, (0, 1))
    before = events.look(str(path), 20)
    assert events.look(str(path), 20) is before
    fake.plain(path, 5, (0, 1))
    assert len(events.look(str(path), 20).labels) == 5


def test_a_damaged_part_is_told_from_the_rest(tmp_path):
    path = fake.plain(tmp_path / "shd_train.h5", 400, (0, 1))
    content = bytearray(path.read_bytes())
    at = content.find(fake.recording(33)[0].tobytes())
    heap = content.rfind(b"GCOL", 0, at)  # HDF5 keeps some hundred rows together
    content[heap : heap + 4] = b"XXXX"
    path.write_bytes(content)
    problems = events.look(str(path), 20).problems
    assert "cannot be read, the file is damaged" in problems[33] and problems[399] is None
    with pytest.raises(DataError, match=r"shd_train\.h5#33: cannot be read, the file is damaged"):
        ReadEvents(10)(f"{path}#33")
    assert ReadEvents(10)(f"{path}#399").sum() == len(fake.recording(399)[0])


def test_without_h5py(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"^files of spikes need h5py: pip install spikebrain\[spikes\]$"):
        ReadEvents(10)(f"{file}#1")


def test_other_layouts_of_rows_are_read(tmp_path):
    # A file that was written again, with as many spikes in each recording: one matrix, in double precision.
    with h5py.File(tmp_path / "shd_train.h5", "w") as file:
        file["spikes/times"], file["spikes/units"] = np.array([[0.1, 0.2], [0.3, 0.5]]), np.array([[1, 2], [3, 699]])
        file["labels"], file["extra/speaker"], file["extra/keys"] = [0, 1], [0, 1], [key.encode() for key in fake.SHD_KEYS]
    path = str(tmp_path / "shd_train.h5")
    assert events.look(path, 20).problems == (None, None)
    assert ReadEvents(100)(f"{path}#1").nonzero().tolist() == [[0, 0], [1, 139]]
