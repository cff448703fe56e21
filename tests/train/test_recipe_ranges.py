"""Recipes from outside: every number has a range, and all mistakes are named at once."""

import copy
import functools
import time
from pathlib import Path

import pytest
import tomllib

import train
from edge_restore.errors import RecipeError
from train import ablation, ranges
from train.recipe import as_table, parse, read

SOUND = {"network": "svdn", "optimiser": {"steps": 10}, "data": {"later": [
    {"step": 2, "patch": 32, "batch": 2}]}}  # fmt: skip
BAD = (None, True, -1, 10**400, -(10**5000), float("inf"), float("-inf"), float("nan"), 1e308, "",
       "x" * 10**6, [], {}, [[[]]], {"a": {"b": 1}})  # fmt: skip


@functools.cache
def sound():
    return as_table(parse(SOUND))


def changed(path, value):
    table = copy.deepcopy(sound())
    inner = table
    *folders, last = path.replace("data.later.", "data.later.0.").split(".")
    for key in folders:
        inner = inner[int(key) if key.isdigit() else key]
        if isinstance(inner, tuple):
            inner = [dict(one) for one in inner]
            table["data"]["later"] = inner
    inner[last] = value
    return table


def test_every_number_of_a_recipe_has_a_range():
    def paths(table, where=""):
        for key, value in table.items():
            if isinstance(value, dict):
                yield from paths(value, f"{where}{key}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{where}{key}"

    found = {*paths(sound()), "data.later.step", "data.later.patch",
             "data.later.batch"}  # fmt: skip
    assert found == set(ranges.RANGES)


@pytest.mark.parametrize("path", ranges.RANGES)
def test_number_out_of_range_is_a_message(path):
    for value in (float("inf"), float("nan"), -1, 10**400, 1e308, "x", None, [], {}, True):
        with pytest.raises(RecipeError) as caught:
            parse(changed(path, value))
        assert path.rpartition(".")[2] in str(caught.value)
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "path",
    ["network", "task", "loss.kind", "loss.vgg_file", "loss.trust_ratio", "arguments", "data",
     "data.later", "arguments.width", "arguments.dilated", "arguments.self", "arguments.nothing",
     "validation", "blur.trajectory"],
)  # fmt: skip
def test_value_of_another_type_is_a_message_or_taken(path):
    for value in BAD:
        try:
            parse(changed(path, value))
        except RecipeError as error:
            assert len(str(error)) < 3000
            str(error).encode()


def test_all_numbers_that_would_end_a_training_are_named_at_once():
    with pytest.raises(RecipeError) as caught:
        parse({
            "network": "nothing", "optimiser": {"steps": 0, "clip": float("inf"), "beta1": 1.0},
            "data": {"zoom": float("nan"), "tiled": 2.0}, "blur": {"still": 1.5},
            "loss": {"epsilon": 0.0},
        })  # fmt: skip
    for key in ("steps", "clip", "beta1", "zoom", "tiled", "still", "epsilon"):
        assert f".{key}' is" in str(caught.value)


def test_keys_that_do_not_go_together_are_named():
    table = {"network": "lmfn", "optimiser": {"steps": 1}}
    for more, message in (
        ({"data": {"patch": 12}}, "below the 16 that 'lmfn' needs"),
        ({"blur": {"shortest": 9.0, "longest": 3.0}}, "'blur.shortest' is 9.0, above"),
        ({"arguments": {"width": 10**12}}, "'arguments.width' is 1000000000000, not 1024"),
        ({"arguments": {"dilated": True}}, "network 'lmfn' cannot be built"),
        ({"network": "x"}, "not one of svdn, lmfn"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse(table | more)


FILES = {
    "empty": b"",
    "binary": b"\xff\xfe\x00",
    "infinite clip": b'network = "svdn"\n[optimiser]\nsteps = 1\nclip = inf',
    "huge integer": b'network = "svdn"\n[optimiser]\nsteps = 1' + b"0" * 400,
    "integer of 100,000 digits": b"seed = 1" + b"0" * 100_000,
    "deep arrays": b"a = " + b"[" * 100_000,
    "deep tables": b"a = " + b"{a=" * 50_000,
    "long dotted key": b"a." * 100_000 + b"a = 1",
    "long dotted table": b"[" + b"a . " * 50_000 + b"a]",
    "quoted dotted key": b'"a".' * 50_000 + b"a = 1",
    "many table headers": b"".join(b"[t%d]\n" % i for i in range(20_000)),
    "a date": b'network = "svdn"\narguments = {width = 1979-05-27}\n[optimiser]\nsteps = 1',
    "a date out of range": b"a = 9999-99-99",
    "an offset out of range": b"a = 1979-05-27T00:32:00+99:99",
    "twice": b"seed = 1\nseed = 2",
    "large": b"#" * (300 << 10),
    "words": b"a" * 250_000,
    "quotes": b"'\"" * 120_000,
    "rows that are no tables": b'title = 1\nmeasured = 2\nrecipe = 3\nrows = [1, "a"]',
    "rows of a number": b"title = 1\nmeasured = 2\nrows = 4",
    "changes of a number": b'title=""\nmeasured=""\n[recipe]\n[[rows]]\nname = "a"\nchanges = 3',
    "a name that is none": b'title="t"\nmeasured=""\n[recipe]\n[[rows]]\nname = [1]\npsnr = inf',
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("reader", [read, ablation.read])
def test_malformed_file_is_a_message(reader, name, tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(FILES[name])
    began = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        reader(path)
    assert time.monotonic() - began < 10
    assert len(str(caught.value)) < 300_000


def test_each_value_of_an_ablation_replaced_is_a_message_or_taken(tmp_path):
    source = Path(train.__file__).parent / "ablations" / "svdn_table2.toml"
    table = tomllib.loads(source.read_text())
    one = table | {"rows": table["rows"][:1]}
    for key in table:
        for value in BAD:
            check_ablation(one | {key: value})
    for key in table["rows"][0]:
        for value in BAD:
            check_ablation(table | {"rows": [table["rows"][0] | {key: value}]})


def check_ablation(table):
    try:
        ablation.parse(table, "x.toml")
    except RecipeError as error:
        str(error).encode()
