"""Cards: the JSON files that say what a weights file or a model file is and what it was made from.

A card lies beside the file that it describes (``svdn.onnx`` and ``svdn.card.json``) and carries
its hash. `verify` compares the two before anybody loads the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edge_restore.errors import CardError, ModelError, OptionError
from edge_restore.models.quantisation import Gate, Quantisation, read_gate, read_quantisation
from edge_restore.storage.files import check_writable, open_input, write_text
from edge_restore.storage.json_fields import MAX_COMMAND, MAX_SIDE, JsonFields, is_integer
from edge_restore.storage.json_file import decode, encode, read_json
from edge_restore.storage.outputs import Input
from edge_restore.storage.plain_file import Kind

WEIGHTS_SCHEMA = "edge_restore.weights_card/1"
MODEL_SCHEMA = "edge_restore.model_card/1"
FORMS = ("camera", "float")
DEFORMABLE = ("DeformConv", "GridSample", "plugin", "none")
PRECISIONS = ("fp32", "fp16", "int8")
MAX_BYTES = 1 << 30
"""Of a file that a card describes; read whole, so that what was compared is what is used."""

_T = TypeVar("_T")

_KIND = Kind("a card", "a JSON file", "copy it again from where it was made", CardError)


@dataclass(frozen=True)
class FileDigest:
    """A file beside the card: its plain name, SHA-256, and size in bytes where recorded."""

    file: str
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True)
class Score:
    """Mean quality over one evaluation set: before (`_input`) and after; PSNR in dB."""

    set: str
    images: int
    psnr_input: float
    ssim_input: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class TensorPort:
    """The graph's input or output; None in `shape` is a dynamic dimension."""

    name: str
    dtype: str
    layout: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Parity:
    """Greatest difference between ONNX Runtime's and torch's output at one size, in [0, 1].

    For a graph that is not FP32 the bar is `psnr`, in dB, of outputs clipped to [0, 1].
    """

    height: int
    width: int
    max_abs_difference: float
    psnr: float | None = None


@dataclass(frozen=True)
class WeightsCard:
    """What a safetensors file is: which network, trained how, on what, how good."""

    network: str
    arguments: Mapping[str, Any]
    parameters: int
    multiple: int
    weights: FileDigest
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    scores: tuple[Score, ...]
    licence: str
    command: str
    schema: str = field(default=WEIGHTS_SCHEMA)

    @classmethod
    def from_json(cls, document: Any, origin: str = "the card") -> WeightsCard:
        """The card in a decoded JSON object.

        Raises:
            CardError: the object is not a weights card; lists everything that is wrong.
        """
        fields = JsonFields(document)
        schema = fields.choice("schema", (WEIGHTS_SCHEMA,))
        data, training = fields.child("data"), fields.child("training")
        data.digest("pack_sha256")
        data.items("files", lambda item: isinstance(item, str), "strings")
        training.integer("steps", 0)
        training.number("minutes")
        training.text("machine")
        training.text("torch")
        if "average_of" in training.document:
            training.sequence("average_of", lambda part: part.text("sha256"))
        card = cls(
            schema=schema,
            network=fields.text("network"),
            arguments=fields.child("arguments").document,
            parameters=fields.integer("parameters", 1),
            multiple=fields.integer("multiple", 1, MAX_SIDE),
            weights=_file(fields.child("weights")),
            recipe=fields.child("recipe").document,
            data=data.document,
            training=training.document,
            scores=fields.sequence("scores", _score),
            licence=fields.text("licence"),
            command=fields.text("command", MAX_COMMAND),
        )
        _finish(fields, origin)
        return card

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object, schema first."""
        return _document(self)

    @classmethod
    def read(cls, path: str | Path) -> WeightsCard:
        """The card in the file `path`; CardError when it is missing or malformed."""
        return cls.from_json(_load(Path(path)), f"'{path}'")

    def write(self, path: str | Path) -> None:
        """Write the card to `path`, whole or not at all."""
        _write(self, path)

    @property
    def described(self) -> FileDigest:
        """The file that this card is about."""
        return self.weights


@dataclass(frozen=True)
class ModelCard:
    """What an ONNX file is: which network, its input and output, from which weights, how good.

    `form` "camera" takes and gives uint8 NHWC RGB; "float" takes and gives float32 NCHW RGB in
    [0, 1]. Height and width of the graph's input must be multiples of `multiple`. `deformable`
    says how the graph writes deformable convolutions: the standard node, GridSample, or the node
    of our TensorRT plugin. `precision` is what its convolutions compute in; a card without it is
    of an FP32 graph. `fp32_islands` are the nodes of an FP16 graph that stay in FP32. An INT8 card
    has `quantisation`, and `gate` once the graph was compared with the FP32 one.
    """

    name: str
    network: str
    task: str
    form: str
    deformable: str
    opset: int
    multiple: int
    input: TensorPort
    output: TensorPort
    onnx: FileDigest
    weights: FileDigest
    parameters: int
    parity: tuple[Parity, ...]
    scores: tuple[Score, ...]
    licence: str
    command: str
    precision: str = "fp32"
    fp32_islands: tuple[str, ...] = ()
    quantisation: Quantisation | None = None
    gate: Gate | None = None
    schema: str = field(default=MODEL_SCHEMA)

    @classmethod
    def from_json(cls, document: Any, origin: str = "the card") -> ModelCard:
        """The card in a decoded JSON object.

        Raises:
            CardError: the object is not a model card; lists everything that is wrong.
        """
        fields = JsonFields(document)
        card = cls(
            schema=fields.choice("schema", (MODEL_SCHEMA,)),
            name=fields.text("name"),
            network=fields.text("network"),
            task=fields.text("task"),
            form=fields.choice("form", FORMS),
            deformable=fields.choice("deformable", DEFORMABLE),
            opset=fields.integer("opset", 1),
            multiple=fields.integer("multiple", 1, MAX_SIDE),
            input=_port(fields.child("input")),
            output=_port(fields.child("output")),
            onnx=_file(fields.child("onnx")),
            weights=_file(fields.child("weights")),
            parameters=fields.integer("parameters", 1),
            parity=fields.sequence("parity", _parity),
            scores=fields.sequence("scores", _score),
            licence=fields.text("licence"),
            command=fields.text("command", MAX_COMMAND),
            precision=_precision(fields),
            fp32_islands=_islands(fields),
            quantisation=_optional(fields, "quantisation", read_quantisation),
            gate=_optional(fields, "gate", read_gate),
        )
        if card.precision != "int8" and (card.quantisation or card.gate):
            fields.errors.append(f"quantisation or gate, though the precision is {card.precision}")
        _finish(fields, origin)
        return card

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object, schema first."""
        return _document(self)

    @classmethod
    def read(cls, path: str | Path) -> ModelCard:
        """The card in the file `path`; CardError when it is missing or malformed."""
        return cls.from_json(_load(Path(path)), f"'{path}'")

    def write(self, path: str | Path) -> None:
        """Write the card to `path`, whole or not at all."""
        _write(self, path)

    @property
    def described(self) -> FileDigest:
        """The file that this card is about."""
        return self.onnx

    @property
    def floating(self) -> str:
        """What everything computes in that is not INT8: "fp32" or "fp16"."""
        if self.quantisation is not None:
            return self.quantisation.rest
        return "fp16" if self.precision == "fp16" else "fp32"


def card_path(described: str | Path) -> Path:
    """Where the card of a file lies: ``svdn.onnx`` -> ``svdn.card.json`` in the same folder."""
    return Path(described).with_suffix(".card.json")


def with_cards(name: str, files: Iterable[Path]) -> list[Input]:
    """Model or weights files as inputs, each with its card."""
    found: list[Input] = []
    for file in files:
        found += [(name, file), (f"the card of {name}", card_path(file))]
    return found


def verify(path: str | Path) -> WeightsCard | ModelCard:
    """Read the card at `path` and make sure that the file it describes is the one beside it.

    Raises:
        CardError: the card is missing or malformed, or its file is missing or has another hash.
    """
    return verified(path)[0]


def read_card(path: Path) -> WeightsCard | ModelCard:
    """The card at `path`, of either kind; CardError when it is missing or malformed."""
    document = _load(path)
    is_model = isinstance(document, dict) and document.get("schema") == MODEL_SCHEMA
    return (ModelCard if is_model else WeightsCard).from_json(document, f"'{path}'")


def verified(path: str | Path) -> tuple[WeightsCard | ModelCard, bytes]:
    """The card at `path` and the file that it describes, each read once, after they were compared.

    Whoever runs the file runs these bytes: the file itself may be another a moment later.

    Raises:
        CardError: as `verify`.
    """
    path = Path(path)
    card = read_card(path)
    described = path.parent / card.described.file
    if not described.exists():
        raise CardError(
            f"'{path}' describes '{card.described.file}', which is not beside it",
            expected=f"the file '{described}'",
            hint="copy the file and its card together",
        )
    content = read_described(described)
    check_digest(described, content, card.described.sha256)
    return card, content


def read_described(path: Path) -> bytes:
    """The content of a file that a card describes, at most `MAX_BYTES`.

    Raises:
        CardError: it is no plain file, larger, or cannot be read.
    """
    try:
        with open_input(path, "the file", CardError) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CardError(
            f"'{path}' cannot be read: {error.strerror}",
            expected="a file that can be read",
            hint="copy it again from where it was made",
        ) from error
    if len(content) > MAX_BYTES:
        raise CardError(
            f"'{path}' is larger than {MAX_BYTES} bytes",
            expected="a network's weights or graph",
            hint="copy it again from where it was made",
        )
    return content


def check_digest(path: Path, content: bytes, expected: str) -> None:
    """Make sure that a file's content has the SHA-256 that its card tells.

    Raises:
        CardError: it has not.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise CardError(
            f"'{path}' does not match its card: its SHA-256 is {digest}",
            expected=f"{expected}, as '{card_path(path).name}' says",
            hint="copy the file and its card again from where they were made, or export anew; "
            "do not load a file that somebody may have changed",
        )


def model_card(model: Path) -> ModelCard:
    """The card of an ONNX file, after the two were compared; as `verified_model`."""
    return verified_model(model)[0]


def verified_model(model: Path) -> tuple[ModelCard, bytes]:
    """The card of an ONNX file and the file's content, after the two were compared.

    Raises:
        ModelError: there is no such file, it has no card, or one of another file.
        CardError: the card is malformed, or the file has another hash.
    """
    if not model.is_file():
        raise ModelError(
            f"there is no model file '{model}'",
            expected="an ONNX file with its card beside it",
            hint="check the spelling; `edge-restore models` lists the models that come along",
        )
    path = card_path(model)
    if not path.is_file():
        raise ModelError(
            f"'{model}' is not one of our models: it has no card '{path.name}' beside it",
            expected="an ONNX file that `python -m export` wrote, with its card",
            hint="copy the card along with the model, or export the network with this project",
        )
    card, content = verified(path)
    if not isinstance(card, ModelCard) or card.onnx.file != model.name:
        raise ModelError(
            f"'{path}' is the card of another file, not of '{model.name}'",
            expected="the model's own card",
            hint="copy the model and its card together, under their own names",
        )
    return card, content


def check_model_output(out: Path) -> None:
    """Make sure, before any work is done, that a model and its card can be written.

    Raises:
        OptionError: `out` does not end in .onnx. SinkError: it, or the card, cannot be written.
    """
    if out.suffix != ".onnx":
        raise OptionError(
            f"the output '{out}' does not end in .onnx",
            expected="the name of the ONNX file to write; its card goes beside it",
            hint=f"use --out {out.with_suffix('.onnx')}",
        )
    check_writable(out)
    check_writable(card_path(out))


def _finish(fields: JsonFields, origin: str) -> None:
    if fields.errors:
        raise CardError(
            f"{origin} is not a card that can be used:{fields.listing()}",
            expected=f"a JSON object of schema {WEIGHTS_SCHEMA} or {MODEL_SCHEMA}",
            hint="use the card that was written with the file, or write both anew "
            "with `python -m train` or `python -m export`",
        )


def _file(fields: JsonFields) -> FileDigest:
    recorded = fields.document.get("bytes") is not None
    size = fields.integer("bytes", 0) if recorded else None
    return FileDigest(fields.file_name("file"), fields.digest("sha256"), size)


def _score(fields: JsonFields) -> Score:
    return Score(
        set=fields.text("set"),
        images=fields.integer("images", 1),
        psnr_input=fields.number("psnr_input"),
        ssim_input=fields.number("ssim_input"),
        psnr=fields.number("psnr"),
        ssim=fields.number("ssim"),
    )


def _parity(fields: JsonFields) -> Parity:
    return Parity(
        height=fields.integer("height", 1, MAX_SIDE),
        width=fields.integer("width", 1, MAX_SIDE),
        max_abs_difference=fields.number("max_abs_difference"),
        psnr=fields.number("psnr") if "psnr" in fields.document else None,
    )


def _precision(fields: JsonFields) -> str:
    return fields.choice("precision", PRECISIONS) if "precision" in fields.document else "fp32"


def _optional(fields: JsonFields, key: str, read: Callable[[JsonFields], _T]) -> _T | None:
    return read(fields.child(key)) if key in fields.document else None


def _islands(fields: JsonFields) -> tuple[str, ...]:
    if "fp32_islands" not in fields.document:
        return ()
    return tuple(fields.items("fp32_islands", lambda v: isinstance(v, str) and v != "", "strings"))


def _port(fields: JsonFields) -> TensorPort:
    shape = fields.take(
        "shape",
        "a list of four positive integers or nulls",
        lambda v: (
            isinstance(v, list)
            and len(v) == 4
            and all(n is None or (is_integer(n) and 0 < n <= MAX_SIDE) for n in v)
        ),
        [None] * 4,
    )
    return TensorPort(
        name=fields.text("name"),
        dtype=fields.choice("dtype", ("uint8", "float32")),
        layout=fields.choice("layout", ("NHWC", "NCHW")),
        shape=tuple(shape),
    )


def _document(card: WeightsCard | ModelCard) -> dict[str, Any]:
    fields = asdict(card)
    document: dict[str, Any] = {"schema": fields.pop("schema"), **fields}
    for value in document.values():
        if isinstance(value, dict) and "sha256" in value and value.get("bytes", 0) is None:
            del value["bytes"]  # not recorded
    # FP32 is what a card without these fields means
    if document.get("precision") == "fp32":
        del document["precision"]
    if document.get("fp32_islands") == ():
        del document["fp32_islands"]
    for key in ("quantisation", "gate"):
        if document.get(key, 0) is None:
            del document[key]
    for size in document.get("parity", ()):
        if size["psnr"] is None:
            del size["psnr"]
    # asdict keeps tuples; through JSON they become lists, as a reader would see them
    return dict(decode(encode(document)))


def _write(card: WeightsCard | ModelCard, path: str | Path) -> None:
    write_text(path, encode(card.to_json(), indent=2) + "\n")


def _load(path: Path) -> Any:
    if not path.exists():
        raise CardError(
            f"there is no card '{path}'",
            expected="a card beside the file that it describes",
            hint="copy the card with its file, or write it anew "
            "with `python -m train` or `python -m export`",
        )
    return read_json(path, _KIND)
