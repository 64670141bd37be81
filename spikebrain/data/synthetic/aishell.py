"""A synthetic twin of AISHELL-1: spoken Mandarin commands in AISHELL-1's on-disk layout, made here in seconds.

``wav/<split>/S????/BAC009S????W????.wav`` (16 kHz, 16 bit, mono), one transcript of all splits whose words are separated
by spaces, and ``resource_aishell/speaker.info`` are as in the corpus, so that its preparer runs on it unchanged.

Sentences of 5 to 10 characters come from a small grammar and voices from eSpeak NG's Mandarin with its variants. Dev and test sentences,
and dev and test voices, do not occur in training. The same seed gives the same bytes.
"""

from importlib.metadata import version

from spikebrain.data.synthetic import reading
from spikebrain.data.synthetic.folder import choose_utterances, make_folder
from spikebrain.data.synthetic.reading import Script, Split

VERSION = 1
FIRST = 121  # as in the corpus: the recordings of a speaker are numbered from here

UTTERANCES = {"train": 1500, "dev": 100, "test": 150}

_ROOM = "厨房 客厅 花园 书房".split()
_DEVICE = "灯 空调 风扇 电脑".split()
_CITY = "北京 上海 西安".split()
_DAY = "今天 明天 周五 周六".split()
_DIGIT = "一 二 三 四 五 六 七 八 九".split()
_PERSON = "妈妈 爸爸 老师".split()

# One slot a column: each sentence takes one of its choices. No two characters sound alike, tone included, as eSpeak NG says them:
# one that hears everything makes no error. (So there is no 星期 beside 七, no 电视 beside 是, and no 广州 beside 周.)
GRAMMAR = (
    (["", "现在", *_DAY], ["打开", "关上"], _ROOM, ["的"], _DEVICE),
    (["", "现在", *_DAY], ["请 停止"], ["", *(f"{room} 的" for room in _ROOM)], ["音乐", "闹钟", "空调"]),
    (_DAY, _DIGIT, ["点"], ["叫醒 我", *(f"叫醒 {person}" for person in _PERSON)]),
    (_CITY, _DAY, ["会"], ["下 雨", "下 雪", "很 冷", "很 热"], ["", "吗"]),
    (["号码 是"], _DIGIT, _DIGIT, ["", *_DIGIT], ["", *_DIGIT]),
    (["", "现在", *_DAY], ["在"], _ROOM, ["播放"], ["音乐", "老 歌"]),
    (["", *_DAY], ["", *(f"{digit} 点" for digit in _DIGIT)], ["给"], _PERSON, ["打 电话"]),
    (_CITY, ["现在", *_DAY], ["有 多"], ["冷", "热"]),
)

# Variants of eSpeak NG; those of training are reading.TRAIN.
_TEST = "m3 f2 Michael linda robert aunty m8 belinda adam Alex".split()
_DEV = "m6 f3 david Annie max quincy".split()

_EASY = dict(rate=(160, 215), snr=(20, 40))
SPLITS = {
    "train": Split(2, reading.TRAIN, (150, 235), (10, 40), (0.0, 0.7)),
    "dev": Split(724, tuple(_DEV), share=(0.7, 0.8), **_EASY),
    "test": Split(764, tuple(_TEST), share=(0.8, 1.0), **_EASY),
}


def _name(split, speaker, turn):
    return f"BAC009S{speaker:04d}W{FIRST + turn:04d}"


SCRIPT = Script(GRAMMAR, ("cmn",), SPLITS, _name)


def make(out, seed=1234, utterances=None):
    """Writes the twin into the folder ``out``: see :mod:`spikebrain.data.synthetic`. ``utterances``: split -> number of utterances."""
    utterances = choose_utterances(utterances, UTTERANCES, "AISHELL-1")
    settings = {"corpus": "aishell", "version": VERSION, "seed": seed, "utterances": utterances, "espeak": version("espeakng-loader")}
    return make_folder(out, settings, lambda folder: _fill(folder, seed, utterances))


def _fill(folder, seed, utterances):
    texts, speakers = {}, {}
    for split, number in utterances.items():
        said = SCRIPT.lines(seed, split, number)
        reading.write_all(said, lambda line, split=split: folder / "wav" / split / speaker(line) / f"{line.id}.wav")
        texts |= {line.id: line.text for line in said}
        speakers |= {speaker(line): reading.sex(reading.variant(line)) for line in said}
    transcript = "".join(f"{name} {text}\n" for name, text in sorted(texts.items()))
    _write(folder / "transcript" / "aishell_transcript_v0.8.txt", transcript)
    _write(folder / "resource_aishell" / "speaker.info", "".join(f"{name[1:]} {sex}\n" for name, sex in sorted(speakers.items())))


def speaker(line):
    """The speaker of a Line, such as S0002."""
    return line.id[6:].partition("W")[0]


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
