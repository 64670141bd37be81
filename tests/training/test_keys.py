"""Recipe files: what is misspelt stops with the nearest name."""

import pytest

from spikebrain.training import keys

MAIN = """
seed: 1
__set_seed: !ref <seed>
width: 4
rate: 0.1
given: {}
data_folder: !PLACEHOLDER
net: !include:blocks/net.yaml
    width: !ref <width>
"""
NET = """
width: 2
layer: {in: !ref <width>}
"""
KNOWN = ("seed", "rate", "given", "data_folder", "net", "extra")


@pytest.fixture
def recipe(tmp_path):
    def write(main=MAIN, net=NET):
        (tmp_path / "hparams" / "blocks").mkdir(parents=True, exist_ok=True)
        (tmp_path / "hparams" / "blocks" / "net.yaml").write_text(net)
        path = tmp_path / "hparams" / "main.yaml"
        path.write_text(main)
        return str(path)

    return write


def test_a_good_file_passes(recipe):
    keys.check(recipe(), {"rate": 1, "given": {"anything": 1}, "net": {"width": 3}, "extra": 2}, KNOWN)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rat": 1}, "--rat: .*main.yaml has no such key; did you mean rate?"),
        ({"zzzzzz": 1}, "--zzzzzz: .* has no such key; known keys: .*rate"),
        ({"net": {"widht": 3}}, "--net: blocks/net.yaml has no key widht; did you mean width?"),
    ],
)
def test_unknown_overrides(recipe, overrides, message):
    with pytest.raises(keys.RecipeError, match=message):
        keys.check(recipe(), overrides, KNOWN)


def test_a_key_that_nothing_reads(recipe):
    with pytest.raises(keys.RecipeError, match="main.yaml: nothing reads the key rtae; did you mean rate?"):
        keys.check(recipe(MAIN.replace("rate:", "rtae:")), {}, KNOWN)


def test_a_key_is_read_when_another_entry_refers_to_it(recipe):
    keys.check(recipe(MAIN + "size: 3\nwide: !ref <size> * 2\n"), {}, (*KNOWN, "wide"))
    with pytest.raises(keys.RecipeError, match="nothing reads the key size"):
        keys.check(recipe(MAIN + "size: 3\nwide: 6\n"), {}, (*KNOWN, "wide"))


def test_run_options_of_the_host_are_known(recipe):
    keys.check(recipe(MAIN + "precision: bf16\nmax_grad_norm: 1.0\n"), {}, KNOWN)


def test_a_misspelt_key_handed_to_an_included_file(recipe):
    with pytest.raises(keys.RecipeError, match="blocks/net.yaml has no key witdh; did you mean width?"):
        keys.check(recipe(MAIN.replace("    width:", "    witdh:")), {}, KNOWN)


def test_missing_keys_are_named_with_their_meaning():
    with pytest.raises(keys.RecipeError, match="x.yaml: lacks the key b .the second.; missing in all: b, c"):
        keys.require({"a": 1}, {"a": "the first", "b": "the second", "c": "the third"}, "x.yaml")


def test_find_looks_here_then_beside_the_recipe(recipe, tmp_path, monkeypatch):
    recipe()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert keys.find(str(tmp_path / "train.py"), "hparams/main.yaml") == str(tmp_path / "hparams" / "main.yaml")
    (tmp_path / "elsewhere" / "hparams").mkdir()
    (tmp_path / "elsewhere" / "hparams" / "main.yaml").write_text("a: 1")
    assert keys.find(str(tmp_path / "train.py"), "hparams/main.yaml") == "hparams/main.yaml"
    with pytest.raises(keys.RecipeError, match="hparams/other.yaml: no such file.*there are: hparams/main.yaml"):
        keys.find(str(tmp_path / "train.py"), "hparams/other.yaml")


def test_overrides_of_a_command_line():
    assert keys.parse_overrides("a: 1\nb: [x, y]") == {"a": 1, "b": ["x", "y"]}
    assert keys.parse_overrides("") == {} and keys.parse_overrides(None) == {}
    with pytest.raises(keys.RecipeError, match='twice: found duplicate key "a"'):
        keys.parse_overrides("a: 1\na: 2")


def test_placeholders(recipe):
    tree = keys.read(recipe())
    assert [key for key in tree if keys.is_placeholder(tree[key])] == ["data_folder"]
