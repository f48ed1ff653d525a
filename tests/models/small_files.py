"""Small real networks in the files of their runtimes: each scores classes by a random mix of the colours."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)


def mixing(classes: int, seed: int = 0) -> NDArray[np.float32]:
    """(classes, 3): weights of a 1 x 1 convolution."""
    return np.random.default_rng(seed).normal(size=(classes, 3)).astype(np.float32)


def new_mixer(classes: int = 3) -> Any:
    """The same as a PyTorch module."""
    import torch

    network = torch.nn.Conv2d(3, classes, 1, stride=2, bias=False)
    network.weight.data = torch.from_numpy(mixing(classes)[:, :, None, None])
    return network


OWN_MODEL = """
from mad_backend.models.base import SegmentationModel, missing_file

class Brightness(SegmentationModel):
    def __init__(self, name, settings, labels, grid):
        if not settings.required_path.is_file():
            raise missing_file(name, settings.required_path, "a text file with a threshold")
        super().__init__(name, settings, labels, grid, settings.own_classes or labels.names)
        self.threshold = float(settings.required_path.read_text())

    @classmethod
    def files(cls, settings):
        return [settings.required_path]

    def predict(self, frames):
        return [self.table[(frame.rgb.mean(2) > self.threshold).astype("uint8")] for frame in frames]
"""


def write_own_model(folder: Path) -> Path:
    """their_brightness.py with class Brightness in `folder`, and the file that such a model reads."""
    (folder / "their_brightness.py").write_text(OWN_MODEL)
    path = folder / "threshold.txt"
    path.write_text("128")
    return path


def write_onnx(
    path: Path,
    *,
    classes: int = 3,
    shape: tuple[object, ...] = ("n", 3, "h", "w"),
    dtype: str = "FLOAT",
    answer: str = "logits",
    stride: int = 2,
) -> Path:
    """A 1 x 1 convolution of `stride`; `answer` is logits, ids, ids_with_channel, or channels_last."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    is_nchw = shape[1] == 3
    nodes = []
    current = "images"
    if dtype != "FLOAT":
        nodes.append(helper.make_node("Cast", [current], ["float"], to=TensorProto.FLOAT))
        current = "float"
    if not is_nchw:
        nodes.append(helper.make_node("Transpose", [current], ["first"], perm=[0, 3, 1, 2]))
        current = "first"
    nodes.append(helper.make_node("Conv", [current, "weights"], ["logits"], strides=[stride, stride]))
    kind = TensorProto.FLOAT
    if answer == "channels_last":
        nodes.append(helper.make_node("Transpose", ["logits"], ["answer"], perm=[0, 2, 3, 1]))
    elif answer == "logits":
        nodes.append(helper.make_node("Identity", ["logits"], ["answer"]))
    else:
        keep = int(answer == "ids_with_channel")
        nodes.append(helper.make_node("ArgMax", ["logits"], ["answer"], axis=1, keepdims=keep))
        kind = TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", getattr(TensorProto, dtype), list(shape))],
        [helper.make_tensor_value_info("answer", kind, list("nabc")[: 3 if answer == "ids" else 4])],
        [numpy_helper.from_array(mixing(classes)[:, :, None, None], "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


def write_torchscript(path: Path, module: Any) -> Path:
    """`module` as `torch.jit.script` and `torch.jit.save` write it."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path


def write_tflite(
    path: Path,
    *,
    classes: int = 3,
    size: tuple[int, int] = (64, 64),
    dtype: str = "float32",
    answer: str = "logits",
) -> Path:
    """A 1 x 1 convolution; quantised for dtype uint8 and int8 (input: 1/64 a step); `answer` is logits or ids."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds = {
        "float32": schema.TensorType.FLOAT32,
        "uint8": schema.TensorType.UINT8,
        "int8": schema.TensorType.INT8,
        "int32": schema.TensorType.INT32,
        "int64": schema.TensorType.INT64,
    }
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
    graph.tensors, graph.operators = [], []

    def tensor(
        shape: list[int],
        of: str,
        data: NDArray[Any] | None = None,
        quantised: tuple[float, int] | None = None,
    ) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.name = shape, kinds[of], f"t{len(graph.tensors)}"
        if data is not None:
            made.buffer = len(model.buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
        if quantised:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantised[0]], [quantised[1]]
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], output: int, kind: int, options: Any) -> None:
        opcode = schema.OperatorCodeT()
        opcode.builtinCode = opcode.deprecatedBuiltinCode = code
        opcode.version = 3 if code == schema.BuiltinOperator.CONV_2D else 2
        made = schema.OperatorT()
        made.opcodeIndex = len(model.operatorCodes)
        made.inputs, made.outputs = inputs, [output]
        made.builtinOptionsType, made.builtinOptions = kind, options
        model.operatorCodes.append(opcode)
        graph.operators.append(made)

    weights = mixing(classes)
    zero = {"uint8": 128, "int8": 0}.get(dtype)
    step = float(np.abs(weights).max()) / 127
    shape = [1, *size, 3]
    if zero is None:
        images = tensor(shape, dtype)
        kernel = tensor([classes, 1, 1, 3], dtype, weights)
        bias = tensor([classes], dtype, np.zeros(classes, np.float32))
        logits = tensor([1, *size, classes], dtype)
    else:
        images = tensor(shape, dtype, quantised=(1 / 64, zero))
        whole = (np.rint(weights / step) + zero).astype(dtype)
        kernel = tensor([classes, 1, 1, 3], dtype, whole, (step, zero))
        bias = tensor([classes], "int32", np.zeros(classes, np.int32), (step / 64, 0))
        logits = tensor([1, *size, classes], dtype, quantised=(0.1, zero))
    convolution = schema.Conv2DOptionsT()
    convolution.strideH = convolution.strideW = convolution.dilationHFactor = convolution.dilationWFactor = 1
    operator(
        schema.BuiltinOperator.CONV_2D,
        [images, kernel, bias],
        logits,
        schema.BuiltinOptions.Conv2DOptions,
        convolution,
    )
    graph.inputs, graph.outputs = [images], [logits]
    if answer == "ids":
        axis = tensor([], "int32", np.array(3, np.int32))
        ids = tensor([1, *size], "int64")
        options = schema.ArgMaxOptionsT()
        options.outputType = kinds["int64"]
        operator(
            schema.BuiltinOperator.ARG_MAX, [logits, axis], ids, schema.BuiltinOptions.ArgMaxOptions, options
        )
        graph.outputs = [ids]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(builder.Output()))
    return path
