"""A synthetic twin of CASIA: Mandarin sentences in six emotions by four voices, in the corpus's layout: see :mod:`.emotion`."""

from spikebrain.data.corpora.casia import EMOTIONS
from spikebrain.data.synthetic import emotion
from spikebrain.data.synthetic.emotion import Take

UTTERANCES = {"all": 12}
FIRST = 201  # number of the first sentence

VOICES = {"liuchanhg": "f2", "wangzhe": "m3", "zhaoquanyin": "m7", "zhaozuoxiang": "f4"}
TEXTS = emotion.texts(
    "今天下午 明天早上 下个星期 昨天晚上 每年春天".split(),
    (
        *"我们去公园散步 他在学校看书 妈妈做了一桌菜 火车到了北京 外面下着大雨".split(),
        *"她给我打电话 弟弟学会了游泳 老师讲了故事 我想买一本书 朋友来我家吃饭".split(),
    ),
)


def make(out, seed=1234, utterances=None):
    """Writes the twin into ``out``: see :func:`spikebrain.data.synthetic.emotion.make`."""
    return emotion.make("CASIA", out, seed, utterances, UTTERANCES, _fill, len(TEXTS))


def _fill(folder, seed, number):
    voices = emotion.voices(seed, VOICES, "cmn")
    takes = [
        Take(f"{speaker}/{label}/{FIRST + i}.wav", TEXTS[i], label, voice, seed)
        for speaker, voice in voices.items()
        for label in EMOTIONS
        for i in range(number)
    ]
    emotion.write(folder, takes)
